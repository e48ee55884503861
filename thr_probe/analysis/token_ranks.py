"""Rank correlations and ROC areas: exact within completions, in classes of equal mass when pooled.

Letters of shapes: N tokens of a batch, R completions, M variables, K classes, C resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int, Shaped

from thr_probe.analysis.stream import Batch
from thr_probe.core.stats import quotient

_DROPPED_BITS = 16  # of 32: values of one code differ by less than 1 %
_NUM_CODES = 1 << (31 - _DROPPED_BITS)
_SINGULAR = 1e-9  # of 1 - r^2: two variables rank the tokens alike


def centred_ranks(batch: Batch, value_N: Float[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    """Rank of each token within its completion, equal values sharing the mean of theirs.

    The mean over each completion is 0.

    Args:
        batch: whose completions.
        value_N: compared in float32.
    """
    # the bits of a float, read as a whole number, rise with it, and fall where the sign bit is set;
    # adding 0 turns the zero of negative sign into the other
    bits_N = (np.asarray(value_N, dtype=np.float32) + np.float32(0)).view(np.int32)
    rising_N = np.where(bits_N < 0, bits_N ^ np.int32(0x7FFFFFFF), bits_N).astype(np.int64)
    key_N = rising_N + batch.per_token(np.arange(len(batch.lengths)) << 32)
    order_N = np.argsort(key_N)
    is_new_N = np.diff(key_N[order_N], prepend=-(1 << 62)) != 0
    first = np.flatnonzero(is_new_N)
    ends = np.append(first[1:], len(key_N)) if len(first) else first
    rank_N = np.empty(len(key_N))
    rank_N[order_N] = np.repeat((first + ends - 1) / 2, ends - first)
    centre_R = batch.offsets[:-1] + (batch.lengths - 1) / 2
    centred_N: np.ndarray = rank_N - batch.per_token(centre_R)
    return centred_N


def completion_correlations(
    batch: Batch, value_MN: Sequence[Float[np.ndarray, " N"]]
) -> Float[np.ndarray, "M M R"]:
    """Spearman's correlations of some variables over the tokens of each completion.

    NaN where a variable does not vary.
    """
    rank_MN = [centred_ranks(batch, value_N) for value_N in value_MN]
    product = np.empty((len(rank_MN), len(rank_MN), len(batch.lengths)))
    for row, left_N in enumerate(rank_MN):
        for column in range(row, len(rank_MN)):
            product[row, column] = batch.sum(left_N * rank_MN[column])
            product[column, row] = product[row, column]
    spread = np.sqrt(np.einsum("mmr->mr", product))
    return quotient(product, spread[:, None] * spread[None])


def partial_correlation(correlation: Float[np.ndarray, "M M R"]) -> Float[np.ndarray, " R"]:
    """The correlation of the first two variables given all others, by the recursion over these.

    NaN where another variable determines one of them.
    """
    while len(correlation) > 2:
        given = correlation[:-1, -1]
        free = 1 - given**2
        free = np.where(free > _SINGULAR, free, np.nan)
        rest = correlation[:-1, :-1] - given[:, None] * given[None]
        correlation = rest / np.sqrt(free[:, None] * free[None])
    found_R: np.ndarray = correlation[0, 1]
    return found_R


def value_codes(value_N: Float[np.ndarray, " N"]) -> Int[np.ndarray, " N"]:
    """Whole numbers that rise with values of at least 0: their leading bits as float32."""
    single_N = np.ascontiguousarray(value_N, dtype=np.float32) + np.float32(0)
    return (single_N.view(np.uint32) >> _DROPPED_BITS).astype(np.int64)


def code_value(code: int) -> float:
    """The least value of a code."""
    return float((np.uint32(code) << np.uint32(_DROPPED_BITS)).view(np.float32))


def count_codes(value_N: Float[np.ndarray, " N"]) -> Int[np.ndarray, " codes"]:
    """How many values have each code."""
    number: np.ndarray = np.bincount(value_codes(value_N), minlength=_NUM_CODES)
    return number


def rank_classes(count: Int[np.ndarray, " codes"], num_classes: int) -> Int[np.ndarray, " codes"]:
    """For each code its class: classes hold about equally many values, in order.

    Where there are no more codes than classes, each code is a class.
    """
    occupied = count > 0
    if occupied.sum() <= num_classes:
        own: np.ndarray = np.cumsum(occupied) - occupied
        return own
    below = np.cumsum(count) - count / 2
    share = below / count.sum()
    classes: np.ndarray = np.minimum(share * num_classes, num_classes - 1).astype(np.int64)
    return classes


def pooled_correlations(
    joint: Mapping[tuple[int, int], Float[np.ndarray, "C K K"]],
) -> Float[np.ndarray, "M M C"]:
    """Spearman's correlations of tokens counted by their classes of two variables.

    Each token has the mean rank of its class among the tokens counted, so that ranks are those of
    the resample.

    Args:
        joint: for each pair of variables (first before second) the tokens by class.
    """
    size = 1 + max(second for _, second in joint)
    first = next(iter(joint.values()))
    correlation = np.ones((size, size, len(first)))
    for (row, column), count in joint.items():
        left, right = count.sum(axis=2), count.sum(axis=1)
        left_rank, right_rank = _class_ranks(left), _class_ranks(right)
        product = ((left_rank[:, None] @ count)[:, 0] * right_rank).sum(axis=1)
        spread = (left * left_rank**2).sum(axis=1) * (right * right_rank**2).sum(axis=1)
        correlation[row, column] = quotient(product, np.sqrt(spread))
        correlation[column, row] = correlation[row, column]
    return correlation


def _class_ranks(count: Float[np.ndarray, "C K"]) -> Float[np.ndarray, "C K"]:
    """The mean rank of each class's values, the mean over all values taken off."""
    below = np.cumsum(count, axis=1) - count
    middle: np.ndarray = below + count / 2 - count.sum(axis=1, keepdims=True) / 2
    return middle


def roc_area(
    negative: Shaped[np.ndarray, "C K"], positive: Shaped[np.ndarray, "C K"]
) -> Float[np.ndarray, " C"]:
    """Area under the ROC curve: the share of pairs in which the positive one is of higher class.

    Pairs within a class count half; NaN without a pair.

    Args:
        negative: tokens without the property, by class of the score, ascending.
        positive: those with it.
    """
    below = np.cumsum(negative, axis=1) - negative / 2
    pairs = negative.sum(axis=1, dtype=np.float64) * positive.sum(axis=1)
    return quotient((below * positive).sum(axis=1), pairs)
