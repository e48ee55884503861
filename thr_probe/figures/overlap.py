"""Draws the overlap of dominant tokens with tokens of high entropy (paper Fig. 3)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from thr_probe.analysis.result import Analysis
from thr_probe.figures.notice import plot_notice
from thr_probe.figures.style import (
    ALL,
    BLACK,
    CORRECT,
    GREY,
    INCORRECT,
    LIGHT_GREY,
    label_panel,
    panel_row,
    paper_style,
    venue_width,
)

_STRIP: dict[str, dict[str, Any]] = {
    "drawn": {"facecolor": LIGHT_GREY},
    "tau <= 0": {"facecolor": "white", "hatch": "xxxx"},
    "no dominant token": {"facecolor": "white"},
}
_STRIP_LABELS = {
    "drawn": "completions in the curve",
    "tau <= 0": r"of groups with $\tau \leq 0$",
    "no dominant token": "without dominant token",
}


def plot_overlap(analysis: Analysis, *, venue: str = "neurips") -> Figure:
    """Panels (a) all completions with histogram, median and chance level, (b) by correctness.

    Where completions are outside the curve, a strip below shows how many and why.

    Args:
        analysis: of `thr_entropy_overlap`.
        venue: gives the printed width.
    """
    if analysis.empty_reason is not None:
        return plot_notice(analysis, venue=venue)
    completions = analysis.curves["completions"]
    some_outside = bool(completions["number"].iloc[1:].sum())
    width = venue_width(venue)
    with paper_style():
        figure, panels = panel_row(
            width, 2, height=1.75, strip_height=_strip_height(width) if some_outside else 0.0
        )
        label_panel(panels[0], "a", "all completions")
        _draw_all(panels[0], analysis)
        label_panel(panels[1], "b", "by correctness")
        _draw_splits(panels[1], analysis.curves["density"])
        for axes in panels[:2]:
            axes.set(xlim=(0, 1), xlabel="overlap with high-entropy tokens", ylabel="density")
            axes.set_ylim(bottom=0)
            axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
            # white behind the text: the line at the chance level may pass below it
            axes.legend(
                loc="best", frameon=True, framealpha=0.9, edgecolor="none", borderaxespad=0.2
            )
        if some_outside:
            _draw_strip(panels[2], completions)
            figure.legend(
                *panels[2].get_legend_handles_labels(),
                loc="outside lower center",
                ncols=_legend_columns(width),
                borderaxespad=0.2,
            )
    return figure


def _legend_columns(width: float) -> int:
    return 3 if width > 4 else 1


def _strip_height(width: float) -> float:
    """Inches for a bar and its legend of one or three lines."""
    return 0.4 if width > 4 else 0.75


def _draw_all(axes: Axes, analysis: Analysis) -> None:
    bars = _rows(analysis.curves["histogram"], "all")
    edges = np.append(bars["left"].to_numpy(), bars["right"].iloc[-1])
    axes.stairs(bars["density"], edges, fill=True, color=LIGHT_GREY, linewidth=0)
    rows = _rows(analysis.curves["density"], "all")
    _draw_curve(axes, rows, ALL)
    split = str(analysis.facts["drawn_split"])
    median = analysis.value("median_overlap", split).value
    chance = analysis.value("mean_chance", split).value
    axes.axvline(
        median, color=BLACK, linestyle="--", linewidth=0.9, label=f"median {100 * median:.0f}%"
    )
    axes.axvline(
        chance, color=GREY, linestyle=":", linewidth=1.1, label=f"chance {100 * chance:.0f}%"
    )


def _draw_splits(axes: Axes, curve: pd.DataFrame) -> None:
    for split, look in (("correct", CORRECT), ("incorrect", INCORRECT)):
        rows = _rows(curve, split)
        if len(rows):
            _draw_curve(axes, rows, look, label=split)


def _draw_curve(
    axes: Axes, rows: pd.DataFrame, look: dict[str, Any], label: str | None = None
) -> None:
    at, style = rows["overlap"].to_numpy(), {**look, "marker": ""}
    axes.fill_between(at, rows["low"], rows["high"], color=look["color"], alpha=0.2, linewidth=0)
    axes.plot(at, rows["density"].to_numpy(), label=label, **style)


def _rows(curve: pd.DataFrame, split: str) -> pd.DataFrame:
    return curve[curve["split"] == split]


def _draw_strip(axes: Axes, completions: pd.DataFrame) -> None:
    """A bar of all kept completions: in the curve, or left out of it and why."""
    start = 0.0
    for name, number, share in completions.itertuples(index=False):
        label = f"{number:,} {_STRIP_LABELS[name]}"
        look: dict[str, Any] = {"edgecolor": BLACK, "linewidth": 0.5, "clip_on": False}
        axes.barh(0, share, left=start, label=label, **look, **_STRIP[name])
        start += share
    axes.set(xlim=(0, 1), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
