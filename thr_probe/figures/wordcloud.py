"""Word clouds of THR, drawn as text: font size proportional to the mean (Fig. 7)."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib import get_data_path
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from PIL import ImageFont
from wordcloud import WordCloud

from thr_probe.analysis.result import Analysis
from thr_probe.errors import UsageError
from thr_probe.figures.notice import plot_notice
from thr_probe.figures.style import (
    EXPLOITATION,
    EXPLORATION,
    drawable,
    label_panel,
    new_figure,
    paper_style,
    venue_width,
)

SMALLEST_POINTS = 5.0
"""Font size below which print is not legible: smaller words are set at this size, and counted."""

_GAP = 1.5  # points around a word, about: the package counts whole pixels
_SPACE = "\N{THIN SPACE}"  # on either side of a word: large neighbours read as two words
_EDGE = 3.0  # points between a cloud and the edge of the figure
_PIXELS = 3  # of the package's canvas, per point
_PRECISION = 0.03  # of the largest font size, relative
_AREA = 9.0  # square inches of one cloud
_PALE = 0.5  # of white in the colour of a word whose sign is uncertain
_TITLE_LINE = 0.15  # inches
_CHARACTERS_PER_INCH = 15  # of a title
_COLOURS = {"positive": EXPLOITATION, "negative": EXPLORATION}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedWord:
    """A word with its font size and where its baseline starts, in points from the top left."""

    text: str
    """As drawn: characters that the font lacks are written as U+XXXX."""
    points: float
    """Font size."""
    x: float
    """Where the baseline starts."""
    y: float
    """The baseline, counted downwards."""


_LONGEST = 28
"""Characters of a word that is drawn whole."""


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
    """Places every word with the wordcloud package, font size exactly proportional to `sizes`.

    The package multiplies rounded ratios of sizes, and makes a word without a place smaller. Both
    are kept from changing a size: it gets whole pixels, rounded up, which its ratios give back, and
    stops at the first word without a place; then all words become smaller. Drawn is the exact size,
    less than a pixel below the one that was placed.

    Args:
        words: what to place, all different, drawable with the font.
        sizes: positive and falling, or level.
        extent: width and height of the panel in points.
        font_path: the font file.
        smallest: words that would be smaller get this size.

    Returns:
        The words in order, none over another or cut, as large as fits: not all found a place with
        a largest font 3 % larger, or it would be higher than the panel.

    Raises:
        UsageError: they do not fit even at the smallest size.
    """
    share = np.asarray(sizes, dtype=np.float64) / max(sizes)
    low, high = smallest, extent[1]
    placed = _place(words, np.maximum(share * low, smallest), extent, font_path)
    if placed is None:
        raise UsageError(
            f"{len(words)} words do not fit into {extent[0] / 72:.2f} x {extent[1] / 72:.2f} in",
            "show fewer words, or choose a wider venue",
        )
    while high > low * (1 + _PRECISION):
        largest = sqrt(low * high)
        attempt = _place(words, np.maximum(share * largest, smallest), extent, font_path)
        if attempt is None:
            high = largest
        else:
            low, placed = largest, attempt
    return placed


def _place(
    words: Sequence[str],
    points: Float[np.ndarray, " S"],
    extent: tuple[float, float],
    font_path: str,
) -> list[PlacedWord] | None:
    """The words at these font sizes, or None if one finds no place."""
    pixels = np.ceil(points * _PIXELS).astype(int).tolist()
    cloud = WordCloud(
        font_path=font_path,
        width=int(extent[0] * _PIXELS),
        height=int(extent[1] * _PIXELS),
        margin=round(2 * _GAP * _PIXELS),  # the package leaves half of it on either side of a word
        max_words=len(words),
        relative_scaling=1,
        prefer_horizontal=1.0,
        max_font_size=pixels[0],
        min_font_size=pixels[-1],
        font_step=pixels[0],  # more than any word can shrink by: the package stops instead
        random_state=0,
    ).generate_from_frequencies(
        {_SPACE + word + _SPACE: size for word, size in zip(words, pixels, strict=True)}
    )
    if len(cloud.layout_) < len(words):
        return None
    placed = []
    for word, size, exact, entry in zip(words, pixels, points, cloud.layout_, strict=True):
        row, column = entry[2]  # where the package puts the corner of this box
        font = ImageFont.truetype(font_path, size)
        left, top, *_ = font.getbbox(_SPACE + word + _SPACE, anchor="ls")
        x, y = column - left + font.getlength(_SPACE), row - top
        placed.append(PlacedWord(text=word, points=float(exact), x=x / _PIXELS, y=y / _PIXELS))
    return placed


def _cloud(table: pd.DataFrame, extent: tuple[float, float], font_path: str) -> list[PlacedWord]:
    if table.empty:
        return []
    words = _short([drawable(word, font_path) for word in table["token"]])
    sizes = table["mean"].abs().tolist()
    return layout_words(words, sizes, extent=extent, font_path=font_path)


def _short(words: Sequence[str]) -> list[str]:
    """Words too long to be drawn, cut and numbered, so that all stay different."""
    cut: list[str] = []
    for word in words:
        whole = len(word) <= _LONGEST
        cut.append(word if whole else f"{word[: _LONGEST - 4]}\u2026{len(cut) + 1}")
    return cut


def _draw(
    axes: Axes, table: pd.DataFrame, cloud: Sequence[PlacedWord], colour: str, font_path: str
) -> None:
    if not cloud:
        axes.text(0.5, 0.5, "none", ha="center", va="center", transform=axes.transAxes)
    certain = (table["low"] * table["high"] > 0).tolist()
    for word, sure in zip(cloud, certain, strict=True):
        axes.text(
            word.x,
            word.y,
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


def _tint(colour: str, white: float) -> tuple[float, float, float]:
    red, green, blue = (part + (1 - part) * white for part in to_rgb(colour))
    return red, green, blue


def _font_path(font: str | Path | None) -> str:
    if font is None:
        return str(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")
    if not Path(font).is_file():
        raise UsageError(f"there is no font file {font}")
    return str(font)
