"""A forest of paired differences: one line per quantity, the whisker is its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from thr_probe.analysis.result import Analysis
from thr_probe.figures.notice import plot_notice
from thr_probe.figures.rows import fitting, legend_columns, row_look
from thr_probe.figures.style import (
    BLACK,
    LIGHT_GREY,
    label_panel,
    new_figure,
    paper_style,
    plain,
    venue_width,
)

_AXES = {"points": "percentage points", "percent": "% of the baseline"}
_LINE = 0.17  # inches for a quantity of one run
_MORE = 0.09  # and for each further run
_LABELS = 1.2  # inches beside a panel: names of quantities and the letter
_SIGNIFICANT = 0.05


def plot_compare(analysis: Analysis, *, venue: str = "neurips") -> Figure:
    """The differences to the baseline, shares and other quantities apart.

    Args:
        analysis: of `compare_sources`.
        venue: gives the width.
    """
    if analysis.empty_reason is not None:
        return plot_notice(analysis, venue=venue)
    forest = analysis.curves["forest"]
    runs = list(dict.fromkeys(forest["run"]))
    panels = [name for name in _AXES if (forest["panel"] == name).any()]
    width = venue_width(venue)
    with paper_style():
        figure, axes = _panels(forest, panels, runs, width)
        for letter, name, panel in zip("ab", panels, axes, strict=False):
            part = forest[forest["panel"] == name]
            _draw(panel, part, runs)
            panel.set_xlabel(_AXES[name])
            room = width / (1 if width < 4 else len(panels)) - _LABELS
            minus = f"minus {plain(str(analysis.facts['baseline']))}"
            one = [f"{plain(runs[0])} {minus}"] if len(runs) == 1 else []
            title = fitting(room, *one, minus, "minus the baseline")
            if len(panels) > 1:
                label_panel(panel, letter, title)
            else:
                panel.set_title(title, loc="left", fontsize=8)
        if len(runs) > 1:
            handles = [
                axes[0].plot([], [], label=plain(run), **row_look(place) | {"linestyle": "-"})[0]
                for place, run in enumerate(runs, 1)
            ]
            figure.legend(
                handles=handles, loc="outside lower center", ncols=legend_columns(width, runs)
            )
    return figure


def _panels(
    forest: pd.DataFrame, panels: Sequence[str], runs: Sequence[str], width: float
) -> tuple[Figure, list[Axes]]:
    """Side by side where there is room, else one above the other, as high as their lines need."""
    lines = [forest.loc[forest["panel"] == name, "metric"].nunique() for name in panels]
    each = _LINE + _MORE * (len(runs) - 1)
    legend = 0.2 * math.ceil(len(runs) / legend_columns(width, runs)) if len(runs) > 1 else 0.0
    if width >= 4 or len(panels) == 1:
        figure = new_figure(width, 0.75 + each * max(lines) + legend)
        return figure, list(figure.subplots(1, len(panels), squeeze=False)[0])
    figure = new_figure(width, 0.75 * len(panels) + each * sum(lines) + legend)
    grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=lines)
    return figure, list(grid[:, 0])


def _draw(axes: Axes, part: pd.DataFrame, runs: Sequence[str]) -> None:
    labels = list(dict.fromkeys(part["label"]))
    axes.axvline(0, color=BLACK, linewidth=0.8, zorder=1)
    for index, run in enumerate(runs):
        rows = part[part["run"] == run]
        # the runs of a quantity share its line, one below the other
        shift = 0.0 if len(runs) == 1 else 0.5 * (index / (len(runs) - 1) - 0.5)
        place = rows["label"].map(labels.index) + shift
        look = row_look(index + 1)
        axes.hlines(place, rows["low"], rows["high"], color=look["color"], linewidth=1.0)
        for is_sure in (True, False):
            chosen = (rows["p_holm"] < _SIGNIFICANT) == is_sure
            axes.plot(
                rows.loc[chosen, "value"],
                place[chosen],
                linestyle="none",
                marker=look["marker"],
                color=look["color"],
                markerfacecolor=look["color"] if is_sure else "white",
                zorder=3,
            )
    for line in range(1, len(labels)):
        axes.axhline(line - 0.5, color=LIGHT_GREY, linewidth=0.4, zorder=0)
    axes.set_yticks(range(len(labels)), labels=labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    _symmetric(axes)


def _symmetric(axes: Axes) -> None:
    """A little room on both sides of 0, so that its line is seen where all lie on one side."""
    low, high = axes.get_xlim()
    reach = max(abs(low), abs(high), 1e-9)
    axes.set_xlim(min(low, -0.15 * reach), max(high, 0.15 * reach))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:+.4g}" if round(x, 9) else "0"))
