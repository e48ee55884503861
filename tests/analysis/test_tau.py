"""What a scaled threshold retains: by eye, by counting each token, at ties, without thresholds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from thr_probe.analysis.result import Analysis
from thr_probe.analysis.retention import tokens_retained
from thr_probe.analysis.tau import FACTORS, factor_grid, threshold_sensitivity
from thr_probe.core.stats import question_weights
from thr_probe.traces import read_run

MakeRun = Callable[..., Path]


@pytest.fixture(scope="module")
def analysis(random_run: Path) -> Analysis:
    return threshold_sensitivity(read_run(random_run), seed=3)


@pytest.fixture(scope="module")
def tokens(random_tokens: pd.DataFrame) -> pd.DataFrame:
    """Those of groups with a threshold above 0, in float64."""
    kept = random_tokens[random_tokens["tau"] > 0]
    return kept.astype({"thr": "float64", "tau": "float64"})


def part(tokens: pd.DataFrame, split: str) -> pd.DataFrame:
    return tokens if split == "all" else tokens[tokens["correct"] == (split == "correct")]


def test_six_tokens_are_retained_as_counted_by_eye_ties_left_out(
    tmp_path: Path, make_run: MakeRun
) -> None:
    completions = [
        {"correct": True, "thr": [4.0, -2.0, 1.0]},
        {"correct": False, "thr": [0.0, -20.0, 0.25]},
    ]
    run = read_run(make_run(tmp_path / "run", [{"tau": 2.0, "completions": completions}]))
    analysis = threshold_sensitivity(run)
    retained = {factor: analysis.value(f"retained_share_at_{factor:g}").value for factor in FACTORS}
    # thresholds 0.2, 1, 2, 4, 20: what equals one is not above it
    assert retained == {0.1: 5 / 6, 0.5: 3 / 6, 1.0: 2 / 6, 2.0: 1 / 6, 10.0: 0.0}
    assert analysis.value("retained_mass_at_1").value == 24 / 27.25
    assert analysis.value("retained_mass_at_0.5", "correct").value == 6 / 7


@pytest.mark.parametrize("split", ["all", "correct", "incorrect"])
def test_summary_and_curve_equal_counts_of_every_token(
    analysis: Analysis, tokens: pd.DataFrame, split: str
) -> None:
    table = part(tokens, split)
    magnitude = table["thr"].abs()
    for factor in FACTORS:
        kept = magnitude > factor * table["tau"]
        assert analysis.value(f"retained_share_at_{factor:g}", split).value == kept.mean()
        mass = analysis.value(f"retained_mass_at_{factor:g}", split).value
        np.testing.assert_allclose(mass, magnitude[kept].sum() / magnitude.sum(), rtol=1e-12)
    curve = analysis.curves["curve"]
    rows = curve[curve["split"] == split]
    np.testing.assert_array_equal(rows["c"], factor_grid())
    for row in rows.itertuples(index=False):
        kept = magnitude / table["tau"] > row.c
        np.testing.assert_allclose(row.retained_share, kept.mean(), rtol=1e-12, atol=1e-15)
        expected = magnitude[kept].sum() / magnitude.sum()
        np.testing.assert_allclose(row.retained_mass, expected, rtol=1e-9, atol=1e-12)


def test_the_grid_holds_powers_of_ten_exactly() -> None:
    assert {0.01, 0.1, 1.0, 10.0, 100.0} <= set(factor_grid().tolist())
    np.testing.assert_allclose(factor_grid(), np.logspace(-2, 2, 81), rtol=1e-12)


def test_at_one_it_is_the_retention_of_groups_with_a_threshold(
    analysis: Analysis, random_run: Path
) -> None:
    retention = tokens_retained(read_run(random_run), seed=3)
    for split in ("all", "correct", "incorrect"):
        found = analysis.value("retained_share_at_1", split)
        assert found.value == retention.value("retained_share", f"{split}, tau > 0").value


def test_bounds_equal_a_loop_over_resampled_questions(
    analysis: Analysis, tokens: pd.DataFrame
) -> None:
    magnitude = tokens["thr"].abs()
    kept = magnitude > tokens["tau"]
    names = tokens["prompt_id"]
    mass = (magnitude * kept).groupby(names, sort=False).sum().to_numpy()
    total = magnitude.groupby(names, sort=False).sum().to_numpy()
    draws = [
        (mass * counts).sum() / (total * counts).sum()
        for counts in question_weights(len(total), seed=3)
    ]
    expected = np.quantile(draws, [0.025, 0.975])
    found = analysis.value("retained_mass_at_1")
    np.testing.assert_allclose([found.low, found.high], expected, rtol=1e-9)
    curve = analysis.curves["curve"]
    (row,) = curve[(curve["split"] == "all") & (curve["c"] == 1)].itertuples()
    np.testing.assert_allclose([row.retained_mass_low, row.retained_mass_high], expected, rtol=1e-9)


def test_groups_without_a_positive_threshold_are_counted_apart(
    analysis: Analysis, random_group_list: list[dict[str, Any]]
) -> None:
    mixed = [
        group
        for group in random_group_list
        if 0 < sum(completion["correct"] for completion in group["completions"]) < 4
    ]
    number = sum(group["tau"] <= 0 for group in mixed)
    assert analysis.facts["excluded_groups_tau_nonpositive"] == number > 0
    assert analysis.facts["num_groups"] == len(mixed) - number
    assert f"{number} groups with a threshold of 0 or below" in analysis.caption


def test_row_groups_do_not_change_the_numbers(finely_cut_run: Path, analysis: Analysis) -> None:
    other = threshold_sensitivity(read_run(finely_cut_run), seed=3)
    pd.testing.assert_frame_equal(other.summary, analysis.summary, rtol=1e-9)
    pd.testing.assert_frame_equal(
        other.curves["curve"], analysis.curves["curve"], rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize(
    ("group", "reason"),
    [
        ({"tau": -0.5, "completions": [{"correct": True}, {}]}, "No group is left to analyse."),
        ({"tau": -np.inf, "completions": [{"correct": True}, {}]}, "No group is left to analyse."),
        (
            {
                "tau": 1.0,
                "completions": [{"correct": label, "thr": [0.0]} for label in (True, False)],
            },
            "Every THR of this run is 0",
        ),
    ],
)
def test_where_there_is_nothing_a_sentence_says_so(
    tmp_path: Path, make_run: MakeRun, group: dict[str, Any], reason: str
) -> None:
    analysis = threshold_sensitivity(read_run(make_run(tmp_path / "run", [group])))
    assert (analysis.empty_reason or "").startswith(reason)


def test_a_threshold_without_bound_retains_nothing(tmp_path: Path, make_run: MakeRun) -> None:
    groups = [{"tau": np.inf, "completions": [{"correct": True}, {"correct": False}]}]
    analysis = threshold_sensitivity(read_run(make_run(tmp_path / "run", groups)))
    assert (analysis.curves["curve"]["retained_share"] == 0).all()
