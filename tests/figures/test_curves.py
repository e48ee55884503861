"""The figures of training draw the numbers of their tables, for one run and for many."""

from __future__ import annotations

from itertools import pairwise

import pytest
from matplotlib.collections import FillBetweenPolyCollection
from numpy.testing import assert_allclose
from training_journals import eval_record, step_record, training_records, write_journal

from thr_probe.analysis.curves import ACCURACY, curve_panels, training_curves
from thr_probe.analysis.timing import module_timing
from thr_probe.figures import plot_curves, plot_timing, save_analysis
from thr_probe.figures.curves import run_look

NAMES = [
    "thr-p0-s0", "thr-p0.1-s0", "thr-p-0.1-s0", "grpo-s0", "kl-cov-s0", "_clip$high$-s0",
    "gspo-token-thr-p-0.1-with-a-very-long-name-s0",
]  # fmt: skip


def journals(tmp_path, num_runs):
    return [
        write_journal(tmp_path / name, training_records(40 - 5 * index, eval_every=5))
        for index, name in enumerate(NAMES[:num_runs])
    ]


@pytest.mark.parametrize("num_runs", [1, 3, 7])
@pytest.mark.parametrize("venue", ["neurips", "icml"])
def test_figures_of_any_number_of_runs_are_printable(tmp_path, assert_printable, num_runs, venue):
    paths = journals(tmp_path, num_runs)
    assert_printable(plot_curves(training_curves(paths, smooth=5), venue=venue))
    assert_printable(plot_timing(module_timing(paths), venue=venue))


@pytest.mark.parametrize("smooth", [None, 4])
def test_lines_and_bands_carry_the_table(tmp_path, smooth):
    analysis = training_curves(journals(tmp_path, 2), smooth=smooth)
    curve = analysis.curves["curve"]
    figure = plot_curves(analysis)
    for axes, (quantity, _) in zip(figure.axes, curve_panels(curve), strict=True):
        drawn = iter(axes.lines)
        for run in NAMES[:2]:
            part = curve[(curve["run"] == run) & (curve["quantity"] == quantity)]
            columns = ["value"] if smooth is None or quantity == ACCURACY else ["value", "smoothed"]
            for column in columns:
                line = next(drawn)
                assert_allclose(line.get_xydata(), part[["step", column]])
        bands = [c for c in axes.collections if isinstance(c, FillBetweenPolyCollection)]
        assert len(bands) == (2 if quantity == ACCURACY else 0)
        if bands:
            corners = bands[0].get_paths()[0].vertices
            rows = curve[(curve["run"] == NAMES[0]) & (curve["quantity"] == ACCURACY)]
            for row in rows.to_dict("records"):
                at = corners[corners[:, 0] == row["step"], 1]
                assert_allclose([at.min(), at.max()], [row["low"], row["high"]])


def test_runs_are_told_apart_by_colour_and_by_a_second_cue():
    looks = [run_look(index) for index in range(45)]
    assert len({(look["color"], str(look["linestyle"]), look["marker"]) for look in looks}) == 45
    for first, second in pairwise(looks):
        assert all(first[name] != second[name] for name in first)


def test_the_legend_names_runs_as_they_are_and_one_run_needs_none(tmp_path):
    (legend,) = plot_curves(training_curves(journals(tmp_path, 7))).legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts[:6] == NAMES[:6]
    assert texts[6] == "gspo-token-thr…-long-name-s0"
    assert not plot_curves(training_curves(journals(tmp_path, 1))).legends


def test_a_single_step_is_a_point_that_can_be_seen(tmp_path):
    figure = plot_curves(training_curves([write_journal(tmp_path / "r", [step_record(0)])]))
    figure.draw_without_rendering()
    for axes in figure.axes:
        (line,) = axes.lines
        assert line.get_marker() == "o"
        assert line.get_markevery() == slice(None)


@pytest.mark.parametrize(("num_sets", "panels"), [(0, 5), (1, 6), (3, 8)])
def test_what_was_not_measured_has_no_panel(tmp_path, assert_printable, num_sets, panels):
    evals = [
        eval_record(step, f"a-dataset-with-a-long-name-{index}")
        for index in range(num_sets)
        for step in (0, 3)
    ]
    run = write_journal(tmp_path / "run", [*training_records(3), *evals])
    figure = plot_curves(training_curves([run]))
    assert_printable(figure)
    assert len(figure.axes) == panels
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert [title[:3] for title in titles] == [f"({letter})" for letter in "abcdefgh"[:panels]]


def test_a_run_that_has_only_begun_is_drawn_as_a_sentence(tmp_path):
    run = write_journal(tmp_path / "new", [])
    for figure in (plot_curves(training_curves([run])), plot_timing(module_timing([run]))):
        assert figure.axes[0].texts[0].get_text() == "No step is finished yet in new."


def test_the_bars_are_the_seconds_of_the_modules_in_the_order_of_the_table(tmp_path):
    grpo = write_journal(tmp_path / "grpo", [step_record(0, thr=None, total=797.0)])
    analysis = module_timing([*journals(tmp_path, 1), grpo])
    figure = plot_timing(analysis)
    (axes,) = figure.axes
    widths = [bar.get_width() for bar in axes.patches]
    assert widths == [347, 210, 37, 120, 120, 347, 210, 0, 120, 120]
    assert [bar.get_x() for bar in axes.patches[:5]] == [0, 347, 557, 594, 714]
    texts = [text.get_text() for text in axes.texts]
    assert "834 s (THR 4.4%)" in texts
    assert "797 s" in texts
    assert "42%" in texts
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "Data Gen", "Model Upd", "THR", "Ref", "Old Prob",
    ]  # fmt: skip


def test_saving_again_gives_the_same_bytes(tmp_path):
    paths = journals(tmp_path / "runs", 2)
    for analysis, plot in (
        (training_curves(paths), plot_curves),
        (module_timing(paths), plot_timing),
    ):
        first, second = (
            save_analysis(analysis, plot(analysis), tmp_path / name) for name in ("1", "2")
        )
        for one, two in zip(first, second, strict=True):
            assert one.read_bytes() == two.read_bytes()
