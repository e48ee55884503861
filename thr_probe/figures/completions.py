"""Draws two completions as lines of tokens with the weights of the dominant ones (Figure 1)."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.patches import Rectangle

from thr_probe.analysis.result import Analysis
from thr_probe.figures.notice import plot_notice
from thr_probe.figures.style import (
    BLACK,
    EXPLOITATION,
    EXPLORATION,
    GREY,
    new_figure,
    paper_style,
    venue_width,
)

_FONT = "DejaVu Sans Mono"  # comes with matplotlib; every character is as wide as the next
_SIZE, _LABEL_SIZE = 7.5, 5.0
_ADVANCE = 0.602  # width of a character over the font size
_LINE = 0.36
_HEADING = 0.22
_GAP = 0.16
_MARGIN = 0.05
_WIDE = 4.0
"""Inches from which on the key is one line."""
_MISSING = "□"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cell:
    """A piece at its place; inches from the left and from the top of its panel's first line."""

    text: str
    left: float
    width: float
    line: int
    sign: int
    plus: str
    minus: str


def plot_completions(analysis: Analysis, *, venue: str = "neurips") -> Figure:
    """Panels (a) a correct, (b) an incorrect completion, token by token, weights at p and -p.

    Args:
        analysis: of `completions_analysis`.
        venue: gives the printed width.
    """
    if analysis.empty_reason is not None:
        return plot_notice(analysis, venue=venue)
    width = venue_width(venue)
    p = f"{float(str(analysis.facts['p'])):g}"
    rows = analysis.curves["pieces"]
    with paper_style():
        panels = {
            name: _cells(rows[(rows["panel"] == name) & rows["drawn"]], width)
            for name in ("correct", "incorrect")
        }
        heights = [_HEADING + _LINE * (cells[-1].line + 1) for cells in panels.values()]
        total = sum(heights) + _GAP + (0.24 if width >= _WIDE else 0.4)
        figure = new_figure(width, total)
        figure.set_layout_engine("none")
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, width), ylim=(total, 0))
        axes.axis("off")
        top = 0.0
        for letter, (name, cells), height in zip("ab", panels.items(), heights, strict=True):
            _draw_panel(axes, f"({letter}) {name}{_left_out(analysis, name)}", cells, top)
            top += height + _GAP
        _draw_key(axes, width, total, p)
    return figure


def _left_out(analysis: Analysis, name: str) -> str:
    before, after = (analysis.count(f"{name}_{side}") for side in ("before", "after"))
    if before + after == 0:
        return ""
    return f" (left out: {before:,} tokens before, {after:,} after)"


def _cells(rows: pd.DataFrame, width: float) -> list[_Cell]:
    """Pieces in lines as wide as the figure; a dominant one has room for its weights."""
    character, label = _SIZE * _ADVANCE / 72, _LABEL_SIZE * _ADVANCE / 72
    cells: list[_Cell] = []
    left, line, known = _MARGIN, 0, _charmap()
    for row in rows.to_dict("records"):
        is_dominant = bool(row["dominant"])
        weights = [row["weight_plus"], row["weight_minus"]] if is_dominant else []
        plus, minus = [f"{float(value):g}" for value in weights] or ["", ""]
        sign = (1 if float(row["thr"]) > 0 else -1) if is_dominant else 0
        need = (max(len(plus), len(minus)) + 0.8) * label
        for part in _broken(str(row["text"]), int((width - 2 * _MARGIN) / character)):
            text = "".join(each if ord(each) in known else _MISSING for each in part)
            own = max(character * len(text), need)
            if left + own > width - _MARGIN + 1e-9 and left > _MARGIN:
                left, line = _MARGIN, line + 1
            cells.append(
                _Cell(text=text, left=left, width=own, line=line, sign=sign, plus=plus, minus=minus)
            )
            left += own
            if text.endswith("⏎"):
                left, line = _MARGIN, line + 1
    return cells


def _broken(text: str, most: int) -> list[str]:
    """A piece that is longer than a line, cut; any other as it is."""
    return [text[start : start + most] for start in range(0, len(text), most)] or [""]


def _charmap() -> set[int]:
    """The characters that the font has; others are drawn as a box."""
    return set(get_font(findfont(_FONT)).get_charmap())


def _draw_panel(axes: Axes, title: str, cells: list[_Cell], top: float) -> None:
    axes.text(_MARGIN, top + 0.13, title, fontsize=8, va="center", parse_math=False)
    for cell in cells:
        middle = top + _HEADING + _LINE * (cell.line + 0.5)
        centre = cell.left + cell.width / 2
        colour = {1: EXPLOITATION, -1: EXPLORATION, 0: GREY}[cell.sign]
        if cell.sign:
            _draw_background(axes, cell, middle, colour)
            for text, y in ((cell.plus, middle - 0.125), (cell.minus, middle + 0.13)):
                axes.text(
                    centre, y, text, fontsize=_LABEL_SIZE, family=_FONT, ha="center", va="center",
                    color=BLACK,
                )  # fmt: skip
        axes.text(
            centre if cell.sign else cell.left,
            middle,
            cell.text,
            fontsize=_SIZE,
            family=_FONT,
            ha="center" if cell.sign else "left",
            va="center",
            color=BLACK if cell.sign else GREY,
            parse_math=False,
        )


def _draw_background(axes: Axes, cell: _Cell, middle: float, colour: str) -> None:
    axes.add_patch(
        Rectangle(
            (cell.left + 0.006, middle - 0.075),
            cell.width - 0.012,
            0.15,
            facecolor=colour,
            alpha=0.28,
            linewidth=0,
        )
    )
    axes.plot(
        [cell.left + 0.008, cell.left + cell.width - 0.008],
        [middle + 0.073] * 2,
        color=colour,
        linewidth=0.9,
        linestyle="-" if cell.sign > 0 else (0, (1.2, 0.8)),
        solid_capstyle="butt",
    )


def _draw_key(axes: Axes, width: float, total: float, p: str) -> None:
    """What the backgrounds and the two numbers are."""
    last = total - 0.1
    place, middle = _MARGIN, last if width >= _WIDE else last - 0.17
    for words, colour, style in (
        ("THR > 0", EXPLOITATION, "-"),
        ("THR < 0", EXPLORATION, (0, (1.2, 0.8))),
    ):
        axes.add_patch(
            Rectangle((place, middle - 0.05), 0.2, 0.1, facecolor=colour, alpha=0.28, linewidth=0)
        )
        axes.plot(
            [place, place + 0.2], [middle + 0.05] * 2, color=colour, linewidth=0.9, linestyle=style
        )
        axes.text(place + 0.25, middle, words, fontsize=7, va="center")
        place += 0.78
    words = f"above: weight at p = {p}; below: at p = \u2212{p}"
    axes.text(place if width >= _WIDE else _MARGIN, last, words, fontsize=7, va="center")
