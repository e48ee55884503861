"""Word clouds of THR, drawn as text: font size proportional to the mean (Fig. 7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
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
from wordcloud import WordCloud

from thr_probe.analysis.result import Analysis
from thr_probe.errors import UsageError
from thr_probe.figures.notice import plot_notice
from thr_probe.figures.style import (
    EXPLOITATION,
    EXPLORATION,
    GREY,
    label_panel,
    new_figure,
    paper_style,
    venue_width,
)

SMALLEST_POINTS = 5.0
"""Font size below which print is not legible: smaller words are set at this size, and counted."""

_PIXELS_PER_POINT = 3  # of the layout's canvas: sizes are whole pixels there
_MARGIN_PIXELS = 5  # 1.7 pt between words
_INSET = 3.0  # points around a cloud
_SHRINK = 0.94  # from one attempt to fit all words to the next
_AREA = 9.5  # square inches of one cloud
_PALE = 0.5  # of white in the colour of a word whose sign is uncertain
_TITLE = 0.24  # inches above each panel
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
    total = 2 * (height + _TITLE)
    with paper_style():
        figure = new_figure(width, total)
        # exact axes, so that one unit of data is one point of print and layout holds in print
        figure.set_layout_engine("none")
        for index, (sign, table) in enumerate(analysis.curves.items()):
            bottom = (1 - index) * (height + _TITLE) / total
            axes = figure.add_axes((0, bottom, 1, height / total))
            axes.set(xlim=(0, 72 * width), ylim=(72 * height, 0), xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            num_enlarged = _draw_cloud(axes, table, sign, font_path)
            num_types = analysis.facts[f"token_types_{sign}"]
            label_panel(axes, "ab"[index], _title(table, sign, num_types))
            if num_enlarged:
                note = f"{num_enlarged} smallest enlarged to {SMALLEST_POINTS:g} pt"
                axes.set_title(note, loc="right", fontsize=6, color=GREY)
    return figure


def layout_words(
    words: Sequence[str], sizes: Sequence[float], *, width: float, height: float, font_path: str
) -> tuple[list[PlacedWord], int]:
    """Places every word at a font size exactly proportional to `sizes`, as large as fits.

    Words below the smallest legible size are set at that size.

    Args:
        words: what to place, drawable with the font.
        sizes: positive and falling.
        width: of the panel in points.
        height: of the panel in points.
        font_path: the font file.

    Returns:
        The placed words in order, and how many were enlarged to the smallest size.
    """
    share = np.asarray(sizes, dtype=np.float64) / sizes[0]
    boxes = [_ink(word, font_path) for word in words]
    largest = _first_guess(share, boxes, width, height)
    while largest > SMALLEST_POINTS * _SHRINK:
        points = np.maximum(share * largest, SMALLEST_POINTS)
        corners = _pack(words, points, width, height, font_path)
        if corners is not None:
            placed = [
                PlacedWord(text=word, points=float(size), left=left, top=top)
                for word, size, (left, top) in zip(words, points, corners, strict=True)
            ]
            return placed, int((share * largest < SMALLEST_POINTS).sum())
        largest *= _SHRINK
    raise UsageError(
        f"{len(words)} words do not fit into {width / 72:.2f} x {height / 72:.2f} inches",
        "show fewer words, or choose a wider venue",
    )


def _first_guess(
    share: Float[np.ndarray, " S"], boxes: Sequence[Bbox], width: float, height: float
) -> float:
    """The largest size at which the boxes could fill the panel and none is wider or higher."""
    area = sum(box.width * box.height * part**2 for box, part in zip(boxes, share, strict=True))
    limits = [
        min(0.98 * width / (box.width * part), 0.9 * height / (box.height * part))
        for box, part in zip(boxes, share, strict=True)
    ]
    return float(min(np.sqrt(0.8 * width * height / area), *limits, 0.45 * height))


def _pack(
    words: Sequence[str],
    points: Float[np.ndarray, " S"],
    width: float,
    height: float,
    font_path: str,
) -> list[tuple[float, float]] | None:
    """Corners of the words' ink, in points; None where some word finds no place."""
    # Sizes go in as whole pixels, rounded up, and the first as the maximum: then the library's
    # relative scaling (a product of rounded ratios, which drifts otherwise) gives back exactly them.
    pixels = np.ceil(points * _PIXELS_PER_POINT).astype(int)
    cloud = WordCloud(
        font_path=font_path,
        width=int(width * _PIXELS_PER_POINT),
        height=int(height * _PIXELS_PER_POINT),
        margin=_MARGIN_PIXELS,
        prefer_horizontal=1.0,
        max_words=len(words),
        min_font_size=1,
        relative_scaling=1,
        # no word is shrunk to make it fit: the library gives up instead
        font_step=int(pixels[0]) + 1,
        random_state=0,
    )
    cloud.generate_from_frequencies(
        {word: int(size) for word, size in zip(words, pixels, strict=True)},
        max_font_size=int(pixels[0]),
    )
    if len(cloud.layout_) < len(words):
        return None
    corner = {
        word: (column / _PIXELS_PER_POINT, row / _PIXELS_PER_POINT)
        for (word, _), _, (row, column), _, _ in cloud.layout_
    }
    return [corner[word] for word in words]


def _draw_cloud(axes: Axes, table: pd.DataFrame, sign: str, font_path: str) -> int:
    """Draws the words of a table; returns how many were enlarged to the smallest size."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    if table.empty:
        text = f"no token type with {sign} mean THR"
        axes.text((left + right) / 2, (top + bottom) / 2, text, ha="center", va="center")
        return 0
    words = _drawable(table["token"].tolist(), font_path)
    placed, num_enlarged = layout_words(
        words,
        table["mean"].abs().tolist(),
        width=right - 2 * _INSET,
        height=bottom - 2 * _INSET,
        font_path=font_path,
    )
    uncertain = ~((table["low"] * table["high"] > 0).to_numpy())
    for word, pale in zip(placed, uncertain, strict=True):
        ink = _ink(word.text, font_path)
        axes.text(
            _INSET + word.left - ink.x0 * word.points,
            _INSET + word.top + ink.y1 * word.points,
            word.text,
            font=FontProperties(fname=font_path, size=word.points),
            color=_tint(_COLOURS[sign], _PALE if pale else 0.0),
            va="baseline",
            ha="left",
            parse_math=False,
        )
    return num_enlarged


def _title(table: pd.DataFrame, sign: str, num_types: object) -> str:
    if table.empty:
        return f"{sign} mean THR"
    first, last = table["mean"].iloc[0], table["mean"].iloc[-1]
    return f"{sign}: {len(table)} of {num_types:,} token types, mean THR from {first:.3g} to {last:.3g}"


@cache
def _ink(word: str, font_path: str) -> Bbox:
    """The box of a word's ink relative to its pen position on the baseline, at font size 1."""
    vertices, codes = text_to_path.get_text_path(
        FontProperties(fname=font_path), word, ismath=False
    )
    box = Outline(vertices, codes).get_extents()
    return Bbox(box.get_points() / text_to_path.FONT_SCALE)


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
