"""The balance of THR by eye, by loops over plain lists, by scipy and by the steering of a step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from thr_probe.analysis.balance import exploration_balance
from thr_probe.analysis.result import Analysis
from thr_probe.core.stats import question_weights
from thr_probe.core.steering import steering
from thr_probe.traces import read_run

MakeRun = Callable[..., Path]


@pytest.fixture(scope="module")
def analysis(random_run: Path) -> Analysis:
    return exploration_balance(read_run(random_run), seed=3)


@pytest.fixture(scope="module")
def mixed(random_group_list: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The mixed groups, with q and each completion's advantage by their definitions."""
    kept = []
    for group in random_group_list:
        labels = [completion["correct"] for completion in group["completions"]]
        q = sum(labels) / len(labels)
        if 0 < q < 1:
            advantages = [float(np.float32((label - q) / (q * (1 - q)) ** 0.5)) for label in labels]
            kept.append({**group, "q": q, "advantages": advantages})
    return kept


def literal(group: dict[str, Any], kind: str, split: str) -> tuple[float, float]:
    """Signed and absolute sum of one group, token by token."""
    signed = mass = 0.0
    for completion, advantage in zip(group["completions"], group["advantages"], strict=True):
        if split != "all" and completion["correct"] != (split == "correct"):
            continue
        for thr in completion["thr"]:
            if kind == "balance_dominant" and not abs(thr) > group["tau"]:
                continue
            weight = abs(advantage) if kind == "balance_advantage" else 1.0
            signed += weight * thr
            mass += weight * abs(thr)
    return signed, mass


def test_five_tokens_balance_as_counted_by_eye(tmp_path: Path, make_run: MakeRun) -> None:
    completions = [
        {"correct": True, "thr": [3.0, -1.0]},  # 2 of 4; dominant 3 of 3
        {"correct": False, "thr": [-2.0, 0.5, 0.5]},  # -1 of 3; dominant -2 of 2
    ]
    run = read_run(make_run(tmp_path / "run", [{"tau": 1.0, "completions": completions}]))
    analysis = exploration_balance(run)
    assert analysis.value("balance").value == 1 / 7
    assert analysis.value("balance", "correct").value == 2 / 4
    assert analysis.value("balance", "incorrect").value == -1 / 3
    assert analysis.value("balance_dominant").value == 1 / 5
    assert analysis.value("balance_advantage").value == 1 / 7  # both advantages are 1 in size
    assert analysis.value("p_zero_median").value == -1 / 5
    assert np.isnan(analysis.value("balance").low)
    assert "A single question gives no interval." in analysis.caption


@pytest.mark.parametrize("kind", ["balance", "balance_dominant", "balance_advantage"])
@pytest.mark.parametrize("split", ["all", "correct", "incorrect"])
def test_sums_equal_a_loop_over_every_token(
    analysis: Analysis, mixed: list[dict[str, Any]], kind: str, split: str
) -> None:
    for suffix, groups in (
        ("", mixed),
        (", tau > 0", [group for group in mixed if group["tau"] > 0]),
    ):
        sums = np.array([literal(group, kind, split) for group in groups])
        total = sums.sum(axis=0)
        found = analysis.value(kind, split + suffix)
        np.testing.assert_allclose(found.value, total[0] / total[1], rtol=1e-6)
        some = sums[sums[:, 1] > 0]
        mean = analysis.value(f"{kind}_mean", split + suffix).value
        np.testing.assert_allclose(mean, (some[:, 0] / some[:, 1]).mean(), rtol=1e-6)


def test_the_correlation_with_q_is_spearmans(
    analysis: Analysis, mixed: list[dict[str, Any]]
) -> None:
    sums = np.array([literal(group, "balance", "all") for group in mixed])
    balance, q = sums[:, 0] / sums[:, 1], np.array([group["q"] for group in mixed])
    found = analysis.value("balance_q_correlation")
    np.testing.assert_allclose(found.value, stats.spearmanr(balance, q).statistic, rtol=1e-6)
    draws = []
    for counts in question_weights(len(mixed), seed=3)[:2000]:
        drawn = np.repeat(np.arange(len(mixed)), counts)
        ranks = [stats.rankdata(value[drawn]) for value in (balance, q)]
        draws.append(np.corrcoef(*ranks)[0, 1])
    expected = np.quantile(draws, [0.025, 0.975])
    np.testing.assert_allclose([found.low, found.high], expected, atol=1e-9)


def test_intervals_equal_a_loop_over_resampled_questions(
    analysis: Analysis, mixed: list[dict[str, Any]]
) -> None:
    sums = np.array([literal(group, "balance_advantage", "all") for group in mixed])
    ratios, means = [], []
    for counts in question_weights(len(mixed), seed=3):
        drawn = sums[np.repeat(np.arange(len(mixed)), counts)]
        ratios.append(drawn[:, 0].sum() / drawn[:, 1].sum())
        means.append((drawn[:, 0] / drawn[:, 1]).mean())
    for quantity, draws in (("balance_advantage", ratios), ("balance_advantage_mean", means)):
        interval = analysis.value(quantity)
        expected = np.quantile(draws, [0.025, 0.975])
        np.testing.assert_allclose([interval.low, interval.high], expected, rtol=1e-6)


