"""`thr-probe data`: what a run holds, whether it is sound, its schema, and its export."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from thr_probe.cli.analyzing import RunArgument, ScoreIdOption, warn_if_incomplete
from thr_probe.cli.output import WIDTH_OF_FILES, Format, FormatOption, number, print_rows
from thr_probe.cli.progress import SECONDS_BETWEEN_LINES
from thr_probe.cli.shell import limit_threads, stderr
from thr_probe.errors import DataError, UsageError

if TYPE_CHECKING:
    from thr_probe.exporting.record import Exported, ExportedColumn, Selection
    from thr_probe.traces.info import RunFact

data_app = typer.Typer(
    no_args_is_help=True,
    help="What a run holds, whether it is sound, what its columns mean; rows for other programs.",
)


class Trainer(StrEnum):
    """Whose layout an export has."""

    TRL = "trl"
    VERL = "verl"


class Layout(StrEnum):
    """Whose columns are described."""

    TRACE = "trace"
    LONG = "long"
    TRL = "trl"
    VERL = "verl"


@data_app.command("info")
def info_command(run: RunArgument, format: FormatOption = Format.HUMAN) -> None:
    """What a run is and holds: manifest, counts, outcomes, lengths, score sets, bytes.

    Shares are of all completions, groups or bytes; quantiles of lengths are by nearest rank. Bytes
    per token are over the completion tokens of the run.
    """
    from dataclasses import asdict

    from thr_probe.traces import read_run
    from thr_probe.traces.info import run_info

    opened = read_run(run)
    warn_if_incomplete(run, complete=opened.is_complete)
    facts = run_info(opened)
    if format is not Format.HUMAN:
        print_rows([asdict(fact) for fact in facts], format)
        return
    console = _console()
    for section, inside in groupby(facts, key=lambda fact: fact.section):
        console.print(section, style="bold")
        for fact in inside:
            # elsewhere names are those of columns, states and options
            words = fact.section in {"run", "counts", "outcomes"}
            name = fact.name.replace("_", " ") if words else fact.name
            console.print(f"  {name:<32} {_told(fact)}", soft_wrap=True)


def _told(fact: RunFact) -> str:
    # a seed or a version is a name, not an amount
    is_amount = isinstance(fact.value, int) and not isinstance(fact.value, bool)
    text = str(fact.value) if fact.section == "run" and is_amount else number(fact.value)
    is_counted = fact.section == "counts" or (is_amount and fact.section != "run")
    words = [f"{text:>14}" if is_counted else text]
    words += [fact.unit] if fact.unit else []
    words += [f"{fact.share:.1%}"] if fact.share is not None else []
    words += [f"{fact.per_token:.3g} per token"] if fact.per_token is not None else []
    return "  ".join(words)


@data_app.command("validate")
def validate_command(
    runs: Annotated[
        list[Path], typer.Argument(help="Run directories.", metavar="RUN...", show_default=False)
    ],
    format: FormatOption = Format.HUMAN,
) -> None:
    """Read every row of runs and name everything that breaks the contract of the trace.

    Ends with 0 where all runs are sound, and with 3 where one is not.
    """
    from thr_probe.traces import validate_run

    rows: list[dict[str, object]] = []
    for run in runs:
        with _parts_told(str(run)) as told:
            findings = validate_run(run, told=told)
        rows += [
            {"run": str(run), "sound": False, "finding": each.message, "hint": each.hint}
            for each in findings
        ] or [{"run": str(run), "sound": True, "finding": None, "hint": None}]
    if format is not Format.HUMAN:
        print_rows(rows, format)
    else:
        _print_findings(rows)
    if not all(row["sound"] for row in rows):
        raise typer.Exit(DataError.exit_code)


def _print_findings(rows: list[dict[str, object]]) -> None:
    console = _console()
    for run, inside in groupby(rows, key=lambda row: row["run"]):
        findings = [row for row in inside if not row["sound"]]
        count = f"{len(findings)} finding{'s' if len(findings) > 1 else ''}"
        console.print(f"{run}: {count if findings else 'sound'}", style="bold", soft_wrap=True)
        for row in findings:
            console.print(f"  {row['finding']}", soft_wrap=True)
            if row["hint"]:
                console.print(f"    hint: {row['hint']}", soft_wrap=True)


@contextmanager
def _parts_told(run: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, a line per interval elsewhere."""
    console = stderr()
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn())
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task(f"checking {run}")
            yield lambda done, total: progress.update(task, completed=done, total=total)
        return
    printed = time.monotonic()

    def told(done: int, total: int) -> None:
        nonlocal printed
        if done < total and time.monotonic() - printed >= SECONDS_BETWEEN_LINES:
            printed = time.monotonic()
            console.print(f"{run}: {done} of {total} parts checked")

    yield told


