"""Spearman's rho on weighted questions against scipy on the questions repeated."""

from __future__ import annotations

import numpy as np
from scipy import stats

from thr_probe.analysis.ranks import mean_ranks, rank_correlation


def test_every_resample_equals_scipy_on_the_repeated_questions() -> None:
    rng = np.random.default_rng(0)
    x_Q = rng.integers(0, 5, 30) / 4.0  # many ties
    y_Q = x_Q + rng.normal(size=30)
    weight_CQ = rng.multinomial(30, np.full(30, 1 / 30), size=25).astype(np.float64)
    found_C = rank_correlation(weight_CQ, x_Q, y_Q)
    for weight_Q, found in zip(weight_CQ.astype(int), found_C, strict=True):
        drawn = np.repeat(np.arange(30), weight_Q)
        expected = stats.spearmanr(x_Q[drawn], y_Q[drawn]).statistic
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_ranks_are_those_of_scipy() -> None:
    value_Q = np.array([3.0, 1.0, 3.0, 2.0, -1.0])
    found = mean_ranks(np.ones((1, 5)), value_Q)[0]
    np.testing.assert_array_equal(found, stats.rankdata(value_Q))


def test_what_is_the_same_throughout_has_no_correlation() -> None:
    weight_CQ = np.array([[1.0, 1.0, 1.0], [3.0, 0.0, 0.0]])
    x_Q, y_Q = np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(rank_correlation(weight_CQ, x_Q, y_Q), [1.0, np.nan])
    same_Q = np.zeros(3)
    assert np.isnan(rank_correlation(weight_CQ, x_Q, same_Q)).all()
