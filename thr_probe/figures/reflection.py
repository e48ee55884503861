"""Reflection words per token: all together by correctness, and word by word (Tables 14, 15)."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from thr_probe.analysis.result import Analysis
from thr_probe.figures.notice import plot_notice
from thr_probe.figures.style import (
    ALL,
    CORRECT,
    INCORRECT,
    label_panel,
    new_figure,
    paper_style,
    venue_width,
)

_WORD_PITCH = 0.135  # inches: 7 pt labels, upright
_STYLES: dict[str, dict[str, Any]] = {"all": ALL, "correct": CORRECT, "incorrect": INCORRECT}


def plot_reflection(analysis: Analysis, *, venue: str = "neurips") -> Figure:
    """The ratio by correctness, and that of each word that occurs, with intervals.

    As many words are drawn as the width holds, the most frequent ones; the table has them all.

    Args:
        analysis: of `reflection_ratio`.
        venue: gives the width.
    """
    if analysis.empty_reason is not None:
        return plot_notice(analysis, venue=venue)
    splits, words = analysis.curves["splits"], analysis.curves["words"]
    width = venue_width(venue)
    met = words.loc[(words["split"] == "all") & (words["count"] > 0), "word"].tolist()
    shown = met[: int((width - 1.9) / _WORD_PITCH)]
    scale, unit = _unit(splits)
    with paper_style():
        figure = new_figure(width, 2.3)
        left, right = figure.subplots(1, 2, width_ratios=(0.9, width - 1.9))
        _draw_splits(left, splits, scale)
        left.set_ylabel(f"matches, {unit}")
        _draw_words(right, words, shown, scale)
        label_panel(left, "a", "all words")
        all_shown = len(shown) == len(met)
        label_panel(right, "b", "by word" if all_shown else f"top {len(shown)} of {len(met)} words")
    return figure


def _unit(splits: pd.DataFrame) -> tuple[float, str]:
    if splits["unit"].iloc[0] == "matches per token":
        return 100.0, "% of tokens"
    return 1.0, "per 1,000 words"


def _draw_splits(axes: Axes, splits: pd.DataFrame, scale: float) -> None:
    for position, row in enumerate(splits.to_dict("records")):
        _point(axes, float(position), row, scale, size=4.5)
    axes.set_xticks(range(len(splits)), splits["split"], rotation=90)
    axes.set_xlim(-0.6, len(splits) - 0.4)
    values = splits[["value", "high"]].to_numpy()
    # completions without a word have no ratio
    high = scale * np.max(values[np.isfinite(values)], initial=0.0)
    axes.set_ylim(0, 1.08 * high if high > 0 else 1.0)


def _draw_words(axes: Axes, words: pd.DataFrame, shown: list[str], scale: float) -> None:
    """Words side by side on a log axis, with an open marker at its foot where a split has none."""
    part = words[words["word"].isin(shown) & (words["split"] != "all")]
    positive = scale * part.loc[part["value"] > 0, "value"]
    if positive.empty:
        axes.set(xticks=[], yticks=[])
        text = "no word of the list occurs"
        axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes)
        return
    foot = 0.5 * positive.min()
    axes.set_yscale("log")
    axes.set_ylim(foot, 1.6 * np.nanmax(scale * part[["value", "high"]].to_numpy()))
    for row in part.to_dict("records"):
        offset = -0.17 if row["split"] == "correct" else 0.17
        _point(axes, shown.index(row["word"]) + offset, row, scale, size=2.6)
    axes.set_xticks(range(len(shown)), shown, rotation=90)
    axes.set_xlim(-0.6, len(shown) - 0.4)
    axes.tick_params(axis="x", length=0)
    # over less than two decades the powers of ten alone would leave an axis almost without numbers
    steps = (1.0,) if axes.get_ylim()[1] > 100 * foot else (1.0, 2.0, 5.0)
    axes.yaxis.set_major_locator(LogLocator(subs=steps))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    handles = [
        Line2D([], [], linestyle="", markersize=3, label=split, **_marker(split))
        for split in ("correct", "incorrect")
    ]
    axes.legend(handles=handles, loc="upper right", handletextpad=0.2, borderaxespad=0)


def _marker(split: str) -> dict[str, Any]:
    return {name: _STYLES[split][name] for name in ("color", "marker")}


def _point(
    axes: Axes, position: float, row: dict[Hashable, Any], scale: float, *, size: float
) -> None:
    """A marker at the value with a whisker over its interval; nothing where it is undefined."""
    marker = _marker(row["split"])
    value, low, high = (scale * row[name] for name in ("value", "low", "high"))
    foot = axes.get_ylim()[0] if axes.get_yscale() == "log" else 0.0
    if np.isfinite(low) and high > foot:
        axes.plot([position] * 2, [max(low, foot), high], color=marker["color"], linewidth=1.0)
    if value <= 0:
        marker["markerfacecolor"] = "white"
    axes.plot(
        [position], [max(value, foot)], linestyle="", markersize=size, clip_on=False, **marker
    )