def test_the_caption_tells_of_groups_in_which_every_token_is_dominant(
    analysis: Analysis, mixed: list[dict[str, Any]]
) -> None:
    number = sum(group["tau"] <= 0 for group in mixed)
    assert number > 1
    without = analysis.value("balance_dominant", "all, tau > 0")
    assert (
        rf"(with {number} groups of $\tau \le 0$, in which every token is; without "
        f"${without.value:.2f}$ [${without.low:.2f}$, ${without.high:.2f}$])" in analysis.caption
    )


def test_p_zero_is_that_of_the_steering_of_a_step(
    analysis: Analysis, mixed: list[dict[str, Any]]
) -> None:
    expected = []
    for group in mixed:
        pairs = [
            (advantage, thr)
            for completion, advantage in zip(group["completions"], group["advantages"], strict=True)
            for thr in completion["thr"]
        ]
        advantage_N, thr_N = torch.tensor(pairs, dtype=torch.float64).T
        dominant_N = thr_N.abs() > group["tau"]
        expected.append(steering(advantage_N, thr_N, dominant_N, dominant_N).p_zero)
    questions = analysis.curves["questions"].set_index("prompt_id")
    found = questions["p_zero"].reindex([group["prompt_id"] for group in mixed])
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    for name, share in (("q25", 0.25), ("median", 0.5), ("q75", 0.75)):
        value = analysis.value(f"p_zero_{name}").value
        np.testing.assert_allclose(value, np.nanquantile(expected, share), rtol=1e-6)


def test_curves_hold_each_question_once_and_the_means_by_q(
    analysis: Analysis, mixed: list[dict[str, Any]]
) -> None:
    questions = analysis.curves["questions"]
    assert questions["prompt_id"].tolist() == [group["prompt_id"] for group in mixed]
    assert questions["num_completions"].tolist() == [4] * len(mixed)
    bins = analysis.curves["by_q"]
    expected = questions.groupby("q")["balance"].agg(["mean", "size"])
    np.testing.assert_allclose(bins["mean_q"], expected.index, rtol=1e-12)
    np.testing.assert_allclose(bins["balance_mean"], expected["mean"], rtol=1e-12)
    assert bins["num_questions"].tolist() == expected["size"].tolist()
    bars = analysis.curves["distribution"]
    count, _ = np.histogram(questions["balance"], np.linspace(-1, 1, 21))
    np.testing.assert_allclose(bars["share_of_questions"] * len(mixed), count, atol=1e-9)


def test_the_steps_of_a_question_are_summed(tmp_path: Path, make_run: MakeRun) -> None:
    def group(step: int, thr: float, num_correct: int) -> dict[str, Any]:
        completions = [{"correct": index < num_correct, "thr": [thr]} for index in range(4)]
        return {"step": step, "prompt_id": "a", "tau": 1.0, "completions": completions}

    run = read_run(make_run(tmp_path / "run", [group(0, 3.0, 1), group(1, -1.0, 2)]))
    analysis = exploration_balance(run)
    (row,) = analysis.curves["questions"].to_dict("records")
    assert (row["q"], row["num_completions"], row["balance"]) == (3 / 8, 8, (12 - 4) / 16)


def test_row_groups_do_not_change_the_numbers(finely_cut_run: Path, analysis: Analysis) -> None:
    other = exploration_balance(read_run(finely_cut_run), seed=3)
    pd.testing.assert_frame_equal(other.summary, analysis.summary, rtol=1e-9)
    for curve, table in analysis.curves.items():
        pd.testing.assert_frame_equal(other.curves[curve], table, rtol=1e-9, atol=1e-12)


def test_groups_without_advantage_have_a_balance_and_no_push(
    tmp_path: Path, make_run: MakeRun
) -> None:
    groups = [{"prompt_id": name, "completions": [{"correct": True}] * 2} for name in "ab"]
    run = read_run(make_run(tmp_path / "run", groups))
    analysis = exploration_balance(run, groups="has-correct")
    assert analysis.value("balance").value == 1.0
    quantities = set(analysis.summary["quantity"])
    assert not any("advantage" in name or "p_zero" in name for name in quantities)
    assert "balance_q_correlation" not in quantities  # q is 1 throughout
    assert "undefined" in analysis.caption
    assert "None" not in analysis.caption


@pytest.mark.parametrize(
    ("groups", "options", "reason"),
    [
        ([{"completions": [{"correct": False}] * 2}], {}, "None of the 2 completions in 1 group"),
        ([{"completions": [{"correct": True}] * 2}], {}, "No group is left to analyse."),
        (
            [{"tau": 0.0, "completions": [{"correct": c, "thr": [0.0]} for c in (True, False)]}],
            {},
            "Every THR of this run is 0",
        ),
        ([{"completions": [{"correct": True}]}], {"scored": False}, "This run has no scores"),
    ],
)
def test_where_there_is_nothing_a_sentence_says_so(
    tmp_path: Path,
    make_run: MakeRun,
    groups: list[dict[str, Any]],
    options: dict[str, Any],
    reason: str,
) -> None:
    analysis = exploration_balance(read_run(make_run(tmp_path / "run", groups, **options)))
    assert (analysis.empty_reason or "").startswith(reason)
