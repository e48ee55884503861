"""Spearman's rank correlation of questions, on every resample of them at once.

Letters of shapes: C resamples, Q questions.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from thr_probe.core.stats import quotient


def rank_correlation(
    weight_CQ: Float[np.ndarray, "C Q"],
    x_Q: Float[np.ndarray, " Q"],
    y_Q: Float[np.ndarray, " Q"],
) -> Float[np.ndarray, " C"]:
    """Spearman's rho of x and y where question i occurs weight_i times.

    Equal values share the mean of their ranks, copies of a question too; NaN where x or y is the
    same throughout.

    >>> x_Q, y_Q = np.array([1.0, 2.0, 3.0]), np.array([2.0, 1.0, 5.0])
    >>> rank_correlation(np.array([[1.0, 1.0, 1.0], [2.0, 0.0, 1.0]]), x_Q, y_Q).tolist()
    [0.5, 1.0]
    """
    middle_C1 = (weight_CQ.sum(axis=1, keepdims=True) + 1) / 2
    x_CQ, y_CQ = (mean_ranks(weight_CQ, value_Q) - middle_C1 for value_Q in (x_Q, y_Q))
    product_C, square_x_C, square_y_C = (
        np.einsum("cq,cq,cq->c", weight_CQ, left_CQ, right_CQ)
        for left_CQ, right_CQ in ((x_CQ, y_CQ), (x_CQ, x_CQ), (y_CQ, y_CQ))
    )
    return quotient(product_C, np.sqrt(square_x_C * square_y_C))


def mean_ranks(
    weight_CQ: Float[np.ndarray, "C Q"], value_Q: Float[np.ndarray, " Q"]
) -> Float[np.ndarray, "C Q"]:
    """The rank of each value, from 1, among the copies that the weights make; ties share a mean."""
    order = np.argsort(value_Q, kind="stable")
    start = np.flatnonzero(np.diff(value_Q[order], prepend=np.nan) != 0)
    ordered_CQ = weight_CQ.take(order, axis=1)
    has_ties = len(start) < len(order)  # without, every level is one question: nothing to add up
    level_CL = np.add.reduceat(ordered_CQ, start, axis=1) if has_ties else ordered_CQ
    rank_CL = np.cumsum(level_CL, axis=1) - (level_CL - 1) / 2
    level_of_Q = np.empty(len(value_Q), dtype=np.int64)
    level_of_Q[order] = np.repeat(np.arange(len(start)), np.diff(start, append=len(value_Q)))
    return rank_CL.take(level_of_Q, axis=1)
