"""The published rows of the paper beside a user's rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from thr_probe.report.published import (
    ALL,
    Entry,
    PublishedRow,
    PublishedTable,
    check_model,
    read_published,
)
from thr_probe.report.tables.questions import TITLES
from thr_probe.report.tables.record import DAGGER, Cell, Table, TableRow

_NAMES = {"ratio": "#Reflection / #Token", "retained": "Avg. ratio retained"}
_ORDER = ("aime25", "aime24", "amc23", "hard", "math500", "minerva", "olympiadbench", "standard")
_LAST = "average"
_HALVES = {"hard", "standard"}


def beside_published(table: Table, model: str) -> Table:
    """The table with the paper's rows below the user's, in the columns and sections of both.

    The same numbers printed in several tables are shown once, under their first name.

    Args:
        table: of the user's sources.
        model: a base model of the paper, or `all`.

    Raises:
        UsageError: the paper has no such model.
    """
    published = read_published()
    check_model(published, model)
    tables = published.of(table.name, model)
    if not tables:
        note = f"The paper has no such numbers of {model}."
        return replace(table, notes=(*table.notes, note))
    rows = [_table_row(row) for row in _distinct(tables, model)]
    keys = dict.fromkeys([*table.columns, *(key for each in tables for key in each.columns)])
    columns = {key: table.columns.get(key, _title(key)) for key in _ordered(list(keys))}
    sections = dict.fromkeys([*table.sections, *(row.section for row in rows)])
    titles = {key: table.sections.get(key, _section(key)) for key in _ordered(list(sections))}
    return replace(
        table,
        columns=columns,
        sections=titles,
        rows=(*table.rows, *rows),
        notes=(*table.notes, *_notes(table, tables, rows)),
    )


def _distinct(tables: Sequence[PublishedTable], model: str) -> Iterator[PublishedRow]:
    """The rows of a model; what another table holds with the same numbers, or more, once."""
    blocks: dict[tuple[str, str, int], list[PublishedRow]] = {}
    for table in tables:
        for row in table.rows:
            if model in {ALL, row.model}:
                blocks.setdefault((row.model, row.method, table.number), []).append(row)
    numbers = [_numbers(rows) for rows in blocks.values()]
    for index, rows in enumerate(blocks.values()):
        own, before, after = numbers[index], numbers[:index], numbers[index + 1 :]
        # Table 5 repeats rows of Table 11 without the averages of the halves
        if not any(own <= other for other in before) and not any(own < other for other in after):
            yield from rows


def _numbers(rows: Sequence[PublishedRow]) -> frozenset[tuple[str, str, str, float]]:
    return frozenset(
        (row.model, row.dataset, column, entry.printed)
        for row in rows
        for column, entry in row.entries.items()
    )


def _table_row(row: PublishedRow) -> TableRow:
    cells = {column: _cell(entry) for column, entry in row.entries.items()}
    return TableRow(label=row.method, section=row.dataset, cells=cells, published=row.model)


def _cell(entry: Entry) -> Cell:
    printed = entry.printed if entry.erratum is not None else None
    return Cell(value=entry.value, printed=printed, digits=entry.digits)


def _title(column: str) -> str:
    return TITLES.get(column, _NAMES.get(column, column))


def _section(key: str) -> str:
    return "Average" if key == _LAST else _title(key)


def _ordered(keys: Sequence[str]) -> list[str]:
    """Numbers ascending; sets as in the paper, then others, then the average."""
    if all(key.isdigit() for key in keys):
        return sorted(keys, key=int)
    known = [key for key in _ORDER if key in keys]
    others = [key for key in keys if key not in {*known, _LAST}]
    return [*known, *others, *([_LAST] if _LAST in keys else [])]


def _notes(
    table: Table, tables: Sequence[PublishedTable], rows: Sequence[TableRow]
) -> Iterator[str]:
    numbers = ", ".join(str(each.number) for each in tables)
    yield (
        f"Rows marked as published are those of the paper's Table{'s' * (len(tables) > 1)} "
        f"{numbers}, without intervals; they are neither ranked nor compared."
    )
    own, theirs = (_datasets(each) for each in (table.rows, rows))
    if _LAST in own and own - _HALVES != theirs - _HALVES:
        yield "Averages are over the datasets that a row has: these are not the paper's."
    corrected = sorted(
        {
            f"{cell.printed:.{table.digits}f} is printed for {cell.value:.{table.digits}f}"
            for row in rows
            for cell in row.cells.values()
            if cell.printed is not None
        }
    )
    if corrected:
        yield f"{DAGGER} Recomputed from the published rows: {', '.join(corrected)}."


def _datasets(rows: Sequence[TableRow]) -> set[str]:
    return {row.section for row in rows} | {key for row in rows for key in row.cells}
