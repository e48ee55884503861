"""Quantities of rows, with intervals and paired differences from resampling questions.

A quantity of a row is a ratio of sums over questions, in which the seeds of the row are added up
question by question: the questions are what is resampled, the same ones for every row. What the
intervals do not hold is how much a row would change with other seeds; values per seed are told
beside them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
from jaxtyping import Int

from thr_probe.analysis.passk import ks_up_to
from thr_probe.core.pass_at_k import pass_at_k
from thr_probe.core.stats import (
    Interval,
    bootstrap_difference,
    bootstrap_ratio,
    question_weights,
    quotient,
)
from thr_probe.reproduce.activity import is_inactive
from thr_probe.reproduce.measure import Measured
from thr_probe.reproduce.rows import Row

GREEDY, REFLECTION, RETAINED, OVERLAP, CHANCE = (
    "greedy",
    "reflection",
    "retained",
    "overlap",
    "chance",
)
"""Quantities; also `greedy chain` ... by kind of problem, `pass@1`, `pass@2` ... and, for the mean
of several, `pass@2+4+8`."""

_RATIOS = {
    REFLECTION: ("sampled", "matches", "tokens"),
    RETAINED: ("scored", "dominant", "tokens"),
    OVERLAP: ("scored", "overlap", "completions"),
    CHANCE: ("scored", "chance", "completions"),
}


def passk(*ks: int) -> str:
    """The quantity Pass@k; of several ks, the mean of them.

    >>> passk(4), passk(2, 4)
    ('pass@4', 'pass@2+4')
    """
    return "pass@" + "+".join(map(str, ks))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """A quantity of a row: sums over its seeds, by question."""

    table: pd.DataFrame
    """By prompt_id, sorted: numerator, denominator."""
    seeds: tuple[int, ...]
    """The seeds in it."""

    @property
    def num_questions(self) -> int:
        """Questions that count."""
        return int((self.table["denominator"] > 0).sum())


class Results:
    """Everything that was measured, by row.

    Args:
        measured: the jobs, in the order of the tables.
    """

    def __init__(self, measured: Iterable[Measured]) -> None:
        self.measured: tuple[Measured, ...] = tuple(measured)
        self._sums: dict[tuple[str, str, tuple[int, ...] | None], Sums | None] = {}

    @property
    def rows(self) -> list[Row]:
        """The rows that something is there of."""
        return list({item.job.row.name: item.job.row for item in self.measured}.values())

    def of(self, name: str) -> list[Measured]:
        """The jobs of a row."""
        return [item for item in self.measured if item.job.row.name == name]

    def active_share(self, name: str) -> float:
        """Mean over the seeds of the share of the training in which the mechanism acted."""
        shares = [item.active_share for item in self.of(name)]
        known = [share for share in shares if not math.isnan(share)]
        return sum(known) / len(known) if known else math.nan

    def is_inactive(self, name: str) -> bool:
        """Whether the row is to be marked."""
        return is_inactive(self.active_share(name))

    def kinds(self) -> list[str]:
        """The kinds of problem, by name."""
        tables = [item.greedy for item in self.measured if item.greedy is not None]
        return sorted({str(kind) for table in tables for kind in table["kind"].unique()})

    def ks(self) -> list[int]:
        """1, 2, 4 ... up to the fewest completions that a question has in any job."""
        tables = [item.sampled for item in self.measured if item.sampled is not None]
        fewest = [int(table["n"].min()) for table in tables if len(table)]
        return ks_up_to(min(fewest)) if fewest else []

    def sums(self, name: str, quantity: str, seeds: tuple[int, ...] | None = None) -> Sums | None:
        """A quantity of a row over some seeds, or over all of them; None where nothing is there."""
        key = (name, quantity, seeds)
        if key not in self._sums:
            jobs = [item for item in self.of(name) if seeds is None or item.job.seed in seeds]
            self._sums[key] = _sums(jobs, quantity)
        return self._sums[key]

    def value(self, name: str, quantity: str) -> Interval | None:
        """A quantity of a row with its interval."""
        sums = self.sums(name, quantity)
        return None if sums is None else estimate(sums)

    def minus(self, name: str, other: str, quantity: str) -> Interval | None:
        """The paired difference of two rows; None where one is missing, or both are the same."""
        first, second = self.sums(name, quantity), self.sums(other, quantity)
        if name == other or first is None or second is None:
            return None
        return difference(first, second)

    def by_seed(self, name: str, other: str, quantity: str) -> dict[int, float]:
        """The difference within each seed that both rows have."""
        first, second = self.sums(name, quantity), self.sums(other, quantity)
        if first is None or second is None:
            return {}
        shared = [seed for seed in first.seeds if seed in second.seeds]
        values = {
            seed: [self.sums(row, quantity, (seed,)) for row in (name, other)] for seed in shared
        }
        return {
            seed: point(one.table) - point(two.table)
            for seed, (one, two) in values.items()
            if one is not None and two is not None
        }


def _sums(jobs: Sequence[Measured], quantity: str) -> Sums | None:
    parts = {job.job.seed: question_sums(job, quantity) for job in jobs}
    tables = {seed: table for seed, table in parts.items() if table is not None and len(table)}
    if not tables:
        return None
    table = pd.concat(list(tables.values())).groupby(level=0, sort=True).sum()
    return Sums(table=table, seeds=tuple(sorted(tables)))


def question_sums(measured: Measured, quantity: str) -> pd.DataFrame | None:
    """Numerator and denominator of a quantity for each question of a job; None without its run.

    Raises:
        KeyError: no such quantity.
    """
    if quantity in _RATIOS:
        run, numerator, denominator = _RATIOS[quantity]
        table = measured.scored if run == "scored" else measured.sampled
        return None if table is None else _ratio(table[numerator], table[denominator])
    if quantity.startswith("pass@"):
        ks = [int(k) for k in quantity.removeprefix("pass@").split("+")]
        return _passk(measured.sampled, ks)
    name, _, kind = quantity.partition(" ")
    if name != GREEDY:
        raise KeyError(f"no quantity {quantity!r}")
    table = measured.greedy
    if table is not None and kind:
        table = table[table["kind"] == kind]
    return None if table is None else _ratio(table["c"], table["n"])


def _passk(table: pd.DataFrame | None, ks: Sequence[int]) -> pd.DataFrame | None:
    if table is None or table["n"].min() < max(ks):
        return None
    n, c = (table[name].to_numpy() for name in ("n", "c"))
    value = np.mean([pass_at_k(n, c, k) for k in ks], axis=0)
    return pd.DataFrame({"numerator": value, "denominator": 1.0}, index=table.index)


def _ratio(numerator: pd.Series[float], denominator: pd.Series[float]) -> pd.DataFrame:
    return pd.DataFrame({"numerator": numerator, "denominator": denominator}).astype(float)


def point(table: pd.DataFrame) -> float:
    """The ratio on the data as they are; NaN without a denominator."""
    numerator, denominator = table[["numerator", "denominator"]].to_numpy().sum(axis=0)[:, None]
    return float(quotient(numerator, denominator)[0])


def estimate(sums: Sums) -> Interval:
    """The ratio with its interval."""
    table = sums.table
    weights_BP = _weights(len(table))
    return bootstrap_ratio(table["numerator"], table["denominator"], weights_BP)


def difference(first: Sums, second: Sums) -> Interval:
    """The first minus the second with its interval: both over the same resampled questions."""
    questions = first.table.index.union(second.table.index)
    tables = [sums.table.reindex(questions, fill_value=0.0) for sums in (first, second)]
    numerator_PM, denominator_PM = (
        np.column_stack([table[name] for table in tables]) for name in ("numerator", "denominator")
    )
    return bootstrap_difference(numerator_PM, denominator_PM, _weights(len(questions)))


@lru_cache(maxsize=8)
def _weights(num_questions: int) -> Int[np.ndarray, "B P"]:
    return question_weights(num_questions)
