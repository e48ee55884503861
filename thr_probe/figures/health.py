"""Draws the health of a run's data: a bar for every share that was checked."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter

from thr_probe.analysis.result import Analysis
from thr_probe.figures.notice import plot_notice
from thr_probe.figures.style import (
    BLACK,
    GREY,
    ORANGE,
    VERMILION,
    new_figure,
    paper_style,
    venue_width,
)

_ROW = 0.155  # inches of a check
_LOOKS: dict[str, dict[str, Any]] = {
    "ok": {"facecolor": GREY},
    "look": {"facecolor": ORANGE, "edgecolor": BLACK, "hatch": "////", "linewidth": 0.4},
    "bad": {"facecolor": VERMILION, "edgecolor": BLACK, "hatch": "xxxx", "linewidth": 0.4},
}
_LABELS = {"ok": "ok", "look": "worth a look", "bad": "bad"}


def plot_health(analysis: Analysis, *, venue: str = "neurips") -> Figure:
    """Shares with their intervals, filled by verdict, the value beside each.

    Args:
        analysis: of `run_health`.
        venue: gives the printed width.
    """
    if analysis.empty_reason is not None:
        return plot_notice(analysis, venue=venue)
    table = analysis.curves["checks"]
    shares = table[table["unit"] != "nats"].reset_index(drop=True)
    with paper_style():
        figure = new_figure(venue_width(venue), 0.75 + _ROW * len(shares))
        axes = figure.add_subplot()
        for place, row in enumerate(shares.to_dict("records")):
            axes.barh(place, row["value"], height=0.68, **_LOOKS[row["verdict"]])
            axes.hlines(place, row["low"], row["high"], color=BLACK, linewidth=0.8)
            end = np.nanmax([row["value"], row["high"]])
            text = f"{100 * row['value']:.3g}%"
            axes.annotate(
                text, (end, place), (3, 0), textcoords="offset points", va="center", fontsize=7
            )
        axes.set_yticks(range(len(shares)), shares["check"])
        axes.tick_params(axis="y", length=0)
        axes.set(ylim=(len(shares) - 0.4, -0.6), xlim=(0, 1.15), xticks=(0, 0.25, 0.5, 0.75, 1))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}%"))
        axes.set_xlabel("share")
        met = [verdict for verdict in _LOOKS if (shares["verdict"] == verdict).any()]
        handles = [Patch(**_LOOKS[verdict], label=_LABELS[verdict]) for verdict in met]
        figure.legend(handles=handles, loc="outside lower center", ncols=3, borderaxespad=0.2)
    return figure
