"""Every analysis with its figure, by name: compute, draw, save."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from thr_probe.analysis.curves import training_curves
from thr_probe.analysis.density import density_in_style, thr_density
from thr_probe.analysis.overlap import thr_entropy_overlap
from thr_probe.analysis.passk import pass_at_k_curve
from thr_probe.analysis.reflection import reflection_ratio
from thr_probe.analysis.result import Analysis
from thr_probe.analysis.retention import tokens_retained
from thr_probe.analysis.timing import module_timing
from thr_probe.analysis.word_counts import read_words
from thr_probe.analysis.wordcloud import WordcloudOptions, thr_wordcloud
from thr_probe.errors import DataError, UsageError
from thr_probe.figures import (
    plot_curves,
    plot_density,
    plot_overlap,
    plot_pass_at_k,
    plot_reflection,
    plot_retention,
    plot_timing,
    plot_wordcloud,
    save_analysis,
)
from thr_probe.traces import Run
from thr_probe.traces.metrics import METRICS_NAME


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one analysis of `analyze_all`."""

    name: str
    """The analysis."""
    analysis: Analysis | None
    """Its numbers; None where it could not be computed."""
    figure: Path | None
    """Its PNG; None likewise."""
    note: str
    """Why there is nothing to draw, or why it could not be computed; empty otherwise."""


Draw = Callable[..., tuple[Analysis, Figure]]
"""Computes an analysis of a run (or runs) and draws it at a venue's width."""


def _drawn(compute: Callable[..., Analysis], plot: Callable[..., Figure]) -> Draw:
    """An analysis whose options are all its own, with its figure."""

    def both(source: Any, *, venue: str, **options: Any) -> tuple[Analysis, Figure]:
        analysis = compute(source, **options)
        return analysis, plot(analysis, venue=venue)

    return both


def _density(
    run: Run, *, style: str = "paper", venue: str, **options: Any
) -> tuple[Analysis, Figure]:
    analysis = density_in_style(thr_density(run, **options), style)
    return analysis, plot_density(analysis, style=style, venue=venue)


def _wordcloud(
    run: Run, *, venue: str, score_id: str | None = None, **options: Any
) -> tuple[Analysis, Figure]:
    analysis = thr_wordcloud(run, options=WordcloudOptions(**options), score_id=score_id)
    return analysis, plot_wordcloud(analysis, venue=venue)


def _reflection(
    run: Run, *, venue: str, words: Path | None = None, **options: Any
) -> tuple[Analysis, Figure]:
    listed = None if words is None else read_words(words)
    analysis = reflection_ratio(run, words=listed, **options)
    return analysis, plot_reflection(analysis, venue=venue)


ANALYSES: Mapping[str, Draw] = {
    "density": _density,
    "overlap": _drawn(thr_entropy_overlap, plot_overlap),
    "wordcloud": _wordcloud,
    "reflection": _reflection,
    "retention": _drawn(tokens_retained, plot_retention),
    "passk": _drawn(pass_at_k_curve, plot_pass_at_k),
}

TRAINING_ANALYSES: Mapping[str, Draw] = {
    "curves": _drawn(training_curves, plot_curves),
    "timing": _drawn(module_timing, plot_timing),
}
"""Of the journals of one or several training runs, given by their folders."""

READS_SCORES = frozenset({"density", "overlap", "wordcloud", "retention"})


def analyze(
    name: str, run: Run, out: Path, *, venue: str = "neurips", command: str = "", **options: Any
) -> tuple[Analysis, list[Path]]:
    """Compute one analysis, draw it and write its files into a folder.

    Args:
        name: one of `ANALYSES`.
        run: the run.
        out: the folder, made where it is missing.
        venue: decides the figure's width.
        command: the command line, kept in the JSON.
        options: of the analysis.

    Raises:
        UsageError: an unknown name or option value.
        DataError: columns that the run does not have.
    """
    if name not in ANALYSES:
        raise UsageError(f"unknown analysis {name!r}; choose one of {', '.join(ANALYSES)}")
    analysis, figure = ANALYSES[name](run, venue=venue, **options)
    return analysis, save_analysis(analysis, figure, out, command=command)


def analyze_training(
    name: str,
    paths: Sequence[Path],
    out: Path,
    *,
    venue: str = "neurips",
    command: str = "",
    **options: Any,
) -> tuple[Analysis, list[Path]]:
    """Compute one analysis of training runs, draw it and write its files into a folder.

    Args:
        name: one of `TRAINING_ANALYSES`.
        paths: the folders of the runs.
        out: the folder, made where it is missing.
        venue: decides the figure's width.
        command: the command line, kept in the JSON.
        options: of the analysis.

    Raises:
        UsageError: an unknown name or option value.
        DataError: a folder that is no training run.
    """
    if name not in TRAINING_ANALYSES:
        listed = ", ".join(TRAINING_ANALYSES)
        raise UsageError(f"unknown analysis of training {name!r}; choose one of {listed}")
    analysis, figure = TRAINING_ANALYSES[name](paths, venue=venue, **options)
    return analysis, save_analysis(analysis, figure, out, command=command)


def analyze_all(
    run: Run,
    out: Path,
    *,
    seed: int = 0,
    venue: str = "neurips",
    command: str = "",
    **options: Any,
) -> list[Outcome]:
    """Every analysis of a run; one whose columns the run lacks is noted and left out.

    A training run's own analyses come last.

    Args:
        run: the run.
        out: the folder of all files.
        seed: of the resampling.
        venue: decides the figures' width.
        command: the command line, kept in the JSON files.
        options: groups and score_id, for the analyses that read scores.

    Raises:
        UsageError: an option that does not exist.
    """
    kept = {"venue": venue, "command": command}

    def of_rollouts(name: str) -> Analysis:
        own = options if name in READS_SCORES else {}
        return analyze(name, run, out, seed=seed, **kept, **own)[0]

    outcomes = [_outcome(name, of_rollouts, out) for name in ANALYSES]
    if (run.path / METRICS_NAME).is_file():

        def of_training(name: str) -> Analysis:
            return analyze_training(name, [run.path], out, **kept)[0]

        outcomes += [_outcome(name, of_training, out) for name in TRAINING_ANALYSES]
    return outcomes


def _outcome(name: str, compute: Callable[[str], Analysis], out: Path) -> Outcome:
    try:
        analysis = compute(name)
    except DataError as error:
        return Outcome(name=name, analysis=None, figure=None, note=error.message)
    note = analysis.empty_reason or ""
    return Outcome(name=name, analysis=analysis, figure=out / f"{name}.png", note=note)
