"""List columns as flat NumPy arrays: all values end to end, and where each list starts."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int, Shaped

from thr_probe.errors import DataError


def list_values(
    column: pa.Array | pa.ChunkedArray,
) -> tuple[Shaped[np.ndarray, " values"], Int[np.ndarray, " bounds"]]:
    """The values of a list column, end to end, and the offsets that cut them into lists.

    List i is `values[offsets[i]:offsets[i + 1]]`. A null list is empty here; `column.is_valid()`
    tells it from a list without entries. Values are a view of the column's memory unless it has
    several chunks, or nulls that hide values.

    >>> values, offsets = list_values(pa.array([[1.0, 2.0], None, [3.0]]))
    >>> values.tolist(), offsets.tolist()
    ([1.0, 2.0, 3.0], [0, 2, 2, 3])

    Returns:
        values, with the type of the list's entries, and offsets (int64, one more than lists).
    """
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    flat = [_flat_chunk(chunk) for chunk in chunks]
    if len(flat) == 1:
        values = flat[0]
    elif flat:
        values = np.concatenate(flat)
    else:
        values = np.empty(0, dtype=column.type.value_type.to_pandas_dtype())
    lengths = pc.list_value_length(column)
    if column.null_count:
        lengths = pc.fill_null(lengths, 0)
    offsets = np.zeros(len(column) + 1, dtype=np.int64)
    np.cumsum(lengths.to_numpy(), out=offsets[1:])
    return values, offsets


def _flat_chunk(chunk: pa.Array) -> Shaped[np.ndarray, " values"]:
    # flatten, unlike .values, respects slices and leaves out what lies under null lists
    entries = chunk.flatten()
    if entries.null_count:
        raise DataError(f"a list column holds {entries.null_count} null entries inside its lists")
    array: Shaped[np.ndarray, " values"] = entries.to_numpy(zero_copy_only=True)
    return array
