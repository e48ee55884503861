"""The Pass@K figure draws the numbers of its table."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib.collections import FillBetweenPolyCollection, LineCollection
from numpy.testing import assert_allclose

from thr_probe.analysis.passk import pass_at_k_curve
from thr_probe.analysis.result import Analysis
from thr_probe.figures import plot_pass_at_k, save_analysis
from thr_probe.traces import read_run


def analysis_of(
    make_run: Callable[..., Path], path: Path, labels: dict[str, list[str]], **options: str
) -> Analysis:
    groups = [
        {"dataset": dataset, "completions": [{"correct": label == "1"} for label in text]}
        for dataset, texts in labels.items()
        for text in texts
    ]
    return pass_at_k_curve(read_run(make_run(path, groups)), **options)


def test_curve_band_and_whiskers_carry_the_table(
    tmp_path: Path, make_run: Callable[..., Path]
) -> None:
    labels = {"amc": ["10000000", "11110000", "00000000"], "aime": ["00000001", "00000000"]}
    analysis = analysis_of(make_run, tmp_path / "run", labels)
    (axes,) = plot_pass_at_k(analysis).axes
    curve = analysis.curves["curve"]
    lines = {line.get_label(): line for line in axes.lines}
    assert set(lines) == {"all questions", "dataset aime", "dataset amc"}
    assert len({line.get_marker() for line in axes.lines}) == 3
    for name, line in lines.items():
        part = curve[curve["split"] == ("all" if name == "all questions" else name)]
        assert_allclose(line.get_ydata(), part["value"])
        # dodged, but by less than the way to the neighbours
        assert_allclose(np.log2(np.asarray(line.get_xdata())), [0, 1, 2, 3], atol=0.15)
    everything = curve[curve["split"] == "all"]
    assert_allclose(lines["all questions"].get_xdata(), [1, 2, 4, 8])
    (band,) = (c for c in axes.collections if isinstance(c, FillBetweenPolyCollection))
    corners = band.get_paths()[0].vertices
    for row in everything.to_dict("records"):
        at_k = corners[np.isclose(corners[:, 0], row["k"]), 1]
        assert_allclose([at_k.min(), at_k.max()], [row["low"], row["high"]])
    whiskers = [c for c in axes.collections if isinstance(c, LineCollection)]
    drawn = [[tuple(s[:, 1]) for s in collection.get_segments()] for collection in whiskers]
    for name, segments in zip(("dataset aime", "dataset amc"), drawn, strict=True):
        part = curve[curve["split"] == name]
        assert_allclose(segments, part[["low", "high"]])


def test_the_axis_is_log2_and_its_labels_do_not_run_into_each_other(
    tmp_path: Path, make_run: Callable[..., Path]
) -> None:
    one = analysis_of(make_run, tmp_path / "run", {"amc": ["1" + 39 * "0", 40 * "0"]})
    figure = plot_pass_at_k(one)
    (axes,) = figure.axes
    assert axes.xaxis.get_transform().base == 2
    assert one.curves["curve"]["k"].tolist() == [1, 2, 4, 8, 16, 32, 40]
    figure.canvas.draw()
    labels = [text for text in axes.get_xticklabels() if text.get_text()]
    assert [text.get_text() for text in labels] == ["1", "2", "4", "8", "16", "40"]
    boxes = [text.get_window_extent() for text in labels]
    assert all(left.x1 + 2 < right.x0 for left, right in pairwise(boxes))
    assert axes.get_ylim()[0] == 0.0


def test_one_completion_per_question_is_one_point(
    tmp_path: Path, make_run: Callable[..., Path]
) -> None:
    analysis = analysis_of(make_run, tmp_path / "run", {"amc": ["1", "0"]})
    figure = plot_pass_at_k(analysis)
    figure.canvas.draw()
    assert_allclose(figure.axes[0].lines[0].get_xydata(), [[1, 0.5]])


def test_a_curve_at_zero_says_that_nothing_is_correct(
    tmp_path: Path, make_run: Callable[..., Path]
) -> None:
    (axes,) = plot_pass_at_k(analysis_of(make_run, tmp_path / "run", {"amc": ["00", "00"]})).axes
    assert [text.get_text() for text in axes.texts] == ["no completion is correct"]
    assert_allclose(axes.lines[0].get_ydata(), [0, 0])
    low, high = axes.get_ylim()
    assert low == 0 < high
    some = plot_pass_at_k(analysis_of(make_run, tmp_path / "some", {"amc": ["01", "00"]}))
    assert not some.axes[0].texts


def test_a_run_without_completions_is_drawn_as_a_sentence(
    tmp_path: Path, make_run: Callable[..., Path]
) -> None:
    analysis = pass_at_k_curve(read_run(make_run(tmp_path / "run", [], complete=False)))
    (axes,) = plot_pass_at_k(analysis).axes
    assert "no completions" in axes.texts[0].get_text()


def test_saving_again_gives_the_same_bytes(tmp_path: Path, make_run: Callable[..., Path]) -> None:
    analysis = analysis_of(make_run, tmp_path / "run", {"amc": ["1000", "1100"], "b_c": ["1110"]})
    first, second = (
        save_analysis(analysis, plot_pass_at_k(analysis), tmp_path / name) for name in ("1", "2")
    )
    assert [path.name for path in first] == [
        "passk.csv", "passk-curve.csv", "passk.json", "passk.tex",
        "passk.pdf", "passk.svg", "passk.png",
    ]  # fmt: skip
    for one, two in zip(first, second, strict=True):
        assert one.read_bytes() == two.read_bytes()
    assert r"dataset b\_c" in (tmp_path / "1" / "passk.tex").read_text()


def test_a_set_named_with_dollars_and_foreign_glyphs_is_written_out(
    tmp_path: Path, make_run: Callable[..., Path]
) -> None:
    labels = {"$a_1%$ \u65e5\x1b": ["10", "01"], "amc": ["10", "11"]}
    analysis = analysis_of(make_run, tmp_path / "run", labels)
    figure = plot_pass_at_k(analysis)
    save_analysis(analysis, figure, tmp_path / "out")
    written = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert r"dataset \$a_1%\$ U+65E5U+001B" in written
