"""Draws where |THR| lies by advantage, by q, by correctness and sign, and on dominant tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from thr_probe.analysis.advantage import CELLS, DOMINANT, dominant_suffix
from thr_probe.analysis.result import Analysis
from thr_probe.figures.notice import plot_notice
from thr_probe.figures.style import (
    ALL,
    BLACK,
    BLUE,
    CORRECT,
    EXPLORATION_HATCH,
    GREY,
    INCORRECT,
    LIGHT_GREY,
    ORANGE,
    SKY,
    VERMILION,
    label_panel,
    new_figure,
    paper_style,
    percent_axis,
    venue_width,
)

_CELL_LOOKS: dict[str, dict[str, Any]] = {
    "correct_positive": {"facecolor": BLUE, "label": "correct, THR > 0"},
    "correct_negative": {
        "facecolor": VERMILION, "hatch": EXPLORATION_HATCH, "label": "correct, THR < 0",
    },
    "incorrect_positive": {"facecolor": SKY, "label": "incorrect, THR > 0"},
    "incorrect_negative": {
        "facecolor": ORANGE, "hatch": EXPLORATION_HATCH, "label": "incorrect, THR < 0",
    },
}  # fmt: skip
_DOMINANT = {
    "token_dominant_share": "tokens",
    "weight_dominant_share": "|A|",
    "influence_captured": "|A| |THR|",
}
_SPLITS: dict[str, dict[str, Any]] = {"all": ALL, "correct": CORRECT, "incorrect": INCORRECT}


def plot_advantage(analysis: Analysis, *, venue: str = "neurips") -> Figure:
    """Panels (a) by advantage, (b) by q, (c) correctness by sign, (d) on dominant tokens.

    Args:
        analysis: of `thr_by_advantage`.
        venue: gives the printed width.
    """
    if analysis.empty_reason is not None:
        return plot_notice(analysis, venue=venue)
    width = venue_width(venue)
    is_wide = width > 4
    with paper_style():
        figure = new_figure(width, 3.6 if is_wide else 6.6)
        figure.set_layout_engine("constrained", h_pad=0.03, w_pad=0.03)
        panels = np.ravel(figure.subplots(2, 2) if is_wide else figure.subplots(4, 1)).tolist()
        label_panel(panels[0], "a", "by advantage")
        _draw_advantage(panels[0], analysis.curves["advantage"])
        label_panel(panels[1], "b", "summed |A| |THR| by q")
        _draw_by_q(panels[1], analysis.curves["q"])
        label_panel(panels[2], "c", "summed |A| |THR|")
        _draw_cells(panels[2], analysis)
        label_panel(panels[3], "d", "held by dominant tokens")
        _draw_dominant(panels[3], analysis)
        figure.legend(
            *panels[1].get_legend_handles_labels(),
            loc="outside lower center",
            ncols=4 if is_wide else 2,
            borderaxespad=0.2,
            columnspacing=1.2,
        )
    return figure


def _draw_advantage(axes: Axes, rows: pd.DataFrame) -> None:
    axes.bar(
        rows["left"],
        rows["mass"],
        width=rows["right"] - rows["left"],
        align="edge",
        facecolor=LIGHT_GREY,
        edgecolor=BLACK,
        linewidth=0.5,
        label="summed |THR|",
    )
    axes.hlines(
        rows["tokens"], rows["left"], rows["right"], color=BLACK, linewidth=1.4, label="tokens"
    )
    middle = (rows["left"] + rows["right"]) / 2
    axes.vlines(middle, rows["mass_low"], rows["mass_high"], color=GREY, linewidth=0.9)
    axes.legend(loc="upper center", ncols=2, borderaxespad=0.1, columnspacing=1.2)
    axes.axvline(0, color=GREY, linestyle=":", linewidth=1)
    axes.set(xlabel="advantage", ylabel="share")
    highest = np.nanmax(rows[["mass", "mass_high", "tokens"]].to_numpy())
    axes.set_ylim(0, 1.25 * highest)  # the legend has room above the bars
    percent_axis(axes)


def _draw_by_q(axes: Axes, rows: pd.DataFrame) -> None:
    at, bottom = np.arange(len(rows)), np.zeros(len(rows))
    for cell in CELLS:
        share = rows[cell].to_numpy()
        axes.bar(
            at, share, bottom=bottom, width=0.8, edgecolor="white", linewidth=0.4,
            **_CELL_LOOKS[cell],
        )  # fmt: skip
        bottom = bottom + share
    axes.vlines(at, rows["correct_low"], rows["correct_high"], color=BLACK, linewidth=0.9)
    axes.set(ylim=(0, 1), xlim=(-0.6, len(rows) - 0.4), xlabel="q (mean of the bin)")
    axes.set_ylabel("share")
    axes.set_xticks(at, [f"{q:.2f}".removeprefix("0") for q in rows["mean_q"]])
    percent_axis(axes)


def _draw_cells(axes: Axes, analysis: Analysis) -> None:
    """A heat map of two by two, the numbers and their intervals in it."""
    value = np.array([analysis.value(cell).value for cell in CELLS]).reshape(2, 2)
    axes.imshow(value, cmap="Greys", vmin=0, vmax=max(2.5 * value.max(), 1e-9), aspect="auto")
    for place, cell in enumerate(CELLS):
        found = analysis.value(cell)
        text = f"{100 * found.value:.1f}%"
        if np.isfinite(found.low):
            text += f"\n[{100 * found.low:.1f}, {100 * found.high:.1f}]"
        axes.text(place % 2, place // 2, text, ha="center", va="center", fontsize=7)
    axes.set_xticks([0, 1], ["THR > 0", "THR < 0"])
    axes.set_yticks([0, 1], ["correct", "incorrect"])
    axes.tick_params(length=0)


def _draw_dominant(axes: Axes, analysis: Analysis) -> None:
    rows, suffix = analysis.curves["dominant"], dominant_suffix(analysis)
    names = list(DOMINANT)
    for offset, (split, look) in zip((-0.22, 0, 0.22), _SPLITS.items(), strict=True):
        own = rows[rows["split"] == split + suffix].set_index("quantity")
        at = np.array([names.index(name) for name in own.index]) + offset
        axes.plot(at, own["value"], label=split, **{**look, "linestyle": ""})
        axes.vlines(at, own["low"], own["high"], color=look["color"], linewidth=0.9)
    axes.set_xticks(range(len(names)), [_DOMINANT[name] for name in names])
    axes.set(xlim=(-0.5, len(names) - 0.5), ylim=(0, 1.03), ylabel="share")
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2.5, 5, 10]))
    axes.legend(loc="lower right", borderaxespad=0.1)
    percent_axis(axes)
