"""Bootstrap over questions, held against a plain loop; weighted quantiles; kernel densities."""

from __future__ import annotations

import numpy as np
import pytest

from thr_probe.analysis.kernel import gaussian_weights, scott_bandwidth
from thr_probe.analysis.quantiles import resampled_quantiles
from thr_probe.analysis.resampling import Resampler
from thr_probe.analysis.sketch import QuantileSketch
from thr_probe.analysis.stream import Strata
from thr_probe.core.stats import question_weights


def strata_of(question: list[int]) -> Strata:
    number = len(question)
    return Strata(
        question_S=np.array(question),
        tau_positive_S=np.ones(number, dtype=bool),
        correct_S=np.arange(number) % 2 == 0,
    )


def test_intervals_equal_a_loop_that_repeats_the_rows_of_drawn_questions() -> None:
    rng = np.random.default_rng(3)
    question = np.repeat(np.arange(9), 3)
    value = rng.normal(size=len(question))
    resampler = Resampler(strata_of(question.tolist()), 9, seed=5)
    (found,) = resampler.quantiles(value, question, [0.3])
    draws = []
    for counts in question_weights(9, seed=5):
        drawn = [q for q in range(9) for _ in range(counts[q])]
        rows = np.concatenate([value[question == q] for q in drawn])
        draws.append(np.quantile(rows, 0.3))
    np.testing.assert_allclose(found.value, np.quantile(value, 0.3), rtol=1e-12)
    np.testing.assert_allclose(
        [found.low, found.high], np.quantile(draws, [0.025, 0.975]), rtol=1e-12
    )


def test_a_band_is_the_interval_at_each_point() -> None:
    rng = np.random.default_rng(4)
    question = np.arange(12) % 6
    table = rng.random((12, 3))
    resampler = Resampler(strata_of(question.tolist()), 6)

    def column(index: int) -> tuple[float, float, float]:
        one = resampler.interval(lambda weight: (weight @ table)[:, index], question)
        return one.value, one.low, one.high

    band = resampler.band(lambda weight: weight @ table, question)
    np.testing.assert_allclose(np.transpose(band), [column(index) for index in range(3)])


def test_ratios_sum_over_the_strata_of_the_split_of_each_question() -> None:
    strata = Strata(
        question_S=np.array([0, 0, 1, 2]),
        tau_positive_S=np.ones(4, dtype=bool),
        correct_S=np.array([True, True, True, False]),
    )
    columns = {"above": np.array([1.0, 2.0, 4.0, 100.0]), "below": np.full(4, 2.0)}
    sums = Resampler(strata, 3).sums(columns)
    interval = sums.ratio("above", "below", strata.correct_S)
    assert interval.value == 7 / 6
    # question means are 3/4 and 4/2; a resample without either is undefined and left out
    assert (interval.low, interval.high) == (0.75, 2.0)
    everything = sums.ratio("above", "below", np.ones(4, dtype=bool))
    assert everything.value == 107 / 8
    assert np.isnan(sums.ratio("above", "below", ~strata.correct_S).low)


def test_one_question_gives_no_interval() -> None:
    resampler = Resampler(strata_of([0, 0]), 1)
    assert np.isnan(resampler.interval(lambda w: w.sum(axis=1), np.zeros(2, dtype=int)).low)
    assert np.isnan(resampler.quantiles(np.ones(2), np.zeros(2, dtype=int), [0.5])[0].high)
    both = np.ones(2, dtype=bool)
    assert np.isnan(resampler.sums({"one": np.ones(2)}).ratio("one", "one", both).high)
    value, low, _ = resampler.band(lambda w: w, np.zeros(2, dtype=int))
    assert value.tolist() == [1.0, 1.0]
    assert np.isnan(low).all()
    two = Resampler(strata_of([0, 1]), 2)
    some = two.sums({"one": np.ones(2), "some": np.array([1.0, 0.0])})
    assert np.isnan(some.ratio("one", "some", both).low)


@pytest.mark.parametrize("size", [1, 13, 3000])
def test_quantiles_of_resamples_are_numpys_of_the_repeated_values(size: int) -> None:
    rng = np.random.default_rng(0)
    value = rng.normal(size=size).round(2)
    question = rng.integers(0, 6, size)
    # the first resamples draw questions so unevenly that the usual window cannot hold the rank
    value += 100 * (question == 5)
    weights = rng.integers(0, 4, size=(8, 6))
    weights[0] = [0, 0, 0, 0, 0, 9]
    weights[1] = [9, 0, 0, 0, 0, 0]
    weights[2] = 0
    shares = [0.0, 0.1, 0.5, 0.77, 1.0]
    repeated = [np.repeat(value, row[question]) for row in weights]
    nothing = np.full(len(shares), np.nan)
    expected = [np.quantile(row, shares) if len(row) else nothing for row in repeated]
    found = resampled_quantiles(weights, value, question, shares)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_reflected_kernel_keeps_its_mass_within_the_bounds() -> None:
    at = np.linspace(0, 1, 20001)
    for center in (0.0, 0.03, 0.5, 1.0):
        weight = gaussian_weights(at, np.array([center]), 0.1, reflect_at=(0.0, 1.0))[0]
        np.testing.assert_allclose(np.trapezoid(weight, at), 1.0, rtol=1e-6)
    # without a bound in reach it is the plain normal curve
    middle = gaussian_weights(np.array([0.6]), np.array([0.5]), 0.1)
    np.testing.assert_allclose(middle, np.exp(-0.5) / (0.1 * np.sqrt(2 * np.pi)))


def test_scotts_bandwidth_is_the_spread_over_the_fifth_root_of_the_number() -> None:
    np.testing.assert_allclose(scott_bandwidth(np.array([0.0, 1.0] * 16)), 0.508001 / 2, rtol=1e-5)
    assert scott_bandwidth(np.array([0.4])) == 0.0


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e20])
def test_the_sketch_finds_quantiles_to_two_percent_on_any_scale(scale: float) -> None:
    rng = np.random.default_rng(1)
    values = np.float32(scale * rng.lognormal(0, 2, 5000) * rng.choice([-1, 1], 5000))
    sketch = QuantileSketch()
    for part in np.array_split(values, 7):
        sketch.add(part)
    sketch.add(values[:0])
    for share in (0.005, 0.2, 0.9, 0.995):
        exact = np.quantile(values, share, method="inverted_cdf")
        np.testing.assert_allclose(sketch.quantile(share), exact, rtol=0.02)
        exact = np.quantile(np.abs(values), share, method="inverted_cdf")
        np.testing.assert_allclose(sketch.magnitude_quantile(share), exact, rtol=0.02)
    np.testing.assert_allclose(sketch.max_magnitude, np.abs(values).max(), rtol=1e-7)


def test_the_sketch_of_nothing_or_of_zeros_is_zero() -> None:
    sketch = QuantileSketch()
    assert sketch.quantile(0.5) == 0.0
    sketch.add(np.zeros(3, dtype=np.float32))
    assert (sketch.quantile(0.5), sketch.magnitude_quantile(0.9), sketch.max_magnitude) == (0, 0, 0)
