"""The word cloud: sizes proportional to the means, every word whole, none over another, as text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib import get_data_path
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.testing import assert_allclose
from scipy.ndimage import binary_dilation

from thr_probe.analysis.result import Analysis, empty_analysis, summary_table
from thr_probe.analysis.wordcloud import RANKED_COLUMNS, SIGNS
from thr_probe.errors import UsageError
from thr_probe.figures import plot_wordcloud, save_analysis
from thr_probe.figures.style import EXPLOITATION, EXPLORATION
from thr_probe.figures.wordcloud import SMALLEST_POINTS, layout_words


def cloud(positive: dict[str, float], negative: dict[str, float]) -> Analysis:
    """An analysis with these means; intervals exclude 0 where the word has an even rank."""
    curves = {}
    for sign, means in zip(SIGNS, (positive, negative), strict=True):
        rows: list[dict[str, Any]] = [
            {"rank": rank, "token": token, "count": 3, "mean": mean, "mass_share": 0.01}
            | ({"low": mean / 2, "high": mean} if rank % 2 == 0 else {"low": -9.0, "high": 9.0})
            | {"num_questions": 2}
            for rank, (token, mean) in enumerate(means.items(), 1)
        ]
        curves[sign] = pd.DataFrame(rows, columns=list(RANKED_COLUMNS))
    facts = {f"token_types_{sign}": 1234 for sign in SIGNS}
    return Analysis(
        name="wordcloud", summary=summary_table([]), curves=curves, facts=facts, caption=""
    )


def invented_words(seed: int, num: int, tail: float) -> dict[str, float]:
    """Words of 1 to 12 letters with ascenders and descenders, heavy-tailed means."""
    rng = np.random.default_rng(seed)
    letters = list("aegijlmopqtwyABQ")
    words: dict[str, float] = {}
    while len(words) < num:
        words["".join(rng.choice(letters, rng.integers(1, 13)))] = float(rng.pareto(tail) + 0.1)
    return dict(sorted(words.items(), key=lambda item: -item[1]))


def ink(figure: Figure, axes_index: int, word: int | None) -> np.ndarray[Any, Any]:
    """Where a panel's word puts ink: the figure rendered with nothing but it."""
    for index, axes in enumerate(figure.axes):
        axes.set_title("", loc="left")
        for place, text in enumerate(axes.texts):
            text.set_visible(index == axes_index and place == word)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    darkness = 255 - np.asarray(canvas.buffer_rgba())[..., :3].min(axis=2)
    return np.asarray(darkness > 40)


def assert_words_are_apart(figure: Figure, num_words: int) -> None:
    """Each of the first panel's words whole, with half a point of white (a pixel) around it."""
    figure.set_dpi(150)
    covered = ink(figure, 0, None)
    assert not covered.any()
    for word in range(num_words):
        mask = ink(figure, 0, word)
        assert mask.sum() > 20
        assert not (binary_dilation(covered) & mask).any(), word
        covered |= mask
    rows, columns = np.nonzero(covered)
    box = figure.axes[0].get_window_extent()
    height = covered.shape[0]
    assert box.x0 <= columns.min() <= columns.max() <= box.x1
    assert height - box.y1 <= rows.min() <= rows.max() <= height - box.y0
    # and the panel is put to use: words are not tiny in a corner
    assert np.ptp(columns) > 0.6 * box.width
    assert np.ptp(rows) > 0.6 * box.height


@pytest.mark.parametrize("venue", ["neurips", "icml"])
@pytest.mark.parametrize("tail", [0.8, 4.0])
def test_words_are_whole_and_white_lies_between_them(venue: str, tail: float) -> None:
    figure = plot_wordcloud(cloud(invented_words(0, 30, tail), {"no": -1.0}), venue=venue)
    assert_words_are_apart(figure, 30)


def test_words_are_apart_where_pillow_rounds_widths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.ImageFont.core.HAVE_RAQM", False)  # not on every machine
    words = {"eeeeeeeeeeee": 9.0, "TAVATo": 8.0} | {f"{'oil' * 4}{n}": 2.0 for n in range(28)}
    assert_words_are_apart(plot_wordcloud(cloud(words, {})), 30)


def test_equal_means_a_wide_range_and_another_font_are_drawn_in_proportion() -> None:
    equal = {f"word{index}": 0.3 for index in range(20)}
    wide = {"a" * 40: 1.0} | {f"word{index}": 10.0**-index for index in range(1, 7)}
    serif = Path(get_data_path()) / "fonts" / "ttf" / "STIXGeneral.ttf"
    figure = plot_wordcloud(cloud(equal, wide), venue="icml", font=serif)
    assert_words_are_apart(figure, 20)
    level, falling = ([text.get_fontsize() for text in axes.texts] for axes in figure.axes)
    assert_allclose(level, level[0], rtol=1e-12)
    assert level[0] > 8
    assert falling[0] > SMALLEST_POINTS
    assert_allclose(falling[1:], SMALLEST_POINTS)


