"""Draws THR along the completions: from the start, relative, towards the answer or the end."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from thr_probe.analysis.position import shares_suffix
from thr_probe.analysis.result import Analysis
from thr_probe.figures.notice import plot_notice
from thr_probe.figures.style import (
    ALL,
    BLACK,
    CORRECT,
    EXPLOITATION,
    GREY,
    INCORRECT,
    label_panel,
    new_figure,
    paper_style,
    percent_axis,
    venue_width,
)

_PANELS = {
    "start": ("from the start", "tokens"),
    "relative": ("relative", "tokens / length"),
    "answer": ("around the answer", "tokens"),
    "end": ("to the end", "tokens"),
}
_MEANS: dict[str, dict[str, Any]] = {
    "magnitude": {"color": BLACK, "linestyle": "-", "label": "mean |THR|"},
    "mean_thr": {"color": EXPLOITATION, "linestyle": (0, (4, 1.5)), "label": "mean THR"},
}
_SPLITS: dict[str, dict[str, Any]] = {
    "all": {**ALL, "marker": ""},
    "correct": {**CORRECT, "marker": ""},
    "incorrect": {**INCORRECT, "marker": ""},
}
_TICKS = np.array([0, 1, 10, 100, 1000, 10_000, 100_000])


def plot_position(analysis: Analysis, *, venue: str = "neurips") -> Figure:
    """Panels (a) from the start, (b) relative, (c) around the answer, or to the end without any.

    Each has the means of THR above and the dominant share, by correctness, below.

    Args:
        analysis: of `thr_by_position`.
        venue: gives the printed width.
    """
    if analysis.empty_reason is not None:
        return plot_notice(analysis, venue=venue)
    width = venue_width(venue)
    third = "answer" if "answer" in analysis.curves else "end"
    names = ["start", "relative", third]
    is_wide = width > 4
    with paper_style():
        figure = new_figure(width, 3.0 if is_wide else 5.0)
        figure.set_layout_engine("constrained", h_pad=0.03, w_pad=0.03)
        grid: Any = figure.subplots(2, 3) if is_wide else figure.subplots(3, 2).T
        for index, name in enumerate(names):
            above, below = grid[:, index]
            curve = analysis.curves[name]
            label_panel(above, "abc"[index], _PANELS[name][0])
            _draw_means(above, curve, name)
            _draw_shares(below, curve, name, shares_suffix(analysis))
            for axes in (above, below):
                _scale(axes, curve, name)
            below.set_xlabel(_PANELS[name][1])
            if not is_wide:
                above.set_xlabel(_PANELS[name][1])
            if index == 0 or not is_wide:
                above.set_ylabel("mean over tokens")
                below.set_ylabel("dominant share")
        handles, labels = (
            first + second
            for first, second in zip(
                grid[0, 0].get_legend_handles_labels(),
                grid[1, 0].get_legend_handles_labels(),
                strict=True,
            )
        )
        figure.legend(
            handles,
            labels,
            loc="outside lower center",
            ncols=5 if is_wide else 3,
            borderaxespad=0.2,
            columnspacing=1.2,
        )
    return figure


def _middle(rows: pd.DataFrame, name: str) -> np.ndarray:
    """Where a bin is drawn: the middle of the whole numbers in it, or of its shares."""
    last = rows["right"] if name == "relative" else rows["right"] - 1
    middle: np.ndarray = ((rows["left"] + last) / 2).to_numpy()
    return middle


def _draw_means(axes: Axes, curve: pd.DataFrame, name: str) -> None:
    rows = curve[curve["split"] == "all"]
    axes.axhline(0, color=GREY, linewidth=0.6)
    for measure, look in _MEANS.items():
        _draw_line(axes, rows, name, measure, look)
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))


def _draw_shares(axes: Axes, curve: pd.DataFrame, name: str, suffix: str) -> None:
    for split, look in _SPLITS.items():
        rows = curve[curve["split"] == split + suffix]
        if len(rows):
            _draw_line(axes, rows, name, "dominant_share", {**look, "label": split})
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    percent_axis(axes)


def _draw_line(
    axes: Axes, rows: pd.DataFrame, name: str, measure: str, look: dict[str, Any]
) -> None:
    at = _middle(rows, name)
    axes.fill_between(
        at,
        rows[f"{measure}_low"],
        rows[f"{measure}_high"],
        color=look["color"],
        alpha=0.15,
        linewidth=0,
    )
    axes.plot(at, rows[measure], **look)


def _scale(axes: Axes, curve: pd.DataFrame, name: str) -> None:
    """Shares are linear; counts of tokens are too up to 1, and logarithmic beyond."""
    if name == "relative":
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_locator(FixedLocator([0, 0.5, 1]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:g}"))
        return
    at = _middle(curve, name)
    axes.set_xscale("symlog", linthresh=1, linscale=0.4)
    ticks = np.concatenate([-_TICKS[:0:-1], _TICKS])
    axes.xaxis.set_major_locator(FixedLocator(_thinned(ticks, at)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda number, _: _short(number)))
    axes.set_xlim(float(at.min()), max(float(at.max()), 1.0))
    if name == "answer":
        axes.axvline(0, color=GREY, linestyle=":", linewidth=1)


def _thinned(ticks: np.ndarray, at: np.ndarray) -> list[float]:
    """The ticks in range; without those at 1 where both sides of 0 are shown."""
    inside = ticks[(ticks >= at.min()) & (ticks <= max(at.max(), 1))]
    if (inside < 0).any() and (inside > 1).any():
        inside = inside[np.abs(inside) != 1]
    return [float(tick) for tick in inside]


def _short(number: float) -> str:
    return f"{number / 1000:g}k" if abs(number) >= 1000 else f"{number:g}"
