"""Looked-up bins against computed ones, at edges, at zero and at the ends of float32."""

from __future__ import annotations

import numpy as np
from numpy.testing import assert_array_equal

from thr_probe.analysis.float_bins import looked_up


def octaves(value_N: np.ndarray) -> np.ndarray:
    """Three bins to an octave of |value|, zero and each sign apart."""
    with np.errstate(divide="ignore"):
        bin_N = np.floor(3 * np.log2(np.abs(value_N))).clip(-500, 500) + 501
    return np.where(value_N < 0, bin_N + 1100, bin_N).astype(np.int64)


def test_looked_up_bins_are_the_computed_ones() -> None:
    rng = np.random.default_rng(0)
    size = 2.0 ** rng.uniform(-149, 20, 50_000) * rng.choice([-1, 1], 50_000)
    edges = (2.0 ** (np.arange(-60, 61) / 3)).astype(np.float32)
    near = [np.nextafter(edges, np.float32(bound)) for bound in (0, np.inf)]
    values = np.concatenate([size, edges, -edges, *near, [0.0, -0.0, 2.0**20]]).astype(np.float32)
    bins = looked_up(octaves, 2.0**20)
    assert_array_equal(bins(values), octaves(values.astype(np.float64)))
    assert len(bins(values[:0])) == 0