def test_font_sizes_are_proportional_to_the_means_down_to_the_smallest() -> None:
    positive = invented_words(1, 40, 1.0)
    figure = plot_wordcloud(cloud(positive, {"a": -0.5, "b": -0.25}))
    texts = figure.axes[0].texts
    assert [text.get_text() for text in texts] == list(positive)
    means = np.array(list(positive.values()))
    sizes = np.array([text.get_fontsize() for text in texts])
    exact = means * sizes[0] / means[0]
    assert_allclose(sizes, np.maximum(exact, SMALLEST_POINTS), rtol=1e-12)
    num_enlarged = int((exact < SMALLEST_POINTS).sum())
    assert num_enlarged > 0
    title = figure.axes[0].get_title(loc="left").replace("\n", " ")
    assert f"smallest {num_enlarged} enlarged" in title
    assert "40 of 1,234 token types" in title
    first, second = figure.axes[1].texts
    assert_allclose(first.get_fontsize(), 2 * second.get_fontsize())
    assert "−0.5 to −0.25" in figure.axes[1].get_title(loc="left")


def test_colour_tells_the_sign_and_paleness_an_interval_across_zero() -> None:
    figure = plot_wordcloud(cloud({"a": 4.0, "b": 2.0}, {"c": -4.0, "d": -3.0}))
    colours = [[text.get_color() for text in axes.texts] for axes in figure.axes]
    for (pale, full), name in zip(colours, (EXPLOITATION, EXPLORATION), strict=True):
        red_green_blue = [int(name[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        assert_allclose(full, red_green_blue, atol=1e-12)
        assert_allclose(pale, [(1 + part) / 2 for part in red_green_blue], atol=1e-12)
    assert [axes.get_title(loc="left")[:12] for axes in figure.axes] == [
        "(a) positive",
        "(b) negative",
    ]


def test_a_word_without_an_interval_is_pale() -> None:
    analysis = cloud({"a": 4.0, "b": 2.0}, {})
    analysis.curves["positive"].loc[1, ["low", "high"]] = np.nan
    texts = plot_wordcloud(analysis).axes[0].texts
    assert texts[0].get_color() == texts[1].get_color()


def test_a_sign_without_words_is_an_empty_panel_that_says_so() -> None:
    figure = plot_wordcloud(cloud({"a": 1.0}, {}))
    assert [text.get_text() for text in figure.axes[1].texts] == ["none"]


def test_dollar_signs_and_glyphs_that_the_font_lacks_are_written_out(tmp_path: Path) -> None:
    figure = plot_wordcloud(cloud({"$x_1^2$": 3.0, "等等a": 2.0, r"\frac{": 1.0}, {"é": -1.0}))
    shown = [text.get_text() for text in figure.axes[0].texts]
    assert shown == ["$x_1^2$", "U+7B49U+7B49a", r"\frac{"]
    FigureCanvasAgg(figure).draw()  # a missing glyph would warn, and warnings are errors


def test_the_files_hold_text_and_outlines_and_no_bitmap_and_reproduce(tmp_path: Path) -> None:
    analysis = cloud(invented_words(2, 12, 2.0), {"however": -1.0, "wait": -0.5})
    first, second = (
        save_analysis(analysis, plot_wordcloud(analysis), tmp_path / name) for name in ("1", "2")
    )
    names = [path.name for path in first]
    assert {"wordcloud-positive.csv", "wordcloud-negative.csv", "wordcloud.tex"} <= set(names)
    for one, two in zip(first, second, strict=True):
        assert one.read_bytes() == two.read_bytes()
    assert b"<image" not in (tmp_path / "1" / "wordcloud.svg").read_bytes()
    pdf = (tmp_path / "1" / "wordcloud.pdf").read_bytes()
    assert b"/Subtype /Image" not in pdf
    assert b"/CIDFontType2" in pdf or b"/TrueType" in pdf
    table = pd.read_csv(tmp_path / "1" / "wordcloud-positive.csv", keep_default_na=False)
    assert table["token"].tolist() == list(analysis.curves["positive"]["token"])


def test_a_reason_is_drawn_instead_of_nothing() -> None:
    (axes,) = plot_wordcloud(empty_analysis("wordcloud", "No completion is correct.", {})).axes
    assert axes.texts[0].get_text() == "No completion is correct."


def test_words_that_cannot_fit_and_fonts_that_are_not_there_are_refused(tmp_path: Path) -> None:
    analysis = cloud({"a": 1.0}, {})
    with pytest.raises(UsageError, match="no font file"):
        plot_wordcloud(analysis, font=tmp_path / "absent.ttf")
    many = {f"overlong{index:04d}": 2000.0 - index for index in range(900)}
    with pytest.raises(UsageError, match="do not fit"):
        plot_wordcloud(cloud(many, {}))


def test_one_word_fills_its_panel() -> None:
    figure = plot_wordcloud(cloud({"wait": 0.1}, {"a": -1.0}))
    (text,) = figure.axes[0].texts
    assert text.get_fontsize() > 60
    font_path = str(text.get_fontproperties().get_file())
    (placed,) = layout_words(["wait"], [1.0], extent=(100.0, 50.0), font_path=font_path)
    # ascenders above and no descenders below the baseline
    assert 0 <= placed.x < 100 - 2 * placed.points
    assert 0.7 * placed.points < placed.y <= 50


def test_words_too_long_for_the_panel_are_cut_and_stay_different() -> None:
    long = {"w" * 200: 3.0, "w" * 150: 2.0, "short": 1.0}
    figure = plot_wordcloud(cloud(long, {}))
    drawn = [text.get_text() for text in figure.axes[0].texts]
    assert drawn == [
        "w" * 24 + "\N{HORIZONTAL ELLIPSIS}1",
        "w" * 24 + "\N{HORIZONTAL ELLIPSIS}2",
        "short",
    ]
