"""`thr-probe analyze entropy|classes|mismatch`: token by token."""

from __future__ import annotations

from typing import Annotated

import typer

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


@analyze_app.command("entropy")
def entropy_command(
    run: RunArgument,
    out: OutOption = None,
    groups: GroupsOption = "mixed",
    score_id: ScoreIdOption = None,
    seed: SeedOption = 0,
    venue: VenueOption = "neurips",
    format: FormatOption = Format.HUMAN,
) -> None:
    """THR against token entropy and 1 - p: rank correlations, and how well they tell dominance."""
    analyze_and_print(
        "entropy", run, out, format, venue, score_id=score_id, seed=seed, groups=groups
    )


@analyze_app.command("classes")
def classes_command(
    run: RunArgument,
    out: OutOption = None,
    scheme: Annotated[
        str,
        typer.Option(
            "--scheme",
            help="lexical, paper (the categories of App. C.4), or a TOML file of classes.",
        ),
    ] = "lexical",
    groups: GroupsOption = "mixed",
    score_id: ScoreIdOption = None,
    seed: SeedOption = 0,
    venue: VenueOption = "neurips",
    format: FormatOption = Format.HUMAN,
) -> None:
    """Share of tokens against share of |THR| by class of token: digits, operators, words ..."""
    options = {"scheme": scheme, "groups": groups}
    analyze_and_print("classes", run, out, format, venue, score_id=score_id, seed=seed, **options)


@analyze_app.command("mismatch")
def mismatch_command(
    run: RunArgument,
    out: OutOption = None,
    bound: Annotated[
        float, typer.Option("--bound", help="Differences beyond it are counted, nats.")
    ] = 0.1,
    cap: Annotated[
        float, typer.Option("--cap", help="C of truncated importance sampling, at least 1.")
    ] = 2.0,
    score_id: ScoreIdOption = None,
    seed: SeedOption = 0,
    venue: VenueOption = "neurips",
    format: FormatOption = Format.HUMAN,
) -> None:
    """The sampler's log-probabilities against the policy's own: KL, ratios, the worst tokens."""
    options = {"bound": bound, "cap": cap}
    analyze_and_print("mismatch", run, out, format, venue, score_id=score_id, seed=seed, **options)
