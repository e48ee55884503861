"""The reflection figure draws the numbers of its tables."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from numpy.testing import assert_allclose

from thr_probe.analysis.reflection import reflection_ratio
from thr_probe.figures import plot_reflection, save_analysis
from thr_probe.figures.style import CORRECT, INCORRECT
from thr_probe.traces import read_run


def run_of(make_run: Callable[..., Path], path: Path, texts: list[tuple[str, str]]) -> Path:
    """One correct and one incorrect completion per question, one token a word."""
    groups = [
        {
            "completions": [
                {"text": right, "correct": True, "token_ids": [1] * len(right.split())},
                {"text": wrong, "correct": False, "token_ids": [1] * len(wrong.split())},
            ]
        }
        for right, wrong in texts
    ]
    return make_run(path, groups)


TEXTS = [("wait so but so", "but but no fix"), ("wait wait so", "but so so so"), ("so", "fix so")]


def drawn_points(axes: Axes) -> dict[str, list[float]]:
    """Heights of the markers, by colour, from left to right."""
    points: dict[str, list[tuple[float, float]]] = {}
    for line in axes.lines:
        if line.get_linestyle() == "None":
            ((x, y),) = line.get_xydata()
            points.setdefault(str(line.get_color()), []).append((x, y))
    return {colour: [y for _, y in sorted(found)] for colour, found in points.items()}


def test_points_and_whiskers_carry_the_tables(
    tmp_path: Path, make_run: Callable[..., Path]
) -> None:
    analysis = reflection_ratio(read_run(run_of(make_run, tmp_path / "run", TEXTS)))
    left, right = plot_reflection(analysis).axes
    splits = analysis.curves["splits"].set_index("split")
    heights = [line.get_ydata()[0] for line in left.lines if line.get_linestyle() == "None"]
    assert_allclose(heights, 100 * splits["value"])
    whiskers = [line.get_ydata() for line in left.lines if line.get_linestyle() != "None"]
    assert_allclose(whiskers, 100 * splits[["low", "high"]])

    words = analysis.curves["words"]
    met = words.query("split == 'all' and count > 0")["word"].tolist()
    assert [text.get_text() for text in right.get_xticklabels()] == met == ["but", "wait", "fix"]
    foot = right.get_ylim()[0]
    for style, split in ((CORRECT, "correct"), (INCORRECT, "incorrect")):
        rate = 100 * words[words["split"] == split].set_index("word")["value"][met]
        assert_allclose(drawn_points(right)[style["color"]], np.maximum(rate, foot))
        assert foot < rate[rate > 0].min()


def test_a_word_that_a_split_lacks_has_an_open_marker_at_the_foot(
    tmp_path: Path, make_run: Callable[..., Path]
) -> None:
    analysis = reflection_ratio(read_run(run_of(make_run, tmp_path / "run", TEXTS)))
    right = plot_reflection(analysis).axes[1]
    foot = right.get_ylim()[0]
    is_open = {
        line.get_ydata()[0] == foot
        for line in right.lines
        if line.get_linestyle() == "None" and line.get_markerfacecolor() == "white"
    }
    is_filled = {
        line.get_ydata()[0] > foot
        for line in right.lines
        if line.get_linestyle() == "None" and line.get_markerfacecolor() != "white"
    }
    assert is_open == is_filled == {True}


def test_the_unit_of_a_run_without_ids_is_on_the_axis(
    tmp_path: Path, make_run: Callable[..., Path]
) -> None:
    groups = [{"completions": [{"text": "wait " * 3 + "so", "token_ids": None, "correct": True}]}]
    analysis = reflection_ratio(read_run(make_run(tmp_path / "run", groups, scored=False)))
    left, right = plot_reflection(analysis).axes
    assert left.get_ylabel() == "matches, per 1,000 words"
    assert drawn_points(right)[CORRECT["color"]] == [750.0]


def test_a_log_axis_of_less_than_two_decades_still_has_numbers(
    tmp_path: Path, make_run: Callable[..., Path]
) -> None:
    path = run_of(make_run, tmp_path / "run", [("wait so so so", "wait but so"), ("so", "so")])
    figure = plot_reflection(reflection_ratio(read_run(path)))
    figure.canvas.draw()
    right = figure.axes[1]
    low, high = right.get_ylim()
    ticks = [text for text in right.get_yticklabels() if low <= text.get_position()[1] <= high]
    assert [text.get_text() for text in ticks] == ["10", "20", "50"]
    assert not any(text.get_text() for text in right.get_yticklabels(minor=True))


def test_a_narrow_figure_draws_the_most_frequent_words_and_counts_the_others(
    tmp_path: Path, make_run: Callable[..., Path]
) -> None:
    text = "but but wait wait yet fix note error still wrong think though unless whereas instead"
    path = run_of(make_run, tmp_path / "run", [(text, "so")])
    analysis = reflection_ratio(read_run(path))
    figure = plot_reflection(analysis, venue="icml")
    right = figure.axes[1]
    assert right.get_title(loc="left") == "(b) top 10 of 13 words"
    assert len(right.get_xticks()) == 10
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in right.get_xticklabels()]
    assert all(one.x1 <= two.x0 for one, two in pairwise(boxes))


def test_a_run_without_any_match_is_drawn_at_zero_with_a_sentence(
    tmp_path: Path, make_run: Callable[..., Path]
) -> None:
    path = run_of(make_run, tmp_path / "run", [("so it is", "so it was")])
    left, right = plot_reflection(reflection_ratio(read_run(path))).axes
    assert [line.get_ydata()[0] for line in left.lines] == [0, 0, 0]
    assert [text.get_text() for text in right.texts] == ["no word of the list occurs"]


def test_saving_again_gives_the_same_bytes(tmp_path: Path, make_run: Callable[..., Path]) -> None:
    analysis = reflection_ratio(read_run(run_of(make_run, tmp_path / "run", TEXTS)))
    first, second = (
        save_analysis(analysis, plot_reflection(analysis), tmp_path / name) for name in ("1", "2")
    )
    assert [path.name for path in first][:3] == [
        "reflection.csv",
        "reflection-splits.csv",
        "reflection-words.csv",
    ]
    for one, two in zip(first, second, strict=True):
        assert one.read_bytes() == two.read_bytes()
