"""CSV files as tables of a page, each with the whole file to take away."""

from __future__ import annotations

import base64
import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MOST_ROWS = 60
"""Rows of a table that the page shows; the file that can be taken away has all."""

MEDIA_TYPES = {".csv": "text/csv", ".tex": "text/x-tex"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One cell."""

    text: str
    """As it is shown: four significant digits."""
    exact: str
    """As the file has it, where that differs; empty otherwise."""
    numeric: bool
    """Whether it is a number, set to the right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableView:
    """A table of the page."""

    file_name: str
    """Of the CSV."""
    columns: tuple[Cell, ...]
    """The head; numeric where the column is."""
    rows: tuple[tuple[Cell, ...], ...]
    """The first `MOST_ROWS`."""
    num_rows: int
    """All rows of the file."""
    href: str
    """The file as a data: URI."""


def csv_view(path: Path) -> TableView:
    """A CSV file as a table.

    Args:
        path: as an analysis writes it: comma, header, UTF-8.
    """
    content = path.read_bytes()
    header, *rows = csv.reader(io.StringIO(content.decode("utf-8"), newline=""))
    shown = [[_cell(text) for text in row] for row in rows[:MOST_ROWS]]
    numeric = [_is_numeric([row[place] for row in shown]) for place in range(len(header))]
    columns = (
        Cell(text=name.replace("_", " "), exact="", numeric=is_number)
        for name, is_number in zip(header, numeric, strict=True)
    )
    return TableView(
        file_name=path.name,
        columns=tuple(columns),
        rows=tuple(map(tuple, shown)),
        num_rows=len(rows),
        href=data_uri(path.name, content),
    )


def data_uri(file_name: str, content: bytes) -> str:
    """A file as an address that holds it."""
    media_type = MEDIA_TYPES[Path(file_name).suffix]
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def _is_numeric(cells: Sequence[Cell]) -> bool:
    return any(cell.numeric for cell in cells) and all(
        cell.numeric or not cell.exact for cell in cells
    )


def _cell(text: str) -> Cell:
    try:
        value = float(text)
    except ValueError:
        return Cell(text=text or "–", exact="", numeric=False)
    shown = (
        text if not math.isfinite(value) else shown_number(value, whole=text.lstrip("-").isdigit())
    )
    return Cell(text=shown, exact=text if shown != text else "", numeric=True)


def shown_number(value: float, *, whole: bool = False) -> str:
    """A number as people read it: counts in full, others with four significant digits.

    Args:
        value: finite.
        whole: whether it is a count.

    >>> shown_number(0.123456), shown_number(12345, whole=True), shown_number(-0.00001234)
    ('0.1235', '12,345', '−1.234e−05')
    """
    large = whole or abs(value) >= 10_000
    text = f"{value:,.0f}" if large and abs(value) < 1e15 else f"{value:.4g}"
    return text.replace("-", "−")
