"""Intervals for any statistic of per-question sums: questions are drawn with replacement.

Letters of shapes: B resamples, C resamples of one chunk, P questions, S strata, K bins.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from thr_probe.analysis.intervals import interval_facts
from thr_probe.analysis.quantiles import resampled_quantiles
from thr_probe.analysis.stream import Strata
from thr_probe.core.stats import (
    Interval,
    percentile_interval,
    question_weights,
    resampled_sums,
)

_CHUNK_CELLS = 500_000  # float64 entries of a chunk of weights: 4 MB, which stay in the cache
_BLOCK_ROWS = 1024  # strata that are added up together


class Resampler:
    """The resamples of a set of questions, shared by all numbers of an analysis.

    Args:
        strata: which question each stratum belongs to.
        num_questions: P.
        seed: of the resamples.
    """

    def __init__(self, strata: Strata, num_questions: int, *, seed: int = 0) -> None:
        self.strata, self.num_questions = strata, num_questions
        self._weights_BP = question_weights(num_questions, seed=seed, dtype=np.int16)
        self.facts = interval_facts(self._weights_BP, seed)

    def per_question(
        self, value_S: Shaped[np.ndarray, " S"], chosen_S: Bool[np.ndarray, " S"]
    ) -> Float[np.ndarray, " P"]:
        """Sums over the chosen strata of each question."""
        return np.bincount(
            self.strata.question_S[chosen_S],
            weights=value_S[chosen_S],
            minlength=self.num_questions,
        )

    def sums(self, column_S: Mapping[str, Shaped[np.ndarray, "S ..."]]) -> ResampledSums:
        """What is added up over the strata, as it is and in every resample.

        Args:
            column_S: numbers, or rows of numbers, of each stratum.
        """
        sums = ResampledSums(self)
        for start in range(0, len(self.strata.question_S), _BLOCK_ROWS):
            stratum = np.arange(start, min(start + _BLOCK_ROWS, len(self.strata.question_S)))
            sums.add(stratum, {name: column[stratum] for name, column in column_S.items()})
        return sums

    def drawn(
        self, value_S: Mapping[str, Shaped[np.ndarray, "S ..."]], question_S: Int[np.ndarray, " S"]
    ) -> Drawn:
        """The sums of some strata in every resample, by name."""
        weights_BS = self._weights_BP.take(question_S, axis=1)
        flat = [name for name, value in value_S.items() if value.ndim == 1]
        named: dict[str, np.ndarray] = {
            name: resampled_sums(weights_BS, value.astype(np.float64, copy=False))
            for name, value in value_S.items()
            if value.ndim > 1
        }
        together_BM = resampled_sums(
            weights_BS, np.column_stack([value_S[name] for name in flat]).astype(np.float64)
        )
        return named | dict(zip(flat, together_BM.T.copy(), strict=True))

    def quantiles(
        self,
        value_R: Float[np.ndarray, " R"],
        question_R: Int[np.ndarray, " R"],
        shares: Sequence[float],
    ) -> list[Interval]:
        """Quantiles of values, each of which goes with a question, with their intervals."""
        values = np.quantile(value_R, shares).tolist()
        if len(np.unique(question_R)) < 2:
            undefined = float("nan")
            return [Interval(value=value, low=undefined, high=undefined) for value in values]
        draws_BQ = resampled_quantiles(self._weights_BP, value_R, question_R, shares)
        bounds = [percentile_interval(draws_B) for draws_B in draws_BQ.T]
        return [
            Interval(value=value, low=low, high=high)
            for value, (low, high) in zip(values, bounds, strict=True)
        ]

    def draws(
        self,
        statistic: Callable[[Float[np.ndarray, "C rows"]], Float[np.ndarray, "C ..."]],
        question_of_row: Int[np.ndarray, " rows"],
    ) -> Float[np.ndarray, "B ..."]:
        """A statistic of every resample.

        Args:
            statistic: takes weights of shape (resamples, rows), how often each row counts, and
                returns one entry per resample, NaN where it is undefined.
            question_of_row: the question each row goes with.
        """
        size = max(1, _CHUNK_CELLS // max(len(question_of_row), 1))
        every = np.arange(self.num_questions)
        if len(question_of_row) == len(every) and (question_of_row == every).all():
            chosen_BR = self._weights_BP  # as it is in most analyses: nothing to be gathered
        else:
            chosen_BR = self._weights_BP.take(question_of_row, axis=1)
        parts = [
            statistic(chosen_BR[start : start + size].astype(np.float64))
            for start in range(0, len(chosen_BR), size)
        ]
        return np.concatenate(parts)

    def interval(
        self,
        statistic: Callable[[Float[np.ndarray, "C rows"]], Float[np.ndarray, " C"]],
        question_of_row: Int[np.ndarray, " rows"],
    ) -> Interval:
        """A statistic on the data as they are (every row once), with its interval.

        With fewer than two questions there is no interval (NaN bounds).
        """
        value = float(statistic(np.ones((1, len(question_of_row))))[0])
        if len(np.unique(question_of_row)) < 2:
            return Interval(value=value, low=float("nan"), high=float("nan"))
        low, high = percentile_interval(self.draws(statistic, question_of_row))
        return Interval(value=value, low=low, high=high)

    def band(
        self,
        statistic: Callable[[Float[np.ndarray, "C rows"]], Float[np.ndarray, "C K"]],
        question_of_row: Int[np.ndarray, " rows"],
    ) -> tuple[Float[np.ndarray, " K"], Float[np.ndarray, " K"], Float[np.ndarray, " K"]]:
        """A curve on the data as they are, with its pointwise interval: value, low, high."""
        value_K = statistic(np.ones((1, len(question_of_row))))[0]
        if len(np.unique(question_of_row)) < 2:
            undefined = np.full_like(value_K, np.nan)
            return value_K, undefined, undefined.copy()
        low_K, high_K = _bounds(self.draws(statistic, question_of_row))
        return value_K, low_K, high_K


Drawn = Mapping[str, Float[np.ndarray, "C ..."]]
"""Sums by name, of the data as they are (C = 1) or of the resamples."""


class ResampledSums:
    """Sums over the strata of any split, as they are and in every resample.

    A stratum is drawn with its question whatever split it belongs to, and every split is a union of
    the same few parts (sign of tau, correctness): each part is added up once. The rows of strata
    are let go once they are added, so that memory does not grow with the questions.

    Args:
        resampler: whose resamples.
    """

    def __init__(self, resampler: Resampler) -> None:
        strata = resampler.strata
        self._resampler, self._question_S = resampler, strata.question_S
        self._part_S = 2 * strata.tau_positive_S + strata.correct_S
        self._data: dict[int, dict[str, np.ndarray]] = {}
        self._draws: dict[int, dict[str, np.ndarray]] = {}
        self._has_some_S: dict[str, np.ndarray] = {}
        self._waiting: list[tuple[np.ndarray, Mapping[str, np.ndarray]]] = []

    def add(
        self, stratum: Int[np.ndarray, " s"], column: Mapping[str, Shaped[np.ndarray, "s ..."]]
    ) -> None:
        """Adds numbers, or rows of numbers, to some strata; names are the same in every call."""
        for name, value in column.items():
            if value.ndim == 1:
                has_some_S = self._has_some_S.setdefault(name, np.zeros(len(self._part_S), bool))
                has_some_S[stratum] |= value != 0
        self._waiting.append((stratum, column))
        # a product of many rows takes much less time than many products of few
        if sum(len(some) for some, _ in self._waiting) >= _BLOCK_ROWS:
            self._draw()

    def _draw(self) -> None:
        if not self._waiting:
            return
        stratum = np.concatenate([some for some, _ in self._waiting])
        names = self._waiting[0][1]
        for part in np.unique(self._part_S[stratum]).tolist():
            value = {
                name: np.concatenate(
                    [column[name][self._part_S[some] == part] for some, column in self._waiting]
                )
                for name in names
            }
            question = self._question_S[stratum[self._part_S[stratum] == part]]
            data = {name: rows.sum(axis=0, dtype=np.float64)[None] for name, rows in value.items()}
            _add_to(self._data.setdefault(part, {}), data)
            _add_to(self._draws.setdefault(part, {}), self._resampler.drawn(value, question))
        self._waiting = []

    def ratio(self, numerator: str, denominator: str, chosen_S: Bool[np.ndarray, " S"]) -> Interval:
        """Ratio of two sums over a split; no interval where one question makes it up."""
        return self.interval(
            lambda drawn: drawn[numerator] / drawn[denominator], chosen_S, of=denominator
        )

    def interval(
        self,
        statistic: Callable[[Drawn], Float[np.ndarray, " C"]],
        chosen_S: Bool[np.ndarray, " S"],
        *,
        of: str,
    ) -> Interval:
        """A statistic of a split's sums with its interval; arguments as of `band`."""
        value, low, high = self.band(lambda drawn: statistic(drawn)[:, None], chosen_S, of=of)
        return Interval(value=float(value[0]), low=float(low[0]), high=float(high[0]))

    def band(
        self,
        statistic: Callable[[Drawn], Float[np.ndarray, "C K"]],
        chosen_S: Bool[np.ndarray, " S"],
        *,
        of: str,
    ) -> tuple[Float[np.ndarray, " K"], Float[np.ndarray, " K"], Float[np.ndarray, " K"]]:
        """A curve made of a split's sums with its pointwise interval: value, low, high.

        Args:
            statistic: takes sums by name and returns a row for each entry of them.
            chosen_S: the strata of the split, a union of parts.
            of: the sum that a question must have some of to count; with fewer than two such
                questions there is no interval (NaN bounds).
        """
        self._draw()
        counting_S = chosen_S & self._has_some_S[of]
        with np.errstate(divide="ignore", invalid="ignore"):
            value_K = statistic(self._added(self._data, chosen_S))[0]
            if self._num_questions(counting_S) < 2:
                undefined = np.full_like(value_K, np.nan)
                return value_K, undefined, undefined.copy()
            draws_BK = statistic(self._added(self._draws, chosen_S))
        low_K, high_K = _bounds(draws_BK)
        return value_K, low_K, high_K

    def _added(self, sums: Mapping[int, Drawn], chosen_S: Bool[np.ndarray, " S"]) -> Drawn:
        parts = [sums[part] for part in np.unique(self._part_S[chosen_S]).tolist()]
        return _Added(parts)

    def _num_questions(self, counting_S: Bool[np.ndarray, " S"]) -> int:
        return len(np.unique(self._question_S[counting_S]))


def _add_to(total: dict[str, np.ndarray], more: Drawn) -> None:
    for name, value in more.items():
        if name in total:
            total[name] += value
        else:
            total[name] = value


class _Added(Mapping[str, np.ndarray]):
    """The sums of several parts, those asked for."""

    def __init__(self, parts: Sequence[Drawn]) -> None:
        self._parts = parts

    def __getitem__(self, name: str) -> np.ndarray:
        return functools.reduce(np.add, [part[name] for part in self._parts])

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts[0])

    def __len__(self) -> int:
        return len(self._parts[0])


def _bounds(
    draws_BK: Float[np.ndarray, "B K"],
) -> tuple[Float[np.ndarray, " K"], Float[np.ndarray, " K"]]:
    """Pointwise 95 % intervals; undefined draws are left out."""
    defined_BK = draws_BK[~np.isnan(draws_BK).any(axis=1)]
    if not len(defined_BK):
        return np.full(draws_BK.shape[1], np.nan), np.full(draws_BK.shape[1], np.nan)
    low_K, high_K = np.quantile(defined_BK, [0.025, 0.975], axis=0)
    return low_K, high_K
