"""Pass@K over K on a log2 axis."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from thr_probe.analysis.result import Analysis
from thr_probe.figures.notice import plot_notice
from thr_probe.figures.style import (
    ALL,
    BLUE,
    GREEN,
    LIGHT_GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    new_figure,
    paper_style,
    percent_axis,
    plain,
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
            part = curve[curve["split"] == split]
            if split == "all":
                _draw_all(axes, part)
            else:
                # side by side on the log axis, so that whiskers do not cover each other
                dodge = 2.0 ** (0.07 * (index - len(splits) / 2))
                _draw_split(axes, part, dodge, _SPLIT_STYLES[(index - 1) % len(_SPLIT_STYLES)])
        if (curve["value"] == 0).all():
            text = "no completion is correct"
            axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes)
        _label(axes, sorted({int(k) for k in curve["k"]}))
        if len(splits) > 1:
            axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), borderaxespad=0)
    return figure


def _draw_all(axes: Axes, part: pd.DataFrame) -> None:
    axes.fill_between(part["k"], part["low"], part["high"], color=LIGHT_GREY, linewidth=0)
    style: dict[str, Any] = {**ALL, "clip_on": False, "zorder": 3}
    axes.plot(part["k"], part["value"], label="all questions", **style)


def _draw_split(axes: Axes, part: pd.DataFrame, dodge: float, style: dict[str, Any]) -> None:
    k = part["k"] * dodge
    axes.vlines(k, part["low"], part["high"], color=style["color"], linewidth=0.7)
    axes.plot(k, part["value"], label=plain(part["split"].iloc[0]), clip_on=False, **style)


def k_axis(axes: Axes, ks: list[int], *, gap: float = 0.08) -> None:
    """K on a log2 axis, labelled where there is room.

    Args:
        axes: whose horizontal axis it is.
        ks: every value, ascending.
        gap: least distance of two labels, as a share of the axis.
    """
    axes.set_xscale("log", base=2)
    ticks = _ticks(ks, gap)
    axes.set_xticks(ticks, labels=[str(k) for k in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("$k$ (completions drawn)")


def _label(axes: Axes, ks: list[int]) -> None:
    k_axis(axes, ks)
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, 0.0), min(max(high, 0.05), 1.0))
    percent_axis(axes)
    axes.set_ylabel("Pass@$k$")


def _ticks(ks: list[int], gap: float) -> list[int]:
    """The last k, and before it those whose labels do not run into the next one's."""
    reach = math.log2(ks[-1] / ks[0]) or 1.0
    kept = [ks[-1]]
    for k in reversed(ks[:-1]):
        if math.log2(kept[0] / k) > gap * reach:
            kept.insert(0, k)
    return kept
