"""THR against the advantage: by eye, by loops over plain lists, by the steering of a step."""

from __future__ import annotations

import collections
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from thr_probe.analysis.advantage import CELLS, thr_by_advantage
from thr_probe.analysis.result import Analysis
from thr_probe.core.stats import question_weights
from thr_probe.core.steering import steering
from thr_probe.traces import read_run

MakeRun = Callable[..., Path]


@pytest.fixture(scope="module")
def analysis(random_run: Path) -> Analysis:
    return thr_by_advantage(read_run(random_run), seed=3)


@pytest.fixture(scope="module")
def tokens(random_group_list: list[dict[str, Any]]) -> pd.DataFrame:
    """Every token of the mixed groups, with its group's numbers, one by one."""
    rows = []
    for group in random_group_list:
        labels = [completion["correct"] for completion in group["completions"]]
        q = sum(labels) / 4
        if not 0 < q < 1:
            continue
        size = sum(len(completion["thr"]) for completion in group["completions"])
        for completion in group["completions"]:
            advantage = float(np.float32((completion["correct"] - q) / (q * (1 - q)) ** 0.5))
            for thr in completion["thr"]:
                rows.append(
                    {
                        "question": group["prompt_id"],
                        "tau": group["tau"],
                        "q": q,
                        "correct": completion["correct"],
                        "advantage": advantage,
                        "thr": thr,
                        "mass": abs(thr),
                        "influence": abs(advantage * thr),
                        "weight": abs(advantage) / size,
                        "dominant": abs(thr) > group["tau"],
                    }
                )
    return pd.DataFrame(rows)


def cell_of(row: Any) -> str | None:
    if row.thr == 0:
        return None
    label, sign = (
        "correct" if row.correct else "incorrect",
        "positive" if row.thr > 0 else "negative",
    )
    return f"{label}_{sign}"


def test_five_tokens_divide_as_counted_by_eye(tmp_path: Path, make_run: MakeRun) -> None:
    completions = [
        {"correct": True, "thr": [3.0, -1.0]},
        {"correct": False, "thr": [-2.0]},
        {"correct": False, "thr": [0.5]},
        {"correct": False, "thr": [0.0]},
        {"correct": False, "thr": [0.0]},
    ]
    # q = 1/5: advantages 2 and -1/2, five tokens
    run = read_run(make_run(tmp_path / "run", [{"tau": 1.0, "completions": completions}]))
    analysis = thr_by_advantage(run)
    influence = np.array([6, 2, 0.25, 1])
    found = [analysis.value(cell).value for cell in CELLS]
    np.testing.assert_allclose(found, influence / influence.sum(), rtol=1e-6)
    np.testing.assert_allclose(analysis.value("token_dominant_share").value, 2 / 6)
    weight = analysis.value("weight_dominant_share").value
    np.testing.assert_allclose(weight, 2.5 / (2 * 2 + 4 * 0.5), rtol=1e-6)
    assert analysis.value("weight_dominant_share", "correct").value == 1 / 2
    captured = analysis.value("influence_captured").value
    np.testing.assert_allclose(captured, 7 / 9.25, rtol=1e-6)
    (row,) = analysis.curves["matrix"].to_dict("records")
    assert (row["num_correct"], row["num_incorrect"], row["num_groups"]) == (1, 4, 1)
    assert (row["mass"], row["correct"]) == (1.0, pytest.approx(8 / 9.25))


@pytest.mark.parametrize("suffix", ["", ", tau > 0"])
def test_cells_and_dominant_shares_equal_sums_over_tokens(
    analysis: Analysis, tokens: pd.DataFrame, suffix: str
) -> None:
    part = tokens[tokens["tau"] > 0] if suffix else tokens
    sums: dict[str | None, float] = collections.Counter()
    for row in part.itertuples():
        sums[cell_of(row)] += row.influence
    for cell in CELLS:
        found = analysis.value(cell, f"all{suffix}").value
        np.testing.assert_allclose(found, sums[cell] / part["influence"].sum(), rtol=1e-6)
    for split, rows in (
        ("all", part),
        ("correct", part[part["correct"]]),
        ("incorrect", part[~part["correct"]]),
    ):
        kept = rows[rows["dominant"]]
        expected = {
            "token_dominant_share": len(kept) / len(rows),
            "weight_dominant_share": kept["weight"].sum() / rows["weight"].sum(),
            "influence_captured": kept["influence"].sum() / rows["influence"].sum(),
        }
        found = {name: analysis.value(name, split + suffix).value for name in expected}
        assert found == pytest.approx(expected, rel=1e-6)