@data_app.command("schema")
def schema_command(
    run: Annotated[
        Path | None,
        typer.Argument(help="A run directory: which columns it has.", show_default="none"),
    ] = None,
    of: Annotated[
        Layout,
        typer.Option("--of", help="The trace, or what thr-probe data export writes."),
    ] = Layout.TRACE,
    format: FormatOption = Format.HUMAN,
) -> None:
    """The columns with type, unit and meaning; with a run, which of them it has.

    For an optional column that the run lacks it is said how to get it.
    """
    if of is not Layout.TRACE:
        if run is not None:
            raise UsageError(
                "--of describes exported files, not a run", "leave RUN out, or use --of trace"
            )
        print_rows([_described(column) for column in _layout_columns(of)], format)
        return
    from thr_probe.traces import read_run
    from thr_probe.traces.stored import schema_rows

    rows = schema_rows(None if run is None else read_run(run))
    if format is not Format.HUMAN:
        print_rows(rows, format)
        return
    for table, inside in groupby(rows, key=lambda row: row["table"]):
        _console().print(f"\n{table}", style="bold")
        print_rows([{name: row[name] for name in row if name != "table"} for row in inside], format)


def _layout_columns(of: Layout) -> list[ExportedColumn]:
    if of is Layout.LONG:
        from thr_probe.exporting.long import every_column

        return every_column()
    from thr_probe.exporting.layouts import layout_columns

    return layout_columns(of.value)


def _described(column: ExportedColumn) -> dict[str, object]:
    from thr_probe.traces.schema import type_name

    return {
        "column": column.name,
        "type": type_name(column.type),
        "unit": column.unit,
        "meaning": column.meaning,
    }


@data_app.command("export")
def export_command(
    run: RunArgument,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="--long: a .parquet or .csv file. --to: a .parquet file (verl also .jsonl), or a "
            "folder for a file per step under the names of the trainer's own dumps.",
            show_default=False,
        ),
    ],
    long: Annotated[bool, typer.Option("--long", help="One row per completion token.")] = False,
    to: Annotated[
        Trainer | None,
        typer.Option(
            "--to",
            help="One row per completion with THR(p) token advantages, in the columns of TRL's "
            "GRPOTrainer or of verl's batches and rollout dumps.",
            show_default="none",
        ),
    ] = None,
    p: Annotated[
        float | None,
        typer.Option(
            "--p",
            help="--to: above 0 exploits, below 0 explores; |p| < 1.",
            show_default="0",
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            "--columns",
            help="--long: names, separated by commas.",
            show_default="every number per token that the run has",
        ),
    ] = None,
    groups: Annotated[
        str,
        typer.Option(
            "--groups",
            help="all; has-correct: THR is defined; mixed: right and wrong completions.",
        ),
    ] = "all",
    score_id: ScoreIdOption = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what stands at -o.")
    ] = False,
) -> None:
    """A run for other programs; thr-probe data schema --of long, trl or verl tells the columns.

    Lists are as long as the prompt or the completion: pad prompts left and completions right.
    Advantages per token are those of equation 5 over the stored THR, tau and advantage; 0 at tokens
    that are not dominant and in groups without a correct completion.

    Example: thr-probe data export runs/base --to trl --p -0.1 -o thr.parquet
    """
    _check_what(long=long, to=to, p=p, columns=columns)
    from thr_probe.exporting.record import Selection
    from thr_probe.traces import read_run

    opened = read_run(run)
    warn_if_incomplete(run, complete=opened.is_complete)
    selection = Selection(run=opened, score_id=score_id, groups=groups)
    if to is None:
        from thr_probe.exporting.long import write_long

        names = [name.strip() for name in (columns or "").split(",") if name.strip()]
        _tell(write_long(selection, out, columns=names, overwrite=overwrite))
        return
    limit_threads()
    from thr_probe.exporting.trainers import write_for_trainer

    done = write_for_trainer(selection, out, to=to.value, p=p or 0.0, overwrite=overwrite)
    _tell(done)
    _tell_missing(done, to.value, selection)


def _check_what(*, long: bool, to: Trainer | None, p: float | None, columns: str | None) -> None:
    if long == (to is not None):
        raise UsageError(
            "choose what to write: --long, or --to trl or verl",
            "--long: a row per token, for analyses; --to: a row per completion, for training",
        )
    if long and p is not None:
        raise UsageError("--p belongs to --to: a long table holds no THR(p) advantages")
    if columns is not None and not long:
        raise UsageError("--columns belongs to --long: the columns of a trainer are fixed")


def _tell(done: Exported) -> None:
    console = stderr()
    console.print(f"{done.num_completions:,} completions, {done.num_tokens:,} tokens")
    if done.num_left_out:
        console.print(f"left out: {done.num_left_out:,} completions without token ids")
    for path in done.files:
        typer.echo(str(path))


def _tell_missing(done: Exported, layout: str, selection: Selection) -> None:
    """The columns of the trainer that this run cannot fill, and what they need."""
    from thr_probe.exporting.layouts import LAYOUTS, SOURCES

    written = {column.name for column in done.columns}
    for name, source in LAYOUTS[layout].items():
        if name not in written:
            needed = ", ".join(SOURCES[source].needs)
            stderr().print(f"no column {name}: {selection.run.path} has no {needed}")


def _console() -> Console:
    console = Console(highlight=False, markup=False)
    return (
        console
        if console.is_terminal
        else Console(highlight=False, markup=False, width=WIDTH_OF_FILES)
    )
