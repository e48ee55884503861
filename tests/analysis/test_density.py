"""The distribution of THR: by eye on eight tokens, and recomputed from the whole table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from thr_probe.analysis.density import density_in_style, thr_density
from thr_probe.analysis.result import Analysis
from thr_probe.core.stats import question_weights
from thr_probe.errors import UsageError
from thr_probe.traces import read_run

MakeRun = Callable[..., Path]

EIGHT_TOKENS = [
    {
        "tau": 1.0,
        "completions": [
            {"correct": True, "thr": [4.0, 0.5, 0.5, -1.0]},
            {"correct": False, "thr": [-2.0, 0.0, 0.5, 1.5]},
        ],
    }
]


@pytest.fixture(scope="module")
def analysis(random_run: Path) -> Analysis:
    return thr_density(read_run(random_run), seed=1)


def splits_of(tokens: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    for suffix, table in (("", tokens), (", tau > 0", tokens[tokens["tau"] > 0])):
        yield f"all{suffix}", table
        yield f"correct{suffix}", table[table["correct"]]
        yield f"incorrect{suffix}", table[~table["correct"]]


def sorted_gini(values: np.ndarray) -> float:
    """The Gini coefficient from ranks: sum (2 i - n - 1) x_(i) / (n sum x)."""
    ascending, number = np.sort(values), len(values)
    rank = np.arange(1, number + 1)
    return float(((2 * rank - number - 1) * ascending).sum() / (number * ascending.sum()))


def test_shares_of_eight_tokens_are_those_counted_by_eye(tmp_path: Path, make_run: MakeRun) -> None:
    analysis = thr_density(read_run(make_run(tmp_path / "run", EIGHT_TOKENS)))
    expected = {
        ("dominant_share", "all"): 3 / 8,  # 4, -2 and 1.5; -1 is not above the threshold
        ("dominant_share", "correct"): 1 / 4,
        ("dominant_share", "incorrect"): 2 / 4,
        ("positive_share", "all"): 5 / 8,
        ("positive_share", "incorrect"): 2 / 4,
        ("zero_share", "all"): 1 / 8,
        ("positive_share_of_dominant", "all"): 2 / 3,
        ("dominant_mass", "all"): 7.5 / 10,
        ("positive_mass", "correct"): 5 / 6,
        ("top_20_mass", "all"): (4 + 0.6 * 2) / 10,  # 20 % of eight tokens are 1.6
        ("median_tau", "all"): 1.0,
    }
    found = {key: analysis.value(*key).value for key in expected}
    assert found == pytest.approx(expected, rel=1e-12)
    assert analysis.summary["low"].isna().all()  # one question: no interval
    assert "A single question gives no interval." in analysis.caption


def test_every_share_equals_the_one_recomputed_from_the_whole_table(
    analysis: Analysis, random_tokens: pd.DataFrame
) -> None:
    for split, table in splits_of(random_tokens):
        size = table["thr"].abs().astype(float)
        dominant, positive = table["thr"].abs() > table["tau"], table["thr"] > 0
        expected = {
            "dominant_share": dominant.mean(),
            "positive_share": positive.mean(),
            "zero_share": (table["thr"] == 0).mean(),
            "positive_share_of_dominant": positive[dominant].mean(),
            "dominant_mass": size[dominant].sum() / size.sum(),
            "positive_mass": size[positive].sum() / size.sum(),
        }
        found = {name: analysis.value(name, split).value for name in expected}
        assert found == pytest.approx(expected, rel=1e-12)
        gini = analysis.value("gini", split).value
        np.testing.assert_allclose(gini, sorted_gini(size.to_numpy()), atol=1e-3)
        descending = size.sort_values(ascending=False).to_numpy()
        for percent in (1, 5, 20):
            held = np.interp(
                percent / 100 * len(size), np.arange(len(size) + 1), [0, *np.cumsum(descending)]
            )
            found_share = analysis.value(f"top_{percent}_mass", split).value
            np.testing.assert_allclose(found_share, held / size.sum(), atol=2e-3)


def test_intervals_equal_a_loop_over_resampled_questions(
    analysis: Analysis, random_tokens: pd.DataFrame
) -> None:
    by_question = [table for _, table in random_tokens.groupby("prompt_id", sort=False)]
    dominant = [(table["thr"].abs() > table["tau"]).to_numpy() for table in by_question]
    size = [table["thr"].abs().to_numpy(np.float64) for table in by_question]
    shares, ginis = [], []
    for counts in question_weights(len(by_question), seed=1):
        drawn = np.repeat(np.arange(len(by_question)), counts)
        shares.append(np.concatenate([dominant[index] for index in drawn]).mean())
        ginis.append(sorted_gini(np.concatenate([size[index] for index in drawn])))
    for quantity, draws, tolerance in (
        ("dominant_share", shares, 1e-12),
        ("gini", ginis, 1e-3),
    ):
        interval = analysis.value(quantity)
        expected = np.quantile(draws, [0.025, 0.975])
        np.testing.assert_allclose([interval.low, interval.high], expected, atol=tolerance)


def test_the_median_threshold_is_over_groups_of_positive_tau(
    analysis: Analysis, random_tokens: pd.DataFrame
) -> None:
    tau = random_tokens.groupby("prompt_id")["tau"].first()
    np.testing.assert_allclose(
        analysis.value("median_tau").value, np.median(tau[tau > 0]), rtol=1e-6
    )
    assert analysis.facts["num_groups_tau_nonpositive"] == (tau <= 0).sum() > 0


def test_the_diagnostic_curve_is_numpys_histogram_of_the_tokens(
    analysis: Analysis, random_tokens: pd.DataFrame
) -> None:
    curve = analysis.curves["diagnostic"]
    for correct, rows in ((True, "correct"), (False, "incorrect")):
        table = random_tokens[random_tokens["correct"] == correct]
        bins = curve[curve["split"] == rows]
        edges = np.append(bins["left"], bins["right"].iloc[-1])
        # the widest bin ends at the largest |THR|, up to rounding
        edges[0], edges[-1] = np.nextafter(edges[[0, -1]], [-np.inf, np.inf])
        count, _ = np.histogram(table.loc[table["thr"] != 0, "thr"].astype(float), edges)
        np.testing.assert_allclose(bins["fraction"], count / len(table), rtol=1e-12)
        steps = np.diff(np.arcsinh(edges / analysis.facts["asinh_scale"]))
        np.testing.assert_allclose(steps, steps[0], rtol=1e-9)
        assert ((bins["low"] <= bins["fraction"]) & (bins["fraction"] <= bins["high"])).mean() > 0.9


def test_the_paper_curve_is_a_kernel_density_over_all_tokens(
    analysis: Analysis, random_tokens: pd.DataFrame
) -> None:
    curve = analysis.curves["paper"]
    width = analysis.facts["bandwidth"]
    for correct, split in ((True, "correct"), (False, "incorrect")):
        rows = curve[curve["split"] == split]
        values = random_tokens.loc[random_tokens["correct"] == correct, "thr"].to_numpy(float)
        distance = (rows["thr"].to_numpy()[:, None] - values) / width
        exact = np.exp(-0.5 * distance**2).mean(axis=1) / (width * np.sqrt(2 * np.pi))
        np.testing.assert_allclose(rows["density"], exact, atol=0.03 * exact.max())


def test_the_concentration_curve_passes_through_the_top_shares(analysis: Analysis) -> None:
    curve = analysis.curves["concentration"]
    for split in ("correct", "incorrect"):
        rows = curve[curve["split"] == split]
        for percent in (1, 5, 20):
            at = np.interp(np.log(percent / 100), np.log(rows["token_share"]), rows["mass_share"])
            exact = analysis.value(f"top_{percent}_mass", split).value
            np.testing.assert_allclose(at, exact, atol=2e-3)
        np.testing.assert_allclose(rows["mass_share"].iloc[-1], 1.0, rtol=1e-12)


def test_row_groups_do_not_change_the_numbers(finely_cut_run: Path, analysis: Analysis) -> None:
    other = thr_density(read_run(finely_cut_run), seed=1)
    pd.testing.assert_frame_equal(other.summary, analysis.summary, rtol=1e-9)
    for curve, table in analysis.curves.items():
        pd.testing.assert_frame_equal(other.curves[curve], table, rtol=1e-9, atol=1e-12)


def test_dividing_by_tau_leaves_out_groups_without_a_positive_one(
    random_run: Path, analysis: Analysis, random_tokens: pd.DataFrame
) -> None:
    scaled = thr_density(read_run(random_run), normalize="tau", seed=1)
    kept = random_tokens[random_tokens["tau"] > 0]
    assert scaled.facts["num_tokens"] == len(kept)
    assert (
        scaled.facts["excluded_groups_tau_nonpositive"]
        == (analysis.facts["num_groups_tau_nonpositive"])
    )
    assert scaled.value("dominant_share").value == pytest.approx(
        analysis.value("dominant_share", "all, tau > 0").value, rel=1e-12
    )
    relative = (kept["thr"].astype(float) / kept["tau"]).abs()
    np.testing.assert_allclose(scaled.facts["max_abs_thr"], relative.max(), rtol=1e-6)
    np.testing.assert_allclose(
        scaled.value("gini").value, sorted_gini(relative.to_numpy()), atol=1e-3
    )
    assert set(scaled.summary["split"]) == {"all", "correct", "incorrect"}
    assert r"THR$/\tau$" in scaled.caption


def test_each_style_keeps_its_own_curves_and_caption(analysis: Analysis) -> None:
    for style, sentence in (("paper", "the linear axis ends"), ("diagnostic", "asinh")):
        styled = density_in_style(analysis, style)
        assert list(styled.curves) == [style, "concentration"]
        assert sentence in styled.caption
    with pytest.raises(UsageError, match="unknown style 'other'"):
        density_in_style(analysis, "other")


def test_the_caption_names_numbers_and_exclusions(analysis: Analysis) -> None:
    tokens = f"{analysis.facts['num_tokens']:,} tokens of {analysis.facts['num_completions']}"
    assert tokens in analysis.caption
    assert "Left out: 4 groups without a correct completion, 4 groups with only correct" in (
        analysis.caption
    )
    assert "2,000 bootstrap resamples of the questions" in analysis.caption


def test_options_that_do_not_exist_are_refused(random_run: Path) -> None:
    run = read_run(random_run)
    with pytest.raises(UsageError, match="unknown normalize 'sd'; choose none or tau"):
        thr_density(run, normalize="sd")
    for bins in (7, 0, -2, 10_001, 10_002, 10**11):
        with pytest.raises(
            UsageError, match=rf"even number of at least 2, at most 10000, got {bins}$"
        ):
            thr_density(run, bins=bins)


@pytest.mark.parametrize(
    ("group", "reason"),
    [
        ({"completions": [{"correct": False}] * 2}, "None of the 2 completions in 1 group"),
        (
            {
                "tau": 0.0,
                "completions": [{"correct": c, "thr": [0.0, 0.0]} for c in (True, False)],
            },
            "The THR of all 4 tokens is exactly 0.",
        ),
    ],
)
def test_nothing_to_draw_is_said_with_its_counts(
    tmp_path: Path, make_run: MakeRun, group: dict[str, Any], reason: str
) -> None:
    analysis = thr_density(read_run(make_run(tmp_path / "run", [group])))
    assert analysis.empty_reason is not None
    assert analysis.empty_reason.startswith(reason)
    assert analysis.curves == {}
    assert density_in_style(analysis, "paper") is analysis


def test_without_incorrect_completions_only_the_correct_are_reported(
    tmp_path: Path, make_run: MakeRun
) -> None:
    groups = [{"tau": 0.1, "completions": [{"correct": True}, {"correct": True}]}] * 1
    analysis = thr_density(read_run(make_run(tmp_path / "run", groups)), groups="has-correct")
    assert set(analysis.summary["split"]) == {"all", "correct"}
    assert set(analysis.curves["paper"]["split"]) == {"correct"}
