"""Draws which part of THR comes from the token, its completion, and other completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from thr_probe.analysis.result import Analysis
from thr_probe.analysis.split import PARTS
from thr_probe.figures.notice import plot_notice
from thr_probe.figures.style import (
    BLACK,
    GREEN,
    ORANGE,
    PURPLE,
    SKY,
    label_panel,
    panel_row,
    paper_style,
    percent_axis,
    venue_width,
)

_LOOKS: dict[str, dict[str, Any]] = {
    "self": {"facecolor": ORANGE, "label": "token itself"},
    "own": {"facecolor": SKY, "hatch": "////", "label": "own completion"},
    "other_correct": {"facecolor": GREEN, "hatch": "....", "label": "other correct completions"},
    "incorrect": {"facecolor": PURPLE, "hatch": "xxxx", "label": "incorrect, from correct"},
}
_BARS = {
    "all": "all",
    "all, dominant": "all\ndom.",
    "correct": "correct",
    "correct, dominant": "corr.\ndom.",
    "correct, not dominant": "corr.\nnot dom.",
}


def plot_split(analysis: Analysis, *, venue: str = "neurips") -> Figure:
    """Panels (a) stacked shares by correctness and dominance, (b) by decile of |THR|.

    Args:
        analysis: of `influence_shares`.
        venue: gives the printed width.
    """
    if analysis.empty_reason is not None:
        return plot_notice(analysis, venue=venue)
    with paper_style():
        figure, (left, right) = panel_row(venue_width(venue), 2, height=2.0)
        label_panel(left, "a", "all, correct, dominant")
        rows = analysis.curves["shares"]
        drawn = [split for split in _BARS if (rows["split"] == split).any()]
        _draw_bars(left, rows, "split", drawn)
        left.set_xticks(range(len(drawn)), [_BARS[split] for split in drawn])
        left.set_ylabel("share of summed |part|")
        label_panel(right, "b", "correct, by |THR|")
        rows = analysis.curves["deciles"]
        drawn = sorted(set(rows["decile"]))
        _draw_bars(right, rows, "decile", drawn)
        right.set_xticks(range(len(drawn)), drawn)
        right.set(xlabel="decile of |THR| in the group", ylabel="share of summed |part|")
        figure.legend(
            *left.get_legend_handles_labels(),
            loc="outside lower center",
            ncols=4 if venue_width(venue) > 4 else 2,
            borderaxespad=0.2,
            columnspacing=1.2,
        )
    return figure


def _draw_bars(axes: Axes, rows: pd.DataFrame, column: str, drawn: Sequence[Any]) -> None:
    """A stacked bar for each value of a column, whiskers at the boundaries between parts."""
    at = np.arange(len(drawn))
    for index, part in enumerate(PARTS):
        own = rows[rows["part"] == part].set_index(column)
        if own.empty:
            continue
        own = own.loc[list(drawn)]
        bottom = own["running"] - own["share"]
        axes.bar(
            at, own["share"], bottom=bottom, width=0.78, edgecolor="white", linewidth=0.4,
            **_LOOKS[part],
        )  # fmt: skip
        # between the middles of its neighbours, so that whiskers of one bar do not cover each other
        shift = (index - 1) * 0.18
        inner = (own["running"] < 1 - 1e-9) & (own["share"] > 0) & own["running_low"].notna()
        axes.vlines(
            at[inner] + shift,
            own["running_low"][inner],
            own["running_high"][inner],
            color=BLACK,
            linewidth=0.8,
        )
    axes.set(ylim=(0, 1), xlim=(-0.6, len(drawn) - 0.4))
    percent_axis(axes)
