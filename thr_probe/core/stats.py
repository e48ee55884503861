"""Uncertainty from resampling questions: the unit that was sampled, not the token."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike, DTypeLike

from thr_probe.errors import UsageError

_CHUNK_DRAWS = 100_000  # questions drawn at once
_CHUNK_CELLS = 500_000  # of weights held in float64 at once: 4 MB, which stays in the cache


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A point estimate with its percentile-bootstrap interval; NaN bounds where none exists."""

    value: float
    """The estimate on the data as they are."""
    low: float
    """Lower bound of the interval."""
    high: float
    """Upper bound of the interval."""


def question_weights(
    num_questions: int, *, seed: int = 0, num_resamples: int = 2000, dtype: DTypeLike = np.int64
) -> Int[np.ndarray, "B P"]:
    """How often each question is drawn in each bootstrap resample (Efron 1979).

    Args:
        num_questions: P, the questions of the data, at least 1.
        seed: at least 0, seeds a generator of its own; equal seeds give equal weights.
        num_resamples: B, the resamples.
        dtype: of the counts, which are about 1: int16 takes a quarter of the memory.

    Returns:
        weights_BP, every row summing to P.

    Raises:
        UsageError: a negative seed.
    """
    weights_BP = np.empty((num_resamples, num_questions), dtype=dtype)
    start = 0
    for part in _drawn_weights(num_questions, seed, num_resamples):
        weights_BP[start : start + len(part)] = part
        start += len(part)
    return weights_BP


def _drawn_weights(
    num_questions: int, seed: int, num_resamples: int
) -> Iterator[Int[np.ndarray, "C P"]]:
    """The rows of `question_weights`, some at a time."""
    if seed < 0:
        raise UsageError(f"seed must not be negative, got {seed}")
    rng = np.random.default_rng(seed)
    rows = max(1, _CHUNK_DRAWS // num_questions)
    for start in range(0, num_resamples, rows):
        shape = (min(rows, num_resamples - start), num_questions)
        drawn = rng.integers(num_questions, size=shape, dtype=np.int32)
        drawn += num_questions * np.arange(len(drawn), dtype=np.int32)[:, None]
        yield np.bincount(drawn.ravel(), minlength=drawn.size).reshape(shape)


def drawn_sums(
    value_PM: Float[np.ndarray, "P M"], *, seed: int = 0, num_resamples: int = 2000
) -> Float[np.ndarray, "B M"]:
    """`resampled_sums` over the weights of `question_weights`, which are never held all at once.

    Args:
        value_PM: M numbers of each of P >= 1 questions.
        seed: as of `question_weights`.
        num_resamples: B.

    Raises:
        UsageError: a negative seed.
    """
    sums_BM = np.empty((num_resamples, value_PM.shape[1]))
    start = 0
    for part in _drawn_weights(len(value_PM), seed, num_resamples):
        np.matmul(part.astype(np.float64), value_PM, out=sums_BM[start : start + len(part)])
        start += len(part)
    return sums_BM


def resampled_sums(
    weights_BP: Int[np.ndarray, "B P"], value_PM: Float[np.ndarray, "P M"]
) -> Float[np.ndarray, "B M"]:
    """The sum of each column in every resample, some resamples at a time.

    Args:
        weights_BP: of `question_weights`.
        value_PM: M numbers of each question.
    """
    rows = max(1, _CHUNK_CELLS // max(weights_BP.shape[1], 1))
    parts = [
        weights_BP[start : start + rows].astype(np.float64) @ value_PM
        for start in range(0, len(weights_BP), rows)
    ]
    return np.concatenate(parts)


def percentile_interval(draws_B: ArrayLike, *, level: float = 0.95) -> tuple[float, float]:
    """The central `level` interval of bootstrap draws; undefined (NaN) draws are left out."""
    draws = np.asarray(draws_B, dtype=np.float64)
    defined = draws[~np.isnan(draws)]
    if defined.size == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bootstrap_ratio(
    numerator_P: ArrayLike,
    denominator_P: ArrayLike,
    weights_BP: Int[np.ndarray, "B P"],
    *,
    level: float = 0.95,
) -> Interval:
    """Ratio of sums over questions, sum(numerator) / sum(denominator), with its interval.

    A mean over questions is the ratio whose denominators are all 1. A draw without any
    denominator is undefined and left out; with fewer than two questions that have one there is no
    interval (NaN).
    """
    numerator = np.asarray(numerator_P, dtype=np.float64)
    denominator = np.asarray(denominator_P, dtype=np.float64)
    return bootstrap_ratios(numerator[:, None], denominator[:, None], weights_BP, level=level)[0]


def bootstrap_ratios(
    numerator_PM: Float[np.ndarray, "P M"],
    denominator_PD: Float[np.ndarray, "P D"],
    weights_BP: Int[np.ndarray, "B P"],
    *,
    level: float = 0.95,
) -> list[Interval]:
    """Many ratios at once, each as `bootstrap_ratio`.

    Args:
        numerator_PM: a column for each ratio.
        denominator_PD: a column for each ratio, or one for all of them.
        weights_BP: of `question_weights`.
        level: of the intervals.
    """
    value_M, draws_BM = _ratios(numerator_PM, denominator_PD, weights_BP)
    bounds = [percentile_interval(draws_B, level=level) for draws_B in draws_BM.T]
    return [
        Interval(value=float(value), low=low, high=high)
        for value, (low, high) in zip(value_M, bounds, strict=True)
    ]


def bootstrap_difference(
    numerator_PM: Float[np.ndarray, "P 2"],
    denominator_PM: Float[np.ndarray, "P 2"],
    weights_BP: Int[np.ndarray, "B P"],
    *,
    level: float = 0.95,
) -> Interval:
    """The first of two ratios minus the second, both over the same resampled questions.

    A draw in which either is undefined is left out; where either has fewer than two questions with
    a denominator there is no interval (NaN).

    Args:
        numerator_PM: a column for each of the two.
        denominator_PM: likewise.
        weights_BP: of `question_weights`.
        level: of the interval.
    """
    value_M, draws_BM = _ratios(numerator_PM, denominator_PM, weights_BP)
    low, high = percentile_interval(draws_BM[:, 0] - draws_BM[:, 1], level=level)
    return Interval(value=float(value_M[0] - value_M[1]), low=low, high=high)


def _ratios(
    numerator_PM: Float[np.ndarray, "P M"],
    denominator_PD: Float[np.ndarray, "P D"],
    weights_BP: Int[np.ndarray, "B P"],
) -> tuple[Float[np.ndarray, " M"], Float[np.ndarray, "B M"]]:
    """Ratios on the data as they are, and in every resample: NaN where one question makes it up."""
    value_M = quotient(numerator_PM.sum(axis=0), denominator_PD.sum(axis=0))
    drawn_BC = resampled_sums(weights_BP, np.hstack([numerator_PM, denominator_PD]))
    num_ratios = numerator_PM.shape[1]
    draws_BM = quotient(drawn_BC[:, :num_ratios], drawn_BC[:, num_ratios:])
    enough_D = np.count_nonzero(denominator_PD, axis=0) >= 2
    return value_M, np.where(enough_D, draws_BM, np.nan)


def quotient(
    numerator: Float[np.ndarray, "..."], denominator: Float[np.ndarray, "..."]
) -> Float[np.ndarray, "..."]:
    """The numerator over the denominator, NaN where that is 0; shapes broadcast."""
    out = np.full(np.broadcast(numerator, denominator).shape, np.nan)
    np.divide(numerator, denominator, out=out, where=denominator != 0)
    return out
