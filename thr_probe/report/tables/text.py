"""A table as Markdown, and as tidy rows, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from thr_probe.report.tables.record import DAGGER, Cell, Table, TableRow

NONE = "-"


class LineKind(StrEnum):
    """What a printed line is."""

    SECTION = "section"
    """The title of a section."""
    PUBLISHED = "published"
    """What the published rows below it are of."""
    ROW = "row"
    """A row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of the body, whatever the format."""

    kind: LineKind
    """What it is."""
    text: str
    """Its first column."""
    cells: tuple[Cell | None, ...] = ()
    """A row's, one for each column of the table."""


def table_lines(table: Table) -> Iterator[Line]:
    """The body line by line: titles of sections, rows, published rows under their model."""
    for section, title in table.sections.items():
        if title:
            yield Line(kind=LineKind.SECTION, text=title)
        model: str | None = None
        for row in table.rows_of(section):
            if row.published != model:
                model = row.published
                yield Line(kind=LineKind.PUBLISHED, text=f"Published, {model}")
            cells = tuple(row.cells.get(column) for column in table.columns)
            yield Line(kind=LineKind.ROW, text=row.label, cells=cells)


def number_text(cell: Cell, digits: int) -> str:
    """A number as it is printed; a dash where it is not defined.

    Args:
        cell: with the number.
        digits: of the table; a published number has its own.
    """
    if math.isnan(cell.value):
        return NONE
    return f"{cell.value:.{digits if cell.digits is None else cell.digits}f}"


def bounds_text(cell: Cell, digits: int) -> str:
    """The interval in brackets, or nothing."""
    if math.isnan(cell.low):
        return ""
    return f"[{cell.low:.{digits}f}, {cell.high:.{digits}f}]"


def dagger(cell: Cell) -> str:
    """The mark of a published number that was corrected."""
    return "" if cell.printed is None else DAGGER


def table_markdown(table: Table) -> str:
    """The table with its title above and its notes below, for Markdown that knows `<u>`."""
    body = [_markdown_line(table, line) for line in table_lines(table)]
    lines = [
        [table.head, *table.columns.values()],
        ["---", *("---:" for _ in table.columns)],
        *body,
    ]
    pipes = [f"| {' | '.join(_escaped(cell) for cell in cells)} |" for cells in lines]
    return "\n".join([f"**{table.title}**", "", *pipes, "", " ".join(table.notes), ""])


def _escaped(text: str) -> str:
    return text.replace("|", r"\|")


def _markdown_line(table: Table, line: Line) -> list[str]:
    if line.kind is LineKind.ROW:
        return [line.text, *(_markdown_cell(cell, table.digits) for cell in line.cells)]
    return [f"*{line.text}*", *("" for _ in table.columns)]


def _markdown_cell(cell: Cell | None, digits: int) -> str:
    if cell is None:
        return NONE
    text = number_text(cell, digits)
    text = {1: f"**{text}**", 2: f"<u>{text}</u>"}.get(cell.rank or 0, text)
    return " ".join(filter(None, [text + dagger(cell), bounds_text(cell, digits), cell.mark]))


def table_rows(table: Table) -> list[dict[str, object]]:
    """The table in tidy form, a line for each number.

    Returns:
        table, section, row, column, unit, value, low, high, difference, diff_low, diff_high (to the
        baseline), marked, rank, published (the base model of a published row), printed (of a
        published number that was corrected). What is not there is None.
    """
    return [
        _tidy(table, row, column, row.cells[column])
        for section in table.sections
        for row in table.rows_of(section)
        for column in table.columns
        if column in row.cells
    ]


def _tidy(table: Table, row: TableRow, column: str, cell: Cell) -> dict[str, object]:
    numbers = {
        "value": cell.value,
        "low": cell.low,
        "high": cell.high,
        "difference": cell.difference.value,
        "diff_low": cell.difference.low,
        "diff_high": cell.difference.high,
    }
    return {
        "table": table.name,
        "section": row.section or None,
        "row": row.label,
        "column": column,
        "unit": table.unit,
        **{name: None if math.isnan(value) else value for name, value in numbers.items()},
        "marked": bool(cell.mark),
        "rank": cell.rank,
        "published": row.published,
        "printed": cell.printed,
    }


def table_csv(table: Table) -> str:
    """`table_rows` as CSV."""
    rows = table_rows(table)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else ["table"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def table_json(table: Table) -> str:
    """`table_rows` as JSON, with the title and the notes."""
    content = {
        "table": table.name,
        "title": table.title,
        "notes": list(table.notes),
        "rows": table_rows(table),
    }
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
