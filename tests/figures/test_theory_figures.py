"""The figures of appendix D.2 draw the numbers of their simulations, legibly."""

from __future__ import annotations

import numpy as np
import pytest

from thr_probe.analysis.result import empty_analysis
from thr_probe.analysis.theory import (
    Simulation,
    alignment_grid,
    entropy_shape,
    example_distributions,
)
from thr_probe.analysis.theory_labels import label_sweep
from thr_probe.analysis.theory_lemma import lemma_check
from thr_probe.errors import UsageError
from thr_probe.figures import plot_theory
from thr_probe.figures.style import VENUE_WIDTHS

ANALYSES = [
    entropy_shape(),
    example_distributions(),
    alignment_grid(Simulation(draws=2)),
    lemma_check(),
    label_sweep(Simulation(draws=2)),
]


@pytest.mark.parametrize("venue", ["acl", "neurips", "icml-wide"])
@pytest.mark.parametrize("analysis", ANALYSES, ids=lambda analysis: analysis.name)
def test_they_can_be_read_at_their_printed_size(analysis, venue, assert_printable):
    figure = plot_theory(analysis, venue=venue)
    assert figure.get_figwidth() == VENUE_WIDTHS[venue]
    assert_printable(figure)


def test_the_heat_maps_write_their_cosines():
    analysis = ANALYSES[2]
    figure = plot_theory(analysis)
    for axes, name in zip(
        figure.axes, ("cos_direction_residual", "cos_weights_label"), strict=True
    ):
        table = analysis.curves["cosines"]
        expected = [f"{value:.2f}" for value in table[name]]
        assert [text.get_text() for text in axes.texts] == expected
        np.testing.assert_array_equal(np.ravel(axes.images[0].get_array()), table[name])


def test_the_lemma_draws_exact_and_first_order_changes():
    analysis = ANALYSES[3]
    left, right = plot_theory(analysis).axes
    rows = analysis.curves["changes"]
    first = rows[rows["direction"] == "likeliest token"]
    np.testing.assert_array_equal(left.lines[0].get_ydata(), first["first_order"])
    np.testing.assert_array_equal(left.lines[1].get_ydata(), first["exact"])
    np.testing.assert_array_equal(right.lines[0].get_ydata(), first["error"])
    assert len(right.lines) == 3


def test_another_analysis_or_venue_is_refused():
    with pytest.raises(UsageError, match="density is no simulation"):
        plot_theory(empty_analysis("density", "None.", {}))
    with pytest.raises(UsageError, match="unknown venue"):
        plot_theory(ANALYSES[0], venue="cvpr")
