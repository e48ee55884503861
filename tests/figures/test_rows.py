"""The figures that compare trained rows: what their axes say."""

from __future__ import annotations

from itertools import pairwise

import pandas as pd
import pytest

from thr_probe.analysis.result import Analysis, summary_table
from thr_probe.figures.rows import plot_p_ablation

PS = [-0.2, -0.1, -0.05, 0.0, 0.05, 0.1, 0.2]


@pytest.mark.parametrize(
    ("venue", "labels"),
    [
        ("neurips", ["-0.2", "-0.1", "", "0", "", "0.1", "0.2"]),
        ("icml-wide", ["-0.2", "-0.1", "", "0", "", "0.1", "0.2"]),
        ("acl", ["-0.2", "", "", "0", "", "", "0.2"]),
    ],
)
def test_every_p_has_a_tick_and_a_number_where_there_is_room(venue, labels):
    curve = pd.DataFrame({"column": "greedy", "p": PS, "value": 0.5, "low": 0.4, "high": 0.6})
    grpo = pd.DataFrame({"column": ["greedy"], "value": [0.5]})
    analysis = Analysis(
        name="p-ablation",
        summary=summary_table([]),
        curves={"curve": curve, "grpo": grpo},
        facts={},
        caption="",
    )
    figure = plot_p_ablation(analysis, venue=venue)
    figure.draw_without_rendering()
    for axes in figure.axes:
        assert axes.get_xticks().tolist() == PS
        texts = axes.get_xticklabels()
        assert [text.get_text() for text in texts] == labels
        boxes = [text.get_window_extent() for text in texts if text.get_text()]
        assert all(left.x1 < right.x0 for left, right in pairwise(boxes))
