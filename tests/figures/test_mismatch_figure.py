"""The figure of sampler against policy draws the numbers of its analysis, in every case."""

from __future__ import annotations

import numpy as np
import pytest

from thr_probe.analysis.mismatch import sampler_mismatch
from thr_probe.figures import plot_mismatch
from thr_probe.figures.style import EXPLOITATION, EXPLORATION, VENUE_WIDTHS
from thr_probe.traces import read_run


def groups(*, spread, steps=1):
    rng = np.random.default_rng(3)
    made = []
    for index in range(8):
        completions = []
        for correct in (True, False, False):
            logprob = np.float32(-rng.gamma(0.7, 1.0, 25))
            sampler = np.float32(np.minimum(logprob + spread * rng.standard_t(3, 25), 0))
            completions.append(
                {
                    "correct": correct,
                    "logprob": logprob.tolist(),
                    "sampler_logprobs": (sampler if spread else logprob).tolist(),
                    "thr": np.float32(rng.normal(0, 1, 25)).tolist(),
                }
            )
        group = {"prompt_id": f"q{index}", "tau": 0.5, "completions": completions}
        made.append(group | ({"step": index % steps} if steps > 1 else {}))
    return made


def analysis_of(folder, make_run, **options):
    return sampler_mismatch(read_run(make_run(folder / "run", groups(**options))))


def drawn(axes, colour):
    (line,) = [
        line for line in axes.lines if line.get_color() == colour and len(line.get_xdata()) > 2
    ]
    return np.asarray(line.get_xdata()), np.asarray(line.get_ydata(), dtype=float)


def test_panels_hold_the_numbers_of_the_curves(tmp_path, make_run):
    analysis = analysis_of(tmp_path, make_run, spread=0.2)
    tails, positions, completions = plot_mismatch(analysis).axes
    rows = analysis.curves["tails"].set_index("split")
    for split, colour in (("THR > tau", EXPLOITATION), ("THR < -tau", EXPLORATION)):
        x, y = drawn(tails, colour)
        np.testing.assert_allclose(x, rows.loc[split, "difference"])
        np.testing.assert_allclose(y, rows.loc[split, "share"])
    labelled = {line.get_label(): line for line in positions.lines}
    np.testing.assert_allclose(
        labelled["KL, $k_3$"].get_ydata(), analysis.curves["positions"]["kl_k3"]
    )
    (bars,) = completions.patches
    np.testing.assert_allclose(bars.get_data().values, analysis.curves["sequences"]["share"])
    assert completions.get_xlabel().endswith("(nats)")


def test_a_training_run_is_drawn_by_step(tmp_path, make_run):
    analysis = analysis_of(tmp_path, make_run, spread=0.2, steps=3)
    last = plot_mismatch(analysis).axes[2]
    assert last.get_xlabel() == "step"
    np.testing.assert_allclose(last.lines[0].get_ydata(), analysis.curves["steps"]["mean_gap"])
    np.testing.assert_allclose(last.lines[1].get_ydata(), analysis.curves["steps"]["kl_k3"])


@pytest.fixture(scope="module", params=[0.0, 1e-6, 3.0])
def spread_and_analysis(request, tmp_path_factory, make_run):
    folder = tmp_path_factory.mktemp("figures")
    return request.param, analysis_of(folder, make_run, spread=request.param)


@pytest.mark.parametrize("venue", ["neurips", "icml", "acl", "icml-wide"])
def test_any_size_of_difference_fits_the_venues(spread_and_analysis, venue):
    spread, analysis = spread_and_analysis
    figure = plot_mismatch(analysis, venue=venue)
    figure.draw_without_rendering()
    assert figure.get_size_inches()[0] == VENUE_WIDTHS[venue]
    window = figure.bbox
    for axes in figure.axes:
        for text in (axes.xaxis.label, axes.yaxis.label, axes.title):
            box = text.get_window_extent()
            assert box.x0 >= window.x0 - 1
            assert box.x1 <= window.x1 + 1
            assert box.y0 >= window.y0 - 1
    written = figure.axes[0].texts
    assert [text.get_text() for text in written] == (["no difference"] if not spread else [])
    small = figure.axes[2].get_xlabel()
    assert ("10^{-" in small) == (spread == 1e-6)


def test_a_run_that_cannot_be_compared_is_told_in_the_figure(tmp_path, make_run):
    path = make_run(tmp_path / "run", groups(spread=0.1), scored=False)
    figure = plot_mismatch(sampler_mismatch(read_run(path)))
    told = " ".join(text.get_text() for text in figure.texts)
    told += " ".join(text.get_text() for axes in figure.axes for text in axes.texts)
    assert "no scores" in told.replace("\n", " ")


def test_the_axis_of_differences_begins_where_the_lines_fall(tmp_path, make_run):
    analysis = analysis_of(tmp_path, make_run, spread=0.2)
    tails = plot_mismatch(analysis).axes[0]
    rows = analysis.curves["tails"]
    level = [size for size, some in rows.groupby("difference") if min(some["share"]) >= 0.98]
    np.testing.assert_allclose(tails.get_xlim()[0], max(level) / 1.6)
    assert min(rows["difference"]) < tails.get_xlim()[0] < analysis.facts["bound"]
