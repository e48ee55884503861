"""The GWHES figure draws the numbers of its analysis, legibly."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from thr_probe.analysis.gwhes import gwhes_agreement
from thr_probe.figures import plot_gwhes
from thr_probe.figures.style import VENUE_WIDTHS


def tables(*, in_nats=True, sign=-1.0, num_questions=30):
    rng = np.random.default_rng(3)
    score = sign * rng.lognormal(7, 1.5, num_questions)
    change = np.abs(score) * 1e-5 * rng.lognormal(0, 1, num_questions)
    change[::7] *= -0.1
    table = pd.DataFrame({"prompt_id": [f"q{i}" for i in range(num_questions)], "step": None})
    table = table.assign(gwhes=score, change=change, first_order=change, gradient_norm=1.0)
    table = table.assign(group_size=8, num_correct=1 + rng.integers(6, size=num_questions))
    table = table.assign(tokens=500, unembedding=-score * 2e-6 if in_nats else np.nan)
    own = table[["prompt_id", "step", "gwhes", "change", "unembedding"]]
    return table, own.assign(rollout_id=0, gwhes_per_token=score / 500)


@pytest.mark.parametrize("venue", ["acl", "neurips", "icml-wide"])
@pytest.mark.parametrize("in_nats", [True, False])
def test_it_can_be_read_at_its_printed_size(venue, in_nats, assert_printable):
    figure = plot_gwhes(gwhes_agreement(*tables(in_nats=in_nats)), venue=venue)
    assert figure.get_figwidth() == VENUE_WIDTHS[venue]
    assert_printable(figure)


def test_it_draws_questions_overlap_and_completions():
    analysis = gwhes_agreement(*tables())
    left, middle, right = plot_gwhes(analysis).axes
    questions = analysis.curves["questions"]
    drawn = np.concatenate([line.get_ydata() for line in left.lines])
    np.testing.assert_array_equal(np.sort(drawn), np.sort(questions["change"]))
    fell = left.lines[1]
    assert (np.asarray(fell.get_ydata()) < 0).all()
    assert (fell.get_marker(), left.lines[0].get_marker()) == ("x", "o")
    overlap = analysis.curves["overlap"]
    for line, name in zip(
        middle.lines, ("overlap", "chance", "chance_low", "chance_high"), strict=True
    ):
        np.testing.assert_array_equal(line.get_ydata(), overlap[name])
    points = np.concatenate([line.get_xdata() for line in right.lines[:2]])
    np.testing.assert_array_equal(
        np.sort(points), np.sort(analysis.curves["completions"]["unembedding"])
    )
    for axes in (left, right):  # every point lies inside
        low, high = axes.get_ylim()
        assert all(low < value < high for value in questions["change"])


def test_equal_or_zero_values_are_drawn(assert_printable):
    questions, completions = tables(num_questions=3)
    for value in (0.0, 1e-3):
        same = [table.assign(change=value, first_order=1e-3) for table in (questions, completions)]
        assert_printable(plot_gwhes(gwhes_agreement(*same)))


def test_too_few_questions_become_a_sentence():
    questions, completions = tables(num_questions=1)
    (text,) = plot_gwhes(gwhes_agreement(questions, completions)).axes[0].texts
    assert text.get_text().startswith("1 question measured")
