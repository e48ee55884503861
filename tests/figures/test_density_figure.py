"""The density figure draws the numbers of the analysis, legibly, in every style and width."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch

from thr_probe.analysis.density import thr_density
from thr_probe.analysis.result import Analysis
from thr_probe.errors import UsageError
from thr_probe.figures import plot_density
from thr_probe.figures.style import EXPLOITATION, EXPLORATION, VENUE_WIDTHS
from thr_probe.traces import Run, read_run


def rows_of(analysis: Analysis, curve: str, split: str, column: str) -> np.ndarray:
    table = analysis.curves[curve]
    return table.loc[table["split"] == split, column].to_numpy()


def test_the_linear_panels_draw_the_density_in_the_colour_of_its_sign(density: Analysis) -> None:
    figure = plot_density(density, style="paper")
    for axes, split in zip(figure.axes, ("correct", "incorrect"), strict=False):
        at = rows_of(density, "paper", split, "thr")
        value = rows_of(density, "paper", split, "density")
        negative, positive = axes.lines[:2]
        np.testing.assert_array_equal(negative.get_ydata(), value[at <= 0])
        np.testing.assert_array_equal(positive.get_ydata(), value[at >= 0])
        assert (negative.get_color(), positive.get_color()) == (EXPLORATION, EXPLOITATION)
        tau = density.value("median_tau").value
        assert [line.get_xdata()[0] for line in axes.lines[2:4]] == [-tau, tau]


def test_the_diagnostic_panels_draw_the_fractions_with_a_hatch_below_zero(
    density: Analysis,
) -> None:
    figure = plot_density(density, style="diagnostic")
    for axes, split in zip(figure.axes, ("correct", "incorrect"), strict=False):
        filled = [patch for patch in axes.patches if isinstance(patch, StepPatch)][:4:2]
        fraction = rows_of(density, "diagnostic", split, "fraction")
        drawn = np.concatenate([patch.get_data().values for patch in filled])
        np.testing.assert_array_equal(drawn, fraction)
        assert filled[0].get_data().edges[-1] == pytest.approx(0, abs=1e-12)
        assert filled[0].get_hatch()
        assert filled[1].get_hatch() is None
        assert to_rgb(filled[0].get_facecolor()) == to_rgb(EXPLORATION)
        assert to_rgb(filled[1].get_facecolor()) == to_rgb(EXPLOITATION)
        assert (axes.get_xscale(), axes.get_yscale()) == ("asinh", "log")


def test_the_third_panel_draws_the_concentration_with_marks_at_the_top_shares(
    density: Analysis,
) -> None:
    axes = plot_density(density).axes[2]
    for split in ("correct", "incorrect"):
        (line,) = [line for line in axes.lines if line.get_label() == split]
        np.testing.assert_array_equal(
            line.get_ydata(), rows_of(density, "concentration", split, "mass_share")
        )
        marked = np.asarray(line.get_xdata())[line.get_markevery()]
        np.testing.assert_allclose(marked, [0.01, 0.05, 0.2], rtol=0.06)


@pytest.mark.parametrize("venue", ["acl", "neurips", "icml-wide"])
@pytest.mark.parametrize("style", ["paper", "diagnostic"])
def test_it_can_be_read_at_its_printed_size(
    density: Analysis, style: str, venue: str, assert_printable: Callable[[Figure], None]
) -> None:
    figure = plot_density(density, style=style, venue=venue)
    assert figure.get_figwidth() == VENUE_WIDTHS[venue]
    assert_printable(figure)


def test_thr_in_units_of_tau_is_labelled_and_marked_at_one(
    steered_run: Run, assert_printable: Callable[[Figure], None]
) -> None:
    analysis = thr_density(steered_run, normalize="tau")
    figure = plot_density(analysis, style="diagnostic")
    assert figure.axes[0].get_xlabel() == r"THR / $\tau$"
    assert [line.get_xdata()[0] for line in figure.axes[0].lines[-2:]] == [-1, 1]
    assert_printable(figure)


@pytest.mark.parametrize(("scale", "tau"), [(1e8, 1e7), (1e-9, 1e-10), (1.0, -0.5)])
@pytest.mark.parametrize("style", ["paper", "diagnostic"])
def test_thr_of_any_size_and_without_a_positive_threshold_is_legible(
    tmp_path: Path,
    make_run: Callable[..., Path],
    assert_printable: Callable[[Figure], None],
    scale: float,
    tau: float,
    style: str,
) -> None:
    thr = [float(np.float32(scale * value)) for value in (0.01, -0.3, 1.0, 4.0)]
    completions = [{"correct": True, "thr": thr}, {"correct": False, "thr": thr[:3]}]
    run = make_run(tmp_path / "run", [{"tau": tau, "completions": completions}])
    analysis = thr_density(read_run(run))
    assert ("no group has a positive threshold" in analysis.caption) == (tau < 0)
    assert_printable(plot_density(analysis, style=style))


def test_without_incorrect_completions_the_panel_says_so(
    tmp_path: Path, make_run: Callable[..., Path]
) -> None:
    groups = [{"tau": 0.02, "completions": [{"correct": True}, {"correct": True}]}]
    run = read_run(make_run(tmp_path / "run", groups))
    figure = plot_density(thr_density(run, groups="has-correct"))
    assert [text.get_text() for text in figure.axes[1].texts] == ["no incorrect completions"]


def test_nothing_to_draw_becomes_a_sentence(density: Analysis) -> None:
    empty = replace(density, curves={}, empty_reason="None of the 8 completions is correct.")
    figure = plot_density(empty)
    (text,) = figure.axes[0].texts
    assert text.get_text().replace("\n", " ") == "None of the 8 completions is correct."


def test_an_unknown_style_or_venue_is_refused(density: Analysis) -> None:
    with pytest.raises(UsageError, match="unknown style 'log'; choose paper or diagnostic"):
        plot_density(density, style="log")
    with pytest.raises(UsageError, match="unknown venue 'nature'"):
        plot_density(density, venue="nature")
