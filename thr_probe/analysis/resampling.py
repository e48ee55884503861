"""Intervals for any statistic of per-question sums: questions are drawn with replacement.

Letters of shapes: B resamples, C resamples of one chunk, P questions, S strata, K bins.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from thr_probe.analysis.stream import Strata
from thr_probe.core.stats import Interval, bootstrap_ratio, percentile_interval, question_weights

_CHUNK_CELLS = 4_000_000  # float64 entries of a chunk of weights: 32 MB


class Resampler:
    """The resamples of a set of questions, shared by all numbers of an analysis.

    Args:
        strata: which question each stratum belongs to.
        num_questions: P.
        seed: of the resamples.
    """

    def __init__(self, strata: Strata, num_questions: int, *, seed: int = 0) -> None:
        self.strata, self.num_questions = strata, num_questions
        self._weights_BP = question_weights(num_questions, seed=seed)
        self.facts = {
            "interval": "percentile bootstrap over questions",
            "level": 0.95,
            "num_resamples": len(self._weights_BP),
            "seed": seed,
        }

    def per_question(
        self, value_S: Shaped[np.ndarray, " S"], chosen_S: Bool[np.ndarray, " S"]
    ) -> Float[np.ndarray, " P"]:
        """Sums over the chosen strata of each question."""
        return np.bincount(
            self.strata.question_S[chosen_S],
            weights=value_S[chosen_S],
            minlength=self.num_questions,
        )

    def ratio(
        self,
        numerator_S: Shaped[np.ndarray, " S"],
        denominator_S: Shaped[np.ndarray, " S"],
        chosen_S: Bool[np.ndarray, " S"],
    ) -> Interval:
        """Ratio of sums over the chosen strata; no interval where one question makes it up."""
        denominator_P = self.per_question(denominator_S, chosen_S)
        interval = bootstrap_ratio(
            self.per_question(numerator_S, chosen_S), denominator_P, self._weights_BP
        )
        if np.count_nonzero(denominator_P) < 2:
            return Interval(value=interval.value, low=float("nan"), high=float("nan"))
        return interval

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
        parts = [
            statistic(self._weights_BP[start : start + size, question_of_row].astype(np.float64))
            for start in range(0, len(self._weights_BP), size)
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
        draws_BK = self.draws(statistic, question_of_row)
        defined_BK = draws_BK[~np.isnan(draws_BK).any(axis=1)]
        low_K, high_K = np.quantile(defined_BK, [0.025, 0.975], axis=0)
        return value_K, low_K, high_K


def safe_ratio(
    numerator: Float[np.ndarray, "..."], denominator: Float[np.ndarray, "..."]
) -> Float[np.ndarray, "..."]:
    """The quotient, NaN where the denominator is 0; shapes broadcast."""
    quotient = np.full(np.broadcast(numerator, denominator).shape, np.nan)
    np.divide(numerator, denominator, out=quotient, where=denominator != 0)
    return quotient


def weighted_quantile(
    value_R: Float[np.ndarray, " R"], weight_CR: Float[np.ndarray, "C R"], share: float
) -> Float[np.ndarray, " C"]:
    """The quantile of values that count `weight` times each, linear between order statistics.

    With whole weights it equals `np.quantile` of the values repeated; NaN without weight.
    """
    order = np.argsort(value_R, kind="stable")
    sorted_R = value_R[order]
    cumulative_CR = np.cumsum(weight_CR[:, order], axis=1)
    total_C = cumulative_CR[:, -1]
    result_C = np.full(len(weight_CR), np.nan)
    for row in np.flatnonzero(total_C > 0):
        rank = share * (total_C[row] - 1)
        low, high = np.searchsorted(cumulative_CR[row], [np.floor(rank), np.ceil(rank)], "right")
        result_C[row] = sorted_R[low] + (rank - np.floor(rank)) * (sorted_R[high] - sorted_R[low])
    return result_C
