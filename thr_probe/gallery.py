"""Every analysis with its figure, by name: compute, draw, save."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from thr_probe.analysis.advantage import thr_by_advantage
from thr_probe.analysis.balance import exploration_balance
from thr_probe.analysis.classes import thr_by_class
from thr_probe.analysis.curves import training_curves
from thr_probe.analysis.density import density_in_style, thr_density
from thr_probe.analysis.drift import thr_drift
from thr_probe.analysis.entropy import thr_against_entropy
from thr_probe.analysis.health import run_health
from thr_probe.analysis.mismatch import sampler_mismatch
from thr_probe.analysis.overlap import thr_entropy_overlap
from thr_probe.analysis.passk import pass_at_k_curve
from thr_probe.analysis.position import thr_by_position
from thr_probe.analysis.reflection import reflection_ratio
from thr_probe.analysis.result import Analysis
from thr_probe.analysis.retention import tokens_retained
from thr_probe.analysis.split import influence_shares
from thr_probe.analysis.tau import threshold_sensitivity
from thr_probe.analysis.theory import (
    Simulation,
    alignment_grid,
    entropy_shape,
    example_distributions,
)
from thr_probe.analysis.theory_labels import label_sweep
from thr_probe.analysis.theory_lemma import lemma_check
from thr_probe.analysis.timing import module_timing
from thr_probe.analysis.word_counts import read_words
from thr_probe.analysis.wordcloud import WordcloudOptions, thr_wordcloud
from thr_probe.errors import DataError, UsageError
from thr_probe.figures import (
    plot_advantage,
    plot_balance,
    plot_classes,
    plot_curves,
    plot_density,
    plot_drift,
    plot_entropy,
    plot_health,
    plot_mismatch,
    plot_overlap,
    plot_pass_at_k,
    plot_position,
    plot_reflection,
    plot_retention,
    plot_split,
    plot_tau,
    plot_theory,
    plot_timing,
    plot_wordcloud,
    save_analysis,
)
from thr_probe.traces import Run
from thr_probe.traces.layout import ROLLOUTS
from thr_probe.traces.metrics import METRICS_NAME
from thr_probe.traces.schema import COMPLETION_COLUMNS, TABLES


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
    hint: str = ""
    """What would let it be computed, where that is known."""
    opted_out: bool = False
    """Whether it was left out because of a column that a sound run may lack."""

    @property
    def failed(self) -> bool:
        """Whether it should have been computed and was not."""
        return self.analysis is None and not self.opted_out


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


def _mismatch(
    run: Run, *, venue: str, groups: str = "mixed", **options: Any
) -> tuple[Analysis, Figure]:
    del groups  # what an engine does wrong does not depend on rewards: every completion counts
    analysis = sampler_mismatch(run, **options)
    return analysis, plot_mismatch(analysis, venue=venue)


ANALYSES: Mapping[str, Draw] = {
    "density": _density,
    "overlap": _drawn(thr_entropy_overlap, plot_overlap),
    "wordcloud": _wordcloud,
    "reflection": _reflection,
    "retention": _drawn(tokens_retained, plot_retention),
    "passk": _drawn(pass_at_k_curve, plot_pass_at_k),
    "balance": _drawn(exploration_balance, plot_balance),
    "split": _drawn(influence_shares, plot_split),
    "position": _drawn(thr_by_position, plot_position),
    "advantage": _drawn(thr_by_advantage, plot_advantage),
    "tau": _drawn(threshold_sensitivity, plot_tau),
    "entropy": _drawn(thr_against_entropy, plot_entropy),
    "classes": _drawn(thr_by_class, plot_classes),
    "health": _drawn(run_health, plot_health),
    "mismatch": _mismatch,
}

SCORE_SET_ANALYSES: Mapping[str, Draw] = {"drift": _drawn(thr_drift, plot_drift)}
"""Of several score sets of one run; `analyze_all` makes them where there are two or more."""

TRAINING_ANALYSES: Mapping[str, Draw] = {
    "curves": _drawn(training_curves, plot_curves),
    "timing": _drawn(module_timing, plot_timing),
}
"""Of the journals of one or several training runs, given by their folders."""

READS_SCORES = frozenset(
    {
        "density",
        "overlap",
        "wordcloud",
        "retention",
        "balance",
        "split",
        "position",
        "advantage",
        "tau",
        "entropy",
        "classes",
        "mismatch",
    }
)

OPT_IN: Mapping[str, str] = {
    "split": "thr_self",
    "wordcloud": "token_ids",
    "classes": "token_ids",
    "mismatch": "sampler_logprobs",
}
"""A column that an analysis needs and that a sound run may lack."""


def analyze(
    name: str, run: Run, out: Path, *, venue: str = "neurips", command: str = "", **options: Any
) -> tuple[Analysis, list[Path]]:
    """Compute one analysis, draw it and write its files into a folder.

    Args:
        name: one of `ANALYSES` or `SCORE_SET_ANALYSES`.
        run: the run.
        out: the folder, made where it is missing.
        venue: decides the figure's width.
        command: the command line, kept in the JSON.
        options: of the analysis.

    Raises:
        UsageError: an unknown name or option value.
        DataError: columns that the run does not have.
    """
    known = {**ANALYSES, **SCORE_SET_ANALYSES}
    if name not in known:
        raise UsageError(f"unknown analysis {name!r}; choose one of {', '.join(known)}")
    _check_folder(out)
    analysis, figure = known[name](run, venue=venue, **options)
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
    _check_folder(out)
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

    Where the column is opt-in, that is no failure (`Outcome.opted_out`). Those of several score
    sets are made where there are two or more, and a training run's own analyses come last.

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
    _check_folder(out)
    kept = {"venue": venue, "command": command}

    def of_rollouts(name: str) -> Analysis:
        own = options if name in READS_SCORES else {}
        return analyze(name, run, out, seed=seed, **kept, **own)[0]

    score_id = options.get("score_id")
    outcomes = [
        _opted_out(name, run, score_id) or outcome_of(name, of_rollouts, out) for name in ANALYSES
    ]
    if len(run.score_ids) > 1:
        whole = {name: value for name, value in options.items() if name != "score_id"}

        def of_score_sets(name: str) -> Analysis:
            return analyze(name, run, out, seed=seed, **kept, **whole)[0]

        outcomes += [outcome_of(name, of_score_sets, out) for name in SCORE_SET_ANALYSES]
    if (run.path / METRICS_NAME).is_file():

        def of_training(name: str) -> Analysis:
            return analyze_training(name, [run.path], out, **kept)[0]

        outcomes += [outcome_of(name, of_training, out) for name in TRAINING_ANALYSES]
    return outcomes


def _check_folder(out: Path) -> None:
    """Refuses a file in place of the folder before anything is computed."""
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file, and a folder is needed", "choose another with --out")


def _opted_out(name: str, run: Run, score_id: str | None) -> Outcome | None:
    column = OPT_IN.get(name)
    if column is None or not run.score_ids:
        return None
    scores = run.score_parts[run.resolve_score_id(score_id)]
    parts = run.rollout_parts if column in TABLES[ROLLOUTS] else scores
    if any(column in part.columns for part in parts):
        return None
    return Outcome(
        name=name,
        analysis=None,
        figure=None,
        note=f"left out: column {column} is not stored",
        hint=f"to get it: {COMPLETION_COLUMNS[column].source}",
        opted_out=True,
    )


def outcome_of(name: str, compute: Callable[[str], Analysis], out: Path) -> Outcome:
    """Runs one analysis; data that it cannot be computed from become a note.

    Args:
        name: of the analysis.
        compute: computes it and writes its files into `out`.
        out: the folder.
    """
    try:
        analysis = compute(name)
    except DataError as error:
        hint = error.hint or ""
        return Outcome(name=name, analysis=None, figure=None, note=error.message, hint=hint)
    note = analysis.empty_reason or ""
    return Outcome(name=name, analysis=analysis, figure=out / f"{name}.png", note=note)


def simulate(
    simulation: Simulation, out: Path, *, venue: str = "neurips", command: str = ""
) -> tuple[Mapping[str, Analysis], list[Path]]:
    """The simulations of the paper's appendix D.2, computed, drawn and written into a folder.

    Args:
        simulation: grid, spread, label, draws, seed.
        out: the folder, made where it is missing.
        venue: decides the figures' width.
        command: the command line, kept in the JSON files.

    Raises:
        UsageError: an unknown venue.
        DataError: a file that cannot be written.
    """
    analyses = [
        entropy_shape(),
        example_distributions(simulation),
        alignment_grid(simulation),
        lemma_check(simulation),
        label_sweep(simulation),
    ]
    paths = [
        path
        for analysis in analyses
        for path in save_analysis(
            analysis, plot_theory(analysis, venue=venue), out, command=command
        )
    ]
    return {analysis.name: analysis for analysis in analyses}, paths
