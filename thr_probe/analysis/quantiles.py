"""Quantiles of every resample, exact, without sorting or adding up a whole resample.

Letters of shapes: B resamples, P questions, R values, Q quantiles, W values of a window.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from thr_probe.core.stats import resampled_sums

_CHUNK_CELLS = 1_000_000  # entries of a chunk of running counts: 8 MB
_LEAST_HALF = 64


def resampled_quantiles(
    weights_BP: Int[np.ndarray, "B P"],
    value_R: Float[np.ndarray, " R"],
    question_R: Int[np.ndarray, " R"],
    shares: Sequence[float],
) -> Float[np.ndarray, "B Q"]:
    """Quantiles of the values of each resample, linear between order statistics.

    Resamples differ little: their quantiles lie among the few values around that of the data, and
    of all others only the number is needed. The windows are widened until they hold them all.

    Args:
        weights_BP: how often each question is drawn.
        value_R: the values.
        question_R: the question each value goes with.
        shares: of the values below each quantile.

    Returns:
        As `np.quantile` of the values repeated; NaN for a resample without any.
    """
    order = np.argsort(value_R, kind="stable")
    value_R, question_R = value_R[order], question_R[order]
    found_BQ = np.full((len(weights_BP), len(shares)), np.nan)
    missing = list(range(len(shares)))
    half = max(_LEAST_HALF, len(value_R) // 64)
    while missing:
        middles = [int(shares[index] * (len(value_R) - 1)) for index in missing]
        windows = [slice(max(middle - half, 0), middle + half + 1) for middle in middles]
        ends = [len(value_R), *(window.start for window in windows)]
        total_B, *below = _numbers(weights_BP, question_R, ends).T
        for index, window, below_B in zip(missing, windows, below, strict=True):
            rank_B = shares[index] * np.maximum(total_B - 1, 0)
            up_to = weights_BP, question_R[window], below_B
            found_BQ[:, index] = _at_rank(*up_to, value_W=value_R[window], rank_B=rank_B)
        missing = np.flatnonzero(np.isnan(found_BQ[total_B > 0]).any(axis=0)).tolist()
        half *= 4
    return found_BQ


def _numbers(
    weights_BP: Int[np.ndarray, "B P"], question_R: Int[np.ndarray, " R"], ends: Sequence[int]
) -> Float[np.ndarray, "B ends"]:
    """How many of the first values, up to each of some ends, each resample has."""
    num_questions = weights_BP.shape[1]
    number_P = [np.bincount(question_R[:end], minlength=num_questions) for end in ends]
    return resampled_sums(weights_BP, np.column_stack(number_P).astype(np.float64))


def _at_rank(
    weights_BP: Int[np.ndarray, "B P"],
    question_W: Int[np.ndarray, " W"],
    below_B: Float[np.ndarray, " B"],
    *,
    value_W: Float[np.ndarray, " W"],
    rank_B: Float[np.ndarray, " B"],
) -> Float[np.ndarray, " B"]:
    """The value at each rank, counted from 0, of sorted values; NaN where the window lacks it.

    Args:
        weights_BP: as above.
        question_W: the question of each value of the window.
        below_B: how many values of each resample lie before the window.
        value_W: the window's values, ascending.
        rank_B: a whole rank, or one between two.
    """
    rows = max(1, _CHUNK_CELLS // len(value_W))
    found_B = np.full(len(weights_BP), np.nan)
    for start in range(0, len(weights_BP), rows):
        part = slice(start, start + rows)
        drawn_BW = weights_BP[part].take(question_W, axis=1)
        up_to_BW = np.cumsum(drawn_BW, axis=1, dtype=np.int64)
        rank, whole = rank_B[part], np.floor(rank_B[part])
        low, high = (
            (up_to_BW <= (at - below_B[part])[:, None]).sum(axis=1) for at in (whole, np.ceil(rank))
        )
        inside = (below_B[part] <= whole) & (high < len(value_W))
        low, high = low[inside], high[inside]
        between = (rank - whole)[inside] * (value_W[high] - value_W[low])
        found_B[np.flatnonzero(inside) + start] = value_W[low] + between
    return found_B
