"""The one look of all figures: Okabe-Ito colours with a second cue, venue widths, fonts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import get_font
from matplotlib.ticker import FuncFormatter

from thr_probe.errors import UsageError

BLACK = "#000000"
GREY = "#7F7F7F"
LIGHT_GREY = "#D9D9D9"
ORANGE = "#E69F00"
SKY = "#56B4E9"
GREEN = "#009E73"
BLUE = "#0072B2"
VERMILION = "#D55E00"
PURPLE = "#CC79A7"

EXPLOITATION = BLUE
"""THR > 0; drawn plain and solid."""
EXPLORATION = VERMILION
"""THR < 0; drawn hatched or dashed, so that it is told apart without colour."""
EXPLORATION_HATCH = "////"
EXPLORATION_LINE = (0, (4, 1.5))

CORRECT = {"color": GREEN, "linestyle": "-", "marker": "o"}
"""Line properties of correct completions."""
INCORRECT = {"color": PURPLE, "linestyle": (0, (4, 1.5)), "marker": "s"}
"""Line properties of incorrect completions."""
ALL = {"color": BLACK, "linestyle": "-", "marker": "D"}
"""Line properties of all completions together."""

VENUE_WIDTHS = {
    "neurips": 5.5,
    "iclr": 5.5,
    "icml": 3.25,
    "icml-wide": 6.75,
    "acl": 3.03,
    "acl-wide": 6.3,
}
"""Text or column width in inches, by venue."""

FONT_FOLDER = Path(mpl.get_data_path()) / "fonts" / "ttf"
"""Where matplotlib keeps the fonts that come with it."""

_PARAMETERS: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same glyphs on every machine
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "legend.handlelength": 1.8,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.minor.size": 1.5,
    "ytick.minor.size": 1.5,
    "lines.linewidth": 1.1,
    "lines.markersize": 3.5,
    "patch.linewidth": 0.6,
    "hatch.linewidth": 0.4,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "savefig.dpi": 300,
    "pdf.fonttype": 42,  # TrueType: venues refuse Type 3 fonts
    "ps.fonttype": 42,
    "svg.fonttype": "path",
    "svg.hashsalt": "thr_probe",  # element ids, which are random otherwise
}


@contextmanager
def paper_style() -> Iterator[None]:
    """Matplotlib's settings for print while the block runs, whatever the user has set."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_PARAMETERS)
        yield


def venue_width(venue: str) -> float:
    """Width in inches of a figure for a venue.

    Raises:
        UsageError: an unknown venue.
    """
    if venue not in VENUE_WIDTHS:
        raise UsageError(f"unknown venue {venue!r}; choose one of {', '.join(VENUE_WIDTHS)}")
    return VENUE_WIDTHS[venue]


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of that printed size in inches; call within `paper_style()`.

    No pyplot: nothing global is left behind, and no display is needed.
    """
    return Figure(figsize=(width, height), layout="constrained")


def drawable(text: str, font_path: str | None = None) -> str:
    r"""A text with every character that the font lacks, or that controls, written as U+XXXX.

    Args:
        text: such as a name that the user gave, or a token.
        font_path: of the font; that of all figures by default.

    >>> drawable("run \x1b[1m")
    'run U+001B[1m'
    """
    glyphs = get_font(font_path or str(FONT_FOLDER / "DejaVuSans.ttf")).get_charmap()
    return "".join(
        char if char.isprintable() and ord(char) in glyphs else f"U+{ord(char):04X}"
        for char in text
    )


def plain(name: str) -> str:
    r"""A name that the user gave, as a label shows it: never a formula, never left out of a legend.

    >>> print(plain("$a_1$"), plain("_base"))
    \$a_1\$  _base
    """
    shown = drawable(name).replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown


def percent_axis(axes: Axes) -> None:
    """Shares on the vertical axis as percent."""
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.4g}%"))


def label_panel(axes: Axes, letter: str, text: str) -> None:
    """Names a panel above its axes, `(a) correct`: papers put titles in the caption."""
    axes.set_title(f"({letter}) {text}", loc="left", fontsize=8)


def panel_row(
    width: float, number: int, *, height: float, strip_height: float = 0.0
) -> tuple[Figure, list[Axes]]:
    """A figure with panels side by side, or one above the other where a column is too narrow.

    Args:
        width: of the figure, in inches.
        number: of panels.
        height: of one panel with its labels, in inches.
        strip_height: of a flat panel below the others with its legend, which is then the last
            of the panels; 0 for none.
    """
    rows, columns = (number, 1) if width < 4 else (1, number)
    # the bar of the strip is 0.12 inches high, the rest of its room is for the legend
    heights = [height] * rows + ([0.12] if strip_height else [])
    figure = new_figure(width, rows * height + strip_height)
    figure.set_layout_engine("constrained", h_pad=0.03, w_pad=0.03)
    grid = figure.add_gridspec(len(heights), columns, height_ratios=heights)
    panels = [
        figure.add_subplot(grid[row, column]) for row in range(rows) for column in range(columns)
    ]
    if strip_height:
        panels.append(figure.add_subplot(grid[rows, :]))
    return figure, panels