def test_what_is_captured_is_that_of_the_steering_of_a_step(
    analysis: Analysis, tokens: pd.DataFrame
) -> None:
    advantage_N, thr_N = (torch.tensor(tokens[name].to_numpy()) for name in ("advantage", "thr"))
    dominant_N = torch.tensor(tokens["dominant"].to_numpy())
    step = steering(advantage_N, thr_N, dominant_N, dominant_N)
    found = analysis.value("influence_captured").value
    np.testing.assert_allclose(found, step.influence_captured, rtol=1e-6)


def test_bins_of_the_advantage_hold_their_tokens(analysis: Analysis, tokens: pd.DataFrame) -> None:
    rows = analysis.curves["advantage"]
    width = rows["right"] - rows["left"]
    np.testing.assert_allclose(width, 0.25)  # 2 sqrt(3) in at most 20 round bins
    for row in rows.to_dict("records"):
        inside = tokens[tokens["advantage"].between(row["left"], row["right"], inclusive="left")]
        np.testing.assert_allclose(row["tokens"], len(inside) / len(tokens), rtol=1e-12)
        np.testing.assert_allclose(row["mass"], inside["mass"].sum() / tokens["mass"].sum())
        np.testing.assert_allclose(row["magnitude"], inside["mass"].mean())
    np.testing.assert_allclose(rows["mass"].sum(), 1)


def test_the_matrix_and_the_bins_of_q_divide_each_kind_of_group(
    analysis: Analysis, tokens: pd.DataFrame
) -> None:
    matrix, by_q = analysis.curves["matrix"], analysis.curves["q"]
    assert matrix["num_correct"].tolist() == [1, 2, 3]
    assert matrix["num_incorrect"].tolist() == [3, 2, 1]
    for index, q in enumerate((0.25, 0.5, 0.75)):
        part = tokens[tokens["q"] == q]
        total = part["influence"].sum()
        cells = part.assign(cell=[cell_of(row) for row in part.itertuples()])
        expected = cells.groupby("cell")["influence"].sum() / total
        for table in (matrix, by_q):
            np.testing.assert_allclose(
                table.loc[index, list(CELLS)].astype(float), expected[list(CELLS)], rtol=1e-6
            )
            share = total / tokens["influence"].sum()
            np.testing.assert_allclose(table.loc[index, "mass"], share, rtol=1e-6)
            correct = part.loc[part["correct"], "influence"].sum() / total
            np.testing.assert_allclose(table.loc[index, "correct"], correct, rtol=1e-6)


def test_bounds_equal_a_loop_over_resampled_questions(
    analysis: Analysis, tokens: pd.DataFrame
) -> None:
    cells = tokens.assign(own=tokens["influence"] * (tokens["correct"] & (tokens["thr"] < 0)))
    sums = cells.groupby("question", sort=False)[["own", "influence"]].sum().to_numpy()
    draws = [counts @ sums for counts in question_weights(len(sums), seed=3)]
    expected = np.quantile([draw[0] / draw[1] for draw in draws], [0.025, 0.975])
    found = analysis.value("correct_negative")
    np.testing.assert_allclose([found.low, found.high], expected, rtol=1e-6)


def test_row_groups_do_not_change_the_numbers(finely_cut_run: Path, analysis: Analysis) -> None:
    other = thr_by_advantage(read_run(finely_cut_run), seed=3)
    pd.testing.assert_frame_equal(other.summary, analysis.summary, rtol=1e-9)
    for curve, table in analysis.curves.items():
        pd.testing.assert_frame_equal(other.curves[curve], table, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("completions", "reason"),
    [
        ([{"correct": True}] * 2, "Every advantage is 0: the groups that were kept are not mixed."),
        ([{"correct": False}] * 2, "None of the 2 completions in 1 group"),
        (
            [{"correct": label, "thr": [0.0]} for label in (True, False)],
            "Every THR of a completion",
        ),
    ],
)
def test_where_there_is_nothing_a_sentence_says_so(
    tmp_path: Path, make_run: MakeRun, completions: list[dict[str, Any]], reason: str
) -> None:
    run = read_run(make_run(tmp_path / "run", [{"completions": completions}]))
    analysis = thr_by_advantage(run, groups="has-correct")
    assert (analysis.empty_reason or "").startswith(reason)


def test_all_correct_groups_beside_mixed_ones_weigh_nothing(
    tmp_path: Path, make_run: MakeRun
) -> None:
    mixed = {"prompt_id": "a", "tau": -1.0, "completions": [{"correct": True}, {"correct": False}]}
    whole = {"prompt_id": "b", "tau": 0.02, "completions": [{"correct": True}] * 2}
    run = read_run(make_run(tmp_path / "run", [mixed, whole]))
    analysis = thr_by_advantage(run, groups="has-correct")
    assert analysis.value("influence_captured").value == 1.0
    splits = analysis.summary[analysis.summary["quantity"] == "influence_captured"]["split"]
    assert splits.tolist() == ["all", "correct", "incorrect"]
    assert np.isnan(analysis.curves["q"].set_index("mean_q").loc[1.0, "correct_positive"])
