from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thr_probe.errors import DataError
from thr_probe.traces import list_values

NUMBERS = st.integers(-(2**31), 2**31 - 1)
ROWS = st.lists(st.none() | st.lists(NUMBERS, max_size=5), max_size=12)


@given(rows=ROWS, cuts=st.lists(st.integers(0, 12), max_size=3), data=st.data())
@settings(deadline=None, max_examples=200, derandomize=True)
def test_values_and_offsets_agree_with_python_lists_on_sliced_and_chunked_columns(rows, cuts, data):
    edges = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    list_type = pa.list_(pa.int32())
    whole = pa.array(rows, list_type)
    pieces = [whole.slice(low, high - low) for low, high in pairwise(edges)]
    start = data.draw(st.integers(0, len(rows)))
    length = data.draw(st.integers(0, len(rows) - start))
    for column in (
        whole.slice(start, length),
        pa.chunked_array(pieces, list_type).slice(start, length),
    ):
        values, offsets = list_values(column)
        expected = [row or [] for row in column.to_pylist()]
        assert values.dtype == np.int32
        assert len(offsets) == length + 1
        assert len(values) == offsets[-1]
        found = [values[low:high].tolist() for low, high in pairwise(offsets)]
        assert found == expected


def test_values_hidden_under_a_null_list_are_left_out():
    column = pa.ListArray.from_arrays(
        pa.array([0, 2, 4, 5], pa.int32()),
        pa.array([1.0, 2.0, 3.0, 4.0, 5.0], pa.float32()),
        mask=pa.array([False, True, False]),
    )
    values, offsets = list_values(column)
    np.testing.assert_array_equal(values, np.float32([1, 2, 5]))
    np.testing.assert_array_equal(offsets, [0, 2, 2, 3])


def test_one_chunk_without_nulls_is_not_copied():
    buffer = np.arange(10, dtype=np.float32)
    column = pa.ListArray.from_arrays(pa.array([0, 4, 10], pa.int32()), pa.array(buffer))
    values, offsets = list_values(column.slice(1))
    assert np.shares_memory(values, buffer)
    np.testing.assert_array_equal(values, buffer[4:])
    np.testing.assert_array_equal(offsets, [0, 6])


def test_a_column_without_chunks_is_empty_and_keeps_its_type():
    values, offsets = list_values(pa.chunked_array([], pa.list_(pa.float32())))
    assert values.dtype == np.float32
    assert (values.size, offsets.tolist()) == (0, [0])


def test_a_null_among_the_entries_is_refused():
    with pytest.raises(DataError, match="1 null entries inside its lists"):
        list_values(pa.array([[1, None]], pa.list_(pa.int32())))
