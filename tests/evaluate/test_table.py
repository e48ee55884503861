"""Averages over sets and their intervals, by hand and against the bootstrap of one mean."""

from __future__ import annotations

import numpy as np
import pytest

from thr_probe.core.stats import bootstrap_ratio, question_weights
from thr_probe.evaluate.plan import Measure
from thr_probe.evaluate.table import Counts, best_checkpoint, mean_over_sets, measure_rows


def counts(name, correct, samples=1):
    return Counts(
        name=name,
        samples=samples,
        correct_P=np.array(correct, dtype=int),
        truncated=1,
        timeouts=0,
        failed=0,
    )


SIX = [
    counts("aime24", [1, 0, 0, 0]),
    counts("aime25", [0, 0]),
    counts("amc23", [1, 1, 1, 0, 0]),
    counts("math500", [1, 1, 1, 1, 0]),
    counts("minerva", [1, 0]),
    counts("olympiadbench", [1, 0, 0, 0, 0]),
]


def values(rows, measure="greedy"):
    return {row["dataset"]: row["value"] for row in rows if row["measure"] == measure}


def test_averages_are_unweighted_means_of_the_sets():
    rows = measure_rows("final", Measure.GREEDY, SIX, ())
    found = values(rows)
    assert found["aime24"] == 0.25
    assert found["hard"] == pytest.approx((0.25 + 0 + 0.6) / 3)
    assert found["standard"] == pytest.approx((0.8 + 0.5 + 0.2) / 3)
    assert found["average"] == pytest.approx((0.25 + 0 + 0.6 + 0.8 + 0.5 + 0.2) / 6)
    numbers = {row["dataset"]: (row["num_questions"], row["truncated"]) for row in rows}
    assert numbers["average"] == (23, 6 / 23)
    assert numbers["hard"] == (11, 3 / 11)


def test_halves_are_shown_only_with_all_their_members_and_beside_others():
    assert list(values(measure_rows("final", Measure.GREEDY, SIX[:2], ()))) == [
        "aime24",
        "aime25",
        "average",
    ]
    assert "hard" not in values(measure_rows("final", Measure.GREEDY, SIX[:3], ()))
    five = values(measure_rows("final", Measure.GREEDY, [*SIX[:3], *SIX[4:]], ()))
    assert "hard" in five
    assert "standard" not in five
    assert list(values(measure_rows("final", Measure.GREEDY, SIX[3:4], ()))) == ["math500"]


def test_pass_at_k_is_the_mean_of_the_unbiased_estimate():
    sets = [counts("aime24", [0, 1, 4], samples=4), counts("lab", [2, 4], samples=4)]
    rows = measure_rows("final", Measure.SAMPLED, sets, (1, 2, 4))
    # 1 - C(4 - c, 2) / C(4, 2): 1 - 3/6 for c = 1, 1 - 1/6 for c = 2
    assert values(rows, "pass@2")["aime24"] == pytest.approx((0 + 1 / 2 + 1) / 3)
    assert values(rows, "pass@2")["lab"] == pytest.approx((5 / 6 + 1) / 2)
    assert values(rows, "pass@2")["average"] == pytest.approx((1 / 2 + 11 / 12) / 2)
    assert values(rows, "pass@1")["aime24"] == pytest.approx(5 / 12)
    assert values(rows, "pass@4")["average"] == pytest.approx((2 / 3 + 1) / 2)
    assert {row["dataset"] for row in rows} == {"aime24", "lab", "average"}


def test_the_interval_of_one_set_is_the_bootstrap_of_its_mean():
    right_P = np.random.default_rng(0).random(40) < 0.3
    expected = bootstrap_ratio(right_P, np.ones(40), question_weights(40))
    assert mean_over_sets([right_P.astype(float)]) == expected


def test_sets_are_resampled_independently_of_each_other():
    """Var of the mean of two sets is a quarter of the sum; resampled together it would be more."""
    value_P = np.array([0.0, 1.0] * 50)
    one, two = mean_over_sets([value_P]), mean_over_sets([value_P, value_P])
    width = (two.high - two.low) / (one.high - one.low)
    assert width == pytest.approx(1 / np.sqrt(2), rel=0.1)


def test_a_single_problem_has_no_interval():
    interval = mean_over_sets([np.array([1.0]), np.array([0.0, 1.0])])
    assert interval.value == 0.75
    assert np.isnan([interval.low, interval.high]).all()


def test_the_best_checkpoint_has_the_highest_greedy_average():
    rows = []
    for name, first, second in (("step-000002", 1, 1), ("step-000004", 2, 1), ("final", 1, 2)):
        sets = [counts("a", [first > 0, first > 1]), counts("b", [second > 0, second > 1])]
        rows += measure_rows(name, Measure.GREEDY, sets, ())
        rows += measure_rows(name, Measure.SAMPLED, [counts("a", [9], 9)], (1,))
    assert best_checkpoint(rows, ["step-000002", "step-000004", "final"]) == "step-000004"
