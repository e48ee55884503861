"""`analyze balance`, `split`, `position`, `advantage`, `tau`: what THR is made of, where it is."""

from __future__ import annotations

from thr_probe.cli.analyzing import (
    GroupsOption,
    OutOption,
    RunArgument,
    ScoreIdOption,
    SeedOption,
    VenueOption,
    analyze_and_print,
    analyze_app,
)
from thr_probe.cli.output import Format, FormatOption


@analyze_app.command("balance")
def balance_command(
    run: RunArgument,
    out: OutOption = None,
    groups: GroupsOption = "mixed",
    score_id: ScoreIdOption = None,
    seed: SeedOption = 0,
    venue: VenueOption = "neurips",
    format: FormatOption = Format.HUMAN,
) -> None:
    """Exploitation against exploration in each question, by its share of correct completions."""
    options = {"groups": groups, "score_id": score_id, "seed": seed}
    analyze_and_print("balance", run, out, format, venue, **options)


@analyze_app.command("split")
def split_command(
    run: RunArgument,
    out: OutOption = None,
    groups: GroupsOption = "mixed",
    score_id: ScoreIdOption = None,
    seed: SeedOption = 0,
    venue: VenueOption = "neurips",
    format: FormatOption = Format.HUMAN,
) -> None:
    """THR from the token itself, its completion, other completions; needs score --split."""
    options = {"groups": groups, "score_id": score_id, "seed": seed}
    analyze_and_print("split", run, out, format, venue, **options)


@analyze_app.command("position")
def position_command(
    run: RunArgument,
    out: OutOption = None,
    groups: GroupsOption = "mixed",
    score_id: ScoreIdOption = None,
    seed: SeedOption = 0,
    venue: VenueOption = "neurips",
    format: FormatOption = Format.HUMAN,
) -> None:
    """THR along the completion: from its start, relative, around its answer, to its end."""
    options = {"groups": groups, "score_id": score_id, "seed": seed}
    analyze_and_print("position", run, out, format, venue, **options)


@analyze_app.command("advantage")
def advantage_command(
    run: RunArgument,
    out: OutOption = None,
    groups: GroupsOption = "mixed",
    score_id: ScoreIdOption = None,
    seed: SeedOption = 0,
    venue: VenueOption = "neurips",
    format: FormatOption = Format.HUMAN,
) -> None:
    """Where |THR| lies by advantage and q, by correctness and sign, on dominant tokens."""
    options = {"groups": groups, "score_id": score_id, "seed": seed}
    analyze_and_print("advantage", run, out, format, venue, **options)


@analyze_app.command("tau")
def tau_command(
    run: RunArgument,
    out: OutOption = None,
    groups: GroupsOption = "mixed",
    score_id: ScoreIdOption = None,
    seed: SeedOption = 0,
    venue: VenueOption = "neurips",
    format: FormatOption = Format.HUMAN,
) -> None:
    """Tokens and summed |THR| that the threshold c tau retains, for c from 0.01 to 100."""
    options = {"groups": groups, "score_id": score_id, "seed": seed}
    analyze_and_print("tau", run, out, format, venue, **options)
