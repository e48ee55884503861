"""Quantiles of any number of float32 values in 128 KiB: a histogram over their leading bits."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

_DROPPED_BITS = 18  # of 32: leaves the sign, 8 bits of exponent, 5 of the fraction
_NUM_CODES = 1 << (32 - _DROPPED_BITS)
_HALF = _NUM_CODES // 2


class QuantileSketch:
    """Counts values by sign, power of two and 1/32 of it: quantiles to 1.6 %, on any scale."""

    def __init__(self) -> None:
        self._count = np.zeros(_NUM_CODES, dtype=np.int64)
        self.max_magnitude = 0.0
        """The largest |value| so far, exact."""

    def add(self, values: Float[np.ndarray, " N"]) -> None:
        """Counts more values."""
        if not len(values):
            return
        single = np.ascontiguousarray(values, dtype=np.float32)
        codes = single.view(np.uint32) >> np.uint32(_DROPPED_BITS)
        self._count += np.bincount(codes, minlength=_NUM_CODES)
        self.max_magnitude = max(self.max_magnitude, float(np.abs(single).max()))

    def quantile(self, share: float) -> float:
        """A value with about that share of the values at or below it; 0 without values."""
        if not self._count.any():
            return 0.0
        # codes with the sign bit set are the negative values, most negative last
        order = np.concatenate([np.arange(_NUM_CODES - 1, _HALF - 1, -1), np.arange(_HALF)])
        return _value(int(order[_position(self._count[order], share)]))

    def magnitude_quantile(self, share: float) -> float:
        """The same quantile of |value|."""
        if not self._count.any():
            return 0.0
        return _value(_position(self._count[:_HALF] + self._count[_HALF:], share))


def _position(count: np.ndarray, share: float) -> int:
    """Index of the first code with that share of the values at or below it, and at least one."""
    cumulative = np.cumsum(count)
    return int(np.searchsorted(cumulative, max(share * cumulative[-1], 1)))


def _value(code: int) -> float:
    """The middle of a code's values; 0 for the one that holds zero."""
    if code % _HALF == 0:
        return 0.0
    bits = np.uint32((code << _DROPPED_BITS) | (1 << (_DROPPED_BITS - 1)))
    return float(bits.view(np.float32))
