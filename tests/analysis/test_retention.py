"""How many tokens the threshold retains: by eye, and recomputed from the whole table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from thr_probe.analysis.result import Analysis
from thr_probe.analysis.retention import tokens_retained
from thr_probe.core.stats import question_weights
from thr_probe.traces import read_run

MakeRun = Callable[..., Path]


@pytest.fixture(scope="module")
def analysis(random_run: Path) -> Analysis:
    return tokens_retained(read_run(random_run), seed=3)


def test_two_averages_of_ten_tokens_are_those_counted_by_eye(
    tmp_path: Path, make_run: MakeRun
) -> None:
    completions = [
        {"correct": True, "thr": [3.0, 0.0]},  # 1 of 2
        {"correct": False, "thr": [1.0, -2.0, 0.5, 0.5, 1.0, 0.0, 0.0, -1.5]},  # 2 of 8
    ]
    groups = [{"tau": 1.0, "completions": completions}]
    analysis = tokens_retained(read_run(make_run(tmp_path / "run", groups)))
    assert analysis.value("retained_share").value == 3 / 10
    assert analysis.value("retained_mean").value == (1 / 2 + 2 / 8) / 2
    assert analysis.value("retained_share", "incorrect").value == 2 / 8
    assert analysis.value("retained_median").value == 3 / 10
    assert np.isnan(analysis.value("retained_share").low)


def test_shares_equal_those_recomputed_from_the_whole_table(
    analysis: Analysis, random_tokens: pd.DataFrame
) -> None:
    tokens = random_tokens.assign(kept=random_tokens["thr"].abs() > random_tokens["tau"])
    for suffix, part in (("", tokens), (", tau > 0", tokens[tokens["tau"] > 0])):
        for split, table in (
            ("all", part),
            ("correct", part[part["correct"]]),
            ("incorrect", part[~part["correct"]]),
        ):
            by_question = table.groupby("prompt_id")["kept"].mean()
            expected = {
                "retained_share": table["kept"].mean(),
                "retained_mean": table.groupby(["prompt_id", "rollout_id"])["kept"].mean().mean(),
                "retained_q10": by_question.quantile(0.1),
                "retained_median": by_question.median(),
                "retained_q90": by_question.quantile(0.9),
            }
            found = {name: analysis.value(name, split + suffix).value for name in expected}
            assert found == pytest.approx(expected, rel=1e-12)


def test_the_mean_agrees_with_the_share_stored_for_each_completion(
    analysis: Analysis, random_run: Path
) -> None:
    parts = sorted((random_run / "scores" / "default").glob("*.parquet"))
    stored = pd.concat([pd.read_parquet(part) for part in parts])
    stored = stored[stored["num_correct"].between(1, 3)]
    np.testing.assert_allclose(
        analysis.value("retained_mean").value, stored["retained"].mean(), rtol=1e-6
    )


def test_intervals_equal_a_loop_over_resampled_questions(
    analysis: Analysis, random_tokens: pd.DataFrame
) -> None:
    kept = random_tokens["thr"].abs() > random_tokens["tau"]
    groups = kept.groupby(random_tokens["prompt_id"], sort=False)
    values = [group.to_numpy() for _, group in groups]
    shares, medians = [], []
    for counts in question_weights(len(values), seed=3):
        drawn = np.repeat(np.arange(len(values)), counts)
        shares.append(np.concatenate([values[index] for index in drawn]).mean())
        medians.append(np.median([values[index].mean() for index in drawn]))
    for quantity, draws in (("retained_share", shares), ("retained_median", medians)):
        interval = analysis.value(quantity)
        expected = np.quantile(draws, [0.025, 0.975])
        np.testing.assert_allclose([interval.low, interval.high], expected, rtol=1e-12)


def test_curves_hold_each_question_once(analysis: Analysis, random_tokens: pd.DataFrame) -> None:
    kept = random_tokens["thr"].abs() > random_tokens["tau"]
    expected = kept.groupby(random_tokens["prompt_id"]).mean()
    questions = analysis.curves["questions"].set_index("prompt_id").sort_index()
    np.testing.assert_allclose(questions["retained_share"], expected.sort_index(), rtol=1e-12)
    bars = analysis.curves["distribution"]
    count, _ = np.histogram(expected, np.linspace(0, 1, 26))
    np.testing.assert_allclose(bars["share_of_questions"] * len(expected), count, atol=1e-9)


def test_steps_of_training_are_averaged_with_equal_weight(
    tmp_path: Path, make_run: MakeRun
) -> None:
    def group(step: int, name: str, thr: list[float]) -> dict[str, Any]:
        completions = [{"correct": True, "thr": thr}, {"correct": False, "thr": thr}]
        return {"step": step, "prompt_id": name, "tau": 1.0, "completions": completions}

    groups = [
        group(0, "a", [2.0, 2.0, 0.0, 0.0]),  # step 0: 4 of 8
        group(1, "a", [2.0, 0.0]),  # step 1: 2 of 4 and 0 of 6, together 2 of 10
        group(1, "b", [0.0, 0.0, 0.0]),
    ]
    analysis = tokens_retained(read_run(make_run(tmp_path / "run", groups)))
    assert analysis.facts["num_steps"] == 2
    assert analysis.value("retained_share").value == 6 / 18
    mean = analysis.value("retained_step_mean")
    assert mean.value == pytest.approx((4 / 8 + 2 / 10) / 2)
    # both questions drawn as b: step 1 alone, nothing retained; both as a: a half in each step
    assert (mean.low, mean.high) == (0.0, 0.5)


def test_row_groups_do_not_change_the_numbers(finely_cut_run: Path, analysis: Analysis) -> None:
    other = tokens_retained(read_run(finely_cut_run), seed=3)
    pd.testing.assert_frame_equal(other.summary, analysis.summary, rtol=1e-9)
    for curve, table in analysis.curves.items():
        pd.testing.assert_frame_equal(other.curves[curve], table, rtol=1e-9, atol=1e-12)


def test_the_caption_tells_what_groups_without_a_threshold_do(analysis: Analysis) -> None:
    number = analysis.facts["num_groups_tau_nonpositive"]
    assert (
        f"In {number} groups $\\tau \\le 0$ retains every token; without them" in analysis.caption
    )


def test_no_correct_completion_is_said(tmp_path: Path, make_run: MakeRun) -> None:
    groups = [{"completions": [{"correct": False}, {"correct": False}]}]
    analysis = tokens_retained(read_run(make_run(tmp_path / "run", groups)))
    assert (analysis.empty_reason or "").startswith("None of the 2 completions in 1 group")
