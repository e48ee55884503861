"""The overlap and retention figures draw the numbers of their analyses, legibly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle, StepPatch

from thr_probe.analysis.overlap import thr_entropy_overlap
from thr_probe.analysis.result import Analysis
from thr_probe.analysis.retention import tokens_retained
from thr_probe.figures import plot_overlap, plot_retention
from thr_probe.figures.style import VENUE_WIDTHS
from thr_probe.traces import read_run


def rows_of(table: pd.DataFrame, split: str) -> pd.DataFrame:
    return table[table["split"] == split]


def test_the_first_overlap_panel_draws_bars_curve_median_and_chance(overlap: Analysis) -> None:
    axes = plot_overlap(overlap).axes[0]
    bars = rows_of(overlap.curves["histogram"], "all")
    curve = rows_of(overlap.curves["density"], "all")
    (steps,) = [patch for patch in axes.patches if isinstance(patch, StepPatch)]
    np.testing.assert_array_equal(steps.get_data().values, bars["density"])
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), curve["density"])
    at = {line.get_label().split()[0]: line.get_xdata()[0] for line in axes.lines[1:]}
    split = str(overlap.facts["drawn_split"])
    assert at == {
        "median": overlap.value("median_overlap", split).value,
        "chance": overlap.value("mean_chance", split).value,
    }


def test_the_second_overlap_panel_draws_both_labels(overlap: Analysis) -> None:
    axes = plot_overlap(overlap).axes[1]
    for line, split in zip(axes.lines, ("correct", "incorrect"), strict=True):
        assert line.get_label() == split
        expected = rows_of(overlap.curves["density"], split)
        np.testing.assert_array_equal(line.get_ydata(), expected["density"])


def test_the_strip_shows_completions_outside_the_curve_only_where_there_are_any(
    overlap: Analysis,
) -> None:
    figure = plot_overlap(overlap)
    widths = [patch.get_width() for patch in figure.axes[2].patches if isinstance(patch, Rectangle)]
    np.testing.assert_allclose(widths, overlap.curves["completions"]["share"], rtol=1e-12)
    number = overlap.curves["completions"]["number"]
    whole = overlap.curves["completions"].assign(number=[number.sum(), 0, 0])
    complete = replace(overlap, curves=overlap.curves | {"completions": whole})
    assert len(plot_overlap(complete).axes) == 2


def test_the_retention_panels_draw_the_distribution_and_both_averages(
    retention: Analysis,
) -> None:
    left, right = plot_retention(retention).axes
    (steps,) = [patch for patch in left.patches if isinstance(patch, StepPatch)]
    distribution = retention.curves["distribution"]
    np.testing.assert_array_equal(steps.get_data().values, distribution["share_of_questions"])
    splits = retention.curves["splits"]
    for line, quantity in zip(right.lines, ("retained_share", "retained_mean"), strict=True):
        expected = splits.loc[splits["quantity"] == quantity, "value"]
        np.testing.assert_array_equal(line.get_xdata(), expected)
    lines = [line.get_xdata()[0] for line in left.lines]
    assert lines == [retention.value(name).value for name in ("retained_share", "retained_mean")]


@pytest.mark.parametrize("venue", ["acl", "neurips", "icml-wide"])
def test_they_can_be_read_at_their_printed_size(
    overlap: Analysis,
    retention: Analysis,
    venue: str,
    assert_printable: Callable[[Figure], None],
) -> None:
    for figure in (plot_overlap(overlap, venue=venue), plot_retention(retention, venue=venue)):
        assert figure.get_figwidth() == VENUE_WIDTHS[venue]
        assert_printable(figure)


def test_a_run_without_correct_completions_becomes_a_sentence_in_both(
    tmp_path: Path, make_run: Callable[..., Path]
) -> None:
    groups = [{"completions": [{"correct": False}] * 3}]
    run = read_run(make_run(tmp_path / "run", groups))
    for figure in (plot_overlap(thr_entropy_overlap(run)), plot_retention(tokens_retained(run))):
        (text,) = figure.axes[0].texts
        assert text.get_text().startswith("None of the 3 completions in 1 group is correct")


def test_a_single_short_question_is_drawn_without_intervals(
    tmp_path: Path, make_run: Callable[..., Path], assert_printable: Callable[[Figure], None]
) -> None:
    groups = [{"tau": 0.015, "completions": [{"correct": True}, {"correct": False}]}]
    run = read_run(make_run(tmp_path / "run", groups))
    assert_printable(plot_overlap(thr_entropy_overlap(run)))
    assert_printable(plot_retention(tokens_retained(run)))
