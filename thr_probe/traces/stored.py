"""The schema of the trace, and which of its columns a run has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from thr_probe.traces.layout import ROLLOUTS, SCORES, TableFile, inspect_table
from thr_probe.traces.reader import Run
from thr_probe.traces.schema import TABLES, Column, type_name


def schema_rows(run: Run | None = None) -> list[dict[str, object]]:
    """One row per column: table, column, type, unit, meaning, and where it is from.

    Args:
        run: with one, also `stored`: yes, no, or how many of the parts have it; each score set is a
            table of its own, and columns that the schema does not declare are listed too.

    Returns:
        Rows with `table`, `column`, `type` (with "null" where single values may be missing),
        `unit`, `meaning`, `required`, with a run `stored`, and `source`: what has to be done to get
        an optional column (with a run: one that is not stored).
    """
    if run is None:
        return [
            _row(table, column) for table, columns in TABLES.items() for column in columns.values()
        ]
    return [row for table, parts in _tables(run).items() for row in _rows_of(table, parts)]


def _tables(run: Run) -> Mapping[str, Sequence[TableFile]]:
    tokens = run.path / "tokens.parquet"
    scores = {f"{SCORES}/{score_id}": parts for score_id, parts in run.score_parts.items()}
    return {
        "problems": [inspect_table(run.path / "problems.parquet", "problems")],
        "tokens": [inspect_table(tokens, "tokens")] if tokens.exists() else [],
        ROLLOUTS: run.rollout_parts,
        **(scores or {SCORES: ()}),
    }


def _rows_of(table: str, parts: Sequence[TableFile]) -> Iterator[dict[str, object]]:
    declared = TABLES[table.partition("/")[0]]
    for column in declared.values():
        having = sum(column.name in part.columns for part in parts)
        stored = "yes" if having and having == len(parts) else "no"
        stored = f"{having} of {len(parts)} parts" if 0 < having < len(parts) else stored
        source = "" if stored == "yes" else _source(table, column, parts)
        yield _row(table, column, stored) | {"source": source}
    for name in sorted({name for part in parts for name in part.columns} - declared.keys()):
        yield {
            "table": table,
            "column": name,
            "stored": "yes",
            "type": _found_type(name, parts),
            "unit": "",
            "meaning": "not of the schema: another program wrote it",
            "required": False,
            "source": "",
        }


def _source(table: str, column: Column, parts: Sequence[TableFile]) -> str:
    """How to get a column that is not stored."""
    if parts or table == ROLLOUTS:
        return column.source
    if table == SCORES:
        return column.source or "thr-probe score RUN --model ..."
    return "collect the run with thr-probe, or import it with the policy's tokenizer"


def _row(table: str, column: Column, stored: str | None = None) -> dict[str, object]:
    meaning = f"{column.meaning}; one of {', '.join(column.values)}" if column.values else ""
    return {
        "table": table,
        "column": column.name,
        **({} if stored is None else {"stored": stored}),
        "type": type_name(column.type) + (" null" if column.nullable else ""),
        "unit": column.unit,
        "meaning": meaning or column.meaning,
        "required": column.required,
        "source": column.source,
    }


def _found_type(name: str, parts: Sequence[TableFile]) -> str:
    having = next(part for part in parts if name in part.columns)
    return type_name(having.footer.schema.to_arrow_schema().field(name).type)
