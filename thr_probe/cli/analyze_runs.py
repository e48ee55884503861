"""`thr-probe analyze health|drift`: a run as a whole, and its score sets side by side."""

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


@analyze_app.command("health")
def health_command(
    run: RunArgument,
    out: OutOption = None,
    score_id: ScoreIdOption = None,
    seed: SeedOption = 0,
    venue: VenueOption = "neurips",
    format: FormatOption = Format.HUMAN,
) -> None:
    """Truncation, verifier failures, repeats, missing numbers: a verdict each, of any run."""
    analyze_and_print("health", run, out, format, venue, score_id=score_id, seed=seed)


@analyze_app.command("drift")
def drift_command(
    run: RunArgument,
    out: OutOption = None,
    score_ids: Annotated[
        list[str] | None,
        typer.Option(
            "--score-id",
            help="A score set; repeat it, the first is the reference.",
            show_default="all, by name",
        ),
    ] = None,
    groups: GroupsOption = "mixed",
    seed: SeedOption = 0,
    venue: VenueOption = "neurips",
    format: FormatOption = Format.HUMAN,
) -> None:
    """THR of the same rollouts under several checkpoints, each against the first."""
    options = {"score_ids": score_ids or None, "groups": groups}
    analyze_and_print("drift", run, out, format, venue, seed=seed, **options)
