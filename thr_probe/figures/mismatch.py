"""Draws the sampler's log-probabilities against the policy's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from thr_probe.analysis.result import Analysis
from thr_probe.figures.notice import plot_notice
from thr_probe.figures.style import (
    BLACK,
    EXPLOITATION,
    EXPLORATION,
    EXPLORATION_LINE,
    GREEN,
    GREY,
    LIGHT_GREY,
    PURPLE,
    label_panel,
    panel_row,
    paper_style,
    venue_width,
)

_KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "all": ("all tokens", {"color": BLACK, "linestyle": "-"}),
    "THR > tau": (r"THR > $\tau$", {"color": EXPLOITATION, "linestyle": "-"}),
    "THR < -tau": (r"THR < $-\tau$", {"color": EXPLORATION, "linestyle": EXPLORATION_LINE}),
    "|THR| <= tau": (r"|THR| $\leq \tau$", {"color": GREY, "linestyle": (0, (1, 1))}),
}
_MEANS: dict[str, tuple[str, dict[str, Any]]] = {
    "mean_gap": ("mean difference", {"color": GREEN, "linestyle": (0, (5, 1, 1, 1))}),
    "kl_k3": (r"KL, $k_3$", {"color": PURPLE, "linestyle": "-"}),
}
_BAND: dict[str, Any] = {"alpha": 0.15, "linewidth": 0}
_SMALL = -2  # a power of ten from which on the axis of completions counts in powers of it
_LEVEL = 0.98  # a share that looks like all on a logarithmic axis
_PAD = 1.6  # beyond the ends of a logarithmic axis, as a factor


def plot_mismatch(analysis: Analysis, *, venue: str = "neurips") -> Figure:
    """Panels (a) shares beyond each difference, (b) by position, (c) by step or of completions.

    Args:
        analysis: of `sampler_mismatch`.
        venue: gives the printed width.
    """
    if analysis.empty_reason is not None:
        return plot_notice(analysis, venue=venue)
    with paper_style():
        figure, panels = panel_row(venue_width(venue), 3, height=1.9)
        tails, positions, last = panels
        label_panel(tails, "a", "tokens beyond")
        _draw_tails(tails, analysis)
        label_panel(positions, "b", "by position")
        _draw_positions(positions, analysis.curves["positions"])
        if "steps" in analysis.curves:
            label_panel(last, "c", "by step")
            _draw_steps(last, analysis.curves["steps"])
        else:
            label_panel(last, "c", "completions")
            _draw_sequences(last, analysis.curves["sequences"])
        handles = tails.get_legend_handles_labels()[0] + positions.get_legend_handles_labels()[0]
        figure.legend(
            handles=handles,
            loc="outside lower center",
            ncols=3,
            borderaxespad=0.2,
            columnspacing=1.2,
        )
    return figure


def _draw_tails(axes: Axes, analysis: Analysis) -> None:
    rows = analysis.curves["tails"]
    bound = float(str(analysis.facts["bound"]))
    axes.set(xlabel="difference (nats)", ylabel="share of tokens")
    if rows.empty:
        axes.text(0.5, 0.5, "no difference", ha="center", transform=axes.transAxes)
        axes.set(xticks=(), yticks=())
        return
    for split, (label, look) in _KINDS.items():
        some = rows[rows["split"] == split]
        _line(axes, some["difference"], some, "share", {**look, "label": label})
    axes.axvline(bound, color=GREY, linestyle=":", linewidth=1)
    axes.set(xscale="log", yscale="log")
    ends = [*rows["difference"], bound]
    axes.set_xlim(min(_first_fall(rows), bound) / _PAD, max(ends) * _PAD)
    axes.set_ylim(rows["share"].min() / _PAD, _PAD)
    _few_ticks(axes)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.4g}%"))


def _first_fall(rows: pd.DataFrame) -> float:
    """The largest difference up to which almost every token of each kind is beyond.

    Lines are level before it, and further left there is nothing to see.
    """
    least = rows.groupby("difference")["share"].min()
    level = least.index[least >= _LEVEL]
    return float(level[-1] if len(level) else least.index[0])


def _draw_positions(axes: Axes, rows: pd.DataFrame) -> None:
    left = rows["left"].to_numpy()
    right = np.where(np.isfinite(rows["right"]), rows["right"], left + 1)
    middle = (left + right - 1) / 2
    for quantity, (label, look) in _MEANS.items():
        _line(axes, middle, rows, quantity, {**look, "label": label})
    axes.set_xscale("symlog", linthresh=1, linscale=0.4)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:g}"))
    axes.set_xlim(0, max(float(middle.max()), 1.0))
    axes.set_xlabel("tokens from the start")
    _logarithmic_nats(axes, rows)


def _draw_steps(axes: Axes, rows: pd.DataFrame) -> None:
    for quantity, (_, look) in _MEANS.items():
        _line(axes, rows["step"], rows, quantity, look)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_xlabel("step")
    _logarithmic_nats(axes, rows)


def _logarithmic_nats(axes: Axes, rows: pd.DataFrame) -> None:
    """Nats in powers of ten; linear where no value is above 0."""
    axes.set_ylabel("nats")
    drawn = rows[list(_MEANS)].to_numpy()
    if not (drawn > 0).any():
        return
    ends = drawn[drawn > 0].min(), np.nanmax([drawn.max(), *rows["mean_gap_high"]])
    axes.set_yscale("log")
    axes.set_ylim(ends[0] / 4, ends[1] * 2)
    _few_ticks(axes, x=False)


def _draw_sequences(axes: Axes, rows: pd.DataFrame) -> None:
    edges = np.append(rows["left"].to_numpy(), rows["right"].iloc[-1])
    exponent = int(np.floor(np.log10(np.abs(edges).max())))
    exponent = exponent if exponent < _SMALL else 0
    edges = edges / 10.0**exponent
    share = rows["share"].to_numpy()
    axes.stairs(share, edges, fill=True, facecolor=LIGHT_GREY, edgecolor=BLACK, linewidth=0.5)
    some = (share > 0) & np.isfinite(rows["share_low"].to_numpy())
    middle = (edges[1:] + edges[:-1]) / 2
    axes.vlines(
        middle[some],
        rows["share_low"][some],
        rows["share_high"][some],
        color=BLACK,
        linewidth=0.7,
    )
    axes.axvline(0, color=GREY, linestyle=":", linewidth=1)
    unit = f"$10^{{{exponent}}}$ nats" if exponent else "nats"
    axes.set(xlabel=rf"$\log(\pi/\mu)$ ({unit})", ylabel="share")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g}%"))


def _line(axes: Axes, at: Any, rows: pd.DataFrame, quantity: str, look: dict[str, Any]) -> None:
    """A line with its band, where it has one."""
    low, high = rows[f"{quantity}_low"].to_numpy(), rows[f"{quantity}_high"].to_numpy()
    tiny = np.finfo(float).tiny  # a bound of 0 has no place on a logarithmic axis
    axes.fill_between(at, low.clip(tiny), high.clip(tiny), color=look["color"], **_BAND)
    axes.plot(at, rows[quantity].where(rows[quantity] > 0), **look)


def _few_ticks(axes: Axes, *, x: bool = True) -> None:
    for axis in (axes.xaxis, axes.yaxis) if x else (axes.yaxis,):
        axis.set_major_locator(LogLocator(numticks=5))
        axis.set_minor_locator(NullLocator())
        axis.set_minor_formatter(NullFormatter())
