"""Tables of the report in Markdown: the shape of the paper's, with intervals and marks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from thr_probe.reproduce.rows import row_named
from thr_probe.reproduce.tables import Table, Unit

LEGEND = (
    "Brackets are 95 % percentile intervals from 2,000 resamples of the questions, the same "
    "resamples for every row; seeds of a row are averaged question by question first. ↑ and ↓: the "
    "interval of the paired difference to GRPO lies above or below 0. Bold: the largest of its "
    "column. † marks a row whose mechanism acted in less than 1 % of the training."
)

NONE = "-"

_SCALES = {Unit.PERCENT: (100.0, 1), Unit.SMALL_PERCENT: (100.0, 3)}


def table_markdown(table: Table) -> str:
    """A table: its heading, the values, then the paired differences to each row."""
    data = table.data
    parts = [f"### {table.heading}", f"{table.note} CSV: `tables/{table.name}.csv`."]
    if data.empty:
        return "\n\n".join([*parts, "Nothing of this has been run."])
    parts.append(_values(table))
    for other in table.versus:
        differences = data[data[f"minus_{other}"].notna()]
        if not differences.empty:
            title = row_named(other).title
            parts.append(f"Difference to {title}, in percentage points:")
            parts.append(_differences(table, differences, other))
    return "\n\n".join(parts)


def _differences(table: Table, data: pd.DataFrame, other: str) -> str:
    return _pivot(data, lambda line: _minus(table, line, other))


def _values(table: Table) -> str:
    best: dict[object, float] = {}
    if table.larger_is_better:
        best = {column: part["value"].max() for column, part in table.data.groupby("column")}

    def cell(line: Mapping[str, Any]) -> str:
        text = _number(table.unit, line["value"])
        is_best = line["value"] == best.get(line["column"])
        return (f"**{text}**" if is_best else text) + _bounds(table.unit, line, "") + _mark(line)

    return _pivot(table.data, cell)


def _minus(table: Table, line: Mapping[str, Any], other: str) -> str:
    stem = f"minus_{other}"
    return _number(table.unit, line[stem], sign="+") + _bounds(
        table.unit, line, f"{stem}_", sign="+"
    )


def _number(unit: Unit, value: float, *, sign: str = "") -> str:
    scale, digits = _SCALES[unit]
    return NONE if math.isnan(value) else f"{scale * value:{sign}.{digits}f}"


def _bounds(unit: Unit, line: Mapping[str, Any], stem: str, *, sign: str = "") -> str:
    low, high = line[f"{stem}low"], line[f"{stem}high"]
    if math.isnan(low) or math.isnan(high):
        return ""
    return f" [{_number(unit, low, sign=sign)}, {_number(unit, high, sign=sign)}]"


def _mark(line: Mapping[str, Any]) -> str:
    """Which side of GRPO a value lies on, where the interval tells."""
    low, high = line.get("minus_grpo_low", math.nan), line.get("minus_grpo_high", math.nan)
    return " ↑" if low > 0 else " ↓" if high < 0 else ""


def _pivot(data: pd.DataFrame, cell: Callable[[Mapping[str, Any]], str]) -> str:
    """One line per row and set of seeds, one column per `column`, in the order of the data."""
    columns = list(dict.fromkeys(data["column"]))
    lines: dict[tuple[str, str], dict[str, str]] = {}
    for record in data.to_dict("records"):
        line = {str(name): value for name, value in record.items()}
        key = (_title(line), str(line["seeds"]))
        lines.setdefault(key, {})[str(line["column"])] = cell(line)
    body = [
        [title, seeds, *(cells.get(column, NONE) for column in columns)]
        for (title, seeds), cells in lines.items()
    ]
    return markdown_table(["Method", "Seeds", *columns], body)


def _title(line: Mapping[str, Any]) -> str:
    return f"{line['title']}{' †' if line['inactive'] else ''}"


def markdown_table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A pipe table; text columns first, all other columns to the right."""
    rule = ["---", *("---:" for _ in head[1:])]
    lines = [list(head), rule, *(list(cells) for cells in body)]
    escaped = [[cell.replace("|", r"\|") for cell in cells] for cells in lines]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in escaped)


def plain_markdown(data: pd.DataFrame, formats: Mapping[str, str]) -> str:
    """A table with one line per row as it is.

    Args:
        data: columns `title` and `inactive` become the method; others are printed where `formats`
            names them.
        formats: the printed name of each column after a format for its numbers, as `.1f Reward`.
    """
    columns = {name: value.partition(" ") for name, value in formats.items() if name in data}
    body = []
    for record in data.to_dict("records"):
        line = {str(name): value for name, value in record.items()}
        method = [_title({"inactive": False} | line)] if "title" in line else []
        body.append([*method, *(_shown(line[name], columns[name][0]) for name in columns)])
    head = ["Method"] if "title" in data else []
    return markdown_table([*head, *(value[2] for value in columns.values())], body)


def _shown(value: Any, style: str) -> str:
    if isinstance(value, str):
        return value
    if value is None or math.isnan(value):
        return NONE
    return f"{value:{style}}"
