"""The figures of entropy, classes, health and drift draw the numbers of their analyses, legibly."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from matplotlib.collections import QuadMesh
from matplotlib.patches import Rectangle

from thr_probe.analysis.classes import thr_by_class
from thr_probe.analysis.drift import thr_drift
from thr_probe.analysis.entropy import thr_against_entropy
from thr_probe.analysis.health import run_health
from thr_probe.figures import plot_classes, plot_drift, plot_entropy, plot_health
from thr_probe.figures.style import EXPLORATION_HATCH, VENUE_WIDTHS
from thr_probe.traces import read_run

TOKENS = {1: " 5", 2: " so", 3: " wait", 4: "=", 5: " the", 6: "\\frac", 7: "<|im_end|>"}


def groups():
    rng = np.random.default_rng(3)
    made = []
    for index in range(9):
        completions = []
        for correct in (True, False, False):
            entropy = rng.gamma(0.3, 1.0, 30)
            ids = rng.integers(1, 8, 30)
            sign = np.where(ids == 4, -1, rng.choice([-1, 1], 30, p=[0.2, 0.8]))
            completions.append(
                {
                    "correct": correct,
                    "thr": np.float32(entropy**1.3 * rng.lognormal(-1, 1, 30) * sign).tolist(),
                    "entropy": np.float32(entropy).tolist(),
                    "logprob": np.float32(-rng.gamma(0.3, 1.0, 30)).tolist(),
                    "token_ids": ids.tolist(),
                    "finish_reason": "length" if index % 3 == 0 else "stop",
                }
            )
        made.append({"prompt_id": f"q{index}", "tau": 0.2, "completions": completions})
    return made


@pytest.fixture(scope="module")
def run(tmp_path_factory, make_run):
    path = make_run(tmp_path_factory.mktemp("figures") / "run", groups(), tokens=TOKENS)
    shutil.copytree(path / "scores" / "default", path / "scores" / "checkpoint-000100")
    return read_run(path)


@pytest.fixture(scope="module")
def analyses(run):
    return {
        plot_entropy: thr_against_entropy(run, score_id="default"),
        plot_classes: thr_by_class(run),
        plot_health: run_health(run),
        plot_drift: thr_drift(run, score_ids=["default", "checkpoint-000100"]),
    }


def test_the_entropy_panels_draw_the_counts_and_the_medians(analyses):
    analysis = analyses[plot_entropy]
    figure = plot_entropy(analysis)
    for axes, name in zip(figure.axes, ("entropy", "one_minus_p"), strict=False):
        (mesh,) = [each for each in axes.collections if isinstance(each, QuadMesh)]
        counts = analysis.curves[f"{name}-map"]["tokens"].to_numpy().reshape(30, 40)
        np.testing.assert_array_equal(mesh.get_array().filled(0), counts.T)
        lines = {line.get_label(): line.get_ydata() for line in axes.lines}
        np.testing.assert_array_equal(lines["median"], analysis.curves[name]["median"])
        np.testing.assert_array_equal(lines["quartiles"], analysis.curves[name]["q25"])


def test_the_classes_are_drawn_in_order_with_their_ratio_and_sign(analyses):
    analysis = analyses[plot_classes]
    table = analysis.curves["classes"]
    left, right = plot_classes(analysis).axes
    for line, name in zip(left.lines, ("token_share", "mass_share"), strict=True):
        np.testing.assert_array_equal(line.get_xdata(), table[name])
    assert [text.get_text() for text in left.texts] == [f"{r:.2f}×" for r in table["mass_ratio"]]
    bars = {
        round(bar.get_y() + bar.get_height() / 2): bar
        for bar in right.patches
        if isinstance(bar, Rectangle)
    }
    for place, value in enumerate(table["signed_share"]):
        assert bars[place].get_width() == value
        assert (bars[place].get_hatch() == EXPLORATION_HATCH) == (value <= 0)


def test_the_bars_of_health_are_the_shares_filled_by_verdict(analyses):
    analysis = analyses[plot_health]
    table = analysis.curves["checks"]
    figure = plot_health(analysis)
    bars = [bar for bar in figure.axes[0].patches if isinstance(bar, Rectangle)]
    np.testing.assert_array_equal([bar.get_width() for bar in bars], table["value"])
    hatches = {"ok": None, "look": "////", "bad": "xxxx"}
    assert [bar.get_hatch() for bar in bars] == [hatches[word] for word in table["verdict"]]
    assert table.set_index("check").loc["truncated", "verdict"] == "bad"


def test_drift_draws_every_score_set_from_the_reference_on(analyses):
    analysis = analyses[plot_drift]
    left, right = plot_drift(analysis).axes
    table = analysis.curves["checkpoints"]
    quantities = ("rank_correlation", "sign_agreement", "dominant_jaccard", "mass_moved")
    for line, name in zip(left.lines, quantities, strict=True):
        expected = table.loc[table["quantity"] == name, "value"]
        np.testing.assert_array_equal(line.get_ydata(), expected)
    assert [label.get_text() for label in right.get_xticklabels()] == [
        "default", "checkpoint-000100",
    ]  # fmt: skip


@pytest.mark.parametrize("venue", ["acl", "icml", "neurips", "icml-wide"])
def test_they_can_be_read_at_their_printed_size(analyses, venue, assert_printable):
    for plot, analysis in analyses.items():
        figure = plot(analysis, venue=venue)
        assert figure.get_figwidth() == VENUE_WIDTHS[venue]
        assert_printable(figure)


def test_a_single_question_is_drawn_and_nothing_becomes_a_sentence(
    tmp_path, make_run, assert_printable
):
    one = [{"tau": 0.015, "completions": [{"correct": True}, {"correct": False}]}]
    tokens = {1: "a", 2: " b", 3: "3", 4: "="}
    path = make_run(tmp_path / "one", one, tokens=tokens)
    shutil.copytree(path / "scores" / "default", path / "scores" / "other")
    run = read_run(path)
    assert_printable(plot_entropy(thr_against_entropy(run)))
    assert_printable(plot_classes(thr_by_class(run)))
    assert_printable(plot_health(run_health(run)))
    assert_printable(plot_drift(thr_drift(run)))
    none = read_run(make_run(tmp_path / "none", [], tokens=tokens))
    for figure in (
        plot_entropy(thr_against_entropy(none)),
        plot_classes(thr_by_class(none)),
        plot_health(run_health(none)),
        plot_drift(thr_drift(none)),
    ):
        assert len(figure.axes[0].texts) == 1
