"""The figures of balance, split, position, advantage and tau draw their numbers, legibly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from thr_probe.analysis.advantage import CELLS, DOMINANT, thr_by_advantage
from thr_probe.analysis.balance import exploration_balance
from thr_probe.analysis.position import thr_by_position
from thr_probe.analysis.result import Analysis
from thr_probe.analysis.split import PARTS, influence_shares
from thr_probe.analysis.tau import FACTORS, threshold_sensitivity
from thr_probe.figures import (
    plot_advantage,
    plot_balance,
    plot_position,
    plot_split,
    plot_tau,
)
from thr_probe.figures.style import VENUE_WIDTHS
from thr_probe.traces import Run, read_run

COMPUTE = {
    "balance": (exploration_balance, plot_balance),
    "split": (influence_shares, plot_split),
    "position": (thr_by_position, plot_position),
    "advantage": (thr_by_advantage, plot_advantage),
    "tau": (threshold_sensitivity, plot_tau),
}


def _groups(number: int) -> list[dict[str, Any]]:
    """Groups of 12 with 1 to 11 correct; balances of either sign, answers, parts of THR."""
    rng = np.random.default_rng(12)
    groups = []
    for index in range(number):
        completions = []
        for place in range(12):
            size, correct = int(rng.integers(3, 120)), place <= index % 11
            thr = rng.lognormal(-1, 2, size) * rng.choice([-1, 1], size, p=[0.5, 0.5])
            own = np.abs(thr) * rng.random(size) * correct
            completions.append(
                {
                    "correct": correct,
                    "thr": np.float32(thr).tolist(),
                    "thr_self": np.float32(own).tolist(),
                    "thr_within": np.float32(own * 1.5).tolist(),
                    "token_ids": [*[1] * (size - 2), 2, 3],
                    "extracted": "7",
                }
            )
        tau = -0.1 if index % 9 == 4 else float(np.float32(rng.uniform(0.1, 0.4)))
        groups.append({"prompt_id": f"q{index}", "tau": tau, "completions": completions})
    return groups


@pytest.fixture(scope="module")
def influence_run(tmp_path_factory: pytest.TempPathFactory, make_run: Callable[..., Path]) -> Run:
    tokens = {1: "so ", 2: "7", 3: "<eos>"}
    path = make_run(tmp_path_factory.mktemp("influence") / "run", _groups(33), tokens=tokens)
    return read_run(path)


@pytest.fixture(scope="module")
def analyses(influence_run: Run) -> dict[str, Analysis]:
    return {name: compute(influence_run) for name, (compute, _) in COMPUTE.items()}


def stacked(figure: Figure, panel: int, names: tuple[str, ...]) -> dict[str, list[float]]:
    """Heights of the bars of a panel, by the order in which the parts were drawn."""
    bars = [patch for patch in figure.axes[panel].patches if isinstance(patch, Rectangle)]
    heights = np.array([bar.get_height() for bar in bars]).reshape(len(names), -1)
    return dict(zip(names, heights.tolist(), strict=True))


@pytest.mark.parametrize("venue", ["acl", "neurips", "icml-wide"])
@pytest.mark.parametrize("name", list(COMPUTE))
def test_each_can_be_read_at_its_printed_size(
    analyses: dict[str, Analysis],
    name: str,
    venue: str,
    assert_printable: Callable[[Figure], None],
) -> None:
    figure = COMPUTE[name][1](analyses[name], venue=venue)
    assert figure.get_figwidth() == VENUE_WIDTHS[venue]
    assert_printable(figure)


def test_balance_draws_a_dot_per_question_and_the_means(analyses: dict[str, Analysis]) -> None:
    analysis = analyses["balance"]
    left, right = plot_balance(analysis).axes
    dots = [part for part in left.collections if isinstance(part, PathCollection)]
    questions = analysis.curves["questions"]
    for part, chosen in zip(
        dots, (questions["balance"] >= 0, questions["balance"] < 0), strict=True
    ):
        assert chosen.any()
        expected = questions.loc[chosen, ["q", "balance"]]
        np.testing.assert_array_equal(part.get_offsets(), expected)
    bins = analysis.curves["by_q"]
    (mean,) = [line for line in left.lines if line.get_label() == "mean by q"]
    np.testing.assert_array_equal(mean.get_ydata(), bins["balance_mean"])
    counts = [text.get_text() for text in left.texts]
    assert counts == [str(number) for number in bins["num_questions"]]
    assert sum(map(int, counts)) == len(questions)
    lines = [line.get_xdata()[0] for line in right.lines]
    assert lines == [analysis.value(name).value for name in ("balance", "balance_mean")]
    heights = sorted(bar.get_height() for bar in right.patches)
    np.testing.assert_array_equal(
        heights, sorted(analysis.curves["distribution"]["share_of_questions"])
    )


def test_split_stacks_the_parts_of_both_panels(analyses: dict[str, Analysis]) -> None:
    analysis = analyses["split"]
    figure = plot_split(analysis)
    splits = ["all", "all, dominant", "correct", "correct, dominant", "correct, not dominant"]
    for part, heights in stacked(figure, 0, PARTS).items():
        expected = [analysis.value(f"{part}_share", split).value for split in splits]
        np.testing.assert_allclose(heights, expected, rtol=1e-9)
    deciles = analysis.curves["deciles"]
    for part, heights in stacked(figure, 1, PARTS[:3]).items():
        expected = deciles.loc[deciles["part"] == part, "share"].to_list()
        np.testing.assert_allclose(heights, expected, rtol=1e-9)


@pytest.mark.parametrize("venue", ["icml", "iclr"])
def test_position_draws_means_and_the_share_of_dominant_tokens(
    analyses: dict[str, Analysis], venue: str
) -> None:
    analysis = analyses["position"]
    axes = plot_position(analysis, venue=venue).axes
    rows = [axes[:3], axes[3:]] if venue == "iclr" else [axes[::2], axes[1::2]]
    for above, below, name in zip(*rows, ("start", "relative", "answer"), strict=True):
        curve = analysis.curves[name]
        lines = {line.get_label(): line for line in (*above.lines, *below.lines)}
        every = curve[curve["split"] == "all"]
        np.testing.assert_array_equal(lines["mean |THR|"].get_ydata(), every["magnitude"])
        np.testing.assert_array_equal(lines["mean THR"].get_ydata(), every["mean_thr"])
        for split in ("all", "correct", "incorrect"):
            part = curve[curve["split"] == f"{split}, tau > 0"]
            np.testing.assert_array_equal(lines[split].get_ydata(), part["dominant_share"])


def test_advantage_draws_masses_cells_and_dominant_shares(analyses: dict[str, Analysis]) -> None:
    analysis = analyses["advantage"]
    figure = plot_advantage(analysis)
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    np.testing.assert_array_equal(heights, analysis.curves["advantage"]["mass"])
    for cell, shares in stacked(figure, 1, CELLS).items():
        np.testing.assert_allclose(shares, analysis.curves["q"][cell], rtol=1e-9)
    for text, cell in zip(figure.axes[2].texts, CELLS, strict=True):
        found = analysis.value(cell)
        bounds = f"[{100 * found.low:.1f}, {100 * found.high:.1f}]"
        assert text.get_text() == f"{100 * found.value:.1f}%\n{bounds}"
    for line, split in zip(figure.axes[3].lines, ("all", "correct", "incorrect"), strict=True):
        expected = [analysis.value(name, f"{split}, tau > 0").value for name in DOMINANT]
        np.testing.assert_array_equal(line.get_ydata(), expected)


def test_tau_draws_the_curve_and_the_exact_counts(analyses: dict[str, Analysis]) -> None:
    analysis = analyses["tau"]
    curve = analysis.curves["curve"]
    for axes, quantity in zip(
        plot_tau(analysis).axes, ("retained_share", "retained_mass"), strict=True
    ):
        drawn = [line for line in axes.lines if len(line.get_xdata()) > 2]
        for index, split in enumerate(("all", "correct", "incorrect")):
            line, exact = drawn[2 * index : 2 * index + 2]
            np.testing.assert_array_equal(
                line.get_ydata(), curve.loc[curve["split"] == split, quantity]
            )
            expected = [analysis.value(f"{quantity}_at_{c:g}", split).value for c in FACTORS]
            np.testing.assert_array_equal(exact.get_ydata(), expected)


@pytest.mark.parametrize("name", ["balance", "position", "advantage", "tau"])
def test_a_run_without_correct_completions_becomes_a_sentence(
    tmp_path: Path, make_run: Callable[..., Path], name: str
) -> None:
    run = read_run(make_run(tmp_path / "run", [{"completions": [{"correct": False}] * 3}]))
    compute, plot = COMPUTE[name]
    (text,) = plot(compute(run)).axes[0].texts
    words = " ".join(text.get_text().split())
    assert words.startswith("None of the 3 completions in 1 group is correct")


@pytest.mark.parametrize("name", list(COMPUTE))
def test_a_single_short_question_is_drawn_without_intervals(
    tmp_path: Path,
    make_run: Callable[..., Path],
    name: str,
    assert_printable: Callable[[Figure], None],
) -> None:
    lists = {"thr_self": [0.01] * 4, "thr_within": [0.02] * 4}
    completions = [{"correct": label, **lists} for label in (True, False)]
    run = read_run(make_run(tmp_path / "run", [{"tau": 0.015, "completions": completions}]))
    compute, plot = COMPUTE[name]
    analysis = compute(run)
    assert "A single question gives no interval." in analysis.caption
    for venue in ("icml", "neurips"):
        assert_printable(plot(analysis, venue=venue))


@pytest.mark.parametrize("name", ["balance", "position", "advantage"])
def test_groups_of_only_correct_completions_are_drawn_beside_mixed_ones(
    tmp_path: Path,
    make_run: Callable[..., Path],
    name: str,
    assert_printable: Callable[[Figure], None],
) -> None:
    labels = {"a": (True, False), "b": (True, True), "c": (True, True)}
    groups = [
        {"prompt_id": prompt, "tau": 0.015, "completions": [{"correct": label} for label in both]}
        for prompt, both in labels.items()
    ]
    run = read_run(make_run(tmp_path / "run", groups))
    compute, plot = COMPUTE[name]
    assert_printable(plot(compute(run, groups="has-correct")))
