"""Draws what a method would do to saved rollouts: drift against p, overlap of token masks."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from thr_probe.analysis.result import Analysis
from thr_probe.figures.notice import plot_notice
from thr_probe.figures.style import (
    BLACK,
    EXPLOITATION,
    EXPLORATION,
    EXPLORATION_HATCH,
    GREY,
    LIGHT_GREY,
    label_panel,
    panel_row,
    paper_style,
    venue_width,
)


def plot_preview(analysis: Analysis, *, venue: str = "neurips") -> Figure:
    """Panels (a) predicted drift against p with its band, (b) Jaccard index of token masks.

    Args:
        analysis: of `preview`.
        venue: gives the printed width.
    """
    if analysis.empty_reason is not None:
        return plot_notice(analysis, venue=venue)
    width = venue_width(venue)
    with paper_style():
        figure, (left, right) = panel_row(width, 2, height=1.9)
        label_panel(left, "a", "predicted drift")
        _draw_drift(left, analysis)
        label_panel(right, "b", "overlap of token masks")
        _draw_overlap(right, analysis.curves["overlap"])
        handles, labels = right.get_legend_handles_labels()
        columns = 3 if width >= 4 else 1
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, borderaxespad=0.2)
    return figure


def _draw_drift(axes: Axes, analysis: Analysis) -> None:
    """The affine line, its band, p's own sides, and the values of p that were asked for."""
    rows, chosen = analysis.curves["drift"], analysis.curves["chosen"]
    p, drift = rows["p"].to_numpy(), rows["drift"].to_numpy()
    low, high = rows["low"].to_numpy(), rows["high"].to_numpy()
    steers = str(analysis.facts["method"]) == "thr"
    for side, colour, hatch in (
        (p >= 0, EXPLOITATION, None),
        (p <= 0, EXPLORATION, EXPLORATION_HATCH),
    ):
        axes.fill_between(
            p[side],
            low[side],
            high[side],
            facecolor=colour if steers else GREY,
            alpha=0.22,
            hatch=hatch if steers else None,
            edgecolor=colour if steers else GREY,
            linewidth=0,
        )
    axes.plot(p, drift, color=BLACK, label=None if steers else str(analysis.facts["method"]))
    axes.axhline(0, color=LIGHT_GREY, linewidth=0.7, zorder=0)
    axes.axhline(analysis.value("plain_drift").value, color=GREY, linestyle=":", label="plain GRPO")
    if steers:
        axes.plot(chosen["p"], chosen["value"], "o", color=BLACK, label="p asked for")
    axes.set(xlim=(-1, 1), xlabel="p" if steers else "p (not used)", ylabel="drift (THR)")
    axes.set_xticks([-1, -0.5, 0, 0.5, 1])
    axes.yaxis.set_major_locator(MaxNLocator(5))
    # with a slope the upper left is free; without one both lines lie flat
    axes.legend(loc="upper left" if drift[-1] > drift[0] else "center left", handlelength=1.4)
    axes.margins(y=0.12)


def _draw_overlap(axes: Axes, rows: pd.DataFrame) -> None:
    """Per pair its Jaccard index, and the share of the smaller mask in the larger."""
    at = np.arange(len(rows))
    for offset, name, marker, label in (
        (-0.15, "jaccard", "o", "Jaccard index"),
        (0.15, "share", "s", "of the first in the second"),
    ):
        colour = BLACK if name == "jaccard" else GREY
        axes.hlines(
            at + offset, rows[f"{name}_low"], rows[f"{name}_high"], color=colour, linewidth=0.9
        )
        axes.plot(rows[name].to_numpy(), at + offset, marker, color=colour, label=label)
    axes.plot(
        rows["share_by_chance"].to_numpy(), at + 0.15, "x", color=BLACK, label="the same by chance"
    )
    axes.set_yticks(at, [f"{row.smaller}, {row.larger}" for row in rows.itertuples()])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("share of tokens")
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
