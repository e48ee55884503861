"""The figures of comparisons: what is drawn where, at every width, and nothing over another."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from source_folders import MakeRun, labelled, make_evaluation

from thr_probe.analysis.compare import compare_sources
from thr_probe.analysis.passk_runs import pass_at_k_runs
from thr_probe.analysis.result import Analysis
from thr_probe.analysis.sources import Source, read_sources
from thr_probe.figures.compare import plot_compare
from thr_probe.figures.passk_runs import plot_pass_at_k_runs

VENUES = ("neurips", "icml", "acl")


def random_labels(seed: int, prefix: str, size: int) -> dict[str, str]:
    rng = np.random.default_rng(seed)
    return {f"{prefix}{i}": "".join(rng.choice(["0", "1"], 4)) for i in range(size)}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory, make_run: MakeRun) -> list[Source]:
    folder = tmp_path_factory.mktemp("runs")
    return read_sources(
        [
            make_run(folder / name, labelled(random_labels(seed, "q", 20)), tokens={1: "wait"})
            for seed, name in enumerate(("base", "thr", "nthr"))
        ]
    )


@pytest.fixture(scope="module")
def of_two(sources: list[Source]) -> Analysis:
    return compare_sources(sources[:2])


@pytest.mark.parametrize("venue", VENUES)
def test_every_quantity_has_a_line_with_its_interval(of_two: Analysis, venue: str) -> None:
    figure = plot_compare(of_two, venue=venue)
    figure.draw_without_rendering()
    forest = of_two.curves["forest"]
    for axes, panel in zip(figure.axes, ("points", "percent"), strict=True):
        part = forest[forest["panel"] == panel]
        labels = [text.get_text() for text in axes.get_yticklabels()]
        assert labels == part["label"].tolist()
        (whiskers,) = axes.collections
        ends = np.array([segment[:, 0] for segment in whiskers.get_segments()])
        assert_allclose(ends, part[["low", "high"]].to_numpy())
        drawn = np.concatenate(
            [line.get_xdata() for line in axes.lines if line.get_marker() == "D"]
        )
        assert_allclose(np.sort(drawn), np.sort(part["value"]))
        boxes = [text.get_window_extent() for text in axes.get_yticklabels()]
        assert all(upper.y0 > lower.y1 for upper, lower in pairwise(boxes))
        assert all(box.x0 >= 0 for box in boxes)


def test_filled_markers_are_those_that_stay_below_five_percent(of_two: Analysis) -> None:
    forest = of_two.curves["forest"].assign(p_holm=1.0)
    forest.loc[0, "p_holm"] = 0.01
    changed = Analysis(
        name="compare",
        summary=of_two.summary,
        curves={**of_two.curves, "forest": forest},
        facts=of_two.facts,
        caption="",
    )
    axes = plot_compare(changed).axes[0]
    filled = [
        x
        for line in axes.lines
        if line.get_marker() == "D" and line.get_markerfacecolor() != "white"
        for x in line.get_xdata()
    ]
    assert filled == [forest.loc[0, "value"]]


def test_several_runs_share_the_lines_and_are_named(sources: list[Source]) -> None:
    figure = plot_compare(compare_sources(sources))
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["thr", "nthr"]
    (first, second) = figure.axes[0].collections
    heights = [each.get_segments()[0][0, 1] for each in (first, second)]
    assert heights == [-0.25, 0.25]


@pytest.mark.parametrize("num_sets", [1, 3, 6])
def test_each_set_has_its_values_and_its_differences(
    tmp_path: Path, make_run: MakeRun, num_sets: int
) -> None:
    names = [f"set{i}" for i in range(num_sets)]
    paths = [
        make_evaluation(
            make_run,
            tmp_path / run,
            {
                "sampled": {
                    name: random_labels(i + 9 * seed, name, 5) for i, name in enumerate(names)
                }
            },
        )
        for seed, run in enumerate(("base", "thr"))
    ]
    analysis = pass_at_k_runs(read_sources(paths))
    splits = analysis.curves["values"]["split"].unique()
    for venue in VENUES:
        figure = plot_pass_at_k_runs(analysis, venue=venue)
        figure.draw_without_rendering()
        assert len(figure.axes) == 2 * len(splits)
        titles = [axes.get_title(loc="left") for axes in figure.axes]
        assert sum(title.startswith("(") for title in titles) == len(splits)
        width = figure.get_window_extent().x1
        for axes in figure.axes:
            boxes = [text.get_window_extent() for text in axes.get_xticklabels()]
            assert all(left.x1 < right.x0 for left, right in pairwise(boxes))
            assert axes.get_tightbbox().x1 <= width + 1


def test_bands_and_whiskers_are_the_intervals_of_the_table(sources: list[Source]) -> None:
    analysis = pass_at_k_runs(sources[:2])
    upper, lower = plot_pass_at_k_runs(analysis).axes
    values, changes = analysis.curves["values"], analysis.curves["differences"]
    ends = np.concatenate(
        [[seg[:, 1] for seg in each.get_segments()] for each in upper.collections]
    )
    assert_allclose(ends, values[["low", "high"]].to_numpy())
    (band,) = lower.collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert_allclose([heights.min(), heights.max()], [changes["low"].min(), changes["high"].max()])
    assert_allclose(lower.lines[-1].get_ydata(), changes["value"])


def test_without_intervals_the_points_are_drawn_alone(tmp_path, make_run) -> None:
    paths = [
        make_run(tmp_path / name, labelled({"a": text}))
        for name, text in (("first", "1000"), ("second", "1100"))
    ]
    opened = read_sources(paths)
    for figure in (
        plot_compare(compare_sources(opened)),
        plot_pass_at_k_runs(pass_at_k_runs(opened)),
    ):
        figure.draw_without_rendering()
        assert figure.axes
