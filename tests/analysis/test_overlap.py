"""Overlap of dominant and high-entropy tokens: known answers, and a plain loop over completions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import gaussian_kde

from thr_probe.analysis.overlap import thr_entropy_overlap
from thr_probe.analysis.result import Analysis
from thr_probe.core.stats import question_weights
from thr_probe.traces import read_run

MakeRun = Callable[..., Path]


@pytest.fixture(scope="module")
def analysis(random_run: Path) -> Analysis:
    return thr_entropy_overlap(read_run(random_run), seed=2)


@pytest.fixture(scope="module")
def completions(random_tokens: pd.DataFrame) -> pd.DataFrame:
    """Overlap of each completion, by Python's stable sort."""
    rows = []
    for (prompt, _), table in random_tokens.groupby(["prompt_id", "rollout_id"], sort=False):
        thr, entropy = table["thr"].to_numpy(), table["entropy"].to_numpy()
        dominant = {k for k in range(len(thr)) if abs(thr[k]) > table["tau"].iloc[0]}
        by_entropy = sorted(range(len(thr)), key=lambda k: -entropy[k])
        row = {"prompt_id": prompt, "correct": table["correct"].iloc[0]}
        row |= {"tau": table["tau"].iloc[0], "n": len(dominant), "T": len(thr)}
        if dominant:
            row["both"] = len(dominant & set(by_entropy[: len(dominant)]))
            row["overlap"] = row["both"] / len(dominant)
        rows.append(row)
    return pd.DataFrame(rows)


def run_of(
    tmp_path: Path, make_run: MakeRun, thr: list[float], entropy: list[float], tau: float = 1.0
) -> Analysis:
    completions = [
        {"correct": True, "thr": thr, "entropy": entropy},
        {"correct": False, "thr": [-value for value in thr], "entropy": entropy},
    ]
    groups = [
        {"prompt_id": name, "tau": tau, "completions": completions} for name in ("a", "b", "c")
    ]
    return thr_entropy_overlap(read_run(make_run(tmp_path / "run", groups)))


def test_thr_in_the_order_of_entropy_overlaps_completely(tmp_path: Path, make_run: MakeRun) -> None:
    analysis = run_of(tmp_path, make_run, [0.1, -3.0, 0.5, 2.0], [0.0, 0.9, 0.1, 0.8])
    for quantity in ("median_overlap", "mean_overlap", "peak_overlap"):
        interval = analysis.value(quantity)
        assert (interval.value, interval.low, interval.high) == (1.0, 1.0, 1.0)
    assert analysis.value("mean_chance").value == 0.5


def test_ties_of_entropy_go_to_the_earlier_position(tmp_path: Path, make_run: MakeRun) -> None:
    # two dominant tokens, the first and the last; by entropy the first two of four equal ones
    analysis = run_of(tmp_path, make_run, [2.0, 0.0, 0.0, 2.0], [0.5, 0.5, 0.5, 0.5])
    assert analysis.value("mean_overlap").value == 0.5


def test_thr_that_knows_nothing_of_entropy_overlaps_at_the_chance_level(
    tmp_path: Path, make_run: MakeRun
) -> None:
    rng = np.random.default_rng(0)
    groups = []
    for index in range(40):
        completions = []
        for correct in (True, False):
            thr = np.where(rng.permutation(60) < 15, 2.0, 0.1).tolist()
            entropy = rng.random(60).tolist()
            completions.append({"correct": correct, "thr": thr, "entropy": entropy})
        groups.append({"prompt_id": str(index), "tau": 1.0, "completions": completions})
    analysis = thr_entropy_overlap(read_run(make_run(tmp_path / "run", groups)))
    mean = analysis.value("mean_overlap")
    assert analysis.value("mean_chance").value == pytest.approx(0.25)
    assert mean.low < 0.25 < mean.high
    assert mean.high - mean.low < 0.06


def test_overlaps_equal_a_plain_loop_over_completions(
    analysis: Analysis, completions: pd.DataFrame
) -> None:
    positive = completions[completions["tau"] > 0]
    assert analysis.facts["drawn_split"] == "all, tau > 0"
    assert analysis.facts["num_completions_none_dominant"] == (completions["n"] == 0).sum() > 0
    assert analysis.facts["num_completions_apart"] == (completions["tau"] <= 0).sum() > 0
    for suffix, table in (("", completions), (", tau > 0", positive)):
        for split, chosen in (
            ("all", table),
            ("correct", table[table["correct"]]),
            ("incorrect", table[~table["correct"]]),
        ):
            some = chosen[chosen["n"] > 0]
            found = {
                name: analysis.value(name, split + suffix).value
                for name in ("median_overlap", "mean_overlap", "mean_chance")
            }
            assert found == pytest.approx(
                {
                    "median_overlap": some["overlap"].median(),
                    "mean_overlap": some["overlap"].mean(),
                    "mean_chance": (some["n"] / some["T"]).mean(),
                },
                rel=1e-12,
            )


