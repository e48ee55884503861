"""Gini and top shares from logarithmic bins, held against the exact values from all tokens."""

from __future__ import annotations

import numpy as np
import pytest

from thr_probe.analysis.concentration import MagnitudeGrid, gini, top_share

SHARES = np.array([0.01, 0.05, 0.2, 0.5, 1.0])


def exact_gini(values: np.ndarray) -> float:
    """Half the mean absolute difference of two tokens over the mean (the definition, O(N^2))."""
    return float(np.abs(values[:, None] - values).mean() / (2 * values.mean()))


def exact_top(values: np.ndarray, share: float) -> float:
    """The sum of the largest values, the last one taken in part, over the sum of all."""
    descending = np.sort(values)[::-1]
    whole = int(share * len(values))
    held = descending[:whole].sum()
    if whole < len(values):
        held += (share * len(values) - whole) * descending[whole]
    return float(held / values.sum())


def binned(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    grid = MagnitudeGrid(float(values.max()))
    index = grid.bin_index(values)
    count = np.bincount(index, minlength=grid.num_bins)[None].astype(float)
    return count, np.bincount(index, weights=values, minlength=grid.num_bins)[None]


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e6])
@pytest.mark.parametrize("spread", [0.1, 1.0, 3.0])
def test_binning_changes_gini_and_top_shares_by_less_than_a_thousandth(
    spread: float, scale: float
) -> None:
    rng = np.random.default_rng(7)
    values = scale * rng.lognormal(0, spread, 3000)
    values[:100] = 0.0
    count, mass = binned(values)
    np.testing.assert_allclose(gini(count, mass)[0], exact_gini(values), atol=1e-3)
    expected = [exact_top(values, share) for share in SHARES]
    np.testing.assert_allclose(top_share(count, mass, SHARES)[0], expected, atol=1e-3)


def test_equal_tokens_hold_equal_shares_and_one_token_can_hold_all() -> None:
    count, mass = binned(np.full(50, 0.3))
    np.testing.assert_allclose(top_share(count, mass, SHARES)[0], SHARES, rtol=1e-12)
    np.testing.assert_allclose(gini(count, mass), [0.0], atol=1e-12)
    count, mass = binned(np.array([0.0] * 99 + [5.0]))
    np.testing.assert_allclose(top_share(count, mass, SHARES)[0], np.ones(5), rtol=1e-12)
    np.testing.assert_allclose(gini(count, mass), [0.99], rtol=1e-12)


def test_without_mass_nothing_is_defined() -> None:
    nothing = np.zeros((2, 4))
    assert np.isnan(gini(nothing, nothing)).all()
    assert np.isnan(top_share(nothing, nothing, SHARES)).all()
