"""The paper's tables as the page shows them: sets that the runs have apart from the others."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from thr_probe.report.csv_view import data_uri
from thr_probe.report.tables.latex import table_latex
from thr_probe.report.tables.record import Cell, Table
from thr_probe.report.tables.text import (
    NONE,
    LineKind,
    bounds_text,
    dagger,
    number_text,
    table_csv,
    table_lines,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FilledCell:
    """A number of a table."""

    number: str
    """As it is printed, with the mark of a corrected one."""
    bounds: str
    """Its interval; may be empty."""
    mark: str
    """Whether it differs from the baseline; may be empty."""
    rank: int
    """1 for the best of its column, 2 for the second, 0 for others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilledLine:
    """A line of a table."""

    kind: str
    """section, published or row."""
    text: str
    """Its first column."""
    cells: tuple[FilledCell, ...]
    """Its numbers; empty where it is a heading."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilledBody:
    """Some sections of a table with the columns in which they have numbers."""

    columns: tuple[str, ...]
    """The head."""
    lines: tuple[FilledLine, ...]
    """What is below it; may be empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilledTable:
    """A table of the paper in the page."""

    anchor: str
    """Its id in the page."""
    title: str
    """What it shows."""
    own: FilledBody
    """Sections in which the runs have numbers."""
    others: FilledBody
    """Sections of published numbers alone."""
    notes: tuple[str, ...]
    """Sentences below it."""
    files: tuple[tuple[str, str], ...]
    """Name and data: URI of what can be taken away."""


def filled(table: Table) -> FilledTable:
    """A table as the page shows it.

    Args:
        table: of `paper_tables`.
    """
    own = {row.section for row in table.rows if row.published is None}
    stem = f"paper-{table.name}"
    files = {f"{stem}.csv": table_csv(table), f"{stem}.tex": table_latex(table)}
    return FilledTable(
        anchor=stem,
        title=table.title,
        own=_body(table, own),
        others=_body(table, set(table.sections) - own),
        notes=table.notes,
        files=tuple((name, data_uri(name, text.encode("utf-8"))) for name, text in files.items()),
    )


def _body(table: Table, sections: set[str]) -> FilledBody:
    rows = [row for row in table.rows if row.section in sections]
    kept = replace(
        table,
        sections={key: title for key, title in table.sections.items() if key in sections},
        columns={
            key: title
            for key, title in table.columns.items()
            if any(key in row.cells and not math.isnan(row.cells[key].value) for row in rows)
        },
    )
    return FilledBody(columns=(table.head, *kept.columns.values()), lines=tuple(_lines(kept)))


def _lines(table: Table) -> Iterator[FilledLine]:
    for line in table_lines(table):
        cells = (_cell(cell, table.digits) for cell in line.cells)
        is_row = line.kind is LineKind.ROW
        yield FilledLine(kind=line.kind.value, text=line.text, cells=tuple(cells) if is_row else ())


def _cell(cell: Cell | None, digits: int) -> FilledCell:
    if cell is None:
        return FilledCell(number=NONE, bounds="", mark="", rank=0)
    return FilledCell(
        number=number_text(cell, digits).replace("-", "−") + dagger(cell),
        bounds=bounds_text(cell, digits).replace("-", "−"),
        mark=cell.mark,
        rank=cell.rank or 0,
    )
