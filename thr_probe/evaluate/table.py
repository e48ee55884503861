"""The numbers of an evaluation: per set and averaged over sets, with intervals (METHOD 8)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from thr_probe.analysis.passk import count_correct
from thr_probe.core.pass_at_k import pass_at_k
from thr_probe.core.stats import Interval, percentile_interval, question_weights
from thr_probe.evaluate.plan import Measure
from thr_probe.evaluate.sets import HARD, STANDARD
from thr_probe.traces import Run

AVERAGE = "average"


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What one checkpoint did on one set."""

    name: str
    """The set."""
    samples: int
    """n, completions per problem."""
    correct_P: Int[np.ndarray, " P"]
    """Right completions of each problem."""
    truncated: int
    """Completions that the length limit cut off."""
    timeouts: int
    """Completions that the verifier gave up on: they count as wrong."""
    failed: int
    """Completions that the verifier failed on: they count as wrong."""


def count_run(run: Run, name: str) -> Counts:
    """Count a complete run."""
    counts = count_correct(run)
    seen: Counter[str] = Counter()
    for table in run.iter_completions(["finish_reason", "verify_status"]):
        seen.update(table["finish_reason"].to_pylist())
        seen.update(table["verify_status"].to_pylist())
    return Counts(
        name=name,
        samples=int(counts["n"].iloc[0]),
        correct_P=counts["c"].to_numpy(),
        truncated=seen["length"],
        timeouts=seen["timeout"],
        failed=seen["error"],
    )


def mean_over_sets(values: Sequence[Float[np.ndarray, " _"]], *, seed: int = 0) -> Interval:
    """Unweighted mean over sets of the mean over each set's P problems, with its interval.

    Problems are resampled within each set, independently of the other sets: the sets are fixed,
    their problems are the sample. With one set it is the bootstrap of its mean. A set of a single
    problem gives no interval (NaN bounds).
    """
    value = float(np.mean([value_P.mean() for value_P in values]))
    if min(len(value_P) for value_P in values) < 2:
        return Interval(value=value, low=float("nan"), high=float("nan"))
    draws_SB = np.stack(
        [
            question_weights(len(value_P), seed=seed + index) @ value_P / len(value_P)
            for index, value_P in enumerate(values)
        ]
    )
    low, high = percentile_interval(draws_SB.mean(axis=0))
    return Interval(value=value, low=low, high=high)


def measure_rows(
    checkpoint: str, measure: Measure, sets: Sequence[Counts], ks: Sequence[int]
) -> list[dict[str, object]]:
    """The rows of one checkpoint and measure: each set, then the averages."""
    rows = []
    for k in [1] if measure is Measure.GREEDY else ks:
        values = {each.name: pass_at_k(each.samples, each.correct_P, k) for each in sets}
        label = "greedy" if measure is Measure.GREEDY else f"pass@{k}"
        for title, names in _groups(measure, list(values)).items():
            mean = mean_over_sets([values[name] for name in names])
            chosen = [each for each in sets if each.name in names]
            completions = sum(each.samples * len(each.correct_P) for each in chosen)
            rows.append(
                {
                    "checkpoint": checkpoint,
                    "measure": label,
                    "dataset": title,
                    "value": mean.value,
                    "low": mean.low,
                    "high": mean.high,
                    "num_questions": sum(len(each.correct_P) for each in chosen),
                    "samples": chosen[0].samples,
                    "truncated": sum(each.truncated for each in chosen) / completions,
                }
            )
    return rows


def _groups(measure: Measure, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The sets of each row by its title: every set, all of them, and METHOD 8's two halves."""
    groups: dict[str, tuple[str, ...]] = {name: (name,) for name in names}
    if len(names) > 1:
        groups[AVERAGE] = tuple(names)
    if measure is Measure.GREEDY:
        for title, members in (("hard", HARD), ("standard", STANDARD)):
            if set(members) <= set(names) and len(names) > len(members):
                groups[title] = members
    return groups


def best_checkpoint(rows: Sequence[Mapping[str, object]], checkpoints: Sequence[str]) -> str:
    """The checkpoint with the highest greedy accuracy, averaged over the sets; ties: the first."""
    greedy = {
        str(row["checkpoint"]): float(str(row["value"]))
        for row in rows  # of several rows the average comes behind the sets
        if row["measure"] == "greedy" and row["dataset"] not in {"hard", "standard"}
    }
    return max(checkpoints, key=greedy.__getitem__)
