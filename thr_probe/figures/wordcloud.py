"""Word clouds of THR, drawn as text: font size proportional to the mean (Fig. 7)."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import ceil, floor
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib import get_data_path
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, get_font
from matplotlib.path import Path as Outline
from matplotlib.textpath import text_to_path
from matplotlib.transforms import Bbox

from thr_probe.analysis.result import Analysis
from thr_probe.errors import UsageError
from thr_probe.figures.notice import plot_notice
from thr_probe.figures.style import (
    EXPLOITATION,
    EXPLORATION,
    label_panel,
    new_figure,
    paper_style,
    venue_width,
)

SMALLEST_POINTS = 5.0
"""Font size below which print is not legible: smaller words are set at this size, and counted."""

_GAP = 1.5  # points between words
_SPACE = 0.16  # free on either side of a word, in its font size: neighbours read as two words
_EDGE = 3.0  # points between a cloud and the edge of the figure
_PRECISION = 0.02  # of the largest font size, relative
_AREA = 9.0  # square inches of one cloud
_PALE = 0.5  # of white in the colour of a word whose sign is uncertain
_TITLE_LINE = 0.15  # inches
_CHARACTERS_PER_INCH = 15  # of a title
_COLOURS = {"positive": EXPLOITATION, "negative": EXPLORATION}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedWord:
    """A word with its font size and the corner of its ink, in points from the top left."""

    text: str
    """As drawn: characters that the font lacks are written as U+XXXX."""
    points: float
    """Font size."""
    left: float
    """Left edge of the ink."""
    top: float
    """Upper edge of the ink, counted downwards."""


def plot_wordcloud(
    analysis: Analysis, *, venue: str = "neurips", font: str | Path | None = None
) -> Figure:
    """Two clouds of words as text, positive mean THR above, negative below.

    Args:
        analysis: of `thr_wordcloud`.
        venue: gives the width.
        font: a TrueType or OpenType file that has the glyphs of other scripts; DejaVu Sans, which
            comes with matplotlib, by default.
    """
    if analysis.empty_reason is not None:
        return plot_notice(analysis, venue=venue)
    font_path = _font_path(font)
    width = venue_width(venue)
    height = min(max(_AREA / width, 1.5), 2.6)
    extent = 72 * width - 2 * _EDGE, 72 * height - 2 * _EDGE
    clouds = {sign: _cloud(table, extent, font_path) for sign, table in analysis.curves.items()}
    titles = [
        textwrap.wrap(
            _title(table, sign, analysis.facts[f"token_types_{sign}"], clouds[sign]),
            int(width * _CHARACTERS_PER_INCH),
        )
        for sign, table in analysis.curves.items()
    ]
    title_height = _TITLE_LINE * (0.5 + max(map(len, titles)))
    total = 2 * (height + title_height)
    with paper_style():
        figure = new_figure(width, total)
        # exact axes: one unit of data is one point of print, so the layout holds in print
        figure.set_layout_engine("none")
        for index, (sign, table) in enumerate(analysis.curves.items()):
            bottom = (1 - index) * (height + title_height) + _EDGE / 72
            edge = _EDGE / 72 / width
            axes = figure.add_axes((edge, bottom / total, 1 - 2 * edge, extent[1] / 72 / total))
            axes.set(xlim=(0, extent[0]), ylim=(extent[1], 0), xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            label_panel(axes, "ab"[index], "\n".join(titles[index]))
            _draw(axes, table, clouds[sign], _COLOURS[sign], font_path)
    return figure


def layout_words(
    words: Sequence[str],
    sizes: Sequence[float],
    *,
    extent: tuple[float, float],
    font_path: str,
    smallest: float = SMALLEST_POINTS,
) -> list[PlacedWord]:
    """Places every word, font size exactly proportional to `sizes`, as large as fits.

    The wordcloud package was tried and left: its font sizes are products of rounded ratios, which
    drift from the proportion, and words placed by its raster overlap when they are drawn as text.

    Args:
        words: what to place, drawable with the font.
        sizes: positive and falling, or level.
        extent: width and height of the panel in points.
        font_path: the font file.
        smallest: words that would be smaller get this size.

    Returns:
        The words in order.

    Raises:
        UsageError: they do not fit even at the smallest size.
    """
    share = np.asarray(sizes, dtype=np.float64) / max(sizes)
    boxes = np.asarray([_ink(word, font_path).size for word in words])
    boxes[:, 0] += 2 * _SPACE
    low, high = smallest, min(extent[1] / boxes[0, 1], extent[0] / boxes[0, 0])
    corners = _pack(boxes * smallest, extent)
    if corners is None:
        raise UsageError(
            f"{len(words)} words do not fit into {extent[0] / 72:.2f} x {extent[1] / 72:.2f} in",
            "show fewer words, or choose a wider venue",
        )
    while high - low > _PRECISION * low:
        largest = (low + high) / 2
        attempt = _pack(boxes * np.maximum(share * largest, smallest)[:, None], extent)
        if attempt is None:
            high = largest
        else:
            low, corners = largest, attempt
    points = np.maximum(share * low, smallest)
    return [
        PlacedWord(text=word, points=float(size), left=left + float(size) * _SPACE, top=top)
        for word, size, (left, top) in zip(words, points, corners, strict=True)
    ]


def _pack(
    boxes: Float[np.ndarray, "S 2"], extent: tuple[float, float]
) -> list[tuple[float, float]] | None:
    """Corners for boxes, each in turn as near to the middle as it goes; None if one finds no place.

    Corners lie on a grid of one point; the distance counts heights more, as panels are wide.
    """
    if boxes.prod(axis=1).sum() > extent[0] * extent[1]:
        return None
    placed: list[tuple[float, float, float, float]] = []
    for width, height in boxes:
        columns, rows = int(extent[0] - width), int(extent[1] - height)
        if columns < 0 or rows < 0:
            return None
        x = (np.arange(columns + 1) + width / 2) / extent[0] - 0.5
        y = (np.arange(rows + 1) + height / 2) / extent[1] - 0.5
        distance = y[:, None] ** 2 + x[None, :] ** 2
        for left, top, right, bottom in placed:
            # corners from which this box would come nearer than the gap
            across = slice(_after(left - width - _GAP), ceil(right + _GAP))
            distance[_after(top - height - _GAP) : ceil(bottom + _GAP), across] = np.inf
        row, column = np.unravel_index(np.argmin(distance), distance.shape)
        if not np.isfinite(distance[row, column]):
            return None
        placed.append((float(column), float(row), column + width, row + height))
    return [(left, top) for left, top, _, _ in placed]


def _after(bound: float) -> int:
    """The first grid line beyond a bound."""
    return max(floor(bound) + 1, 0)


def _cloud(table: pd.DataFrame, extent: tuple[float, float], font_path: str) -> list[PlacedWord]:
    if table.empty:
        return []
    words = _drawable(table["token"].tolist(), font_path)
    sizes = table["mean"].abs().tolist()
    return layout_words(words, sizes, extent=extent, font_path=font_path)


def _draw(
    axes: Axes, table: pd.DataFrame, cloud: Sequence[PlacedWord], colour: str, font_path: str
) -> None:
    if not cloud:
        axes.text(0.5, 0.5, "none", ha="center", va="center", transform=axes.transAxes)
    certain = (table["low"] * table["high"] > 0).tolist()
    for word, sure in zip(cloud, certain, strict=True):
        ink = _ink(word.text, font_path)
        axes.text(
            word.left - ink.x0 * word.points,
            word.top + ink.y1 * word.points,
            word.text,
            font=FontProperties(fname=font_path, size=word.points),
            color=_tint(colour, 0.0 if sure else _PALE),
            va="baseline",
            ha="left",
            parse_math=False,
        )


def _title(table: pd.DataFrame, sign: str, num_types: object, cloud: Sequence[PlacedWord]) -> str:
    if table.empty:
        return f"{sign} mean THR"
    means = table["mean"].abs().to_numpy()
    first, last = (f"{table['mean'].iloc[place]:.3g}" for place in (0, -1))
    ends = f"{first} to {last}".replace("-", "\N{MINUS SIGN}")
    exact = means * cloud[0].points / means[0]
    enlarged = int((exact < SMALLEST_POINTS * (1 - 1e-9)).sum())
    note = f"; smallest {enlarged} enlarged" if enlarged else ""
    return f"{sign}: {len(table)} of {num_types:,} token types, mean THR {ends}{note}"


@cache
def _ink(word: str, font_path: str) -> Bbox:
    """A box around a word's ink and its pen position on the baseline, at font size 1."""
    vertices, codes = text_to_path.get_text_path(
        FontProperties(fname=font_path), word, ismath=False
    )
    # control points: they enclose the curves, and closing points have no place of their own
    outline = np.asarray(vertices)[np.asarray(codes) != Outline.CLOSEPOLY].reshape(-1, 2)
    corners = [outline.min(axis=0, initial=0), outline.max(axis=0, initial=0)]
    return Bbox(np.asarray(corners) / text_to_path.FONT_SCALE)


def _drawable(words: Sequence[str], font_path: str) -> list[str]:
    """The words with every character that the font lacks written as U+XXXX."""
    glyphs = get_font(font_path).get_charmap()
    return [
        "".join(char if ord(char) in glyphs else f"U+{ord(char):04X}" for char in word)
        for word in words
    ]


def _tint(colour: str, white: float) -> tuple[float, float, float]:
    red, green, blue = (part + (1 - part) * white for part in to_rgb(colour))
    return red, green, blue


def _font_path(font: str | Path | None) -> str:
    if font is None:
        return str(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")
    if not Path(font).is_file():
        raise UsageError(f"there is no font file {font}")
    return str(font)
