"""Reflection words per token: all together by correctness, and word by word (Tables 14, 15)."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

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
        more = "" if len(shown) == len(met) else f", {len(shown)} most frequent of {len(met)}"
        label_panel(right, "b", f"by word{more}")
    return figure


def _unit(splits: pd.DataFrame) -> tuple[float, str]:
    if splits["unit"].iloc[0] == "matches per token":
        return 100.0, "% of tokens"
    return 1.0, "per 1,000 words"


def _draw_splits(axes: Axes, splits: pd.DataFrame, scale: float) -> None:
    for position, row in enumerate(splits.to_dict("records")):
        _point(axes, position, row, scale, size=4.5)
    axes.set_xticks(range(len(splits)), splits["split"], rotation=90)
    axes.set_xlim(-0.6, len(splits) - 0.4)
    axes.set_ylim(bottom=0)


def _draw_words(axes: Axes, words: pd.DataFrame, shown: list[str], scale: float) -> None:
    position = {word: index for index, word in enumerate(shown)}
    for split, offset in (("correct", -0.17), ("incorrect", 0.17)):
        part = words[(words["split"] == split) & words["word"].isin(shown)]
        for row in part.to_dict("records"):
            _point(axes, position[row["word"]] + offset, row, scale, size=2.6)
    axes.set_xticks(range(len(shown)), shown, rotation=90)
    axes.set_xlim(-0.6, max(len(shown), 1) - 0.4)
    axes.set_ylim(bottom=0)
    axes.tick_params(axis="x", length=0)
    handles = [
        Line2D(
            [],
            [],
            color=_STYLES[split]["color"],
            marker=_STYLES[split]["marker"],
            ls="",
            label=split,
            ms=3,
        )
        for split in ("correct", "incorrect")
    ]
    axes.legend(handles=handles, loc="upper right")


def _point(
    axes: Axes, position: float, row: dict[Hashable, Any], scale: float, *, size: float
) -> None:
    """A marker at the value with a whisker over its interval; nothing where it is undefined."""
    style = _STYLES[row["split"]]
    value, low, high = (scale * row[name] for name in ("value", "low", "high"))
    if np.isfinite(low):
        axes.plot([position, position], [low, high], color=style["color"], linewidth=1.0)
    axes.plot(
        [position],
        [value],
        marker=style["marker"],
        color=style["color"],
        markersize=size,
        linestyle="",
    )
