"""The figure of an analysis that has nothing to draw: a sentence instead of an empty axis."""

from __future__ import annotations

import textwrap

from matplotlib.figure import Figure

from thr_probe.analysis.result import Analysis
from thr_probe.figures.style import GREY, new_figure, paper_style, venue_width

_CHARACTERS_PER_INCH = 15  # of 8 pt text


def plot_notice(analysis: Analysis, *, venue: str = "neurips") -> Figure:
    """The reason why there is nothing to draw, as a framed panel.

    Args:
        analysis: one with an `empty_reason`.
        venue: gives the width.
    """
    width = venue_width(venue)
    reason = analysis.empty_reason or "There is nothing to draw."
    lines = textwrap.wrap(reason, int((width - 0.6) * _CHARACTERS_PER_INCH))
    with paper_style():
        figure = new_figure(width, 0.5 + 0.16 * (len(lines) + 1))
        axes = figure.add_subplot()
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set(visible=True, color=GREY, linestyle=(0, (4, 3)))
        text = "\n".join(lines)
        axes.text(
            0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, linespacing=1.4
        )
    return figure
