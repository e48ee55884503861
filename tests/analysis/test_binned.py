"""Sums by stratum and bin against loops, bins of q, numbers of captions."""

from __future__ import annotations

import numpy as np
import pytest

from thr_probe.analysis.binned import BinnedSums, latex_number, latex_significant, q_bins
from thr_probe.analysis.resampling import Resampler
from thr_probe.analysis.stream import Strata
from thr_probe.core.stats import Interval, question_weights


def test_sums_of_several_batches_equal_a_loop() -> None:
    rng = np.random.default_rng(1)
    binned, count, mass = BinnedSums("axis", 6), np.zeros((4, 6)), np.zeros((4, 6))
    for size in (50, 0, 7):
        stratum, place, value = rng.integers(0, 4, size), rng.integers(1, 5, size), rng.random(size)
        binned.add(stratum, place, {"mass": value})
        for row, column, amount in zip(stratum, place, value, strict=True):
            count[row, column] += 1
            mass[row, column] += amount
    np.testing.assert_array_equal(binned.table("count", 4), count)
    np.testing.assert_allclose(binned.table("mass", 4), mass, rtol=1e-12)
    assert binned.bins == [1, 2, 3, 4]
    columns = binned.columns(4)
    assert set(columns) == {f"axis.{name}.{k}" for name in ("count", "mass") for k in binned.bins}


def test_ratios_resample_the_questions_of_each_bin() -> None:
    strata = Strata(
        question_S=np.array([0, 0, 1, 2]),
        tau_positive_S=np.ones(4, dtype=bool),
        correct_S=np.array([True, False, True, True]),
    )
    resampler, binned = Resampler(strata, 3, seed=5), BinnedSums("axis", 2)
    stratum, place = np.array([0, 1, 2, 3, 3]), np.array([0, 0, 0, 0, 1])
    value = np.array([1.0, 5.0, 2.0, 4.0, 7.0])
    binned.add(stratum, place, {"mass": value, "half": value / 2})
    totals = {"mass": np.bincount(stratum, weights=value)}
    sums = resampler.sums(totals | binned.columns(4))
    first, second = binned.ratios(sums, "mass", "count", strata.correct_S)
    assert (first.value, second.value) == (7 / 3, 7.0)
    assert np.isnan(second.low)  # a single question has a token there
    draws = [np.repeat([1.0, 2.0, 4.0], weights).mean() for weights in question_weights(3, seed=5)]
    expected = np.quantile(draws, [0.025, 0.975])
    np.testing.assert_allclose([first.low, first.high], expected, rtol=1e-12)
    shares = binned.shares(sums, "mass", strata.correct_S)
    assert [share.value for share in shares] == [7 / 14, 7 / 14]
    running = binned.running_ratios(sums, ["mass", "half"], "mass", strata.correct_S)
    assert [ratio.value for ratio in running] == [1.5, 1.5]


def test_few_values_of_q_are_bins_of_their_own_and_many_are_eighths() -> None:
    place, bins = q_bins(np.array([0.5, 0.25, 0.5]))
    assert place.tolist() == [1, 0, 1]
    assert bins["left"].tolist() == bins["right"].tolist() == [0.25, 0.5]
    q = np.arange(1, 17) / 16
    place, bins = q_bins(q)
    expected = np.minimum(np.floor(q * 8), 7).astype(int)
    np.testing.assert_array_equal(bins["left"].to_numpy()[place], expected / 8)
    np.testing.assert_allclose(bins["mean_q"].iloc[-1], np.mean([14, 15, 16]) / 16)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1234.5, "$1.23 \\times 10^{3}$"), (0.5, "$0.5$"), (-2e-7, "$-2 \\times 10^{-7}$")],
)
def test_numbers_of_any_size_are_written_with_three_digits(value: float, expected: str) -> None:
    nothing = float("nan")
    assert latex_significant(Interval(value=value, low=nothing, high=nothing)) == expected
    bounded = latex_significant(Interval(value=value, low=value, high=value))
    assert bounded == f"{expected} [{expected}, {expected}]"


def test_numbers_keep_their_sign_in_maths() -> None:
    assert latex_number(Interval(value=-0.123, low=-0.5, high=0.25)) == (
        "$-0.12$ [$-0.50$, $0.25$]"
    )
