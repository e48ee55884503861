"""One row per completion token, as Parquet or CSV: for any tool that reads tables.

Letters of shapes: R completions of a table, N their tokens.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from jaxtyping import Int

from thr_probe.errors import UsageError
from thr_probe.exporting.record import (
    Exported,
    ExportedColumn,
    Selection,
    arrow_schema,
    check_target,
    flat_column,
    parquet_writer,
    token_counts,
    token_lists,
)
from thr_probe.traces.atomic import write_streamed
from thr_probe.traces.schema import COMPLETION_COLUMNS, KEY_COLUMNS

_COMPUTED = (
    ExportedColumn(
        name="position",
        type=pa.int32(),
        unit="tokens",
        meaning="0-based place of the token in its completion",
    ),
    ExportedColumn(
        name="token_text",
        type=pa.string(),
        unit="text",
        meaning="the token decoded on its own; incomplete characters as U+FFFD",
    ),
    ExportedColumn(
        name="token_bytes",
        type=pa.binary(),
        unit="bytes",
        meaning="the token's bytes where they are not whole characters, null where token_text says "
        "all; in CSV as hexadecimal digits",
    ),
    ExportedColumn(
        name="dominant",
        type=pa.bool_(),
        unit="true or false",
        meaning="whether |thr| > tau (equations 4 and 5), in the precision of the trace; "
        "null where thr is",
    ),
)
COMPUTED = {column.name: column for column in _COMPUTED}
"""Columns that the trace does not hold in this form."""

_OF_TOKEN_TABLE = ("token_text", "token_bytes")
_DEFAULT = (
    *KEY_COLUMNS,
    "position",
    "token_id",
    *_OF_TOKEN_TABLE,
    "sampler_logprobs",
    "logprob",
    "entropy",
    "thr",
    "tau",
    "dominant",
    "thr_self",
    "thr_within",
    "thr_error",
    "ref_logprobs",
    "advantage",
    "q",
    "correct",
    "reward",
)
_LISTS = tuple(column.name for column in COMPLETION_COLUMNS.values() if column.is_list)
_NEEDS = {
    "position": (),
    "token_id": ("token_ids",),
    "token_text": ("token_ids",),
    "token_bytes": ("token_ids",),
    "dominant": ("thr", "tau"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pieces:
    """Text and bytes of the token ids, ascending by id."""

    ids: Int[np.ndarray, " ids"]
    columns: dict[str, pa.Array]
    """Entry i is of `ids[i]`, the last one null, for ids that are not in the table."""

    def of(self, name: str, ids_N: pa.Array) -> pa.Array:
        """The column for some tokens."""
        wanted_N = pc.fill_null(ids_N, -1).to_numpy(zero_copy_only=False)
        place_N = np.searchsorted(self.ids, wanted_N)
        known = np.append(self.ids, -2)  # beyond the last: equal to no id
        place_N[known[place_N] != wanted_N] = len(self.ids)
        return self.columns[name].take(pa.array(place_N))


def long_columns(selection: Selection, asked: Sequence[str] = ()) -> list[ExportedColumn]:
    """The columns of the long table.

    Args:
        selection: the run and its scores.
        asked: names; by default all numbers per token that the run has, and what belongs to them.

    Raises:
        UsageError: a name that does not exist, or that this run does not have.
    """
    available = _available(selection)
    for name in asked:
        if name not in available:
            raise _unknown(name, available)
    return [_described(name) for name in asked or _DEFAULT if name in available]


def every_column() -> list[ExportedColumn]:
    """All columns that a long table can have, those of the default first."""
    names = dict.fromkeys([*_DEFAULT, *COMPLETION_COLUMNS])
    return [_described(name) for name in names if name not in ("token_ids", "text")]


def write_long(
    selection: Selection, path: Path, *, columns: Sequence[str] = (), overwrite: bool = False
) -> Exported:
    """Write one row per completion token; memory is that of one row group of the trace.

    Args:
        selection: the run, its scores and the groups wanted.
        path: a .parquet or .csv file; it is there whole or not at all.
        columns: as `long_columns`.
        overwrite: replace a file that is there.

    Raises:
        UsageError: another ending, a file that is there, or an unknown column.
        DataError: a run without anything per token, or a damaged one.
    """
    if path.suffix not in WRITERS:
        raise UsageError(
            f"{path} ends in {path.suffix or 'nothing'}", f"give a file in {' or '.join(WRITERS)}"
        )
    check_target(path, overwrite=overwrite)
    chosen = long_columns(selection, columns)
    lists = token_lists(selection.stored())
    exported = Exported(files=[path], columns=chosen)
    schema = arrow_schema(selection, chosen, "long")
    tables = _long_tables(selection, chosen, lists, exported)
    write_streamed(path, WRITERS[path.suffix](schema, tables))
    return exported


def _available(selection: Selection) -> dict[str, None]:
    stored = selection.stored()
    found = dict.fromkeys(KEY_COLUMNS)
    for name, needed in _NEEDS.items():
        if stored.issuperset(needed):
            found[name] = None
    if not (selection.run.path / "tokens.parquet").exists():
        for name in _OF_TOKEN_TABLE:
            found.pop(name, None)
    for name in COMPLETION_COLUMNS:
        if name in stored and name not in ("token_ids", "text"):
            found[name] = None
    return found


def _described(name: str) -> ExportedColumn:
    if name in COMPUTED:
        return COMPUTED[name]
    declared = COMPLETION_COLUMNS["token_ids" if name == "token_id" else name]
    meaning = declared.meaning if name != "token_id" else "the token's id in the tokenizer"
    return ExportedColumn(
        name=name,
        type=declared.type.value_type if declared.is_list else declared.type,
        unit=declared.unit if name != "token_id" else "token id",
        meaning=meaning,
    )


def _unknown(name: str, available: dict[str, None]) -> UsageError:
    close = difflib.get_close_matches(name, available, n=1)
    if name in COMPUTED or (name in COMPLETION_COLUMNS and name not in ("token_ids", "text")):
        declared = COMPLETION_COLUMNS.get(name)
        source = declared.source if declared and declared.source else "thr-probe data schema RUN"
        return UsageError(f"this run has no column {name}", f"to get it: {source}")
    return UsageError(
        f"a long table has no column {name!r}",
        f"did you mean {close[0]!r}?" if close else f"this run has {', '.join(available)}",
    )


def _long_tables(
    selection: Selection, chosen: Sequence[ExportedColumn], lists: list[str], exported: Exported
) -> Iterator[pa.Table]:
    names = [column.name for column in chosen]
    needed = [read for name in names for read in _NEEDS.get(name, (name,))]
    pieces = _pieces(selection) if set(names) & set(_OF_TOKEN_TABLE) else None
    for found in selection.tables(list(dict.fromkeys([*needed, *lists]))):
        lengths_R = token_counts(found, lists)
        table = found.filter(pa.array(lengths_R >= 0))
        exported.num_left_out += found.num_rows - table.num_rows
        lengths_R = lengths_R[lengths_R >= 0]
        exported.num_completions += table.num_rows
        exported.num_tokens += int(lengths_R.sum())
        row_N = pa.array(np.repeat(np.arange(len(lengths_R)), lengths_R))
        flat = {
            name: flat_column(table[name], lengths_R)
            for name in table.column_names
            if name in _LISTS
        }
        arrays = [
            _computed(column.name, flat, table, row_N, pieces)
            if column.name in _NEEDS
            else flat[column.name]
            if column.name in flat
            else table[column.name].take(row_N)
            for column in chosen
        ]
        yield pa.table(arrays, names=names)


def _computed(
    name: str,
    flat: dict[str, pa.Array],
    table: pa.Table,
    row_N: pa.Array,
    pieces: _Pieces | None,
) -> pa.Array | pa.ChunkedArray:
    if name == "position":
        return _positions(row_N)
    if name == "token_id":
        return flat["token_ids"]
    if name == "dominant":
        return pc.greater(pc.abs(flat["thr"]), table["tau"].take(row_N))
    assert pieces is not None, "text and bytes come from the table of tokens"
    return pieces.of(name, flat["token_ids"])


def _positions(row_N: pa.Array) -> pa.Array:
    row = row_N.to_numpy()
    is_first = np.ones(len(row), dtype=bool)
    is_first[1:] = row[1:] != row[:-1]
    starts = np.flatnonzero(is_first)
    counts = np.diff(np.append(starts, len(row)))
    return pa.array((np.arange(len(row)) - np.repeat(starts, counts)).astype(np.int32))


def _pieces(selection: Selection) -> _Pieces:
    tokens = selection.run.tokens()
    assert tokens is not None, "the columns were available"
    split = [None if _is_whole(data) else data for data in tokens["bytes"]]
    return _Pieces(
        ids=tokens["token_id"].to_numpy(),
        columns={
            "token_text": pa.array([*tokens["text"], None], type=pa.string()),
            "token_bytes": pa.array([*split, None], type=pa.binary()),
        },
    )


def _is_whole(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _csv(schema: pa.Schema, tables: Iterator[pa.Table]) -> Callable[[BinaryIO], None]:
    written = pa.schema(
        [item.with_type(pa.string()) if pa.types.is_binary(item.type) else item for item in schema]
    )

    def write(file: BinaryIO) -> None:
        with pyarrow.csv.CSVWriter(file, written) as writer:
            for table in tables:
                writer.write_table(_hexadecimal(table).cast(written))

    return write


def _hexadecimal(table: pa.Table) -> pa.Table:
    """Binary columns as digits: CSV is text."""
    for index, item in enumerate(table.schema):
        if pa.types.is_binary(item.type):
            coded = table[item.name].combine_chunks().dictionary_encode()
            digits = [value.hex() for value in coded.dictionary.to_pylist()]
            words = pa.DictionaryArray.from_arrays(coded.indices, pa.array(digits, pa.string()))
            table = table.set_column(index, item.name, words.dictionary_decode())
    return table


WRITERS = {".parquet": parquet_writer, ".csv": _csv}
"""Ending of the file -> what writes it."""
