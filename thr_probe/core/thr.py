"""Token Hidden Reward: Definition 4.1, Corollary 4.2, the threshold tau and the dominant tokens.

Shapes: G rollouts of one question; N their completion tokens, packed; C tokens of a chunk;
V vocabulary; D hidden size.
Everything is computed for the policy that sampled the rollouts; no gradient flows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from thr_probe.core.columns import Change
from thr_probe.core.group import TokenGroup
from thr_probe.core.head import Head, HeadPass, chunks, residuals
from thr_probe.core.routes import Route, prepared, restricted_change, weighted_change
from thr_probe.errors import UsageError

__all__ = [
    "InfluenceSplit",
    "TokenGroup",
    "TokenHiddenReward",
    "dominant_mask",
    "influence_split",
    "retain_top_threshold",
    "threshold",
    "token_hidden_reward",
]


@dataclass(frozen=True, slots=True)
class TokenHiddenReward:
    """THR of every completion token of a group, with what the route left out."""

    thr_N: Float[Tensor, " N"]
    """THR_{j,k'} of Corollary 4.2; NaN throughout where no rollout is correct."""
    thr_error_N: Float[Tensor, " N"]
    """Bound on |thr - exact thr| from entries of R that were left out; 0 on the exact routes."""
    dropped_mass_N: Float[Tensor, " N"]
    """Probability mass the route left out at each token; 0 on the exact routes."""


@dataclass(frozen=True, slots=True)
class InfluenceSplit:
    """The parts of thr from close by: 0 for incorrect rollouts, NaN where no rollout is correct."""

    self_N: Float[Tensor, " N"]
    """From the token itself (i = j, k = k')."""
    within_N: Float[Tensor, " N"]
    """From the token's own completion (i = j), the token itself included."""
    error_N: Float[Tensor, " N"]
    """Bound on |within - exact within|, twice of it on that of self; 0 on the exact routes."""


@torch.no_grad()
def token_hidden_reward(  # noqa: PLR0913  tolerance and eps are of one route only
    group: TokenGroup,
    head: Head,
    *,
    vocab: str = "full",
    chunk_size: int = 1024,
    bias_gradient: bool = False,
    tolerance: float = 1e-3,
    eps: float | None = None,
) -> TokenHiddenReward:
    """THR of every token (Corollary 4.2): the derivative of its log-probability along G+.

    THR_{j,k'} = (2 r_j - 1) sum_{i correct} 1/|y_i| sum_k <R_{i,k}, R_{j,k'}> <h_{i,k}, h_{j,k'}>
               = (2 r_j - 1) <R_{j,k'} h_{j,k'}^T, G+>,  the token's own completion included.

    Args:
        group: the G rollouts of one question.
        head: the policy's head at the temperature of the rollouts.
        vocab: `full` or `pairwise`, over the whole vocabulary; `sparse` or `group`, over some of
            it, with a bound on the error (`Route`).
        chunk_size: tokens per chunk; peak memory is V x D for G+ (`full`) plus a few
            chunk_size x V.
        bias_gradient: count the bias of the head as trained, which adds 1 / scale^2 to <h, h'>.
        tolerance: of `sparse`: mean bound on the error relative to the mean |THR|.
        eps: of `sparse`, in place of `tolerance`: see `Route`.

    Returns:
        THR per token, float32 (float64 for float64 states, and from the restricted routes); all
        NaN where no rollout is correct.

    Raises:
        DataError: sizes or ids that do not fit the head.
        UsageError: an unknown route, or an impossible tolerance.
    """
    route = Route(vocab=vocab, chunk_size=chunk_size, tolerance=tolerance, eps=eps)
    group, head, weight_N = prepared(group, head, bias_gradient=bias_gradient)
    if not bool(group.correct_G.any()):
        return undefined_reward(weight_N.to(head.weight_VD.dtype))
    return signed(group, weighted_change(group, head, weight_N, route))


def signed(group: TokenGroup, change: Change) -> TokenHiddenReward:
    """THR from the change: its sign is 2 r_j - 1."""
    thr_N = group.signs * change.change_N
    return TokenHiddenReward(thr_N, change.error_N, change.dropped_mass_N)


def undefined_reward(weight_N: Float[Tensor, " N"]) -> TokenHiddenReward:
    """THR where no rollout is correct: NaN."""
    nothing_N = torch.zeros_like(weight_N)
    return TokenHiddenReward(torch.full_like(weight_N, math.nan), nothing_N, nothing_N)


@torch.no_grad()
def influence_split(  # noqa: PLR0913  tolerance and eps are of one route only
    group: TokenGroup,
    head: Head,
    *,
    vocab: str = "full",
    chunk_size: int = 1024,
    bias_gradient: bool = False,
    tolerance: float = 1e-3,
    eps: float | None = None,
) -> InfluenceSplit:
    """How much of each token's THR comes from the token itself and from its own completion.

    For correct rollouts self = 1/|y_j| |R|^2 |h|^2 and within = <R h^T, g_j>, where
    g_j = 1/|y_j| sum_k R_{j,k} h_{j,k}^T. The mean of `within` over a completion is |g_j|_F^2,
    which `threshold(self_influence="exclude")` uses.

    Args, Raises: as `token_hidden_reward`.
    """
    route = Route(vocab=vocab, chunk_size=chunk_size, tolerance=tolerance, eps=eps)
    group, head, weight_N = prepared(group, head, bias_gradient=bias_gradient)
    return split_by(group, head, weight_N, route)


def split_by(
    group: TokenGroup,
    head: Head,
    weight_N: Float[Tensor, " N"],
    route: Route,
    read: HeadPass | None = None,
) -> InfluenceSplit:
    """The split by a route; arguments as `weighted_change`."""
    dtype = torch.float64 if route.is_restricted else head.weight_VD.dtype
    missing = math.nan if not bool(group.correct_G.any()) else 0.0
    self_N = torch.full_like(weight_N, missing, dtype=dtype)
    within_N, error_N = self_N.clone(), torch.zeros_like(self_N)
    for rollout in group.correct_G.nonzero()[:, 0].tolist():
        rows = (group.rollout_index_N == rollout).nonzero()[:, 0]
        own = TokenGroup(
            group.hidden_ND[rows],
            group.token_ids_N[rows],
            torch.zeros_like(rows),
            group.correct_G[rollout : rollout + 1],
        )
        if route.is_restricted:
            part = None if read is None else read.of_rows(rows)
            found = restricted_change(own, head, weight_N[rows], route, part)
            within_N[rows], error_N[rows] = found.change_N, found.error
            self_N[rows] = weight_N[rows] * own.norms.square() * found.square_N
        else:
            within_N[rows] = weighted_change(own, head, weight_N[rows], route).change_N
            norm_N = _squared_norm(own, head, chunk_size=route.chunk_size)
            self_N[rows] = weight_N[rows].to(dtype) * norm_N
    return InfluenceSplit(self_N, within_N, error_N)


def _squared_norm(group: TokenGroup, head: Head, *, chunk_size: int) -> Float[Tensor, " N"]:
    """|R h^T|_F^2 = |R|^2 |h|^2 of every token."""
    norm_N = head.weight_VD.new_empty(len(group.token_ids_N))
    for chunk in chunks(len(norm_N), chunk_size):
        hidden_CD = group.hidden_ND[chunk].to(norm_N.dtype)
        residual_CV = residuals(hidden_CD, group.token_ids_N[chunk].long(), head)
        square_C = torch.linalg.vecdot(residual_CV, residual_CV)
        norm_N[chunk] = square_C * hidden_CD.square().sum(dim=1)
    return norm_N


def threshold(
    thr_N: Float[Tensor, " N"],
    group: TokenGroup,
    *,
    beta: float = 1.0,
    reduce: str = "min",
    self_influence: str = "include",
    within_N: Float[Tensor, " N"] | None = None,
) -> float:
    """tau = beta * min over correct completions of their mean THR (Deng et al. 2025, Eq. 8).

    Args:
        thr_N: THR of every token of the group.
        group: the rollouts.
        beta: 1 in the paper; -inf keeps every token.
        reduce: `min` over the correct completions, or their `mean`.
        self_influence: `exclude` takes a completion's influence on itself out of its mean.
        within_N: `influence_split(...).within_N`, needed by `exclude`.

    Returns:
        tau, in the unit of THR; NaN where no rollout is correct.

    Raises:
        UsageError: `exclude` without `within_N`, or an unknown option.
    """
    check_threshold_options(reduce, self_influence)
    if not bool(group.correct_G.any()):
        return math.nan
    if beta == -math.inf:
        return -math.inf
    score_N = thr_N
    if self_influence == "exclude":
        if within_N is None:
            raise UsageError(
                'threshold: self_influence="exclude" needs within_N',
                hint="pass influence_split(group, head).within_N",
            )
        score_N = thr_N - within_N
    # float64: a mean over thousands of tokens decides which of them are dominant
    total_G = torch.zeros(len(group.correct_G), dtype=torch.float64, device=score_N.device)
    total_G.index_add_(0, group.rollout_index_N, score_N.double())
    mean_P = (total_G / group.lengths)[group.correct_G.bool()]
    return beta * float(mean_P.min() if reduce == "min" else mean_P.mean())


def check_threshold_options(reduce: str, self_influence: str) -> None:
    """Refuse options of `threshold` that do not exist, by name.

    Raises:
        UsageError: another reduce than min and mean, another self_influence than include, exclude.
    """
    if reduce not in {"min", "mean"} or self_influence not in {"include", "exclude"}:
        raise UsageError(
            f"threshold: reduce={reduce!r} with self_influence={self_influence!r}; "
            "choose min or mean, include or exclude"
        )


def retain_top_threshold(thr_N: Float[Tensor, " N"], share: float) -> float:
    """The tau that keeps the given share of a group's tokens by |THR|; ties are not dominant.

    Raises:
        UsageError: a share outside 0..1.
    """
    if not 0 < share <= 1:
        raise UsageError(f"retain_top must lie in (0, 1], got {share}")
    kept = math.floor(share * len(thr_N))
    if kept == len(thr_N):
        return -math.inf
    return float(thr_N.abs().sort(descending=True).values[kept])


def dominant_mask(thr_N: Float[Tensor, " N"], tau: float) -> Bool[Tensor, " N"]:
    """1[|THR| > tau], strict, as in Equations 4 and 5; a NaN THR is never dominant."""
    return thr_N.abs() > tau
