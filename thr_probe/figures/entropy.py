"""Draws |THR| / tau against token entropy and against 1 - p(token)."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from thr_probe.analysis.result import Analysis
from thr_probe.figures.notice import plot_notice
from thr_probe.figures.style import (
    BLACK,
    GREY,
    VERMILION,
    label_panel,
    panel_row,
    paper_style,
    venue_width,
)

_PANELS = (
    ("a", "entropy", "token entropy", "entropy of the policy (nats)"),
    ("b", "one_minus_p", "token probability", "$1 - p$(token)"),
)
_QUARTILES: dict[str, Any] = {"color": VERMILION, "linewidth": 0.7, "linestyle": (0, (3, 1.5))}


def plot_entropy(analysis: Analysis, *, venue: str = "neurips") -> Figure:
    """Panels (a) against entropy, (b) against 1 - p: tokens by bin, medians, quartiles.

    Args:
        analysis: of `thr_against_entropy`.
        venue: gives the printed width.
    """
    if analysis.empty_reason is not None:
        return plot_notice(analysis, venue=venue)
    tokens = [analysis.curves[f"{name}-map"]["tokens"].max() for _, name, *_ in _PANELS]
    largest = float(max(*tokens, 10))
    with paper_style():
        figure, panels = panel_row(venue_width(venue), 2, height=2.1)
        for axes, (letter, name, title, label) in zip(panels, _PANELS, strict=True):
            label_panel(axes, letter, title)
            mesh = _draw_map(axes, analysis, name, LogNorm(1, largest))
            _draw_medians(axes, analysis, name)
            axes.set(xlabel=label, ylabel=r"$|\mathrm{THR}|\,/\,\tau$")
        bar = figure.colorbar(mesh, ax=panels, pad=0.02, aspect=30)
        # a tick beyond the scale would hang below or above the bar
        bar.set_ticks([10.0**power for power in range(int(np.log10(largest)) + 1)])
        bar.ax.yaxis.set_minor_formatter(NullFormatter())
        bar.set_label("tokens")
        bar.outline.set_visible(False)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, borderaxespad=0.2)
    return figure


def _draw_map(axes: Axes, analysis: Analysis, name: str, norm: LogNorm) -> QuadMesh:
    table = analysis.curves[f"{name}-map"]
    columns, rows = (np.unique(table[side]) for side in ("left", "lower"))
    count = table["tokens"].to_numpy().reshape(len(columns), len(rows)).T
    axes.set(xscale="log", yscale="log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_formatter(NullFormatter())
    return axes.pcolormesh(
        np.append(columns, table["right"].max()),
        np.append(rows, table["upper"].max()),
        np.ma.masked_equal(count, 0),
        norm=norm,
        cmap="Blues",
        rasterized=True,
    )


def _draw_medians(axes: Axes, analysis: Analysis, name: str) -> None:
    table = analysis.curves[name]
    middle = np.sqrt(table["left"] * table["right"])
    axes.axhline(1, color=GREY, linewidth=0.8, linestyle=(0, (1, 1)), label=r"$\tau$")
    axes.plot(middle, table["q25"], **_QUARTILES, label="quartiles")
    axes.plot(middle, table["q75"], **_QUARTILES)
    some = np.isfinite(table["low"])
    axes.fill_between(
        middle[some], table["low"][some], table["high"][some], color=BLACK, alpha=0.25, linewidth=0
    )
    axes.plot(middle, table["median"], color=BLACK, marker="o", markersize=1.5, label="median")
