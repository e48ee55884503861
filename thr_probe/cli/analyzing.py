"""What the commands of `thr-probe analyze` share: arguments, options, printing and saving."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thr_probe.cli.output import Format, print_rows
from thr_probe.cli.shell import command_line, quoted, stderr

if TYPE_CHECKING:
    from thr_probe.analysis.result import Analysis

analyze_app = typer.Typer(
    no_args_is_help=True,
    help="Tables and figures from a saved run; each with intervals from resampling questions.",
)

RunArgument = Annotated[Path, typer.Argument(help="A run directory.", show_default=False)]
OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        help="Folder of the files.",
        show_default="RUN/analysis, RUN/analysis/SCORE_ID",
    ),
]
ScoreIdOption = Annotated[
    str | None, typer.Option("--score-id", help="Score set to read, where there are several.")
]
SeedOption = Annotated[int, typer.Option("--seed", help="Seed of the resampling.")]
GroupsOption = Annotated[
    str,
    typer.Option("--groups", help="mixed: right and wrong completions; has-correct: all with THR."),
]
RunsArgument = Annotated[
    list[Path],
    typer.Argument(help="Folders of training runs.", metavar="RUN...", show_default=False),
]
RunsOutOption = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        help="Folder of the files.",
        show_default="RUN/analysis of a single run, ./analysis of several",
    ),
]
VenueOption = Annotated[
    str, typer.Option("--venue", help="Width: neurips, iclr, icml, icml-wide, acl, acl-wide.")
]


def analyze_and_print(
    name: str,
    run: Path,
    out: Path | None,
    printed: Format,
    venue: str,
    **options: Any,
) -> None:
    """Compute, draw, save; print the summary on stdout and the files on stderr."""
    from thr_probe.gallery import analyze
    from thr_probe.traces import read_run

    opened = read_run(run)
    folder = out or default_folder(run, options.get("score_id"))
    warn_if_incomplete(run, complete=opened.is_complete)
    analysis, paths = analyze(
        name, opened, folder, venue=venue, command=quoted(command_line()), **options
    )
    print_rows(_result(analysis), printed)
    _tell_warnings(analysis)
    tell_files(analysis, paths)


def _tell_warnings(analysis: Analysis) -> None:
    warnings = analysis.facts.get("warnings")
    for warning in warnings if isinstance(warnings, list) else ():
        stderr().print(f"warning: {warning}")


def tell_files(analysis: Analysis, paths: list[Path]) -> None:
    """Where the files of an analysis are, and why nothing was drawn."""
    if analysis.empty_reason:
        stderr().print(f"nothing to draw: {analysis.empty_reason}")
    elif analysis.facts.get("caution"):
        stderr().print(f"warning: {analysis.facts['caution']}")
    for path in paths:
        stderr().print(str(path))


def default_folder(run: Path, score_id: str | None) -> Path:
    """RUN/analysis, and a folder of its own below it for a score set that was named."""
    return run / "analysis" / (score_id if score_id not in {None, "default"} else "")


_PRINTED = {
    "wordcloud": ("positive", "negative"),
    "classes": ("classes",),
    "health": ("checks",),
}
"""The curves that an analysis prints in place of its summary."""


def _result(analysis: Analysis) -> list[dict[str, object]]:
    """The table to print: of the word cloud the ranked tokens, of most others the summary."""
    names = [name for name in _PRINTED.get(analysis.name, ()) if name in analysis.curves]
    signed = analysis.name == "wordcloud"
    tables = {name if signed else "": analysis.curves[name] for name in names}
    if analysis.name not in _PRINTED:
        tables = {"": analysis.summary}
    # of the bounds that stand beside several numbers of a row only the file has room
    return [
        {**({"sign": name} if name else {}), **{str(key): value for key, value in row.items()}}
        for name, table in tables.items()
        for row in table.filter(regex="^(?!.*_(low|high)$)").to_dict("records")
    ]


def warn_if_incomplete(run: Path, *, complete: bool) -> None:
    """A run that was interrupted is analysed as far as it goes, and that is said."""
    if not complete:
        stderr().print(
            f"warning: {run} is not complete; these numbers are of the part that is there"
        )
