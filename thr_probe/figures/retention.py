"""Draws how many tokens the adaptive threshold retains (paper Table 16)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from thr_probe.analysis.result import Analysis
from thr_probe.figures.notice import plot_notice
from thr_probe.figures.style import (
    BLACK,
    GREY,
    LIGHT_GREY,
    label_panel,
    panel_row,
    paper_style,
    venue_width,
)

_AVERAGES: dict[str, tuple[str, dict[str, Any]]] = {
    "retained_share": ("of all tokens", {"color": BLACK, "linestyle": "-", "marker": "o"}),
    "retained_mean": ("mean over completions", {"color": GREY, "linestyle": "--", "marker": "s"}),
}


def plot_retention(analysis: Analysis, *, venue: str = "neurips") -> Figure:
    """Panels (a) distribution over questions, (b) averages by correctness with intervals.

    Args:
        analysis: of `tokens_retained`.
        venue: gives the printed width.
    """
    if analysis.empty_reason is not None:
        return plot_notice(analysis, venue=venue)
    width = venue_width(venue)
    with paper_style():
        figure, (left, right) = panel_row(width, 2, height=1.7)
        label_panel(left, "a", "questions")
        _draw_distribution(left, analysis)
        label_panel(right, "b", "by correctness")
        _draw_averages(right, analysis.curves["splits"])
        handles, labels = right.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, borderaxespad=0.2)
    return figure


def _draw_distribution(axes: Axes, analysis: Analysis) -> None:
    rows = analysis.curves["distribution"]
    edges = np.append(rows["left"].to_numpy(), rows["right"].iloc[-1])
    share = rows["share_of_questions"].to_numpy()
    axes.stairs(share, edges, fill=True, facecolor=LIGHT_GREY, edgecolor=BLACK, linewidth=0.5)
    some = (share > 0) & np.isfinite(rows["low"].to_numpy())
    middle = (edges[1:] + edges[:-1]) / 2
    axes.vlines(middle[some], rows["low"][some], rows["high"][some], color=BLACK, linewidth=0.7)
    for quantity, (_, look) in _AVERAGES.items():
        axes.axvline(
            analysis.value(quantity).value,
            color=look["color"],
            linestyle=look["linestyle"],
            linewidth=1,
        )
    axes.set(
        xlim=(0, _upper_end(edges, share)), xlabel="tokens retained", ylabel="share of questions"
    )
    axes.set_ylim(bottom=0)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))


def _upper_end(edges: np.ndarray, share: np.ndarray) -> float:
    """A little beyond the last question, at most 1."""
    last = int(np.flatnonzero(share)[-1])
    return float(min(1.0, edges[last + 1] + 0.04))


def _draw_averages(axes: Axes, table: pd.DataFrame) -> None:
    splits = list(dict.fromkeys(table["split"]))
    for offset, (quantity, (label, look)) in zip((-0.13, 0.13), _AVERAGES.items(), strict=True):
        rows = table[table["quantity"] == quantity].set_index("split")
        at = np.array([splits.index(split) for split in rows.index]) + offset
        style = {**look, "linestyle": ""}
        axes.plot(rows["value"].to_numpy(), at, label=label, **style)
        axes.hlines(at, rows["low"], rows["high"], color=look["color"], linewidth=0.9)
    axes.set_yticks(range(len(splits)), [_split_label(split) for split in splits])
    axes.set_ylim(len(splits) - 0.5, -0.5)
    axes.set_xlabel("tokens retained")
    axes.set_xlim(max(axes.get_xlim()[0], -0.01), min(axes.get_xlim()[1], 1.01))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{round(100 * share, 6):g}%"))


def _split_label(split: str) -> str:
    return split.replace("tau > 0", r"$\tau > 0$")
