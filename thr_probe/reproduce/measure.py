"""The numbers of one job, read from its runs: per question, so that rows can be compared."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from thr_probe.analysis.histograms import dominant_tokens
from thr_probe.analysis.overlap import completion_overlaps, thr_entropy_overlap
from thr_probe.analysis.passk import count_correct
from thr_probe.analysis.reflection import REFLECTION_WORDS
from thr_probe.analysis.stream import Batch, CompletionStream
from thr_probe.analysis.word_counts import count_words
from thr_probe.core.stats import Interval
from thr_probe.errors import ThrProbeError
from thr_probe.reproduce.activity import active_share
from thr_probe.reproduce.plan import Job, Stage
from thr_probe.reproduce.rows import ROWS, Row
from thr_probe.traces import Run, read_run
from thr_probe.traces.metrics import read_metrics
from thr_probe.traces.reader import read_config

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What is there of a job; what is not, or cannot be read, is None."""

    job: Job
    """The row and the seed."""
    greedy: pd.DataFrame | None = None
    """By prompt_id: kind of the problem, n completions, c correct ones; temperature 0."""
    sampled: pd.DataFrame | None = None
    """By prompt_id: n, c, matches of reflection words, tokens; temperature 1."""
    scored: pd.DataFrame | None = None
    """By prompt_id: tokens, dominant ones, summed overlap and chance, and completions of these."""
    peak: Interval | None = None
    """Mode of the density of the overlap between dominant and high-entropy tokens (Fig. 3)."""
    steps: pd.DataFrame | None = None
    """The records of the training steps."""
    config: dict[str, Any] | None = None
    """The resolved options of the training run."""
    notes: tuple[str, ...] = ()
    """Why a run that is finished could not be read."""

    @property
    def active_share(self) -> float:
        """In which share of the training the mechanism acted; NaN where it is not known."""
        steps = pd.DataFrame() if self.steps is None else self.steps
        return active_share(self.job.row.activity, steps)


def jobs_on_disk(root: Path) -> list[Job]:
    """Every (row, seed) with a finished stage, in the order of the tables."""
    jobs = [Job(row=row, seed=seed) for row in ROWS for seed in _seeds(root, row)]
    return [job for job in jobs if any(job.is_done(root, stage) for stage in job.stages)]


def _seeds(root: Path, row: Row) -> list[int]:
    pattern = re.compile(re.escape(row.name) + r"-s(\d+)")
    names = {path.name for stage in Stage for path in (root / stage.value).glob("*-s*")}
    return sorted(int(match[1]) for match in map(pattern.fullmatch, names) if match)


def measure(job: Job, root: Path) -> Measured:
    """Read what is finished of a job; a run that cannot be read is noted and left out."""
    reader = _Reader(job=job, root=root)
    scored = reader.read(Stage.SCORED, lambda path: _scored(read_run(path)))
    return Measured(
        job=job,
        greedy=reader.read(Stage.GREEDY, lambda path: _greedy(read_run(path))),
        sampled=reader.read(Stage.SAMPLED, lambda path: _sampled(read_run(path))),
        scored=None if scored is None else scored[0],
        peak=None if scored is None else scored[1],
        steps=reader.read(Stage.TRAIN, lambda path: read_metrics(path)[0]),
        config=reader.read(Stage.TRAIN, read_config),
        notes=tuple(dict.fromkeys(reader.notes)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reader:
    """Reads the finished stages of a job and keeps the complaints."""

    job: Job
    """The job."""
    root: Path
    """The folder of the replication."""
    notes: list[str] = field(default_factory=list)
    """What could not be read."""

    def read(self, stage: Stage, read: Callable[[Path], Found]) -> Found | None:
        """What a stage left behind, or None."""
        if stage not in self.job.stages or not self.job.is_done(self.root, stage):
            return None
        try:
            return read(self.job.folder(self.root, stage))
        except ThrProbeError as error:
            # the other jobs make a report without this one
            self.notes.append(f"{self.job.name}, {stage.name.lower()}: {error.message}")
            return None


def _greedy(run: Run) -> pd.DataFrame:
    counts = _counts(run)
    level = run.problems().set_index("prompt_id")["level"].reindex(counts.index)
    kinds = [str(value).partition(" ")[0] for value in level.fillna("other")]
    return counts.assign(kind=kinds)


def _sampled(run: Run) -> pd.DataFrame:
    words = count_words(run, REFLECTION_WORDS)
    if words.empty:
        return _counts(run).assign(matches=0, tokens=0)
    return _counts(run).join(words[["matches", "tokens"]].groupby(level="prompt_id").sum())


def _counts(run: Run) -> pd.DataFrame:
    return count_correct(run).groupby("prompt_id")[["n", "c"]].sum()


def _scored(run: Run) -> tuple[pd.DataFrame, Interval | None]:
    """Sums over the mixed groups; overlaps without the groups of tau <= 0, where they are 1."""
    stream = CompletionStream(run, ["thr", "entropy"])
    parts = [_completions(batch) for batch in stream]
    columns = ("stratum", "tokens", "dominant", "overlap", "chance", "completions")
    table = pd.DataFrame(np.concatenate([np.empty((0, 6)), *parts]), columns=list(columns))
    question = stream.strata.question_S[table.pop("stratum").astype(int)]
    table.index = pd.Index(_names(stream.questions, question), name="prompt_id")
    overlap = thr_entropy_overlap(run)
    peak = None
    if overlap.empty_reason is None:
        peak = overlap.value("peak_overlap", str(overlap.facts["drawn_split"]))
    return table.groupby(level=0).sum(), peak


def _completions(batch: Batch) -> np.ndarray:
    dominant_R = batch.count(dominant_tokens(batch))
    overlap_R, chance_R = completion_overlaps(batch)
    counts_R = (batch.tau_R > 0) & ~np.isnan(overlap_R)
    compared = [np.where(counts_R, value_R, 0.0) for value_R in (overlap_R, chance_R)]
    return np.stack([batch.stratum_R, batch.lengths, dominant_R, *compared, counts_R], axis=1)


def _names(questions: Sequence[str], index_R: np.ndarray) -> list[str]:
    return [questions[index] for index in index_R]
