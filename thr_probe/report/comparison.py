"""Several runs beside the first one, as more analyses of the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from thr_probe.analysis.compare import compare_sources
from thr_probe.analysis.passk_runs import pass_at_k_runs
from thr_probe.analysis.result import Analysis
from thr_probe.analysis.sources import read_sources
from thr_probe.figures.compare import plot_compare
from thr_probe.figures.passk_runs import plot_pass_at_k_runs
from thr_probe.figures.save import save_analysis
from thr_probe.gallery import Outcome, outcome_of

COMPARISONS: Mapping[str, tuple[Callable[..., Analysis], Callable[..., Figure]]] = {
    "compare": (compare_sources, plot_compare),
    "passk-runs": (pass_at_k_runs, plot_pass_at_k_runs),
}
"""What is said of several runs: compute and draw."""


def compare_runs(
    paths: Sequence[Path], folder: Path, *, venue: str, command: str, **options: Any
) -> list[Outcome]:
    """Compute, draw and write the comparisons; one that these runs do not allow gives a note.

    Args:
        paths: the runs, the baseline first.
        folder: of the files.
        venue: decides the figures' width.
        command: kept in the JSON files.
        options: seed, and score_id of what reads scores.

    Raises:
        UsageError: an option that does not exist.
    """
    sources = read_sources(paths)

    def compute(name: str) -> Analysis:
        of_sources, draw = COMPARISONS[name]
        own = options if name == "compare" else {"seed": options["seed"]}
        analysis = replace(of_sources(sources, **own), name=name)
        save_analysis(analysis, draw(analysis, venue=venue), folder, command=command)
        return analysis

    return [outcome_of(name, compute, folder) for name in COMPARISONS]
