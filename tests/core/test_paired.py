"""Paired tests against SciPy, enumeration and plain loops, and whether they err as they say."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from thr_probe.core.paired import (
    bootstrap_p,
    difference,
    holm,
    mcnemar,
    paired_ratios,
    paired_set_means,
    set_mean_draws,
)
from thr_probe.core.stats import drawn_sums, percentile_interval, question_weights
from thr_probe.errors import UsageError


def labels(only_first: int, only_second: int, both: int = 0, neither: int = 0):
    """Two label arrays with these counts."""
    first = [True] * only_first + [False] * only_second + [True] * both + [False] * neither
    second = [False] * only_first + [True] * only_second + [True] * both + [False] * neither
    return np.array(first, dtype=bool), np.array(second, dtype=bool)


@pytest.mark.parametrize("b", range(9))
@pytest.mark.parametrize("c", range(9))
def test_mcnemar_is_the_binomial_test_on_the_discordant_questions(b: int, c: int) -> None:
    found = mcnemar(*labels(b, c, both=3, neither=5))
    assert (found.only_first, found.only_second, found.net) == (b, c, c - b)
    expected = scipy.stats.binomtest(b, b + c, 0.5).pvalue if b + c else 1.0
    assert_allclose(found.p, expected, rtol=1e-12)


@pytest.mark.parametrize(("b", "c"), [(1, 4), (0, 6), (3, 3), (5, 2)])
def test_mcnemar_counts_the_coin_throws_that_are_as_lopsided(b: int, c: int) -> None:
    throws = list(itertools.product((0, 1), repeat=b + c))
    as_far = [t for t in throws if abs(2 * sum(t) - (b + c)) >= abs(c - b)]
    assert_allclose(mcnemar(*labels(b, c)).p, len(as_far) / len(throws), rtol=1e-15)


def test_mcnemar_of_many_questions_keeps_its_tail() -> None:
    found = mcnemar(*labels(2300, 2700)).p
    assert_allclose(found, scipy.stats.binomtest(2300, 5000, 0.5).pvalue, rtol=1e-10)
    assert 0 < mcnemar(*labels(0, 1000)).p == 2.0**-999


def plain_holm(p: list[float]) -> list[float]:
    """The definition, one p-value at a time."""
    known = sorted(value for value in p if not math.isnan(value))
    steps = [min(1.0, (len(known) - i) * value) for i, value in enumerate(known)]
    return [math.nan if math.isnan(value) else max(steps[: known.index(value) + 1]) for value in p]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.floats(0, 1), st.just(math.nan)), max_size=9, unique=True))
def test_holm_is_its_definition_and_passes_over_nan(p: list[float]) -> None:
    found = holm(p)
    assert_allclose(found, plain_holm(p), rtol=1e-14)
    assert np.all(found[~np.isnan(found)] >= np.array(p)[~np.isnan(found)])


def test_holm_of_a_printed_example() -> None:
    # the p-values of Holm's procedure in many textbooks: 0.01, 0.02, 0.03, 0.005 and their products
    assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02], rtol=1e-14)
    assert holm([]).tolist() == []


def test_the_bootstrap_p_value_counts_draws_on_either_side() -> None:
    draws = [-0.3, 0.0, 0.1, 0.2, 0.2, 0.5, 0.6, 0.7, math.nan]
    low = sum(draw <= 0 for draw in draws)
    high = sum(draw >= 0 for draw in draws)
    assert (low, high) == (2, 7)
    assert_allclose(bootstrap_p(draws), 2 * (1 + 2) / (8 + 1), rtol=1e-15)
    assert bootstrap_p([0.0] * 10) == 1.0
    assert_allclose(bootstrap_p([1.0] * 999), 0.002)
    assert math.isnan(bootstrap_p([math.nan]))


@settings(max_examples=100, deadline=None)
@given(shift=st.floats(1.5, 2.5), seed=st.integers(0, 10_000), size=st.sampled_from([500, 999]))
def test_p_below_five_percent_and_an_interval_without_zero_are_the_same(shift, seed, size) -> None:
    draws = np.random.default_rng(seed).normal(shift, 1.0, size)
    p, (low, high) = bootstrap_p(draws), percentile_interval(draws)
    excludes = low > 0 or high < 0
    if p < 0.05:
        assert excludes
    if excludes:
        assert p < 0.05 + 4 / (size + 1)
    assert bootstrap_p(-draws) == p


def test_sums_drawn_in_pieces_are_those_of_the_whole_table_of_weights() -> None:
    value_PM = np.random.default_rng(0).random((700, 3))
    expected = question_weights(700, seed=4, num_resamples=333) @ value_PM
    assert_allclose(drawn_sums(value_PM, seed=4, num_resamples=333), expected, rtol=1e-13)
    with pytest.raises(UsageError, match=r"^seed must not be negative, got -1$"):
        drawn_sums(value_PM, seed=-1)


def plain_paired(numerator, denominator, seed: int, num_resamples: int) -> list[tuple[float, ...]]:
    """First, second, difference and relative difference of every resample, question by question."""
    draws = []
    for row in question_weights(len(numerator), seed=seed, num_resamples=num_resamples):
        drawn = [q for q, times in enumerate(row) for _ in range(times)]
        sums = [
            [math.fsum(float(table[q][i]) for q in drawn) for i in (0, 1)]
            for table in (numerator, denominator)
        ]
        first, second = (sums[0][i] / sums[1][i] if sums[1][i] else math.nan for i in (0, 1))
        draws.append((first, second, second - first, (second - first) / first))
    return draws


def test_paired_ratios_are_those_of_a_plain_loop() -> None:
    rng = np.random.default_rng(1)
    numerator = rng.random((6, 2, 2)) + 0.1
    denominator = rng.integers(1, 9, (6, 2, 2)).astype(float)
    found = paired_ratios(numerator, denominator, seed=5, num_resamples=120)
    assert len(found) == 2
    for index, ratio in enumerate(found):
        loop = np.array(plain_paired(numerator[:, index], denominator[:, index], 5, 120))
        columns = (ratio.first, ratio.second, ratio.difference, ratio.relative)
        for interval, column in zip(columns, loop.T, strict=True):
            low, high = np.quantile(column, [0.025, 0.975])
            assert_allclose([interval.low, interval.high], [low, high], rtol=1e-11)
        fewer = min((loop[:, 2] <= 0).sum(), (loop[:, 2] >= 0).sum())
        assert_allclose(ratio.p, min(1.0, 2 * (1 + fewer) / 121), rtol=1e-14)
        value = numerator[:, index].sum(axis=0) / denominator[:, index].sum(axis=0)
        assert_allclose([ratio.first.value, ratio.second.value], value, rtol=1e-14)
        assert_allclose(ratio.difference.value, value[1] - value[0], rtol=1e-12)
        assert_allclose(ratio.relative.value, value[1] / value[0] - 1, rtol=1e-12)


def test_equal_data_give_a_difference_of_exactly_zero_and_a_p_of_one() -> None:
    value = np.random.default_rng(2).random((41, 5, 1)).repeat(2, axis=2)
    for ratio in paired_ratios(value, np.ones_like(value), num_resamples=500):
        interval = ratio.difference
        assert (interval.value, interval.low, interval.high, ratio.p) == (0.0, 0.0, 0.0, 1.0)


def test_a_difference_that_is_only_rounding_is_none() -> None:
    found = difference(np.array([0.3, 0.1, 0.0]), np.array([0.1 + 0.2, 0.2, 0.0]))
    assert_array_equal(found, [0.0, 0.1, 0.0])


def test_without_two_questions_that_count_there_is_no_interval_and_no_p() -> None:
    numerator = np.ones((3, 2, 2))
    denominator = np.ones((3, 2, 2))
    denominator[1:, 0, 1] = 0.0  # the first quantity: one question counts for the second policy
    lone, whole = paired_ratios(numerator, denominator, num_resamples=50)
    assert lone.first.value == 1.0
    assert math.isnan(lone.p)
    assert math.isnan(lone.difference.low)
    assert whole.p == 1.0
    (single,) = paired_ratios(numerator[:1, :1], np.ones((1, 1, 2)), num_resamples=50)
    assert math.isnan(single.p)


def test_relative_to_a_baseline_of_zero_is_undefined() -> None:
    numerator = np.zeros((8, 1, 2))
    numerator[:, 0, 1] = 1.0
    (ratio,) = paired_ratios(numerator, np.ones_like(numerator), num_resamples=50)
    assert ratio.difference.value == 1.0
    assert math.isnan(ratio.relative.value)
    assert math.isnan(ratio.relative.low)


def test_the_mean_of_sets_draws_questions_within_each_set() -> None:
    rng = np.random.default_rng(3)
    sets = [rng.random((4, 1, 2)), rng.random((7, 1, 2))]
    (found,) = paired_set_means(sets, seed=9, num_resamples=80)
    draws = []
    for b in range(80):
        change = 0.0
        for index, value in enumerate(sets):
            row = question_weights(len(value), seed=9 + index, num_resamples=80)[b]
            drawn = [q for q, times in enumerate(row) for _ in range(times)]
            change += sum(value[q, 0, 1] - value[q, 0, 0] for q in drawn) / len(value) / len(sets)
        draws.append(change)
    low, high = np.quantile(draws, [0.025, 0.975])
    assert_allclose([found.difference.low, found.difference.high], [low, high], rtol=1e-11)
    assert_allclose(found.first.value, (sets[0][:, 0, 0].mean() + sets[1][:, 0, 0].mean()) / 2)


def test_the_mean_of_a_single_set_is_the_mean_over_its_questions() -> None:
    value = np.random.default_rng(4).random((12, 2, 2))
    of_set = paired_set_means([value], seed=2, num_resamples=200)
    of_ratio = paired_ratios(value, np.ones_like(value), seed=2, num_resamples=200)
    for one, two in zip(of_set, of_ratio, strict=True):
        assert_allclose(one.difference.low, two.difference.low, rtol=1e-12)
        assert one.p == two.p


def test_a_set_of_one_question_leaves_the_mean_without_an_interval() -> None:
    assert np.isnan(set_mean_draws([np.ones((1, 2)), np.ones((5, 2))], num_resamples=3)).all()


def test_the_p_value_errs_about_as_often_as_it_says() -> None:
    """Two equal policies, 400 times: p < 0.05 about 20 times (standard deviation 4.4)."""
    rng = np.random.default_rng(5)
    value = rng.binomial(16, rng.beta(1, 1, (60, 400, 1)).repeat(2, axis=2)) / 16
    found = paired_ratios(value, np.ones_like(value), num_resamples=600)
    assert 8 <= sum(ratio.p < 0.05 for ratio in found) <= 36
