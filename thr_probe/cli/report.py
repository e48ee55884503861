"""`thr-probe report`: every analysis of some runs on one page, and the files for a paper."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from thr_probe.cli.analyzing import GroupsOption, ScoreIdOption, SeedOption, VenueOption
from thr_probe.cli.shell import command_line, quoted, stderr


def report_command(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Run directories.", metavar="RUN...", show_default=False),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The HTML file.")] = Path("report.html"),
    latex: Annotated[
        Path | None,
        typer.Option(
            "--latex",
            help="Also figures, tables and captions for LaTeX, into this folder.",
            show_default="none",
        ),
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option(
            "--keep",
            help="Keep the files of the analyses in this folder.",
            show_default="not kept",
        ),
    ] = None,
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", help="Completion tokens in the token viewer.")
    ] = 100_000,
    groups: GroupsOption = "mixed",
    score_id: ScoreIdOption = None,
    seed: SeedOption = 0,
    venue: VenueOption = "neurips",
) -> None:
    """Every analysis of one run or several, in one HTML file that loads nothing from elsewhere.

    What a run lacks the columns for is named in the page. The file opens without a server.
    """
    from thr_probe.errors import IncompleteError
    from thr_probe.report.build import ReportOptions, write_report

    options = ReportOptions(
        seed=seed,
        venue=venue,
        groups=groups,
        score_id=score_id,
        max_tokens=max_tokens,
        command=quoted(command_line()),
    )
    reported = write_report(runs, out, options, latex=latex, keep=keep)
    for note in reported.notes:
        stderr().print(note)
    if latex is not None:
        stderr().print(f"for LaTeX: {reported.files[0]} and {len(reported.files) - 1} files")
    typer.echo(str(reported.path))
    if reported.unreadable:
        raise IncompleteError(
            f"not read: {'; '.join(reported.unreadable)}", "the page has the other runs"
        )
    if reported.failed:
        raise IncompleteError(
            f"not computed: {', '.join(reported.failed)}", "the page and the notes above say why"
        )
