"""Bins of many float32 values, most of them looked up instead of computed.

Letters of shapes: N values.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

_DROPPED_BITS = 16  # of 32: leaves the sign, 8 bits of exponent, 7 of the fraction
_UNDECIDED = -1

Binning = Callable[[Float[np.ndarray, " N"]], Int[np.ndarray, " N"]]
"""The bin of each value, a whole number from 0."""


def looked_up(exact: Binning, max_magnitude: float) -> Binning:
    """The same bins for float32 values, by their leading bits.

    Bins rise or fall with the size of a value, so values of equal leading bits lie in one bin
    where the least and the largest of them do; for the few others `exact` is asked.

    Args:
        exact: of float64 values.
        max_magnitude: the largest |value| that it will be asked for.
    """
    codes = np.arange(1 << (32 - _DROPPED_BITS), dtype=np.uint32) << np.uint32(_DROPPED_BITS)
    ends = [codes.view(np.float32), (codes | np.uint32((1 << _DROPPED_BITS) - 1)).view(np.float32)]
    known = np.all([np.abs(end) <= max_magnitude for end in ends], axis=0)
    first, last = (exact(end[known].astype(np.float64)) for end in ends)
    table = np.full(len(codes), _UNDECIDED, dtype=np.int32)
    table[known] = np.where(first == last, first, _UNDECIDED)

    def bins(value_N: Float[np.ndarray, " N"]) -> Int[np.ndarray, " N"]:
        code_N = np.ascontiguousarray(value_N, dtype=np.float32).view(np.uint32) >> _DROPPED_BITS
        bin_N: np.ndarray = table.take(code_N.astype(np.int64))
        place = np.flatnonzero(bin_N == _UNDECIDED)
        bin_N[place] = exact(value_N[place].astype(np.float64))
        return bin_N

    return bins
