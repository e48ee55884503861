"""Draws training along its steps, one line per run (paper Figures 6, 11, 12)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from thr_probe.analysis.curves import ACCURACY, curve_panels
from thr_probe.analysis.result import Analysis
from thr_probe.figures.notice import plot_notice
from thr_probe.figures.style import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    drawable,
    label_panel,
    new_figure,
    paper_style,
    percent_axis,
    venue_width,
)

_COLORS = (BLUE, VERMILION, GREEN, BLACK, ORANGE, PURPLE, SKY)
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
_DASHES: tuple[Any, ...] = (
    "-",
    (0, (5, 1.5)),
    (0, (1, 1)),
    (0, (5, 1, 1, 1)),
    (0, (3, 1, 1, 1, 1, 1)),
)
_NAMES = {
    "reward_kept": "reward, filtered",
    "reward_generated": "reward, unfiltered",
    ACCURACY: "validation accuracy",
    "length_mean": "length (tokens)",
    "entropy": "entropy (nats)",
    "retained_share": "tokens retained",
}
_SHARES = {ACCURACY, "retained_share"}
_CHARACTER = 0.062  # inches: mean width in the legend
_LONGEST = 28  # characters of a name; a longer one is cut in its middle
_MARKED = 7  # markers along a line of many points
_SAMPLE = 2.8  # length of a legend's line, in its font size: a whole dash pattern
_ROUND = (1, 2, 2.5, 5, 10)  # steps of the ticks


def plot_curves(analysis: Analysis, *, venue: str = "neurips") -> Figure:
    """One panel per quantity and validation set, one line per run, bands where there are intervals.

    Args:
        analysis: of `training_curves`.
        venue: gives the printed width.
    """
    if analysis.empty_reason is not None:
        return plot_notice(analysis, venue=venue)
    curve = analysis.curves["curve"]
    panels, runs = curve_panels(curve), list(curve["run"].unique())
    width = venue_width(venue)
    columns = _columns(width, len(panels))
    rows = -(-len(panels) // columns)
    with paper_style():
        legend_columns, legend_height = _legend_room(runs, width)
        figure = new_figure(width, 1.35 * rows + 0.12 + legend_height)
        figure.set_layout_engine("constrained", h_pad=0.03, w_pad=0.03)
        grid = figure.add_gridspec(rows, columns)
        for index, (quantity, dataset) in enumerate(panels):
            axes = figure.add_subplot(grid[index // columns, index % columns])
            part = curve[(curve["quantity"] == quantity) & (curve["dataset"] == dataset)]
            _draw_panel(axes, part, runs)
            _label(axes, curve["step"], quantity, is_lowest=index + columns >= len(panels))
            label_panel(axes, chr(ord("a") + index), _title(panels, quantity, dataset))
        if len(runs) > 1:
            _add_legend(figure, runs, legend_columns)
    return figure


def run_look(index: int) -> dict[str, Any]:
    """Colour, dashes and marker of the run at a place; no two of the first 45 are alike."""
    return {
        "color": _COLORS[index % len(_COLORS)],
        "linestyle": _DASHES[index % len(_DASHES)],
        "marker": _MARKERS[index % len(_MARKERS)],
    }


def shortened(name: str, longest: int) -> str:
    """A name for print, its middle left out where it is longer.

    >>> shortened("qwen-math-thr", 9)
    'qwen…-thr'
    """
    if len(name) <= longest:
        return name
    tail = (longest - 1) // 2
    return f"{name[: longest - 1 - tail]}…{name[len(name) - tail :]}"


def _columns(width: float, number: int) -> int:
    if width < 4:
        return min(2, number)
    return 2 if number == 4 else min(3, number)


def _title(panels: Sequence[tuple[str, str]], quantity: str, dataset: str) -> str:
    several = sum(name == ACCURACY for name, _ in panels) > 1
    return shortened(dataset, 16) if quantity == ACCURACY and several else _NAMES[quantity]


def _draw_panel(axes: Axes, part: pd.DataFrame, runs: Sequence[str]) -> None:
    for index, run in enumerate(runs):
        rows = part[part["run"] == run]
        if rows.empty:
            continue
        look = run_look(index)
        if rows["low"].notna().any():
            axes.fill_between(
                rows["step"],
                rows["low"],
                rows["high"],
                color=look["color"],
                alpha=0.13,
                linewidth=0,
            )
        drawn = rows["value"]
        if rows["smoothed"].notna().any():
            axes.plot(rows["step"], drawn, color=look["color"], linewidth=0.5, alpha=0.35, zorder=1)
            drawn = rows["smoothed"]
        axes.plot(
            rows["step"],
            drawn,
            markevery=_marked(len(rows), index, len(runs)),
            markersize=2.6,
            linewidth=0.9,
            **look,
        )


def _marked(length: int, index: int, num_runs: int) -> slice | list[int]:
    """Which points carry a marker: all of a short line, some of a long one that has others by it.

    Where lines lie on each other their markers stand side by side.
    """
    if length <= 2 * _MARKED:
        return slice(None)
    if num_runs == 1:
        return []
    every = length // _MARKED
    return slice(index * every // num_runs, None, every)


def _label(axes: Axes, step: pd.Series[int], quantity: str, *, is_lowest: bool) -> None:
    first, last = int(step.min()), int(step.max())
    margin = 0.03 * (last - first) or 0.5
    axes.set_xlim(first - margin, last + margin)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, steps=_ROUND))
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=_ROUND))
    if quantity in _SHARES:
        percent_axis(axes)
    axes.set_xlabel("step" if is_lowest else "")


def _legend_room(runs: Sequence[str], width: float) -> tuple[int, float]:
    """Columns and height in inches of the legend; one run needs none, the caption names it."""
    if len(runs) < 2:
        return 1, 0.0
    longest = min(max(map(len, runs)), _LONGEST)
    columns = max(1, min(len(runs), int(width / (longest * _CHARACTER + 0.55))))
    return columns, 0.15 * -(-len(runs) // columns) + 0.1


def _add_legend(figure: Figure, runs: Sequence[str], columns: int) -> None:
    handles = [
        Line2D([], [], markersize=2.6, linewidth=0.9, **run_look(index))
        for index in range(len(runs))
    ]
    legend = figure.legend(
        handles,
        ["run"] * len(runs),
        loc="outside lower center",
        ncols=columns,
        borderaxespad=0.2,
        handlelength=_SAMPLE,
    )
    for text, run in zip(legend.get_texts(), runs, strict=True):
        # a name may hold $, which would start a formula; one that starts with _ would be left out
        text.set_parse_math(False)
        text.set_text(drawable(shortened(run, _LONGEST)))
