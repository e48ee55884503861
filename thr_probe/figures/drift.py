"""Draws how THR moves over the checkpoints that scored the same rollouts."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from thr_probe.analysis.result import Analysis
from thr_probe.figures.notice import plot_notice
from thr_probe.figures.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    LIGHT_GREY,
    PURPLE,
    VERMILION,
    label_panel,
    panel_row,
    paper_style,
    plain,
    venue_width,
)

_Looks = dict[str, tuple[str, dict[str, Any]]]

_SHARES: _Looks = {
    "rank_correlation": ("rank correlation", {"color": BLACK, "marker": "D", "linestyle": "-"}),
    "sign_agreement": ("same sign", {"color": BLUE, "marker": "o", "linestyle": "-"}),
    "dominant_jaccard": ("dominant overlap", {"color": GREEN, "marker": "^", "linestyle": "--"}),
    "mass_moved": ("mass moved", {"color": VERMILION, "marker": "s", "linestyle": (0, (4, 1.5))}),
}
_CHANGES: _Looks = {
    "logprob_change": ("log-probability (nats)", {"color": GREY, "marker": "v", "linestyle": "-"}),
    "entropy_change": ("entropy (nats)", {"color": PURPLE, "marker": "P", "linestyle": "--"}),
    "balance_change": ("balance of THR", {"color": BLACK, "marker": "X", "linestyle": (0, (1, 1))}),
}
_LEGEND: dict[str, Any] = {
    "frameon": True,
    "framealpha": 0.85,
    "edgecolor": "none",
    "borderaxespad": 0.2,
}
_CHARACTER = 0.065  # inches of a tick label's character


def plot_drift(analysis: Analysis, *, venue: str = "neurips") -> Figure:
    """Panels (a) agreement with the reference, (b) changes against it, over score sets.

    Args:
        analysis: of `thr_drift`.
        venue: gives the printed width.
    """
    if analysis.empty_reason is not None:
        return plot_notice(analysis, venue=venue)
    width = venue_width(venue)
    with paper_style():
        figure, (left, right) = panel_row(width, 2, height=2.1)
        label_panel(left, "a", "agreement with the reference")
        _draw(left, analysis, _SHARES, width)
        left.set_ylim(min(-0.03, left.get_ylim()[0]), 1.03)
        left.set_ylabel("share, correlation")
        label_panel(right, "b", "change from the reference")
        right.axhline(0, color=LIGHT_GREY, linewidth=0.8, zorder=0)
        _draw(right, analysis, _CHANGES, width)
        right.set_ylabel("change")
        low, high = right.get_ylim()
        right.set_ylim(low - 0.55 * (high - low), high)  # room for the legend below every whisker
        left.legend(loc="best", **_LEGEND)
        right.legend(loc="lower left", **_LEGEND)
    return figure


def _draw(axes: Axes, analysis: Analysis, looks: _Looks, width: float) -> None:
    table = analysis.curves["checkpoints"]
    sets = list(dict.fromkeys(table["score_id"]))
    for place, (quantity, (label, look)) in enumerate(looks.items()):
        rows = table[table["quantity"] == quantity]
        # side by side, so that whiskers do not cover each other
        at = np.array([sets.index(each) for each in rows["score_id"]], dtype=float)
        at += 0.05 * (place - (len(looks) - 1) / 2)
        axes.vlines(at, rows["low"], rows["high"], color=look["color"], linewidth=0.8)
        axes.plot(at, rows["value"], label=label, **look)
    room = (width if width < 4 else width / 2) - 0.7
    long = sum(len(each) + 1 for each in sets) * _CHARACTER > room
    turned: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(len(sets)), [plain(each) for each in sets], **(turned if long else {}))
    axes.set_xlim(-0.35, len(sets) - 0.65)
    axes.set_xlabel("score set")
