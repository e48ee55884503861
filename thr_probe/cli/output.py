"""Results on stdout: for people, or as JSON, CSV, Markdown or LaTeX."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

Row = Mapping[str, object]

WIDTH_OF_FILES = 240

LATEX = str.maketrans(
    {symbol: "\\" + symbol for symbol in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}
)


class Format(StrEnum):
    """How a result is printed."""

    HUMAN = "human"
    JSON = "json"
    CSV = "csv"
    MD = "md"
    LATEX = "latex"


FormatOption = Annotated[Format, typer.Option("--format", help="How the result is printed.")]


def print_rows(rows: Sequence[Row], style: Format) -> None:
    """Print rows that share their keys."""
    if style is Format.JSON:
        typer.echo(json.dumps([_plain(row) for row in rows], indent=2, ensure_ascii=False))
    elif style is Format.CSV:
        typer.echo(_csv(rows), nl=False)
    elif style in {Format.MD, Format.LATEX}:
        typer.echo(_markup(rows, style))
    else:
        _print_table(rows)


def number(value: object) -> str:
    """A value as people read it: four significant digits, undefined as a dash."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def _plain(row: Row) -> dict[str, object]:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
    }


def _csv(rows: Sequence[Row]) -> str:
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(_plain(row) for row in rows)
    return text.getvalue()


def _markup(rows: Sequence[Row], style: Format) -> str:
    if not rows:
        return ""
    names = list(rows[0])
    body = [[number(row[name]) for name in names] for row in rows]
    if style is Format.MD:
        lines = [names, ["---"] * len(names), *body]
        escaped = [[cell.replace("|", r"\|") for cell in cells] for cells in lines]
        return "\n".join(f"| {' | '.join(cells)} |" for cells in escaped)
    escaped = [[_latex(cell) for cell in cells] for cells in [names, *body]]
    head, *rest = (" & ".join(cells) + r" \\" for cells in escaped)
    columns = "l" * len(names)
    top = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule"]
    return "\n".join([*top, *rest, r"\bottomrule", r"\end{tabular}"])


def _latex(cell: str) -> str:
    return cell.translate(LATEX)


def _print_table(rows: Sequence[Row]) -> None:
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        # nothing is cut where nobody can widen the window
        console = Console(highlight=False, markup=False, width=WIDTH_OF_FILES)
    if not rows:
        return
    if len(rows) == 1:
        # one result reads better downwards, and is never cut off
        for name, value in rows[0].items():
            console.print(f"{name.replace('_', ' '):<20} {number(value)}", soft_wrap=True)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, value in rows[0].items():
        numeric = isinstance(value, int | float) and not isinstance(value, bool)
        table.add_column(
            name.replace("_", " "), justify="right" if numeric else "left", overflow="fold"
        )
    for row in rows:
        table.add_row(*(number(value) for value in row.values()))
    console.print(table)
