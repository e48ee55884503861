"""Pass@K over K on a log2 axis."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, PercentFormatter

from thr_probe.analysis.result import Analysis
from thr_probe.figures.notice import plot_notice
from thr_probe.figures.style import (
    ALL,
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    new_figure,
    paper_style,
    venue_width,
)

_COLUMN = 3.25  # inches: one curve needs no more than a column
_SPLIT_STYLES: tuple[dict[str, Any], ...] = (
    {"color": BLUE, "linestyle": (0, (5, 1.5)), "marker": "o"},
    {"color": VERMILION, "linestyle": (0, (3, 1, 1, 1)), "marker": "s"},
    {"color": GREEN, "linestyle": (0, (1, 1)), "marker": "^"},
    {"color": ORANGE, "linestyle": (0, (5, 1, 1, 1, 1, 1)), "marker": "v"},
    {"color": PURPLE, "linestyle": (0, (2, 1)), "marker": "P"},
    {"color": SKY, "linestyle": (0, (7, 2)), "marker": "X"},
)


def plot_pass_at_k(analysis: Analysis, *, venue: str = "neurips") -> Figure:
    """Pass@K with its band, for all questions and each split.

    Args:
        analysis: of `pass_at_k_curve`.
        venue: gives the width.
    """
    if analysis.empty_reason is not None:
        return plot_notice(analysis, venue=venue)
    curve = analysis.curves["curve"]
    splits = list(curve["split"].unique())
    width = min(venue_width(venue), _COLUMN if len(splits) == 1 else math.inf)
    with paper_style():
        figure = new_figure(width, 2.2 if len(splits) <= 6 else 2.8)
        axes = figure.add_subplot()
        for index, split in enumerate(splits):
            style = ALL if split == "all" else _SPLIT_STYLES[(index - 1) % len(_SPLIT_STYLES)]
            _draw(axes, curve[curve["split"] == split], split, style)
        _label(axes, sorted(curve["k"].unique()))
        if len(splits) > 1:
            axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), borderaxespad=0)
    return figure


def _draw(axes: Axes, part: pd.DataFrame, split: str, style: dict[str, Any]) -> None:
    label = "all questions" if split == "all" else split
    axes.fill_between(
        part["k"], part["low"], part["high"], color=style["color"], alpha=0.15, linewidth=0
    )
    axes.plot(part["k"], part["value"], label=label, clip_on=False, **style)


def _label(axes: Axes, ks: list[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(_ticks(ks), labels=[str(k) for k in _ticks(ks)])
    axes.xaxis.set_minor_locator(NullLocator())
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, 0.0), min(max(high, 0.05), 1.0))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    axes.set_xlabel("$k$ (completions drawn)")
    axes.set_ylabel("Pass@$k$")


def _ticks(ks: list[int]) -> list[int]:
    """The ks whose labels do not run into the next one's on the log axis; the last always."""
    reach = math.log2(ks[-1] / ks[0]) or 1.0
    kept = [
        k
        for k, following in zip(ks, ks[1:], strict=False)
        if math.log2(following / k) > 0.08 * reach
    ]
    return [*kept, ks[-1]]
