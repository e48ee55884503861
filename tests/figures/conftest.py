"""Analyses of a random run, one per figure; what every figure is checked for."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text

from thr_probe.analysis.density import thr_density
from thr_probe.analysis.overlap import thr_entropy_overlap
from thr_probe.analysis.result import Analysis
from thr_probe.analysis.retention import tokens_retained
from thr_probe.traces import Run, read_run


def _groups(num_groups: int) -> list[dict[str, Any]]:
    """Mixed groups with heavy-tailed THR; in every ninth the threshold is below 0."""
    rng = np.random.default_rng(8)
    groups = []
    for index in range(num_groups):
        completions = []
        for correct in (True, False, True):
            entropy = rng.gamma(0.3, 1.0, 50)
            thr = entropy**1.3 * rng.lognormal(-1, 1, 50) * rng.choice([-1, 1], 50, p=[0.2, 0.8])
            row = {"thr": np.float32(thr).tolist(), "entropy": np.float32(entropy).tolist()}
            completions.append({"correct": correct, **row})
        tau = -0.1 if index % 9 == 4 else float(np.float32(rng.uniform(0.1, 0.4)))
        groups.append({"prompt_id": f"q{index}", "tau": tau, "completions": completions})
    return groups


@pytest.fixture(scope="session")
def steered_run(tmp_path_factory: pytest.TempPathFactory, make_run: Callable[..., Path]) -> Run:
    return read_run(make_run(tmp_path_factory.mktemp("figures") / "run", _groups(25)))


@pytest.fixture(scope="session")
def density(steered_run: Run) -> Analysis:
    return thr_density(steered_run)


@pytest.fixture(scope="session")
def overlap(steered_run: Run) -> Analysis:
    return thr_entropy_overlap(steered_run)


@pytest.fixture(scope="session")
def retention(steered_run: Run) -> Analysis:
    return tokens_retained(steered_run)


@pytest.fixture(scope="session")
def assert_printable() -> Callable[[Figure], None]:
    """Every text is at least 7 pt, inside the figure, and no tick label touches the next."""

    def check(figure: Figure) -> None:
        figure.draw_without_rendering()
        undrawn = {label for axes in figure.axes for label in _labels(axes.xaxis, drawn=False)}
        undrawn |= {label for axes in figure.axes for label in _labels(axes.yaxis, drawn=False)}
        texts = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
        assert len(texts) > len(undrawn)
        inside = figure.bbox.padded(0.5)
        for text in set(texts) - undrawn:
            assert text.get_fontsize() >= 7, text
            box = text.get_window_extent()
            assert inside.x0 <= box.x0, text
            assert box.x1 <= inside.x1, text
            assert inside.y0 <= box.y0, text
            assert box.y1 <= inside.y1, text
        for axes in figure.axes:
            boxes = [label.get_window_extent() for label in _labels(axes.xaxis, drawn=True)]
            for left, right in pairwise(sorted(boxes, key=lambda box: box.x0)):
                assert left.x1 < right.x0, axes.get_title(loc="left")

    return check


def _labels(axis: Axis, *, drawn: bool) -> list[Text]:
    """The tick labels within the limits of an axis, which are drawn, or those beyond."""
    low, high = sorted(axis.get_view_interval())
    return [
        tick.label1
        for tick in axis.get_major_ticks()
        if tick.label1.get_text() and (low <= tick.get_loc() <= high) == drawn
    ]
