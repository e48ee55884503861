"""thr_probe's side: each analysis as the command line computes it, without drawing.

Called by analyze.py with a line of JSON; prints one.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Mapping
from typing import Any, cast
from unittest import mock

import analyze_numbers as numbers
import pandas as pd
import pyarrow as pa
from analyze_measure import measured

from thr_probe.analysis import reflection, resampling, wordcloud
from thr_probe.analysis.density import thr_density
from thr_probe.analysis.overlap import thr_entropy_overlap
from thr_probe.analysis.result import Analysis
from thr_probe.analysis.retention import tokens_retained
from thr_probe.traces import read_run

ANALYSES: dict[str, Callable[..., Analysis]] = {
    "density": thr_density,
    "overlap": thr_entropy_overlap,
    "reflection": reflection.reflection_ratio,
    "wordcloud": wordcloud.thr_wordcloud,
    "retention": tokens_retained,
}


SCAN_RESAMPLES = 2
"""In place of 2,000: what is left is the reading, the sums of every question and the points."""


def main() -> None:
    """Run what the command line's JSON asks for."""
    call = json.loads(sys.argv[1])
    name, path, resampled = call["analysis"], call["trace"], call["side"] != "scan"
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    report, found = measured(lambda: analyze(name, path, resampled=resampled))
    where = axes(found) if name == "density" else {}
    print(json.dumps({**report, "numbers": point_values(found), "axes": where}))


def analyze(name: str, path: str, *, resampled: bool = True) -> Analysis:
    """One analysis, the opening of the trace included, with or without its bootstrap."""
    if not resampled:
        for module in (resampling, reflection, wordcloud):
            few = functools.partial(module.question_weights, num_resamples=SCAN_RESAMPLES)
            # for good: a process does one analysis
            mock.patch.object(module, "question_weights", few).start()
    return ANALYSES[name](read_run(path))


def point_values(analysis: Analysis) -> numbers.Numbers:
    """What a peer's query yields too; the density's curves and the mode are drawn from it."""
    return _EXTRACTORS[analysis.name](analysis)


def axes(analysis: Analysis) -> dict[str, float]:
    """Of the density: what `analyze_numbers.axes_of` takes."""
    facts = cast("Mapping[str, Any]", analysis.facts)
    low, high = facts["linear_axis"]
    return {
        "low": low,
        "high": high,
        "scale": facts["asinh_scale"],
        "largest": facts["max_abs_thr"],
    }


def _summary(analysis: Analysis) -> numbers.Numbers:
    return numbers.summary_numbers(analysis.summary.to_dict("records"))


def _density(analysis: Analysis) -> numbers.Numbers:
    found = _summary(analysis)
    for name, column in (("diagnostic", "fraction"), ("paper", "density")):
        for label, curve in analysis.curves[name].groupby("split"):
            found[f"{name} curve of {label}"] = curve[column].tolist()
    return found


def _overlap(analysis: Analysis) -> numbers.Numbers:
    found = {
        name: value for name, value in _summary(analysis).items() if not name.startswith("peak")
    }
    curve = analysis.curves["histogram"]
    return found | {"histogram of all": curve.loc[curve["split"] == "all", "density"].tolist()}


def _retention(analysis: Analysis) -> numbers.Numbers:
    shares = analysis.curves["questions"]["retained_share"].sort_values().tolist()
    return _summary(analysis) | {"shares of questions": shares}


def _reflection(analysis: Analysis) -> numbers.Numbers:
    found = _summary(analysis)
    table: pd.DataFrame = analysis.curves["words"].set_index(["split", "word"])
    for label in ("correct", "incorrect"):
        found[f"words of {label}"] = [
            float(table.loc[(label, word), "count"]) for word in numbers.WORDS
        ]
    return found


def _wordcloud(analysis: Analysis) -> numbers.Numbers:
    found: numbers.Numbers = {}
    for sign in ("positive", "negative"):
        for name, column in (("count", "count"), ("mean", "mean"), ("mass share", "mass_share")):
            found[f"{name} of {sign}"] = analysis.curves[sign][column].astype(float).tolist()
    return found


_EXTRACTORS: dict[str, Callable[[Analysis], numbers.Numbers]] = {
    "density": _density,
    "overlap": _overlap,
    "retention": _retention,
    "reflection": _reflection,
    "wordcloud": _wordcloud,
}


if __name__ == "__main__":
    main()
