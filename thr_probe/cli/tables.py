"""`thr-probe table`: the tables of the paper, filled from runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from thr_probe.cli.output import WIDTH_OF_FILES, Format, FormatOption
from thr_probe.cli.shell import stderr

if TYPE_CHECKING:
    from rich.text import Text

    from thr_probe.report.tables.record import Cell, Table

SourcesArgument = Annotated[
    list[str],
    typer.Argument(
        help="Runs, folders of thr-probe eval (PATH:CHECKPOINT of several), training runs; each "
        "may be named, LABEL=PATH.",
        metavar="SOURCE...",
        show_default=False,
    ),
]


def table_command(
    name: Annotated[
        str,
        typer.Argument(
            help="greedy (Tables 1, 5, 8, 11), passk (2-4, 6, 7, 9, 12, 13), timing (10), "
            "reflection (15) or retention (16).",
            show_default=False,
        ),
    ],
    sources: SourcesArgument,
    versus: Annotated[
        str | None,
        typer.Option(
            "--versus",
            help="Label of the source to compare with.",
            show_default="the first source",
        ),
    ] = None,
    paper: Annotated[
        str | None,
        typer.Option(
            "--paper",
            help="Put the published rows of this base model below, such as Qwen2.5-Math-1.5B; "
            "all: of every model.",
            show_default="none",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="A file (.md, .tex, .csv or .json), or a folder for all four.",
            show_default="none",
        ),
    ] = None,
    format: FormatOption = Format.HUMAN,
) -> None:
    """A table of the paper from your runs: intervals, paired marks, best and second.

    Example: thr-probe table passk GRPO=evals/grpo "THR (p = -0.1)=evals/thr" --format latex
    """
    from thr_probe.report.tables import (
        paper_table,
        table_csv,
        table_json,
        table_latex,
        table_markdown,
    )
    from thr_probe.report.tables.files import write_table

    table = paper_table(name, sources, versus=versus, paper=paper)
    texts = {
        Format.MD: table_markdown,
        Format.LATEX: table_latex,
        Format.CSV: table_csv,
        Format.JSON: table_json,
    }
    if format in texts:
        typer.echo(texts[format](table), nl=False)
    else:
        _print_human(table)
    if out is not None:
        for path in write_table(table, out):
            stderr().print(str(path))


def _print_human(table: Table) -> None:
    """The table for a terminal: each interval below its number."""
    from rich.console import Console
    from rich.table import Table as Grid

    from thr_probe.report.tables.text import LineKind, table_lines

    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, width=WIDTH_OF_FILES)
    grid = Grid(box=None, pad_edge=False, header_style="bold")
    grid.add_column(table.head, overflow="fold")
    for title in table.columns.values():
        grid.add_column(title, justify="right", overflow="fold")
    for line in table_lines(table):
        if line.kind is LineKind.ROW:
            grid.add_row(line.text, *(_shown(cell, table.digits) for cell in line.cells))
        else:
            grid.add_row(line.text, style="italic")
    console.print(table.title, style="bold", soft_wrap=True)
    console.print(grid)
    for note in table.notes:
        console.print(note, soft_wrap=True)


def _shown(cell: Cell | None, digits: int) -> Text:
    from rich.text import Text

    from thr_probe.report.tables.text import NONE, bounds_text, dagger, number_text

    if cell is None:
        return Text(NONE)
    style = {1: "bold", 2: "underline"}.get(cell.rank or 0, "")
    shown = Text.assemble((number_text(cell, digits), style), dagger(cell), cell.mark)
    bounds = bounds_text(cell, digits)
    return shown.append(f"\n{bounds}", style="dim") if bounds else shown
