"""Draws the seconds of a training step by module (paper Table 10)."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from thr_probe.analysis.result import Analysis
from thr_probe.analysis.timing import MODULES
from thr_probe.figures.curves import shortened
from thr_probe.figures.notice import plot_notice
from thr_probe.figures.style import (
    BLACK,
    GREY,
    LIGHT_GREY,
    ORANGE,
    SKY,
    new_figure,
    paper_style,
    plain,
    venue_width,
)

_LOOKS: dict[str, dict[str, Any]] = {
    "gen": {"facecolor": SKY},
    "update": {"facecolor": ORANGE, "hatch": "////"},
    "thr": {"facecolor": BLACK},
    "ref": {"facecolor": LIGHT_GREY, "hatch": "...."},
    "old": {"facecolor": GREY},
}
_HEIGHT = 0.62  # of a bar, of the distance to the next one
_TEXT_WIDTH = 0.36  # inches: 100% in 7 pt
_END_WIDTH = 1.05  # inches: what stands at the end of a bar


def plot_timing(analysis: Analysis, *, venue: str = "neurips") -> Figure:
    """One bar per run with its modules stacked, their shares inside and the total at its end.

    Args:
        analysis: of `module_timing`.
        venue: gives the printed width.
    """
    if analysis.empty_reason is not None:
        return plot_notice(analysis, venue=venue)
    modules = analysis.curves["modules"]
    runs = list(modules["run"].unique())
    width = venue_width(venue)
    names = [plain(shortened(run, 26 if width > 4 else 14)) for run in runs]
    with paper_style():
        figure = new_figure(width, 0.27 * len(runs) + (0.78 if width > 4 else 0.94))
        figure.set_layout_engine("constrained", h_pad=0.03, w_pad=0.03)
        axes = figure.add_subplot()
        longest = max(len(name) for name in names)
        bar_inches = width - 0.062 * longest - _END_WIDTH - 0.2
        largest = modules.loc[modules["module"] == "total", "seconds"].max()
        scale = bar_inches / largest
        for place, run in enumerate(runs):
            _draw_bar(axes, place, modules[modules["run"] == run], scale)
        _label(axes, names)
        axes.set_xlim(0, largest * (1 + _END_WIDTH / bar_inches))
        figure.legend(
            *axes.get_legend_handles_labels(),
            loc="outside upper center",
            ncols=5 if width > 4 else 3,
            borderaxespad=0.2,
            handlelength=1.2,
            columnspacing=1.2,
        )
    return figure


def _draw_bar(axes: Axes, place: int, rows: pd.DataFrame, scale: float) -> None:
    """The bar of a run.

    Args:
        axes: where.
        place: of the run, from the top.
        rows: its modules and their total.
        scale: inches per second, about.
    """
    seconds_of = dict(zip(rows["module"], rows["seconds"], strict=True))
    share_of = dict(zip(rows["module"], rows["share"], strict=True))
    left = 0.0
    for module, column in MODULES.items():
        seconds = seconds_of[module]
        if not seconds > 0:  # also where it was never measured
            seconds = 0.0
        axes.barh(
            place,
            seconds,
            _HEIGHT,
            left=left,
            edgecolor=BLACK,
            linewidth=0.4,
            label=column if place == 0 else None,
            **_LOOKS[module],
        )
        if seconds * scale > _TEXT_WIDTH:
            _write_share(axes, left + seconds / 2, place, share_of[module])
        left += seconds
    axes.annotate(
        _end(seconds_of["total"], share_of["thr"]),
        (left, place),
        xytext=(3, 0),
        textcoords="offset points",
        va="center",
        fontsize=7,
    )


def _end(total: float, thr_share: float) -> str:
    """The total, and the share of THR, whose part of the bar is too narrow for a number."""
    text = f"{total:,.0f} s" if total >= 100 else f"{total:#.3g} s"
    return f"{text} (THR {100 * thr_share:.1f}%)" if thr_share > 0 else text


def _write_share(axes: Axes, x: float, place: int, share: float) -> None:
    # white behind it, so that it is read on every colour and hatch
    box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none"}
    axes.text(x, place, f"{100 * share:.0f}%", ha="center", va="center", fontsize=7, bbox=box)


def _label(axes: Axes, names: list[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    for label in axes.get_yticklabels():
        label.set_parse_math(False)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("seconds per step")
