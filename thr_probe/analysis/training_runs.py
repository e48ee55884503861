"""Several training runs side by side: their journals, and names that tell them apart."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from thr_probe.analysis.result import counted
from thr_probe.errors import UsageError
from thr_probe.traces.metrics import read_metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRun:
    """What a training run wrote down so far."""

    name: str
    """Its folder's name, with as many folders above it as set it apart from the other runs."""
    steps: pd.DataFrame
    """One row per step, `step` from 0."""
    evals: pd.DataFrame
    """One row per evaluation and dataset, `step` the number of finished steps."""

    def values(self, column: str) -> pd.Series[float]:
        """A quantity of the steps, NaN where it was not measured."""
        return _numbers(self.steps, column)

    def eval_values(self, column: str) -> pd.Series[float]:
        """The same of the evaluations."""
        return _numbers(self.evals, column)

    def total(self, column: str) -> int:
        """A count summed over the steps; 0 where it was not written."""
        return int(self.values(column).sum())


def read_training_runs(paths: Sequence[Path]) -> list[TrainingRun]:
    """The journals of some training runs, in the order given.

    Raises:
        UsageError: no run, or one given twice.
        DataError: a folder that is no training run, or a damaged journal.
    """
    if not paths:
        raise UsageError("no run was given", "give one or more folders that thr-probe train wrote")
    for path, times in Counter(Path(path).resolve() for path in paths).items():
        if times > 1:
            raise UsageError(f"{path.name} was given {times} times", "give each run once")
    return [
        TrainingRun(name=name, steps=steps, evals=evals)
        for name, (steps, evals) in zip(
            run_names(paths), (read_metrics(Path(path)) for path in paths), strict=True
        )
    ]


def run_names(paths: Sequence[Path]) -> list[str]:
    """The names of folders; where names are equal, the folders above them are put before them.

    >>> run_names([Path("/a/thr"), Path("/a/grpo"), Path("/b/thr")])
    ['a/thr', 'grpo', 'b/thr']
    """
    # a link keeps its own name: it may have been made to name the run
    folders = [
        path.resolve() if ".." in path.parts else path.absolute() for path in map(Path, paths)
    ]
    depths = [1] * len(folders)
    while True:
        names = [
            "/".join(folder.parts[-depth:]) for folder, depth in zip(folders, depths, strict=True)
        ]
        times = Counter(names)
        equal = [
            index
            for index, name in enumerate(names)
            if times[name] > 1 and depths[index] < len(folders[index].parts)
        ]
        if not equal:
            return names
        for index in equal:
            depths[index] += 1


def names_with_steps(runs: Sequence[TrainingRun]) -> str:
    """`a (40 steps), b (1 step)`, for a caption; not escaped."""
    return ", ".join(f"{run.name} ({counted(len(run.steps), 'step')})" for run in runs)


def not_begun(runs: Sequence[TrainingRun]) -> str:
    """Why there is nothing to say of runs without a finished step."""
    names = ", ".join(run.name for run in runs)
    return f"No step is finished yet in {names}." if runs else ""


def _numbers(table: pd.DataFrame, column: str) -> pd.Series[float]:
    if column not in table:
        return pd.Series(math.nan, index=table.index, dtype="float64")
    return table[column].astype("float64")
