"""Draws what the threshold retains as it is scaled."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from thr_probe.analysis.result import Analysis
from thr_probe.analysis.tau import FACTORS
from thr_probe.figures.notice import plot_notice
from thr_probe.figures.style import (
    ALL,
    CORRECT,
    GREY,
    INCORRECT,
    label_panel,
    panel_row,
    paper_style,
    percent_axis,
    venue_width,
)

_LOOKS: dict[str, dict[str, Any]] = {"all": ALL, "correct": CORRECT, "incorrect": INCORRECT}


def plot_tau(analysis: Analysis, *, venue: str = "neurips") -> Figure:
    """Panels (a) share of tokens, (b) share of summed |THR| retained against c, by correctness.

    Markers are the exact counts of the summary.

    Args:
        analysis: of `threshold_sensitivity`.
        venue: gives the printed width.
    """
    if analysis.empty_reason is not None:
        return plot_notice(analysis, venue=venue)
    with paper_style():
        figure, (left, right) = panel_row(venue_width(venue), 2, height=1.9)
        label_panel(left, "a", "tokens")
        _draw(left, analysis, "retained_share")
        label_panel(right, "b", "summed |THR|")
        _draw(right, analysis, "retained_mass")
        figure.legend(
            *left.get_legend_handles_labels(),
            loc="outside lower center",
            ncols=3,
            borderaxespad=0.2,
        )
    return figure


def _draw(axes: Axes, analysis: Analysis, quantity: str) -> None:
    axes.axvline(1, color=GREY, linestyle=":", linewidth=1)
    for split, rows in analysis.curves["curve"].groupby("split", sort=False):
        look = _LOOKS[str(split)]
        axes.fill_between(
            rows["c"],
            rows[f"{quantity}_low"],
            rows[f"{quantity}_high"],
            color=look["color"],
            alpha=0.15,
            linewidth=0,
        )
        axes.plot(rows["c"], rows[quantity], color=look["color"], linestyle=look["linestyle"])
        exact = [
            analysis.value(f"{quantity}_at_{factor:g}", str(split)).value for factor in FACTORS
        ]
        axes.plot(FACTORS, exact, **{**look, "linestyle": ""})
        axes.plot([], [], label=split, **look)
    axes.set_xscale("log")
    axes.set(xlim=(0.01, 100), ylim=(0, 1.02), xlabel=r"c, in |THR| > c $\tau$")
    axes.set_ylabel("retained")
    axes.xaxis.set_major_locator(LogLocator(numticks=5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda c, _: f"{c:g}"))
    percent_axis(axes)
