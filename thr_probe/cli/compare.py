"""`thr-probe compare ...`: runs beside a baseline, quantity by quantity."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thr_probe.cli.analyzing import ScoreIdOption, SeedOption, VenueOption, tell_files
from thr_probe.cli.output import Format, FormatOption, print_rows
from thr_probe.cli.shell import command_line, quoted, stderr

if TYPE_CHECKING:
    from thr_probe.analysis.result import Analysis

_SHOWN = 5  # questions listed of each kind; the files hold them all


def compare_command(
    runs: Annotated[
        list[str],
        typer.Argument(
            help="Run directories or folders of thr-probe eval, the baseline first; "
            "PATH:CHECKPOINT for one of several checkpoints.",
            metavar="RUN_A RUN_B...",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder of the files.", show_default="none are written"),
    ] = None,
    k: Annotated[
        list[int] | None,
        typer.Option("--k", help="A value of K; may be repeated.", show_default="1, 2, 4 ... n"),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse runs that differ in more than their policy.")
    ] = False,
    score_id: ScoreIdOption = None,
    seed: SeedOption = 0,
    venue: VenueOption = "neurips",
    format: FormatOption = Format.HUMAN,
) -> None:
    """Paired differences to the first run, quantity by quantity, with tests that are corrected."""
    from thr_probe.analysis.compare import compare_sources
    from thr_probe.analysis.sources import read_sources
    from thr_probe.figures.compare import plot_compare
    from thr_probe.figures.save import save_analysis
    from thr_probe.figures.style import venue_width

    venue_width(venue)  # an unknown one is told before the work
    analysis = compare_sources(
        read_sources(runs), ks=k or None, seed=seed, score_id=score_id, strict=strict
    )
    _print(analysis, format)
    if out is not None:
        figure = plot_compare(analysis, venue=venue)
        tell_files(analysis, save_analysis(analysis, figure, out, command=quoted(command_line())))


def _print(analysis: Analysis, printed: Format) -> None:
    for warning in texts_of(analysis, "warnings"):
        stderr().print(f"warning: {warning}", markup=False)
    for text in texts_of(analysis, "left_out"):
        stderr().print(f"left out: {text}", markup=False)
    metrics = analysis.curves["metrics"]
    if printed in {Format.JSON, Format.CSV}:
        plain = metrics.astype(object).where(metrics.notna(), None)
        print_rows([_named(row) for row in plain.to_dict("records")], printed)
        return
    print_rows([_row(row, analysis) for row in metrics.to_dict("records")], printed)
    if printed is Format.LATEX:
        return
    typer.echo("")
    for sentence in texts_of(analysis, "gains"):
        typer.echo(sentence)
    for solved_by in ("run", "baseline"):
        _list_questions(analysis, solved_by)


def _named(row: dict[Any, Any]) -> dict[str, object]:
    return {str(name): value for name, value in row.items()}


def texts_of(analysis: Analysis, fact: str) -> list[str]:
    """A fact that is a list of sentences."""
    texts = analysis.facts[fact]
    return [str(text) for text in texts] if isinstance(texts, list) else []


def _row(row: dict[Any, Any], analysis: Analysis) -> dict[str, object]:
    """A line for people: percent where the quantity is a share."""
    from thr_probe.analysis.compare import RELATIVE, metric_label, p_text

    several = len(texts_of(analysis, "runs")) > 1
    has_splits = analysis.curves["metrics"]["split"].nunique() > 1
    is_share = row["metric"] not in RELATIVE or row["metric"] == "reflection_ratio"
    digits = 2 if row["metric"] == "reflection_ratio" else 1
    scale, unit = (100, " %") if is_share else (1, "")
    if row["metric"] == "mean_entropy":
        digits, unit = 4, " nats"

    def text(name: str, sign: str = "", end: str = unit) -> str:
        value = row[name]
        return "-" if math.isnan(value) else f"{scale * value:{sign}.{digits}f}{end}"

    points = " points" if is_share else unit
    interval = f"[{text('difference_low', '+', '')}, {text('difference_high', '+', '')}]"
    return {
        **({"run": row["run"]} if several else {}),
        "metric": metric_label(row["metric"]),
        **({"questions of": row["split"]} if has_splits else {}),
        "baseline" if several else f"A: {row['baseline_run']}": text("baseline"),
        "value" if several else f"B: {row['run']}": text("value"),
        "difference" if several else "B - A": text("difference", "+", points),
        "95 % interval": "-" if math.isnan(row["difference_low"]) else interval,
        "p": p_text(row["p"]),
        "p (Holm)": p_text(row["p_holm"]),
        "questions": row["num_questions"],
    }


def _list_questions(analysis: Analysis, solved_by: str) -> None:
    """The first few questions that only one of two solves, for each run."""
    from thr_probe.analysis.compare import listed_questions

    by_run: dict[str, list[dict[str, Any]]] = {}
    for row in listed_questions(analysis, solved_by):
        by_run.setdefault(row["run"], []).append(row)
    for run, rows in by_run.items():
        winner, loser = (
            (run, rows[0]["baseline_run"])
            if solved_by == "run"
            else (
                rows[0]["baseline_run"],
                run,
            )
        )
        typer.echo(f"\nonly {winner} solves, not {loser} ({len(rows):,}):")
        for row in rows[:_SHOWN]:
            typer.echo(f"  {_shortened(row['question'])}")
        if len(rows) > _SHOWN:
            typer.echo(f"  ... {len(rows) - _SHOWN:,} more: compare-questions.csv with -o has all")


def _shortened(question: str, width: int = 90) -> str:
    line = " ".join(question.split())
    return line if len(line) <= width else f"{line[: width - 3]}..."
