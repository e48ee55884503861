"""Pass@K of several runs, set by set, above the paired differences to the first of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from thr_probe.analysis.result import Analysis
from thr_probe.figures.notice import plot_notice
from thr_probe.figures.passk import k_axis
from thr_probe.figures.rows import draw_whiskers, fitting, legend_columns, points_text, row_look
from thr_probe.figures.style import (
    BLACK,
    label_panel,
    new_figure,
    paper_style,
    percent_axis,
    plain,
    venue_width,
)

Grid = np.ndarray[tuple[int, int], np.dtype[np.object_]]
"""Axes by row and column."""

_NARROWEST = 1.3  # inches: a panel with its labels
_LEGEND_LINE = 0.17
_LABELS = 0.55  # inches beside a panel


def plot_pass_at_k_runs(analysis: Analysis, *, venue: str = "neurips") -> Figure:
    """Pass@K with whiskers, and the differences to the first run with bands.

    Each set has two panels, one above the other; where a page is too narrow for all sets, the two
    are side by side and the sets below each other.

    Args:
        analysis: of `pass_at_k_runs`.
        venue: gives the width.
    """
    if analysis.empty_reason is not None:
        return plot_notice(analysis, venue=venue)
    values, differences = analysis.curves["values"], analysis.curves["differences"]
    rows, splits = list(dict.fromkeys(values["row"])), list(dict.fromkeys(values["split"]))
    with paper_style():
        width = venue_width(venue)
        figure, grid = _grid(width, len(splits), rows)
        room = width / grid.shape[1] - _LABELS
        longest = len(str(values["k"].max()))
        gap = max(0.08, (0.05 + 0.07 * longest) / room)
        is_across = grid.shape[0] == len(splits) > 1 or grid.shape == (1, 2)
        for index, split in enumerate(splits):
            panels = grid[index, :] if is_across else grid[:, index]
            part = values[values["split"] == split]
            draw_whiskers(panels[0], part, rows)
            label_panel(panels[0], "abcdefghijklmnopqrstuvwxyz"[index % 26], plain(_title(split)))
            _share_axis(panels[0])
            if len(panels) > 1:
                _draw_bands(panels[1], differences[differences["split"] == split], rows)
            for axes in panels:
                k_axis(axes, sorted({int(k) for k in part["k"]}), gap=gap)
                axes.set_xlabel("")
        versus = f"minus {plain(str(analysis.facts['versus']))}"
        _label(grid, fitting(room, versus, "minus the first"), is_across=is_across)
        handles, labels = grid[0, 0].get_legend_handles_labels()
        columns = legend_columns(width, rows)
        figure.legend(handles, labels, loc="outside lower center", ncols=columns)
    return figure


def _grid(width: float, num_splits: int, rows: Sequence[str]) -> tuple[Figure, Grid]:
    """Panels of values and of differences (none for a single run), across the sets or down."""
    legend = _LEGEND_LINE * math.ceil(len(rows) / legend_columns(width, rows))
    kinds = 2 if len(rows) > 1 else 1
    fits = width / num_splits >= _NARROWEST
    if (num_splits > 1 and fits) or (num_splits == 1 and (width < 4 or kinds == 1)):
        figure = new_figure(width, 1.7 * kinds + legend)
        return figure, figure.subplots(kinds, num_splits, squeeze=False)
    figure = new_figure(width, _row_height(num_splits) * num_splits + legend)
    return figure, figure.subplots(num_splits, kinds, squeeze=False)


def _row_height(num_splits: int) -> float:
    """Inches; seven rows still fit a page."""
    return 2.1 if num_splits == 1 else 1.5 if num_splits <= 4 else 1.15


def _label(grid: Grid, minus: str, *, is_across: bool) -> None:
    """Names of the axes, once where they are shared."""
    for axes in grid[-1, :]:
        axes.set_xlabel("$k$")
    if is_across:
        for panels in grid:
            panels[0].set_ylabel("Pass@$k$")
            for axes in panels[1:]:
                axes.set_ylabel("points")
                axes.set_title(minus, loc="left", fontsize=8)
        return
    for axes, name in zip(grid[:, 0], ("Pass@$k$", f"points {minus}"), strict=False):
        axes.set_ylabel(name)


def _draw_bands(axes: Axes, table: pd.DataFrame, rows: Sequence[str]) -> None:
    """Differences to the first row."""
    axes.axhline(0, color=BLACK, linewidth=0.8)
    for index, row in enumerate(rows):
        part = table[table["row"] == row]
        look = row_look(index)
        if len(part) == 0:
            continue
        axes.fill_between(
            part["k"], part["low"], part["high"], color=look["color"], alpha=0.15, linewidth=0
        )
        axes.plot(part["k"], part["value"], clip_on=False, **look)
    axes.yaxis.set_major_formatter(FuncFormatter(points_text))
    axes.margins(y=0.1)


def _share_axis(axes: Axes) -> None:
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, 0.0), min(max(high, 0.05), 1.0))
    percent_axis(axes)


def _title(split: str) -> str:
    names = {"all": "all questions", "mean of datasets": "mean"}
    return names.get(split, split.removeprefix("dataset "))
