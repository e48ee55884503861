"""The restricted route carried on until its certificate decides what Equation 5 does.

Equation 5 asks of every token whether |THR| > tau and, if so, for the sign of THR. A token is open
while its bound (and that of tau) leaves one of the two undecided. Open tokens get more columns of
the vocabulary, twice as many each time, until what is left of the bound is mostly the rounding of
float32, with which the whole vocabulary would leave them open, too; if asked for, they are then
computed from all columns in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from thr_probe.core.columns import Change, Restriction, every_column, more_columns
from thr_probe.core.group import TokenGroup
from thr_probe.core.head import Head, HeadPass
from thr_probe.core.routes import Route, restricted_change, weighted_change

Scores = Float[Tensor, " N"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """Scores with the threshold they were held against."""

    score_N: Scores
    """The change along the direction, with the sign it is used with."""
    error_N: Scores
    """Bound on |score - exact score|; 0 on the exact routes."""
    dropped_mass_N: Scores
    """Probability that was left out at each token."""
    tau: float
    """The threshold."""
    open_N: Bool[Tensor, " N"]
    """Tokens whose dominance or sign was open before more columns were taken."""
    undecided_N: Bool[Tensor, " N"]
    """Those of them that are open still."""
    num_columns: int
    """Columns that were read in the end: of the restricted routes besides the completions' own ids,
    of the others the whole vocabulary."""

    @staticmethod
    def undefined(weight_N: Scores) -> Decided:
        """Where no rollout is correct: scores and threshold are NaN."""
        undefined_N = torch.full_like(weight_N, math.nan)
        nothing_N = torch.zeros_like(weight_N)
        return Decided(
            score_N=undefined_N,
            error_N=nothing_N,
            dropped_mass_N=nothing_N,
            tau=math.nan,
            open_N=undefined_N < 0,
            undecided_N=undefined_N < 0,
            num_columns=0,
        )


def open_tokens(
    score_N: Scores, error_N: Scores, tau: float, tau_error: float = 0.0
) -> Bool[Tensor, " N"]:
    """Tokens of which the bounds leave open whether |score| > tau or, where it may be, the sign.

    Args:
        score_N: THR, or another score that is held against tau.
        error_N: bound on its error.
        tau: the threshold; -inf keeps every token.
        tau_error: bound on the threshold's own error.
    """
    size_N, slack_N = score_N.abs(), error_N + tau_error
    near_tau_N = ((size_N - tau).abs() <= slack_N) & (slack_N > 0)
    sign_open_N = (size_N <= error_N) & (error_N > 0) & (size_N + slack_N > tau)
    return near_tau_N | sign_open_N


def decided(  # noqa: PLR0913  the last two are for callers that made the pass already
    group: TokenGroup,
    head: Head,
    weight_N: Scores,
    route: Route,
    *,
    sign_N: Tensor,
    tau_of: Callable[[Scores], float],
    read: HeadPass | None = None,
    slack_N: Scores | None = None,
) -> Decided:
    """sign * d log pi along sum_k weight_k R_k h_k^T, and the threshold, by a route.

    By `sparse` open tokens get more columns, with `route.exact` until none is open; by `group` they
    are counted only.

    Args:
        group: the tokens.
        head: weight in the accumulation dtype.
        weight_N: of each token in the direction.
        route: how the change is computed.
        sign_N: +1 or -1 for each token: 2 r_j - 1 for THR.
        tau_of: the threshold as a function of the scores, monotonic in each of them.
        read: the pass over the vocabulary, where it was made already.
        slack_N: bound on the error of whatever else `tau_of` takes from each token.
    """
    if not route.is_restricted:
        exact = weighted_change(group, head, weight_N, route)
        tau = tau_of(sign_N * exact.change_N)
        nothing_N = exact.error_N > 0
        return _decided(exact, sign_N, tau, nothing_N, nothing_N, len(head.weight_VD))
    found = restricted_change(group, head, weight_N, route, read)
    change = found.change
    tau, open_N = _open(change, sign_N, tau_of, slack_N)
    first_N = open_N
    # tau is a mean over correct completions: their tokens get the columns, too
    rows = (first_N | (weight_N > 0)).nonzero()[:, 0]
    num_columns = found.num_taken
    while route.vocab == "sparse" and bool(open_N.any()):
        if found.num_left == 0 or _is_rounding(found, open_N):
            if route.exact:
                change = _replaced(change, every_column(found, rows).change, rows)
                num_columns = len(found.order_L)
                tau, open_N = _open(change, sign_N, tau_of, slack_N)
            break
        found = more_columns(found, max(found.num_taken, 1024), rows)
        change, num_columns = found.change, found.num_taken
        tau, open_N = _open(change, sign_N, tau_of, slack_N)
    return _decided(change, sign_N, tau, first_N, open_N, num_columns)


def _is_rounding(found: Restriction, open_N: Bool[Tensor, " N"]) -> bool:
    """Whether more columns could not halve the bounds of open tokens and of tau any more."""
    dropped_N, counted_N = found.dropped_error, found.weight_N > 0
    return all(
        bool(dropped_N[rows_N].sum() <= found.rounding_N[rows_N].sum())
        for rows_N in (open_N, counted_N)
    )


def _decided(
    change: Change,
    sign_N: Tensor,
    tau: float,
    open_N: Bool[Tensor, " N"],
    undecided_N: Bool[Tensor, " N"],
    num_columns: int,
) -> Decided:
    return Decided(
        score_N=sign_N * change.change_N,
        error_N=change.error_N,
        dropped_mass_N=change.dropped_mass_N,
        tau=tau,
        open_N=open_N,
        undecided_N=undecided_N,
        num_columns=num_columns,
    )


def _open(
    change: Change, sign_N: Tensor, tau_of: Callable[[Scores], float], slack_N: Scores | None
) -> tuple[float, Bool[Tensor, " N"]]:
    """The threshold, and the tokens that its bound and their own leave open."""
    score_N, error_N = sign_N * change.change_N, change.error_N
    wide_N = error_N if slack_N is None else error_N + slack_N
    tau = tau_of(score_N)
    if math.isinf(tau):
        return tau, open_tokens(score_N, error_N, tau)
    tau_error = max(abs(tau_of(score_N + wide_N) - tau), abs(tau_of(score_N - wide_N) - tau))
    return tau, open_tokens(score_N, error_N, tau, tau_error)


def _replaced(change: Change, exact: Change, rows: Tensor) -> Change:
    """The change with the numbers of some tokens from another pass."""

    def joined(old_N: Scores, new_N: Scores) -> Scores:
        return old_N.index_copy(0, rows, new_N[rows])

    return Change(
        joined(change.change_N, exact.change_N),
        joined(change.error_N, exact.error_N),
        joined(change.dropped_mass_N, exact.dropped_mass_N),
    )