def test_intervals_equal_a_loop_over_resampled_questions(
    analysis: Analysis, completions: pd.DataFrame
) -> None:
    order = list(dict.fromkeys(completions["prompt_id"]))
    some = completions[completions["n"] > 0]
    values = [some.loc[some["prompt_id"] == name, "overlap"].to_numpy() for name in order]
    medians, means = [], []
    for counts in question_weights(len(order), seed=2):
        drawn = np.concatenate(
            [values[index] for index in np.repeat(np.arange(len(order)), counts)]
        )
        medians.append(np.median(drawn))
        means.append(drawn.mean())
    for quantity, draws in (("median_overlap", medians), ("mean_overlap", means)):
        interval = analysis.value(quantity)
        expected = np.quantile(draws, [0.025, 0.975])
        np.testing.assert_allclose([interval.low, interval.high], expected, rtol=1e-12)


def test_the_curve_is_a_reflected_kernel_density_and_its_mode_the_peak(
    analysis: Analysis, completions: pd.DataFrame
) -> None:
    drawn = completions[(completions["n"] > 0) & (completions["tau"] > 0)]
    values = drawn["overlap"].to_numpy()
    mirrored = np.concatenate([values, -values, 2 - values])
    # scipy scales by the spread of what it is given; this factor restores Scott's of the originals
    width = values.std(ddof=1) * len(values) ** -0.2
    exact = gaussian_kde(mirrored, bw_method=width / mirrored.std(ddof=1))
    curve = analysis.curves["density"]
    rows = curve[curve["split"] == "all"]
    at = rows["overlap"].to_numpy()
    assert analysis.facts["bandwidth"] == pytest.approx(width)
    np.testing.assert_allclose(rows["density"], 3 * exact(at), atol=0.02)
    np.testing.assert_allclose(np.trapezoid(rows["density"], at), 1.0, atol=1e-3)
    peak = analysis.value("peak_overlap", "all, tau > 0").value
    assert peak == at[rows["density"].to_numpy().argmax()]


def test_the_bars_hold_each_completion_once(analysis: Analysis, completions: pd.DataFrame) -> None:
    drawn = completions[(completions["n"] > 0) & (completions["tau"] > 0)]
    bars = analysis.curves["histogram"]
    bars = bars[bars["split"] == "incorrect"]
    incorrect = drawn[~drawn["correct"]]
    index = np.minimum(20 * incorrect["both"].astype(int) // incorrect["n"], 19)
    count = np.bincount(index, minlength=20)
    np.testing.assert_allclose(bars["density"] / 20 * count.sum(), count, atol=1e-9)
    outside = analysis.curves["completions"]
    assert outside["number"].sum() == len(completions)
    assert outside["number"].iloc[0] == len(drawn)


def test_row_groups_do_not_change_the_numbers(finely_cut_run: Path, analysis: Analysis) -> None:
    other = thr_entropy_overlap(read_run(finely_cut_run), seed=2)
    pd.testing.assert_frame_equal(other.summary, analysis.summary, rtol=1e-9)
    for curve, table in analysis.curves.items():
        pd.testing.assert_frame_equal(other.curves[curve], table, rtol=1e-9, atol=1e-12)


def test_groups_that_retain_everything_leave_nothing_to_compare(
    tmp_path: Path, make_run: MakeRun
) -> None:
    analysis = run_of(tmp_path, make_run, [1.0, 2.0], [0.5, 0.1], tau=-1.0)
    assert analysis.empty_reason == (
        "No completion has a dominant token to compare: of 6 completions, 0 have none and 6 belong "
        "to groups with a threshold of 0 or below, where every token is dominant."
    )


def test_no_dominant_token_anywhere_is_said_with_the_count(
    tmp_path: Path, make_run: MakeRun
) -> None:
    analysis = run_of(tmp_path, make_run, [1.0, 2.0], [0.5, 0.1], tau=5.0)
    assert (analysis.empty_reason or "").startswith(
        "No completion has a dominant token to compare: of 6 completions, 6 have none"
    )


def test_no_correct_completion_is_said(tmp_path: Path, make_run: MakeRun) -> None:
    groups = [{"completions": [{"correct": False}]}]
    analysis = thr_entropy_overlap(read_run(make_run(tmp_path / "run", groups)))
    assert (analysis.empty_reason or "").startswith("None of the 1 completion in 1 group")
