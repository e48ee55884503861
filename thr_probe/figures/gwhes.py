"""Draws GWHES against the measured effect of one step (Deng et al. 2025, Table 1)."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    MaxNLocator,
    NullLocator,
    PercentFormatter,
)

from thr_probe.analysis.result import Analysis
from thr_probe.figures.notice import plot_notice
from thr_probe.figures.style import (
    BLACK,
    BLUE,
    GREY,
    VERMILION,
    label_panel,
    panel_row,
    paper_style,
    venue_width,
)

_APART = 0.2
"""Least distance of two tick labels, as a share of the axis."""


def plot_gwhes(analysis: Analysis, *, venue: str = "neurips") -> Figure:
    """Panels (a) questions, (b) overlap of the extremes, (c) correct completions.

    Args:
        analysis: of `gwhes_agreement`.
        venue: gives the printed width.
    """
    if analysis.empty_reason is not None:
        return plot_notice(analysis, venue=venue)
    with paper_style():
        figure, (left, middle, right) = panel_row(venue_width(venue), 3, height=1.9)
        label_panel(left, "a", "questions")
        _draw_questions(left, analysis.curves["questions"])
        label_panel(middle, "b", "extremes")
        _draw_overlap(middle, analysis.curves["overlap"])
        label_panel(right, "c", "completions")
        _draw_completions(right, analysis.curves["completions"])
    return figure


def _draw_questions(axes: Axes, questions: pd.DataFrame) -> None:
    score, change = (questions[name].to_numpy(float) for name in ("gwhes", "change"))
    _signed_points(axes, score, change)
    axes.set(xlabel="GWHES (nats per unit step)", ylabel=r"$\Delta$ (nats)")
    _signed_axis(axes, "x", score)
    _signed_axis(axes, "y", change)


def _draw_overlap(axes: Axes, overlap: pd.DataFrame) -> None:
    size = overlap["k"].to_numpy()
    axes.fill_between(size, overlap["low"], overlap["high"], color=BLUE, alpha=0.2, linewidth=0)
    axes.plot(size, overlap["overlap"].to_numpy(), color=BLUE, label="GWHES")
    axes.plot(size, overlap["chance"].to_numpy(), color=GREY, linestyle=":", label="chance")
    for bound in ("chance_low", "chance_high"):
        axes.plot(size, overlap[bound].to_numpy(), color=GREY, linewidth=0.5)
    axes.set(xlabel="$K$", ylabel="overlap", ylim=(-0.02, 1.02))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.legend(loc="lower right", handlelength=1.4)


def _draw_completions(axes: Axes, completions: pd.DataFrame) -> None:
    """Measured against predicted change, with the line of equality where GWHES gives nats."""
    change = completions["change"].to_numpy(float)
    predicted = completions["unembedding"].to_numpy(float)
    in_nats = bool(np.isfinite(predicted).all())
    if not in_nats:
        predicted = -completions["gwhes_per_token"].to_numpy(float)
    _signed_points(axes, predicted, change)
    _signed_axis(axes, "x", predicted)
    _signed_axis(axes, "y", change)
    if in_nats:
        span = axes.get_xlim()
        line = np.linspace(*span, 400)
        limits = axes.get_ylim()
        axes.plot(line, line, color=BLACK, linewidth=0.7, linestyle=(0, (4, 1.5)), zorder=0)
        axes.set(xlim=span, ylim=limits)
    axes.set_xlabel("predicted (nats)" if in_nats else "$-$GWHES per token")
    axes.set_ylabel("measured (nats)")


def _signed_points(axes: Axes, x: np.ndarray, y: np.ndarray) -> None:
    """Points whose likelihood rose, and crosses where it fell."""
    fell = y < 0
    axes.plot(x[~fell], y[~fell], "o", color=BLUE, markersize=2.5, alpha=0.7, markeredgewidth=0)
    axes.plot(x[fell], y[fell], "x", color=VERMILION, markersize=3, markeredgewidth=0.8)


def _signed_axis(axes: Axes, which: str, value: np.ndarray) -> None:
    """A scale linear about 0 and logarithmic far from it on either side, fitted to the values."""
    size = np.abs(value[value != 0])
    if not len(size):
        return
    width = float(np.quantile(size, 0.25))
    ends = np.arcsinh(np.array([value.min(), value.max()]) / width)
    pad = 0.06 * max(float(ends[1] - ends[0]), 0.1)
    low, high = ends[0] - pad, ends[1] + pad
    limits = (width * float(np.sinh(low)), width * float(np.sinh(high)))
    if which == "x":
        axes.set_xscale("asinh", linear_width=width)
        axes.set_xlim(*limits)
    else:
        axes.set_yscale("asinh", linear_width=width)
        axes.set_ylim(*limits)
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(FixedLocator(_powers(low, high, width)))
    axis.set_major_formatter(FuncFormatter(_power))
    axis.set_minor_locator(NullLocator())


def _powers(low: float, high: float, width: float) -> list[float]:
    """0 and powers of ten between two ends of the transformed scale, none close to another."""
    size = width * np.sinh(max(abs(low), abs(high)))
    top = int(np.floor(np.log10(size)))
    signed = [sign * 10.0**power for power in range(top, top - 12, -1) for sign in (1, -1)]
    kept: list[float] = []
    for tick in [0.0, *signed]:
        at = float(np.arcsinh(tick / width))
        apart = [abs(at - float(np.arcsinh(other / width))) for other in kept]
        if low <= at <= high and min(apart, default=np.inf) >= _APART * (high - low):
            kept.append(tick)
    return sorted(kept)


def _power(value: float, _: object) -> str:
    if value == 0:
        return "0"
    sign = "-" if value < 0 else ""
    return f"${sign}10^{{{round(np.log10(abs(value)))}}}$"
