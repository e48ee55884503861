"""Rows (dicts or small records) to an Arrow table that keeps the schema's promises."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from thr_probe.errors import DataError
from thr_probe.traces.lists import list_values
from thr_probe.traces.schema import KEY_COLUMNS, TABLES, Column, arrow_schema

_HINT = "the mistake is in the program that made these rows"


def table_from_rows(kind: str, rows: Iterable[object] | pa.Table) -> pa.Table:
    """The rows as an Arrow table in the declared column order, checked.

    Args:
        kind: a table of `schema.TABLES`.
        rows: mappings (a key that the table does not declare is an error), records whose attributes
            are looked up by column name, or an Arrow table. Lists may be NumPy arrays.

    Returns:
        A table with every required column, and those optional ones that hold any value.
    """
    columns = _columns_of_table(kind, rows) if isinstance(rows, pa.Table) else _columns(kind, rows)
    kept = [
        name
        for name, array in columns.items()
        if TABLES[kind][name].required or array.null_count < len(array)
    ]
    table = pa.table([columns[name] for name in kept], schema=arrow_schema(kind, kept))
    for name in kept:
        check_values(kind, TABLES[kind][name], table)
    check_lengths(kind, table)
    if kind == "scores":
        check_undefined(kind, table)
    return table


def check_values(where: object, column: Column, table: pa.Table) -> None:
    """Refuse nulls where none may be, states that do not exist, floats that are not finite."""
    values = table[column.name]
    if values.null_count and not column.nullable:
        _refuse(where, column, table, values.is_null(), "a value in every row")
    if column.is_list:
        _check_entries(where, column, table)
    elif column.is_float:
        right = pc.invert(pc.is_nan(values)) if column.infinite else pc.is_finite(values)
        if pc.all(right, min_count=0).as_py():
            return
        wrong = pc.invert(right)
        expected = "numbers" if column.infinite else "finite numbers"
        _refuse(where, column, table, pc.fill_null(wrong, fill_value=False), expected)
    elif column.values:
        known = pc.is_in(values, pa.array(column.values, pa.string()))
        if pc.all(known, min_count=0).as_py():
            return
        _refuse(where, column, table, pc.invert(known), f"one of {', '.join(column.values)}")


def check_undefined(where: object, table: pa.Table) -> None:
    """Refuse scores whose THR is there without a correct completion, or missing with one."""
    has_correct = pc.greater(table["num_correct"], 0)
    for name in table.column_names:
        if name in ("tau", "retained", "thr", "thr_self", "thr_within", "thr_error"):
            stray = pc.and_(table[name].is_valid(), pc.invert(has_correct))
            expected = "null where the group has no correct completion"
            _refuse(where, TABLES["scores"][name], table, stray, expected)
    lacking = pc.and_(table["thr"].is_null(), has_correct)
    _refuse(where, TABLES["scores"]["thr"], table, lacking, "a list where num_correct > 0")


def _check_entries(where: object, column: Column, table: pa.Table) -> None:
    values = table[column.name]
    if any(chunk.flatten().null_count for chunk in values.chunks):
        holed = pa.chunked_array([[None in (row or ()) for row in values.to_pylist()]])
        _refuse(where, column, table, holed, "a number for every token")
    if not column.is_float:
        return
    entries, offsets = list_values(values)
    finite = np.isfinite(entries)
    if not finite.all():
        bad = np.flatnonzero(~finite)
        row = int(np.searchsorted(offsets, bad[0], side="right")) - 1
        raise DataError(
            f"{where}: column {column.name}: found {entries[bad[0]]} at {row_key(table, row)}, "
            f"position {bad[0] - offsets[row]}, expected finite numbers",
            _HINT,
        )


def _refuse(
    where: object, column: Column, table: pa.Table, is_bad: pa.ChunkedArray, expected: str
) -> None:
    bad_rows = np.flatnonzero(is_bad.to_numpy(zero_copy_only=False))
    if bad_rows.size == 0:
        return
    row = int(bad_rows[0])
    found = repr(table[column.name][row].as_py())
    found = found if len(found) < 60 else found[:57] + "..."
    raise DataError(
        f"{where}: column {column.name}: found {found.replace('None', 'null')} at "
        f"{row_key(table, row)}, expected {expected}",
        _HINT,
    )


def check_lengths(where: object, table: pa.Table) -> None:
    """Refuse rows whose per-token lists differ in length (problems has no per-token lists)."""
    if "rollout_id" not in table.column_names:
        return
    first_name, first_lengths = "", None
    for name in table.column_names:
        if not pa.types.is_list(table[name].type):
            continue
        lengths = pc.list_value_length(table[name])
        if first_lengths is None:
            first_name, first_lengths = name, lengths
            continue
        if lengths.equals(first_lengths):
            continue
        # a comparison with a null length is null: absent lists have no length to differ
        differs = pc.fill_null(pc.not_equal(first_lengths, lengths), fill_value=False).to_numpy()
        if differs.any():
            row = int(np.flatnonzero(differs)[0])
            raise DataError(
                f"{where}: column {name}: found {lengths[row]} entries at {row_key(table, row)}, "
                f"expected {first_lengths[row]} as in column {first_name}",
                "every list of a row has one entry per completion token",
            )
        first_lengths = pc.coalesce(first_lengths, lengths)


def row_key(table: pa.Table, row: int) -> str:
    """How an error names a row: by its key."""
    names = [name for name in (*KEY_COLUMNS, "token_id") if name in table.column_names]
    return ", ".join(f"{name}={table[name][row].as_py()!r}" for name in names)


def _columns_of_table(kind: str, rows: pa.Table) -> dict[str, pa.ChunkedArray]:
    _check_names(kind, rows.column_names)
    columns = {}
    for column in TABLES[kind].values():
        if column.name not in rows.column_names:
            continue
        try:
            columns[column.name] = rows[column.name].cast(column.type)
        except pa.ArrowException as error:
            raise _wrong_type(kind, column, error) from error
    return columns


def _columns(kind: str, rows: Iterable[object]) -> dict[str, pa.Array]:
    listed = list(rows)
    mappings = [row for row in listed if isinstance(row, Mapping)]
    _check_names(kind, {name: None for row in mappings for name in row}, check_missing=False)
    columns = {}
    for column in TABLES[kind].values():
        values = [_value(kind, row, column, index) for index, row in enumerate(listed)]
        try:
            columns[column.name] = (
                _list_array(values, column.type)
                if column.is_list
                else _flat_array(values, column.type)
            )
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise _wrong_type(kind, column, error) from error
    return columns


def _check_names(kind: str, names: Iterable[str], *, check_missing: bool = True) -> None:
    declared = TABLES[kind]
    given = list(names)
    unknown = [name for name in given if name not in declared]
    missing = [name for name, column in declared.items() if column.required and name not in given]
    if unknown:
        raise DataError(f"{kind}: column {unknown[0]} is not declared in the schema", _HINT)
    if missing and check_missing:
        raise DataError(f"{kind}: column {missing[0]} is missing", _HINT)


def _value(kind: str, row: object, column: Column, index: int) -> object:
    if isinstance(row, Mapping):
        if column.name in row:
            return row[column.name]
    elif hasattr(row, column.name):
        return getattr(row, column.name)
    if column.required:
        raise DataError(f"{kind}: column {column.name} is missing in row {index}", _HINT)
    return None


def _flat_array(values: Sequence[Any], flat_type: pa.DataType) -> pa.Array:
    array = pa.array(values, type=flat_type)
    if pa.types.is_integer(flat_type):
        # asked for integers, Arrow cuts 1.5 down to 1 without a word
        found = pa.array(values).type
        if not (pa.types.is_integer(found) or pa.types.is_null(found)):
            raise TypeError(f"found {found}")
    return array


def _list_array(values: Sequence[Any], list_type: pa.ListType) -> pa.ListArray:
    """One flat buffer instead of a Python object per token: completions are long."""
    dtype = np.dtype(list_type.value_type.to_pandas_dtype())
    arrays = [np.asarray(() if value is None else value) for value in values]
    for array in arrays:
        if array.ndim != 1:
            raise TypeError(f"found an array of {array.ndim} axes, expected a flat list")
        if array.size and not np.can_cast(array.dtype, dtype, casting="same_kind"):
            raise TypeError(f"found a list of {array.dtype}, expected {dtype}")
    flat = np.concatenate([np.empty(0, dtype), *arrays]) if arrays else np.empty(0, dtype)
    with np.errstate(over="ignore"):  # what overflows float32 is refused as infinite
        converted = flat.astype(dtype)
    if dtype.kind == "i" and (converted != flat).any():
        raise TypeError(f"found a value that does not fit {dtype}")
    offsets = np.zeros(len(arrays) + 1, dtype=np.int32)
    np.cumsum([array.size for array in arrays], out=offsets[1:])
    is_null = pa.array([value is None for value in values], type=pa.bool_())
    return pa.ListArray.from_arrays(
        pa.array(offsets), pa.array(converted), type=list_type, mask=is_null
    )


def _wrong_type(kind: str, column: Column, error: Exception) -> DataError:
    return DataError(
        f"{kind}: column {column.name}: expected type {column.type}, found values that do not "
        f"convert: {error}",
        _HINT,
    )
