"""Figures that compare trained rows: Pass@K side by side, and the ablation of p."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from thr_probe.analysis.result import Analysis
from thr_probe.figures.notice import plot_notice
from thr_probe.figures.passk import k_axis
from thr_probe.figures.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    LIGHT_GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    label_panel,
    new_figure,
    paper_style,
    percent_axis,
    plain,
    venue_width,
)

_LOOKS: tuple[dict[str, Any], ...] = (
    {"color": GREY, "linestyle": (0, (1, 1)), "marker": "x"},
    {"color": BLACK, "linestyle": "-", "marker": "D"},
    {"color": GREEN, "linestyle": (0, (5, 1, 1, 1)), "marker": "^"},
    {"color": BLUE, "linestyle": "-", "marker": "o"},
    {"color": VERMILION, "linestyle": (0, (4, 1.5)), "marker": "s"},
    {"color": PURPLE, "linestyle": (0, (2, 1)), "marker": "P"},
    {"color": ORANGE, "linestyle": (0, (7, 2)), "marker": "v"},
    {"color": SKY, "linestyle": (0, (3, 1, 1, 1, 1, 1)), "marker": "X"},
)

_ABLATION_LOOKS: tuple[dict[str, Any], ...] = (
    {"color": BLACK, "linestyle": "-", "marker": "D"},
    {"color": GREEN, "linestyle": (0, (5, 1, 1, 1)), "marker": "^"},
    {"color": PURPLE, "linestyle": (0, (2, 1)), "marker": "P"},
)
_DOTS = (0, (1, 2))
_LABEL_WIDTH = 0.33  # inches: -0.05 in 7 pt, a gap, and the share of the margins
_PANEL_REST = 0.82  # inches: what half of the figure holds beside the axis of p


def plot_pass_at_k_rows(analysis: Analysis, *, venue: str = "neurips") -> Figure:
    """Pass@K of several rows, and the paired differences to one of them with their intervals.

    Args:
        analysis: curves `values` and `differences`, both with row, k, value, low, high.
        venue: gives the width.
    """
    if analysis.empty_reason is not None:
        return plot_notice(analysis, venue=venue)
    values, differences = analysis.curves["values"], analysis.curves["differences"]
    rows = list(dict.fromkeys(values["row"]))
    with paper_style():
        figure = new_figure(venue_width(venue), 2.5)
        left, right = figure.subplots(1, 2)
        for index, row in enumerate(rows):
            part = values[values["row"] == row]
            left.plot(part["k"], part["value"], label=plain(row), clip_on=False, **row_look(index))
        right.axhline(0, color=BLACK, linewidth=0.8)
        draw_whiskers(right, differences, rows)
        ks = sorted({int(k) for k in values["k"]})
        for axes in (left, right):
            k_axis(axes, ks)
        percent_axis(left)
        right.yaxis.set_major_formatter(FuncFormatter(points_text))
        right.set_ylabel("percentage points")
        label_panel(left, "a", "Pass@k")
        label_panel(right, "b", f"minus {plain(str(analysis.facts['versus']))}, paired")
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def plot_p_ablation(analysis: Analysis, *, venue: str = "neurips") -> Figure:
    """Greedy accuracy and Pass@K over p with their intervals, GRPO as a line.

    Args:
        analysis: curves `curve` (p, column, value, low, high) and `grpo` (column, value).
        venue: gives the width.
    """
    if analysis.empty_reason is not None:
        return plot_notice(analysis, venue=venue)
    curve, grpo = analysis.curves["curve"], analysis.curves["grpo"]
    columns, ps = list(dict.fromkeys(curve["column"])), sorted(set(curve["p"]))
    width = venue_width(venue)
    room = (ps[-1] - ps[0]) * _LABEL_WIDTH / (width / 2 - _PANEL_REST)
    with paper_style():
        figure = new_figure(width, 2.2)
        panels = figure.subplots(1, 2)
        groups = (
            [name for name in columns if name == "greedy"],
            [n for n in columns if n != "greedy"],
        )
        for axes, names in zip(panels, groups, strict=True):
            _draw_ablation(axes, curve, grpo, names)
            _label_ps(axes, ps, room)
        label_panel(panels[0], "a", "greedy accuracy")
        label_panel(panels[1], "b", "Pass@K")
        panels[1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5), borderaxespad=0)
    return figure


def row_look(index: int) -> dict[str, Any]:
    """Colour, line and marker of the row of that number, from 0, which is the baseline."""
    return _LOOKS[index % len(_LOOKS)]


def legend_columns(width: float, names: Sequence[str]) -> int:
    """How many names of a legend stand side by side, at most three.

    Args:
        width: of the figure, in inches.
        names: the entries.
    """
    widest = 0.5 + 0.062 * max(map(len, names))  # the line before it, and 7 pt characters
    return max(1, min(3, len(names), int(width / widest)))


def fitting(inches: float, *texts: str) -> str:
    """The first text that fits into some inches at 8 pt, else the last."""
    return next((text for text in texts if 0.072 * len(text) <= inches), texts[-1])


def draw_whiskers(axes: Axes, table: pd.DataFrame, rows: Sequence[str]) -> None:
    """Lines over K with their intervals.

    Args:
        axes: of K.
        table: row, k, value, low, high.
        rows: all rows of the figure, which decide the looks; some may be missing in the table.
    """
    drawn = [row for row in rows if (table["row"] == row).any()]
    for place, row in enumerate(drawn):
        part, look = table[table["row"] == row], row_look(rows.index(row))
        # side by side on the log axis, so that whiskers do not cover each other
        k = part["k"] * 2.0 ** (0.13 * (place - (len(drawn) - 1) / 2))
        axes.vlines(k, part["low"], part["high"], color=look["color"], linewidth=0.7)
        axes.plot(k, part["value"], label=plain(row), clip_on=False, **look)


def points_text(value: float, _: object) -> str:
    """A difference of shares in percentage points, for an axis."""
    return f"{100 * value:+.4g}" if round(value, 9) else "0"


def _draw_ablation(
    axes: Axes, curve: pd.DataFrame, grpo: pd.DataFrame, names: Sequence[str]
) -> None:
    for index, name in enumerate(names):
        part, look = curve[curve["column"] == name], _ABLATION_LOOKS[index % 3]
        axes.vlines(part["p"], part["low"], part["high"], color=look["color"], linewidth=0.7)
        axes.plot(part["p"], part["value"], label=name, **look)
        level = grpo.loc[grpo["column"] == name, "value"]
        if len(level):
            axes.axhline(level.iloc[0], color=look["color"], linewidth=0.7, linestyle=_DOTS)
    if len(grpo):
        axes.plot([], [], color=GREY, linewidth=0.7, linestyle=_DOTS, label="GRPO")
    axes.axvline(0, color=LIGHT_GREY, linewidth=0.6, zorder=0)
    percent_axis(axes)
    axes.set_xlabel("$p$")


def _label_ps(axes: Axes, ps: Sequence[float], room: float) -> None:
    """A tick at every p, and its number where that is `room` away from the others."""
    texts = {p: f"{p:.4g}" for p in ps}
    labelled: list[float] = []
    # round values first, and of these the outer ones
    for p in sorted(ps, key=lambda p: (len(texts[p].lstrip("-")), -abs(p))):
        if all(abs(p - other) >= room for other in labelled):
            labelled.append(p)
    axes.set_xticks(ps, labels=[texts[p] if p in labelled else "" for p in ps])
