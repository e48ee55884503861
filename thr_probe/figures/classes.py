"""Draws which classes of tokens carry THR."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

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
    new_figure,
    paper_style,
    plain,
    venue_width,
)

_ROW = 0.17  # inches of a class


def plot_classes(analysis: Analysis, *, venue: str = "neurips") -> Figure:
    """Panels (a) share of tokens and of |THR| by class, (b) signed share of each class.

    Args:
        analysis: of `thr_by_class`.
        venue: gives the printed width.
    """
    if analysis.empty_reason is not None:
        return plot_notice(analysis, venue=venue)
    table = analysis.curves["classes"]
    with paper_style():
        figure = new_figure(venue_width(venue), 1.0 + _ROW * len(table))
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
        label_panel(left, "a", "shares")
        _draw_shares(left, table)
        label_panel(right, "b", "sign")
        _draw_signs(right, table)
        left.set_yticks(range(len(table)), [plain(name) for name in table["class"]])
        left.set_ylim(len(table) - 0.5, -0.5)
        figure.legend(
            *left.get_legend_handles_labels(),
            loc="outside lower center",
            ncols=2,
            borderaxespad=0.2,
        )
    return figure


def _draw_shares(axes: Axes, table: pd.DataFrame) -> None:
    at = np.arange(len(table))
    axes.hlines(at, table["token_share"], table["mass_share"], color=LIGHT_GREY, linewidth=2.5)
    looks = (
        ("token_share", "share of tokens", GREY, "s"),
        ("mass_share", "share of |THR|", BLACK, "o"),
    )
    for name, label, colour, marker in looks:
        axes.hlines(at, table[f"{name}_low"], table[f"{name}_high"], color=colour, linewidth=0.9)
        axes.plot(table[name], at, color=colour, marker=marker, linestyle="", label=label)
    axes.set_xlabel("share")
    reach = float(
        np.nanmax(table[["token_share", "mass_share", "token_share_high", "mass_share_high"]])
    )
    # room at the right for the numbers, which stand beyond every mark
    axes.set_xlim(-0.03 * reach, 1.5 * reach)
    for place, ratio in enumerate(table["mass_ratio"]):
        text = f"{ratio:.2f}×" if ratio >= 0.005 else "<0.01×"
        axes.annotate(
            text,
            (0.99, place),
            xycoords=("axes fraction", "data"),
            ha="right",
            va="center",
            fontsize=7,
        )
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{round(100 * share, 6):g}%"))


def _draw_signs(axes: Axes, table: pd.DataFrame) -> None:
    at = np.arange(len(table))
    value = table["signed_share"].to_numpy()
    positive = value > 0
    axes.barh(at[positive], value[positive], height=0.6, facecolor=EXPLOITATION)
    axes.barh(
        at[~positive],
        value[~positive],
        height=0.6,
        facecolor="white",
        edgecolor=EXPLORATION,
        hatch=EXPLORATION_HATCH,
    )
    axes.hlines(
        at, table["signed_share_low"], table["signed_share_high"], color=BLACK, linewidth=0.9
    )
    axes.axvline(0, color=BLACK, linewidth=0.6)
    axes.set(xlim=(-1.05, 1.05), xticks=(-1, 0, 1), xlabel=r"$\sum$THR / $\sum|$THR$|$")
    axes.tick_params(axis="y", length=0)
