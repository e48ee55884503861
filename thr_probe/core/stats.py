"""Uncertainty from resampling questions: the unit that was sampled, not the token."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int
from numpy.typing import ArrayLike

from thr_probe.errors import UsageError


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
    num_questions: int, *, seed: int = 0, num_resamples: int = 2000
) -> Int[np.ndarray, "B P"]:
    """How often each question is drawn in each bootstrap resample (Efron 1979): multinomial counts.

    Args:
        num_questions: P, the questions of the data, at least 1.
        seed: at least 0, seeds a generator of its own; equal seeds give equal weights.
        num_resamples: B, the resamples.

    Returns:
        weights_BP, every row summing to P.

    Raises:
        UsageError: a negative seed.
    """
    if seed < 0:
        raise UsageError(f"seed must not be negative, got {seed}")
    rng = np.random.default_rng(seed)
    share_P = np.full(num_questions, 1.0 / num_questions)
    return rng.multinomial(num_questions, share_P, size=num_resamples)


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
    denominator is undefined and left out; with a single question there is no interval (NaN).
    """
    numerator = np.asarray(numerator_P, dtype=np.float64)
    denominator = np.asarray(denominator_P, dtype=np.float64)
    total = denominator.sum()
    value = float(numerator.sum() / total) if total != 0 else float("nan")
    if len(numerator) < 2:
        return Interval(value=value, low=float("nan"), high=float("nan"))
    drawn_B = weights_BP @ denominator
    draws_B = np.divide(
        weights_BP @ numerator, drawn_B, out=np.full(len(drawn_B), np.nan), where=drawn_B != 0
    )
    low, high = percentile_interval(draws_B, level=level)
    return Interval(value=value, low=low, high=high)
