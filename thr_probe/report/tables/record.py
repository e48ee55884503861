"""A table of the paper as data: cells with intervals, paired differences and ranks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from thr_probe.core.stats import Interval

UP, DOWN, DAGGER = "↑", "↓", "†"
"""Marks: the difference to the baseline is above or below zero; a published number corrected."""

NOTHING = Interval(value=math.nan, low=math.nan, high=math.nan)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A number of a table, in the table's unit; NaN bounds where there is no interval."""

    value: float
    """The number."""
    low: float = math.nan
    """Lower bound of the 95 % interval."""
    high: float = math.nan
    """Upper bound."""
    difference: Interval = NOTHING
    """The paired difference to the baseline."""
    rank: int | None = None
    """1 for the best number of its column as printed, 2 for the second; ties share a rank."""
    printed: float | None = None
    """Of a published number that was corrected: how it is printed."""
    digits: int | None = None
    """Behind the point, of a published number; the table's for the others."""

    @property
    def mark(self) -> str:
        """`UP` or `DOWN` where the interval of the difference excludes zero, else nothing."""
        if self.difference.low > 0:
            return UP
        return DOWN if self.difference.high < 0 else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRow:
    """A row: a source of the user, or one that was published."""

    label: str
    """The source or method."""
    section: str
    """The part of the table that it stands in, such as a dataset; empty in a table without."""
    cells: Mapping[str, Cell]
    """By the key of the column; a column may be missing."""
    published: str | None = None
    """The base model of a published row; None for the user's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table, ready to be printed by `table_markdown`, `table_latex` or `table_rows`."""

    name: str
    """greedy, passk, timing, reflection or retention; stem of its files."""
    title: str
    """What it shows, one sentence."""
    head: str
    """Over the first column."""
    columns: Mapping[str, str]
    """Titles by key, in order."""
    sections: Mapping[str, str]
    """Titles by key, in order; one empty key in a table without sections."""
    rows: tuple[TableRow, ...]
    """The user's, then the published ones; within a section in this order."""
    unit: str
    """percent or seconds."""
    digits: int
    """Behind the point, in print."""
    notes: tuple[str, ...]
    """Sentences to stand below it, plain text."""

    def rows_of(self, section: str) -> list[TableRow]:
        """The rows of a section."""
        return [row for row in self.rows if row.section == section]


def ranked(rows: Iterable[TableRow], digits: int) -> tuple[TableRow, ...]:
    """Gives the largest and the second largest printed number of each column their ranks.

    Ties as printed share a rank; the next smaller number is second. Published rows are not ranked,
    nor is a column whose numbers are all the same.

    Args:
        rows: in order; ranked within their sections.
        digits: of the print.
    """
    rows = tuple(rows)
    own = [row for row in rows if row.published is None]
    seen: dict[tuple[str, str], set[float]] = {}
    for row in own:
        for column, cell in row.cells.items():
            if not math.isnan(cell.value):
                seen.setdefault((row.section, column), set()).add(round(cell.value, digits))
    best = {key: sorted(values, reverse=True)[:2] for key, values in seen.items()}

    def with_rank(row: TableRow, column: str, cell: Cell) -> Cell:
        top: Sequence[float] = best.get((row.section, column), ())
        shown = round(cell.value, digits)
        if row.published is not None or len(top) < 2 or shown not in top:
            return cell
        return replace(cell, rank=1 + top.index(shown))

    return tuple(
        replace(
            row, cells={column: with_rank(row, column, cell) for column, cell in row.cells.items()}
        )
        for row in rows
    )
