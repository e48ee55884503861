"""Draws the simulations of the paper's appendix D.2 (Figs. 8 to 10, Lemma 1, labels)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from thr_probe.analysis.result import Analysis
from thr_probe.errors import UsageError
from thr_probe.figures.style import (
    BLACK,
    BLUE,
    GREY,
    LIGHT_GREY,
    ORANGE,
    VERMILION,
    label_panel,
    new_figure,
    panel_row,
    paper_style,
    venue_width,
)

_QUANTITIES = (
    ("pi", r"$\pi$", LIGHT_GREY),
    ("residual", r"$e_o - \pi$", BLUE),
    ("direction", r"$Q + \pi$", ORANGE),
)
_DIRECTIONS: dict[str, dict[str, Any]] = {
    "likeliest token": {"color": BLUE, "linestyle": "-", "marker": "o"},
    "unlikely token": {"color": VERMILION, "linestyle": (0, (4, 1.5)), "marker": "s"},
    "noise": {"color": GREY, "linestyle": ":", "marker": "^"},
}
_MARKERS = "osD^vP*X"
_MOST_BARS = 20


def plot_theory(analysis: Analysis, *, venue: str = "neurips") -> Figure:
    """The figure of one of the simulations.

    Args:
        analysis: of `entropy_shape`, `example_distributions`, `alignment_grid`, `lemma_check` or
            `label_sweep`.
        venue: gives the printed width.

    Raises:
        UsageError: another analysis, or an unknown venue.
    """
    if analysis.name not in _PLOTS:
        raise UsageError(f"{analysis.name} is no simulation; known: {', '.join(_PLOTS)}")
    width = venue_width(venue)
    with paper_style():
        return _PLOTS[analysis.name](analysis, width)


def _plot_shape(analysis: Analysis, width: float) -> Figure:
    figure, panels = panel_row(width, 2, height=1.6)
    for axes, letter, scale in zip(panels, "ab", ("linear", "log"), strict=True):
        curve = analysis.curves[scale]
        axes.plot(curve["x"].to_numpy(), curve["value"].to_numpy(), color=BLACK)
        axes.axvline(analysis.value("at").value, color=GREY, linestyle=":", linewidth=0.9)
        axes.set(xscale=scale, xlabel="$x$", ylabel=r"$-x \log x$")
        axes.set_ylim(bottom=0)
        label_panel(axes, letter, f"{'linear' if scale == 'linear' else 'logarithmic'} axis")
    return figure


def _plot_distributions(analysis: Analysis, width: float) -> Figure:
    bars = analysis.curves["bars"]
    cells = list(bars.groupby(["vocab_size", "top"], sort=False))
    narrow = width < 4
    figure = new_figure(width, 4.6 if narrow else 3.1)
    # a narrow column takes one distribution per row, a wide one one per column
    shape = (len(cells), 3) if narrow else (3, len(cells))
    grid = figure.subplots(*shape, sharey="row" if not narrow else "col", squeeze=False)
    for place, ((vocab_size, top), table) in enumerate(cells):
        column = grid[place] if narrow else grid[:, place]
        name = f"$V={vocab_size}$, $\\pi^\\star={top:g}$"
        for axes, (quantity, label, color) in zip(column, _QUANTITIES, strict=True):
            _draw_bars(axes, table, quantity, color)
            _name_bars(axes, label, name, is_first=place == 0, narrow=narrow)
        value = analysis.value("cos_direction_residual", f"V = {vocab_size}, pi* = {top:g}").value
        column[2].text(0.95, 0.9, f"cos {value:.2f}", ha="right", va="top", fontsize=7,
                       transform=column[2].transAxes)  # fmt: skip
    for axes in grid[-1]:
        axes.set_xlabel("rank")
    return figure


def _draw_bars(axes: Axes, table: pd.DataFrame, quantity: str, color: str) -> None:
    rank, value = table["rank"].to_numpy(), table[quantity].to_numpy()
    if len(rank) <= _MOST_BARS:
        axes.bar(rank, value, width=0.8, color=color, edgecolor=BLACK, linewidth=0.3)
    else:  # bars would be thinner than their edges
        axes.vlines(rank, 0, value, color=GREY if color == LIGHT_GREY else color, linewidth=1.5)
    is_label = table["is_label"].to_numpy()
    axes.plot(rank[is_label], value[is_label], "v", color=BLACK, markersize=3)
    axes.axhline(0, color=BLACK, linewidth=0.4)
    axes.set_xticks([1, len(rank)])
    axes.margins(x=0.04, y=0.18)
    axes.yaxis.set_major_locator(MaxNLocator(3))


def _name_bars(axes: Axes, label: str, name: str, *, is_first: bool, narrow: bool) -> None:
    """The quantity and the distribution, each where its row or column begins."""
    is_pi = label == _QUANTITIES[0][1]
    if narrow:
        axes.set_title(label if is_first else "", fontsize=8)
        axes.set_ylabel(name if is_pi else "", fontsize=7)
    else:
        axes.set_title(name if is_pi else "", fontsize=8)
        axes.set_ylabel(label if is_first else "")


def _plot_cosines(analysis: Analysis, width: float) -> Figure:
    table = analysis.curves["cosines"]
    figure, panels = panel_row(width, 2, height=_map_height(table))
    names = ("cos_direction_residual", "cos_weights_label")
    titles = (r"$\cos(Q + \pi,\; e_o - \pi)$", r"$\cos(-Q,\; e_o)$")
    for axes, letter, name, title in zip(panels, "ab", names, titles, strict=True):
        _draw_map(axes, table, name, signed=True)
        label_panel(axes, letter, title)
    return figure


def _map_height(table: pd.DataFrame) -> float:
    return max(1.5, 0.75 + 0.24 * table["vocab_size"].nunique())


def _draw_map(axes: Axes, table: pd.DataFrame, name: str, *, signed: bool) -> None:
    """A cell per V and pi*, its number inside; orange above 0, blue below."""
    grid = table.pivot_table(index="vocab_size", columns="top", values=name, dropna=False)
    value = grid.to_numpy()
    colors = mpl.colors.LinearSegmentedColormap.from_list(
        "cosine", [BLUE, "white", ORANGE] if signed else ["white", VERMILION]
    )
    axes.imshow(value, cmap=colors, vmin=-1 if signed else 0, vmax=1, aspect="auto")
    for row, column in np.ndindex(value.shape):
        text = f"{value[row, column]:.2f}"
        axes.text(column, row, text, ha="center", va="center", fontsize=7)
    axes.set_xticks(range(value.shape[1]), [f"{top:g}" for top in grid.columns])
    axes.set_yticks(range(value.shape[0]), [f"{size:,}" for size in grid.index])
    axes.set(xlabel=r"$\pi^\star$", ylabel="$V$")
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _plot_lemma(analysis: Analysis, width: float) -> Figure:
    table = analysis.curves["changes"]
    figure, (left, right) = panel_row(width, 2, height=1.8)
    first = table[table["direction"] == "likeliest token"]
    size = first["size"].to_numpy()
    left.plot(size, first["first_order"].to_numpy(), color=GREY, label="Lemma 1")
    exact = first["exact"].to_numpy()
    left.plot(size, exact, "o", color=BLUE, markersize=3, label="exact")
    left.axhline(0, color=BLACK, linewidth=0.4)
    left.set(xlabel=r"$\Vert\Delta l\Vert$", ylabel=r"$\Delta H$ (nats)")
    left.legend(loc="lower left")
    label_panel(left, "a", "entropy change")
    for name, look in _DIRECTIONS.items():
        rows = table[table["direction"] == name]
        slope = analysis.value("slope", name).value
        right.plot(
            rows["size"].to_numpy(), rows["error"].to_numpy(), label=f"{name}: {slope:.2f}", **look
        )
    right.set(xscale="log", yscale="log", xlabel=r"$\Vert\Delta l\Vert$", ylabel="error (nats)")
    right.legend(title="slope along", loc="lower right", handlelength=2.4, title_fontsize=7)
    right.set_ylim(bottom=float(table["error"].min()) / 300)
    right.yaxis.set_minor_locator(NullLocator())
    label_panel(right, "b", "error of the first order")
    return figure


def _plot_labels(analysis: Analysis, width: float) -> Figure:
    sampled, tokens = analysis.curves["sampled"], analysis.curves["tokens"]
    figure, (left, right) = panel_row(width, 2, height=max(1.9, _map_height(sampled)))
    _draw_map(left, sampled, "opposite_share", signed=False)
    label_panel(left, "a", "share of labels with a negative cosine")
    shades = np.linspace(0.75, 0.0, max(2, tokens["top"].nunique()))
    for place, (top, rows) in enumerate(tokens.groupby("top")):
        look: dict[str, Any] = {
            "color": str(shades[place]),
            "marker": _MARKERS[place % len(_MARKERS)],
        }
        kept = rows.drop_duplicates("probability")
        right.plot(
            kept["probability"].to_numpy(),
            kept["cosine"].to_numpy(),
            linestyle="",
            markersize=2.5,
            label=f"{top:g}",
            **look,
        )
    right.axhline(0, color=BLACK, linewidth=0.4)
    right.set(xscale="log", ylim=(-1.05, 1.05), xlabel=r"probability of $o$")
    right.set_ylabel(r"$\cos(Q + \pi,\; e_o - \pi)$")
    right.xaxis.set_minor_locator(NullLocator())
    right.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    right.legend(
        title=r"$\pi^\star$", loc="upper left", ncols=2, handlelength=0.8, title_fontsize=7
    )
    label_panel(right, "b", f"every token, $V = {analysis.facts['vocab_size_of_tokens']:,}$")
    return figure


_PLOTS: Mapping[str, Callable[[Analysis, float], Figure]] = {
    "theory-entropy-shape": _plot_shape,
    "theory-distributions": _plot_distributions,
    "theory-cosines": _plot_cosines,
    "theory-lemma": _plot_lemma,
    "theory-labels": _plot_labels,
}
