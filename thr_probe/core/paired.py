"""Two policies on the same questions: paired differences, their p-values, exact McNemar, Holm.

Letters of shapes: P questions, M quantities, B resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike

from thr_probe.core.stats import Interval, drawn_sums, percentile_interval, quotient

NUM_RESAMPLES = 10_000
"""Of a comparison: the smallest p-value is 2 / (B + 1), and Holm multiplies it by the family."""

_ROUNDING = 1e-12  # relative: sums of equal numbers in another order differ by less


@dataclass(frozen=True, slots=True, kw_only=True)
class McNemar:
    """The exact test on two labels of the same questions."""

    only_first: int
    """b: questions that the first solves and the second does not."""
    only_second: int
    """c: questions that the second solves and the first does not."""
    p: float
    """Two-sided: 2 P(X <= min(b, c)) for X ~ Binomial(b + c, 1/2), at most 1."""

    @property
    def net(self) -> int:
        """c - b, the questions that the second gains."""
        return self.only_second - self.only_first


def mcnemar(first_P: Bool[np.ndarray, " P"], second_P: Bool[np.ndarray, " P"]) -> McNemar:
    """Exact McNemar test, whether either label is more often the only true one (McNemar 1947).

    Only the b + c discordant questions say anything; each is a fair coin under the hypothesis that
    neither is better. Without any, p is 1.

    >>> mcnemar(np.array([True, True, False]), np.array([False, True, False]))
    McNemar(only_first=1, only_second=0, p=1.0)
    """
    b = int(np.count_nonzero(first_P & ~second_P))
    c = int(np.count_nonzero(~first_P & second_P))
    return McNemar(only_first=b, only_second=c, p=_sign_test(b, c))


def _sign_test(b: int, c: int) -> float:
    # whole numbers of any size: no tail is lost to rounding
    ways = term = 1
    for i in range(min(b, c)):
        term = term * (b + c - i) // (i + 1)
        ways += term
    share: float = 2 * ways / 2 ** (b + c)
    return min(1.0, share)


def holm(p_M: ArrayLike) -> Float[np.ndarray, " M"]:
    """p-values adjusted for their number, so that one is < alpha by chance in <= alpha of cases.

    Holm's step-down (1979): the i-th smallest of m is multiplied by m - i + 1, and none is smaller
    than one before it. NaN (no test) stays NaN and does not count.

    >>> holm([0.01, 0.04, float("nan"), 0.03]).tolist()
    [0.03, 0.06, nan, 0.06]
    """
    p = np.asarray(p_M, dtype=np.float64)
    defined = np.flatnonzero(~np.isnan(p))
    order = defined[np.argsort(p[defined], kind="stable")]
    factor = np.arange(len(order), 0, -1)
    adjusted = np.full(p.shape, np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * factor), 1.0)
    return adjusted


def bootstrap_p(difference_B: ArrayLike) -> float:
    """Two-sided p-value of a difference from its bootstrap draws, the percentile interval turned.

    p = 2 (1 + m) / (B + 1), at most 1, where m is the smaller of the numbers of draws <= 0 and of
    draws >= 0. It is the largest alpha whose central 1 - alpha percentile interval still reaches 0,
    with 1 added to numerator and denominator so that it is never 0 (Davison and Hinkley 1997, 4.2).
    So p < 0.05 implies that the 95 % interval excludes 0, and the reverse but for 4 / (B + 1). A
    draw of exactly 0 counts on both sides. NaN draws are left out; without any other p is NaN.

    >>> bootstrap_p([1.0, 2.0, 3.0, -1.0]), bootstrap_p([0.0, 0.0])
    (0.8, 1.0)
    """
    draws = np.asarray(difference_B, dtype=np.float64)
    draws = draws[~np.isnan(draws)]
    if draws.size == 0:
        return float("nan")
    fewer = int(min(np.count_nonzero(draws <= 0), np.count_nonzero(draws >= 0)))
    return min(1.0, 2.0 * (1 + fewer) / (len(draws) + 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedRatio:
    """A quantity of two policies on the same questions; bounds and p are NaN where undefined."""

    first: Interval
    """Of the first."""
    second: Interval
    """Of the second."""
    difference: Interval
    """Second minus first, both over the same resampled questions."""
    relative: Interval
    """The difference over the first; NaN where that is 0."""
    p: float
    """`bootstrap_p` of the difference."""


def paired_ratios(
    numerator_PM2: Float[np.ndarray, "P M 2"],
    denominator_PM2: Float[np.ndarray, "P M 2"],
    *,
    seed: int = 0,
    num_resamples: int = NUM_RESAMPLES,
    level: float = 0.95,
) -> list[PairedRatio]:
    """M quantities, each a ratio of sums over questions, of two policies and their difference.

    Questions are drawn in pairs: a resample holds the same ones for both. A quantity for which
    either policy has fewer than two questions with a denominator has no interval and no p (NaN).
    With few questions the percentile bootstrap errs on the bold side: in simulations of two equal
    policies p < 0.05 came out in 10 to 14 % of cases with 10 questions, 7 to 10 % with 20, 7 to 9 %
    with 30 and 6 to 8 % with 60 (Pass@1, Pass@8, a ratio of heavy-tailed sums).

    Args:
        numerator_PM2: of each question and quantity, of the first and the second policy.
        denominator_PM2: likewise; all 1 for a mean over questions.
        seed: of the resamples.
        num_resamples: B.
        level: of the intervals.

    Raises:
        UsageError: a negative seed.
    """
    shape = numerator_PM2.shape
    flat = [each.reshape(shape[0], -1) for each in (numerator_PM2, denominator_PM2)]
    value_M2 = quotient(numerator_PM2.sum(axis=0), denominator_PM2.sum(axis=0))
    drawn_BC = drawn_sums(np.hstack(flat), seed=seed, num_resamples=num_resamples)
    num_ratios = shape[1] * 2
    draws_BM2 = quotient(drawn_BC[:, :num_ratios], drawn_BC[:, num_ratios:])
    draws_BM2 = draws_BM2.reshape(-1, *shape[1:])
    enough_M = (np.count_nonzero(denominator_PM2, axis=0) >= 2).all(axis=1)
    draws_BM2[:, ~enough_M] = np.nan
    return [_paired(value_M2[index], draws_BM2[:, index], level=level) for index in range(shape[1])]


def _paired(
    value_2: Float[np.ndarray, "2"], draws_B2: Float[np.ndarray, "B 2"], *, level: float
) -> PairedRatio:
    value, draws_B = _with_change(value_2[None]), _with_change(draws_B2)
    intervals = []
    for one, draw_B in zip(value, draws_B, strict=True):
        low, high = percentile_interval(draw_B, level=level)
        intervals.append(Interval(value=float(one[0]), low=low, high=high))
    first, second, change, relative = intervals
    return PairedRatio(
        first=first,
        second=second,
        difference=change,
        relative=relative,
        p=bootstrap_p(draws_B[2]),
    )


def _with_change(value_B2: Float[np.ndarray, "B 2"]) -> list[Float[np.ndarray, " B"]]:
    """First, second, their difference, and this relative to the first."""
    first_B, second_B = value_B2.T
    change_B = difference(first_B, second_B)
    return [first_B, second_B, change_B, quotient(change_B, first_B)]


def difference(
    first: Float[np.ndarray, "..."], second: Float[np.ndarray, "..."]
) -> Float[np.ndarray, "..."]:
    """Second minus first, exactly 0 where they are equal but for rounding.

    Equal data are added up in another order by a matrix product; a rest of 1e-17 has a sign, which
    would decide the p-value of two equal runs.
    """
    change = second - first
    is_rounding = np.abs(change) <= _ROUNDING * (np.abs(first) + np.abs(second))
    return np.where(is_rounding, 0.0, change)


def paired_set_means(
    value_sets_PM2: Sequence[Float[np.ndarray, "_ M 2"]],
    *,
    seed: int = 0,
    num_resamples: int = NUM_RESAMPLES,
    level: float = 0.95,
) -> list[PairedRatio]:
    """M quantities, each the unweighted mean over sets of the mean over a set's questions, paired.

    The sets are fixed and their questions are the sample: they are drawn within each set, with
    seeds of their own. Where a set has fewer than two questions there are no intervals (NaN).

    Args:
        value_sets_PM2: for each set, of each question and quantity, of the first and the second.
        seed: of the resamples of the first set; those of the next one are seeded one higher.
        num_resamples: B.
        level: of the intervals.
    """
    value_M2 = np.mean([value_PM2.mean(axis=0) for value_PM2 in value_sets_PM2], axis=0)
    flat = [value_PM2.reshape(len(value_PM2), -1) for value_PM2 in value_sets_PM2]
    draws_BC = set_mean_draws(flat, seed=seed, num_resamples=num_resamples)
    draws_BM2 = draws_BC.reshape(-1, *value_M2.shape)
    return [
        _paired(value_2, draws_BM2[:, index], level=level) for index, value_2 in enumerate(value_M2)
    ]


def set_mean_draws(
    value_sets_PC: Sequence[Float[np.ndarray, "_ C"]],
    *,
    seed: int = 0,
    num_resamples: int = NUM_RESAMPLES,
) -> Float[np.ndarray, "B C"]:
    """The mean over sets of each set's mean, in every resample of the questions within each set.

    Args:
        value_sets_PC: for each set C numbers of each question.
        seed: of the first set; the next one's is one higher.
        num_resamples: B.

    Returns:
        NaN throughout where a set has fewer than two questions.
    """
    if min(len(value_PC) for value_PC in value_sets_PC) < 2:
        return np.full((num_resamples, value_sets_PC[0].shape[1]), np.nan)
    total_BC = sum(
        drawn_sums(value_PC, seed=seed + index, num_resamples=num_resamples) / len(value_PC)
        for index, value_PC in enumerate(value_sets_PC)
    )
    return np.asarray(total_BC / len(value_sets_PC))
