"""What is to be done, in which order: (row, seed) jobs and the commands of their stages."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from thr_probe.errors import DataError
from thr_probe.reproduce.rows import Row
from thr_probe.reproduce.settings import (
    DATASET,
    MODEL,
    PRESET,
    ReproduceConfig,
    rows_of,
    seeds_of,
    train_words,
)
from thr_probe.traces.manifest import RunStatus, read_manifest


class Stage(StrEnum):
    """A step of a job, by the name of the folder that holds its runs."""

    TRAIN = "runs"
    GREEDY = "greedy"
    SAMPLED = "sampled"
    SCORED = "scored"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One row with one seed: a training run and what is measured of its final policy."""

    row: Row
    """The method."""
    seed: int
    """Of the training run, and of the completions sampled from its policy."""

    @property
    def name(self) -> str:
        """The name of its folder in the folder of each stage."""
        return f"{self.row.name}-s{self.seed}"

    @property
    def stages(self) -> tuple[Stage, ...]:
        """What is to be done, in order."""
        return tuple(stage for stage in Stage if stage is not Stage.TRAIN or self.row.is_trained)

    def folder(self, root: Path, stage: Stage) -> Path:
        """The run directory of a stage."""
        return root / stage.value / self.name

    def is_done(self, root: Path, stage: Stage) -> bool:
        """Whether the run of a stage is complete."""
        return is_complete(self.folder(root, stage))

    def model(self, root: Path) -> str:
        """The policy that is measured."""
        return str(self.folder(root, Stage.TRAIN) / "model") if self.row.is_trained else MODEL


def is_complete(run_path: Path) -> bool:
    """Whether a run directory is there and was finished."""
    try:
        return read_manifest(run_path).status is RunStatus.COMPLETE
    except DataError:
        return False


def planned_jobs(config: ReproduceConfig) -> list[Job]:
    """The jobs in the order of work: whatever has been finished makes a report.

    The first seed of the core rows, the first seed of the others, then the further seeds.
    """
    seeds, rows = seeds_of(config), rows_of(config)
    every_seed = config.rows is not None
    jobs = [
        Job(row=row, seed=seed)
        for row in rows
        for seed in (seeds if row.is_core or every_seed else seeds[:1])
    ]
    return sorted(jobs, key=lambda job: (seeds.index(job.seed), not job.row.is_core))


def commands(job: Job, root: Path, config: ReproduceConfig) -> Iterator[tuple[Stage, list[str]]]:
    """Every stage of a job with the words behind `thr-probe` that do it."""
    for stage in job.stages:
        yield stage, [*_words(job, stage, root, config), "-o", str(job.folder(root, stage))]


def _words(job: Job, stage: Stage, root: Path, config: ReproduceConfig) -> list[str]:
    if stage is Stage.TRAIN:
        given = [*job.row.flags, "--seed", str(job.seed), *train_words(config)]
        return ["train", "--preset", PRESET, *given]
    collect = ["collect", "--model", job.model(root), "--dataset", DATASET]
    if stage is Stage.GREEDY:
        drawn = [config.greedy_prompts, 1, "--temperature", 0, "--no-score"]
    elif stage is Stage.SAMPLED:
        drawn = [config.sampled_prompts, config.samples, "--seed", job.seed, "--no-score"]
    else:
        drawn = [config.sampled_prompts, config.scored_samples, "--seed", job.seed]
    num_prompts, num_samples, *rest = (str(word) for word in drawn)
    size = ["--max-prompts", num_prompts, "--group-size", num_samples]
    return [*collect, *size, *rest, "--truncated-wrong", "--verify-workers", "1"]
