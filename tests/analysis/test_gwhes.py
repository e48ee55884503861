"""Agreement of GWHES with measured steps: ranks, overlaps, chance, shares."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from thr_probe.analysis.gwhes import gwhes_agreement
from thr_probe.analysis.gwhes_overlap import chance_overlap, overlap_of_extremes

LR = 1e-3


def measured(num_questions=24, *, seed=0, noise=1.0, adamw=False):
    """Tables as a measurement makes them; change falls with GWHES, with noise."""
    rng = np.random.default_rng(seed)
    questions, completions = [], []
    for index in range(num_questions):
        prompt_id, tokens, right = f"q{index}", int(rng.integers(50, 200)), int(rng.integers(1, 5))
        score = rng.normal(-100, 60, right)
        predicted = -LR * score / tokens * (math.nan if adamw else 1)
        change = -LR * score / 100 + noise * LR * rng.normal(size=right)
        for rollout in range(right):
            row = {"prompt_id": prompt_id, "step": None, "rollout_id": rollout}
            row |= {"gwhes": score[rollout], "gwhes_per_token": score[rollout] / tokens}
            row |= {"change": change[rollout], "unembedding": predicted[rollout]}
            completions.append(row)
        row = {"prompt_id": prompt_id, "step": None, "group_size": 6, "num_correct": right}
        row |= {"tokens": tokens, "gwhes": score.mean(), "change": change.mean()}
        row |= {"first_order": change.mean() * 1.1, "unembedding": predicted.mean()}
        row |= {"gradient_norm": 1.0}
        questions.append(row)
    return pd.DataFrame(questions), pd.DataFrame(completions)


@pytest.fixture(scope="module")
def analysis():
    questions, completions = measured()
    facts = {"optimizer": "sgd", "lr": LR}
    return gwhes_agreement(questions, completions, facts=facts, exclusions="Left out: 2 a_b.")


def test_rank_agreements_are_spearmans_rho(analysis):
    questions, completions = measured()
    pairs = {
        "rank_agreement": (questions["gwhes"], -questions["change"]),
        "rank_agreement_per_token": (
            questions["gwhes"] / questions["tokens"], -questions["change"]
        ),
        "rank_agreement_completions": (completions["gwhes_per_token"], -completions["change"]),
        "rank_share_correct": (questions["num_correct"], -questions["change"]),
        "rank_first_order": (questions["first_order"], questions["change"]),
    }  # fmt: skip
    for quantity, (left, right) in pairs.items():
        found = analysis.value(quantity)
        expected = stats.spearmanr(left, right).statistic
        assert found.value == pytest.approx(expected, abs=1e-12), quantity
        assert found.low <= found.value <= found.high
    gain = analysis.value("rank_agreement").value - analysis.value("rank_share_correct").value
    assert analysis.value("rank_gain").value == pytest.approx(gain, abs=1e-12)


def test_the_interval_is_that_of_resampled_questions(analysis):
    questions, _ = measured()
    rng = np.random.default_rng(5)
    draws = []
    for _ in range(1500):
        rows = questions.iloc[rng.integers(len(questions), size=len(questions))]
        draws.append(stats.spearmanr(rows["gwhes"], -rows["change"]).statistic)
    found = analysis.value("rank_agreement")
    np.testing.assert_allclose(
        [found.low, found.high], np.quantile(draws, [0.025, 0.975]), atol=0.04
    )


def test_shares_are_counts_and_sums(analysis):
    questions, completions = measured()
    changes, bounds = completions["change"], completions["unembedding"]
    fell = sum(change < 0 for change in changes) / len(changes)
    above = sum(a >= b for a, b in zip(changes, bounds, strict=True)) / len(changes)
    assert analysis.value("fallen_share").value == pytest.approx(fell)
    assert analysis.value("bounded_share").value == pytest.approx(above)
    assert analysis.value("linearity").value == pytest.approx(1 / 1.1)
    share = questions["unembedding"].sum() / questions["first_order"].sum()
    assert analysis.value("unembedding_share").value == pytest.approx(share)


def test_the_overlap_is_that_of_two_sets(analysis):
    questions, _ = measured()
    by_score = questions.sort_values("gwhes", ascending=False)["prompt_id"].tolist()
    by_change = questions.sort_values("change")["prompt_id"].tolist()
    table = analysis.curves["overlap"]
    assert table["k"].tolist() == list(range(1, 24))
    for row in table.to_dict("records"):
        k = int(row["k"])
        assert row["overlap"] == pytest.approx(len(set(by_score[:k]) & set(by_change[:k])) / k)
        assert row["chance"] == pytest.approx(k / 24)
        low, high = stats.hypergeom(24, k, k).ppf([0.025, 0.975]) / k
        assert (row["chance_low"], row["chance_high"]) == (low, high)
    at_10 = analysis.value("overlap_at_10").value
    expected = stats.hypergeom(24, 10, 10).sf(round(10 * at_10) - 1)
    assert analysis.value("chance_probability_at_10").value == pytest.approx(expected)


def test_a_row_that_counts_twice_is_two_rows():
    rng = np.random.default_rng(1)
    score, change = rng.normal(size=(2, 6))
    weight = np.array([2, 0, 1, 3, 0, 1])
    copies = np.repeat(np.arange(6), weight)
    first = sorted(copies, key=lambda row: -score[row])
    second = sorted(copies, key=lambda row: change[row])
    for k in range(1, 7):
        shared = sum(min(first[:k].count(row), second[:k].count(row)) for row in set(copies))
        found = overlap_of_extremes(weight[None].astype(float), score, change, [k])
        assert found.item() == pytest.approx(shared / k)


def test_chance_is_that_of_all_pairs_of_sets():
    sets = [set(chosen) for chosen in itertools.combinations(range(6), 3)]
    counts = [0] * 4
    for left, right in itertools.product(sets, sets):
        counts[len(left & right)] += 1
    np.testing.assert_allclose(chance_overlap(6, 3), np.array(counts) / sum(counts), rtol=1e-12)
    # the random baseline of Deng et al.'s Table 1: 10 of 57, 15 of 47
    for number, size, percent in ((57, 10, 17.5), (57, 15, 26.3), (47, 10, 21.3), (47, 15, 31.9)):
        mean = (chance_overlap(number, size) * np.arange(size + 1)).sum() / size
        assert round(100 * mean, 1) == percent


def test_perfect_and_absent_agreement_are_told_apart():
    perfect = measured(noise=0.0)
    assert gwhes_agreement(*perfect).value("rank_agreement").value == pytest.approx(1)
    assert gwhes_agreement(*perfect).value("overlap_at_10").value == 1
    questions, completions = measured(60, noise=0.0)
    shuffled = random.Random(0).sample(questions["change"].tolist(), 60)
    found = gwhes_agreement(questions.assign(change=shuffled), completions)
    agreement = found.value("rank_agreement")
    assert agreement.low < 0 < agreement.high
    assert len(found.curves["overlap"]) <= 42


def test_few_questions_and_adamw():
    few = gwhes_agreement(*measured(4, adamw=True))
    names = set(few.summary["quantity"])
    assert {"overlap_at_1", "overlap_at_2"} <= names
    assert not {"unembedding_share", "bounded_share"} & names
    for number in (0, 1):
        questions, completions = measured(2)
        empty = gwhes_agreement(questions[:number], completions[:0], exclusions="Left out: 3.")
        assert empty.empty_reason is not None
        assert f"{number} question" in empty.empty_reason
        assert empty.empty_reason.endswith("at least two. Left out: 3.")


def test_several_groups_of_one_question_are_one_unit_of_resampling():
    questions, completions = measured(12)
    twice = [pd.concat([table, table], ignore_index=True) for table in (questions, completions)]
    once, doubled = gwhes_agreement(questions, completions), gwhes_agreement(*twice)
    assert doubled.count("num_questions") == 12
    left, right = (found.value("rank_agreement") for found in (once, doubled))
    assert (left.value, left.low, left.high) == pytest.approx(
        (right.value, right.low, right.high), abs=0.02
    )


def test_the_caption_states_the_step_the_numbers_and_what_was_left_out(analysis):
    rho = analysis.value("rank_agreement")
    assert f"${rho.value:.2f}$ [{rho.low:.2f}, {rho.high:.2f}]" in analysis.caption
    assert "(SGD, learning rate 0.001)" in analysis.caption
    assert r"Left out: 2 a\_b." in analysis.caption
    assert "24 questions" in analysis.caption
