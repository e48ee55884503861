"""Means over seeds, intervals and paired differences, by hand and by brute force."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from thr_probe.core.stats import question_weights
from thr_probe.reproduce.estimates import Results, Sums, difference, estimate, passk
from thr_probe.reproduce.measure import Measured, jobs_on_disk, measure
from thr_probe.reproduce.plan import Job
from thr_probe.reproduce.rows import row_named


def job(name, seed, correct, *, n=1, kinds=None):
    index = pd.Index([f"q{place}" for place in range(len(correct))], name="prompt_id")
    table = pd.DataFrame({"n": n, "c": correct}, index=index)
    words = {"matches": [1] * len(correct), "tokens": [10 * (1 + c) for c in correct]}
    return Measured(
        job=Job(row=row_named(name), seed=seed),
        greedy=table.assign(kind=kinds or ["chain"] * len(correct)),
        sampled=table.assign(**words),
    )


RESULTS = Results(
    [
        job("grpo", 0, [1, 0, 0, 1]),
        job("grpo", 1, [1, 1, 0, 1]),
        job("thr", 0, [1, 1, 1, 1], kinds=["chain", "chain", "series", "series"]),
    ]
)


def test_a_row_is_the_mean_over_its_seeds():
    assert RESULTS.value("grpo", "greedy").value == pytest.approx(5 / 8)
    assert RESULTS.sums("grpo", "greedy").seeds == (0, 1)
    assert RESULTS.sums("grpo", "greedy", (1,)).seeds == (1,)
    assert RESULTS.value("thr", "greedy").value == 1.0
    assert RESULTS.kinds() == ["chain", "series"]
    assert RESULTS.sums("thr", "greedy series").num_questions == 2


def test_a_difference_is_resampled_with_the_same_questions():
    found = RESULTS.minus("thr", "grpo", "greedy")
    per_question = np.array([0.0, 0.5, 1.0, 0.0])
    draws = question_weights(4) @ per_question / 4
    expected = [per_question.mean(), *np.quantile(draws, [0.025, 0.975])]
    np.testing.assert_allclose([found.value, found.low, found.high], expected)


def test_a_difference_of_ratios_is_that_of_each_resample():
    found = RESULTS.minus("thr", "grpo", "reflection")
    weights = question_weights(4)
    thr = weights @ np.ones(4) / (weights @ np.array([20.0, 20, 20, 20]))
    grpo = weights @ np.full(4, 2.0) / (weights @ np.array([40.0, 30, 20, 40]))
    np.testing.assert_allclose([found.low, found.high], np.quantile(thr - grpo, [0.025, 0.975]))


def test_paired_intervals_are_narrower_than_those_of_the_rows():
    hard = np.random.default_rng(0).random(200)
    first = job("grpo", 0, (hard > 0.5).astype(int).tolist())
    second = job("thr", 0, (hard > 0.45).astype(int).tolist())
    results = Results([first, second])
    paired, alone = results.minus("thr", "grpo", "greedy"), results.value("thr", "greedy")
    assert paired.low > 0
    assert paired.high - paired.low < 0.6 * (alone.high - alone.low)


def test_differences_are_told_for_the_seeds_that_both_have():
    assert RESULTS.by_seed("thr", "grpo", "greedy") == pytest.approx({0: 0.5})
    assert RESULTS.by_seed("thr", "base", "greedy") == {}


def test_what_is_missing_is_none():
    assert RESULTS.value("base", "greedy") is None
    assert RESULTS.value("thr", "retained") is None
    assert RESULTS.value("thr", passk(2)) is None
    assert RESULTS.value("thr", "greedy equation") is None
    assert RESULTS.minus("thr", "thr", "greedy") is None
    assert RESULTS.minus("thr", "base", "greedy") is None
    assert Results([]).ks() == []
    assert Results([Measured(job=Job(row=row_named("grpo"), seed=0))]).ks() == []


@pytest.mark.parametrize("quantity", ["greedily", "greedychain", "median", ""])
def test_a_quantity_that_does_not_exist_is_told(quantity):
    with pytest.raises(KeyError, match=f"no quantity '{quantity}'"):
        RESULTS.value("grpo", quantity)


def test_the_mean_of_several_ks_is_the_mean_of_their_values():
    results = Results([job("grpo", 0, [1, 2, 0, 4], n=4)])
    assert results.ks() == [1, 2, 4]
    values = [results.value("grpo", passk(k)).value for k in (2, 4)]
    assert values == pytest.approx([(0.5 + 5 / 6 + 1) / 4, 0.75])
    assert results.value("grpo", passk(2, 4)).value == pytest.approx(sum(values) / 2)


def test_one_question_has_no_interval():
    sums = Sums(table=pd.DataFrame({"numerator": [1.0], "denominator": [2.0]}), seeds=(0,))
    assert estimate(sums).value == 0.5
    assert math.isnan(estimate(sums).low)
    assert math.isnan(difference(sums, sums).high)


def test_a_row_with_one_question_that_counts_has_no_interval_and_no_bounds_of_a_difference():
    # overlaps: of three questions, one alone has completions that are compared
    index = ["q0", "q1", "q2"]
    one, all_three = (
        Sums(table=pd.DataFrame({"numerator": n, "denominator": d}, index=index), seeds=(0,))
        for n, d in (([0.0, 3.0, 0.0], [0.0, 4.0, 0.0]), ([1.0, 2.0, 3.0], [4.0, 4.0, 4.0]))
    )
    assert estimate(one).value == 0.75
    assert math.isnan(estimate(one).low)
    for first, second, value in ((one, all_three, 0.25), (all_three, one, -0.25)):
        found = difference(first, second)
        assert found.value == value
        assert math.isnan(found.low)
        assert math.isnan(found.high)
    assert estimate(all_three).low < 0.5 < estimate(all_three).high


def test_the_runs_on_disk_are_counted(fake_root):
    first = next(job for job in jobs_on_disk(fake_root) if job.name == "grpo-s0")
    found = measure(first, fake_root)
    assert found.notes == ()
    assert len(found.greedy) == 24
    assert set(found.greedy["kind"]) == {"chain", "product", "equation", "series"}
    assert found.sampled["n"].tolist() == [8] * 12
    assert found.sampled["tokens"].tolist() == [48] * 12
    assert (found.scored["dominant"] <= found.scored["tokens"]).all()
    assert (found.scored["overlap"] <= found.scored["completions"]).all()
    assert 0 <= found.peak.value <= 1
    assert len(found.steps) == 6


def test_a_damaged_run_is_noted_and_the_rest_is_read(make_job, tmp_path):
    made = make_job(tmp_path, "grpo", 0, 0.5)
    (tmp_path / "greedy" / "grpo-s0" / "problems.parquet").write_bytes(b"no")
    (tmp_path / "runs" / "grpo-s0" / "metrics.jsonl").write_text("{}\n")
    found = measure(made, tmp_path)
    assert found.greedy is None
    assert found.steps is None
    assert found.sampled is not None
    assert any("greedy" in note for note in found.notes)
    assert any("train" in note for note in found.notes)
