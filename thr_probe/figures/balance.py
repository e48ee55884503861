"""Draws the balance of exploitation and exploration against the share of correct completions."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from thr_probe.analysis.result import Analysis
from thr_probe.figures.notice import plot_notice
from thr_probe.figures.style import (
    BLACK,
    EXPLOITATION,
    EXPLORATION,
    EXPLORATION_HATCH,
    GREY,
    label_panel,
    panel_row,
    paper_style,
    venue_width,
)

_LINES = {"balance": ("all tokens", "-", BLACK), "balance_mean": ("mean of questions", "--", GREY)}


def plot_balance(analysis: Analysis, *, venue: str = "neurips") -> Figure:
    """Panels (a) balance against q, a dot per question, means by q; (b) distribution.

    Args:
        analysis: of `exploration_balance`.
        venue: gives the printed width.
    """
    if analysis.empty_reason is not None:
        return plot_notice(analysis, venue=venue)
    with paper_style():
        figure, (left, right) = panel_row(venue_width(venue), 2, height=2.0)
        label_panel(left, "a", "questions by q")
        _draw_questions(left, analysis)
        label_panel(right, "b", "distribution")
        _draw_distribution(right, analysis)
        handles, labels = (
            first + second
            for first, second in zip(
                left.get_legend_handles_labels(), right.get_legend_handles_labels(), strict=True
            )
        )
        legend = figure.legend(
            handles,
            labels,
            loc="outside lower center",
            ncols=5 if venue_width(venue) > 4 else 2,
            borderaxespad=0.2,
            columnspacing=1.2,
        )
        for handle in filter(None, legend.legend_handles):
            handle.set_alpha(1)  # the dots of many questions are faint
    return figure


def _draw_questions(axes: Axes, analysis: Analysis) -> None:
    questions, bins = analysis.curves["questions"], analysis.curves["by_q"]
    axes.axhline(0, color=GREY, linewidth=0.6)
    for positive, label in ((True, "THR > 0 prevails"), (False, "THR < 0 prevails")):
        rows = questions[(questions["balance"] >= 0) == positive].dropna(subset="balance")
        color = EXPLOITATION if positive else EXPLORATION
        axes.scatter(
            rows["q"],
            rows["balance"],
            s=9,
            marker="o" if positive else "s",
            facecolor=color if positive else "none",
            edgecolor=color,
            linewidth=0.6,
            alpha=_alpha(len(questions)),
            label=label,
        )
    at = bins["mean_q"].to_numpy()
    axes.plot(at, bins["balance_mean"], color=BLACK, marker="D", linewidth=0.9, label="mean by q")
    axes.vlines(at, bins["balance_mean_low"], bins["balance_mean_high"], color=BLACK, linewidth=0.9)
    low, high = _limits(questions)
    axes.set(
        xlim=(-0.03, 1.03),
        ylim=(low, high + 0.14 * (high - low)),
        xlabel="q (share of correct completions)",
    )
    axes.set_ylabel("balance of THR")
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    for where, number in zip(at, bins["num_questions"], strict=True):
        axes.annotate(
            f"{number}", (where, 1), xycoords=axes.get_xaxis_transform(), ha="center", va="top",
            fontsize=7, color=GREY,
        )  # fmt: skip


def _alpha(number: int) -> float:
    """Dots on each other stay countable by their darkness."""
    return float(np.clip(30 / number, 0.15, 0.8))


def _limits(questions: pd.DataFrame) -> tuple[float, float]:
    """The range of the balances, zero included, with some room."""
    low, high = min(questions["balance"].min(), 0), max(questions["balance"].max(), 0)
    room = 0.06 * max(high - low, 0.1)
    return float(low - room), float(high + room)


def _draw_distribution(axes: Axes, analysis: Analysis) -> None:
    rows = analysis.curves["distribution"]
    for chosen, color, hatch in (
        (rows["left"] > -1e-9, EXPLOITATION, None),
        (rows["left"] < -1e-9, EXPLORATION, EXPLORATION_HATCH),
    ):
        part = rows[chosen]
        axes.bar(
            part["left"],
            part["share_of_questions"],
            width=part["right"] - part["left"],
            align="edge",
            facecolor=color,
            alpha=0.55,
            edgecolor="white",
            hatch=hatch,
        )
    some = rows[(rows["share_of_questions"] > 0) & rows["low"].notna()]
    axes.vlines(
        (some["left"] + some["right"]) / 2, some["low"], some["high"], color=BLACK, linewidth=0.7
    )
    for quantity, (label, dashes, color) in _LINES.items():
        where = analysis.value(quantity).value
        axes.axvline(where, color=color, linestyle=dashes, linewidth=1, label=label)
    axes.set(xlim=(-1, 1), xlabel="balance of THR", ylabel="share of questions")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
