"""Token Hidden Reward: Definition 4.1, Corollary 4.2, the threshold tau and the dominant tokens.

Shapes: G rollouts of one question; N their completion tokens, packed; C tokens of a chunk;
V vocabulary; D hidden size.
Everything is computed for the policy that sampled the rollouts; no gradient flows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from thr_probe.core.head import (
    Head,
    accumulation_dtype,
    check_tokens,
    chunks,
    distribution,
    in_accumulation_dtype,
)
from thr_probe.errors import DataError, UsageError


@dataclass(frozen=True, slots=True)
class TokenGroup:
    """The G rollouts of one question: completion tokens packed, without prompt or padding."""

    hidden_ND: Float[Tensor, "N D"]
    """Input of the unembedding (after the final norm) at the position that predicts each token."""
    token_ids_N: Int[Tensor, " N"]
    """The sampled tokens, an emitted end-of-sequence included."""
    rollout_index_N: Int[Tensor, " N"]
    """Which rollout, 0 .. G - 1, each token belongs to."""
    correct_G: Bool[Tensor, " G"]
    """Whether each rollout was verified as correct."""

    def __post_init__(self) -> None:
        if len({len(self.hidden_ND), len(self.token_ids_N), len(self.rollout_index_N)}) != 1:
            raise DataError(
                f"TokenGroup: {len(self.hidden_ND)} hidden states, {len(self.token_ids_N)} token "
                f"ids, {len(self.rollout_index_N)} rollout indices; one of each per token is needed"
            )
        num_rollouts = len(self.correct_G)
        index = self.rollout_index_N
        if index.numel() and (int(index.min()) < 0 or int(index.max()) >= num_rollouts):
            raise DataError(
                f"TokenGroup: rollout indices must lie in 0..{num_rollouts - 1}, "
                f"got {int(index.min())}..{int(index.max())}"
            )
        empty = (self.lengths == 0).nonzero()[:, 0].tolist()
        if empty:
            raise DataError(
                f"TokenGroup: rollout {empty[0]} has no token; an empty completion has no THR",
                hint="drop the rollout before scoring, or keep its end-of-sequence token",
            )

    @property
    def lengths(self) -> Int[Tensor, " G"]:
        """|y_i|: completion tokens of each rollout."""
        return torch.bincount(self.rollout_index_N, minlength=len(self.correct_G))

    @property
    def signs(self) -> Int[Tensor, " N"]:
        """2 r_j - 1 of each token's rollout: +1 correct, -1 incorrect."""
        return 2 * self.correct_G.long()[self.rollout_index_N] - 1


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


def likelihood_gradient(
    group: TokenGroup, head: Head, weight_N: Float[Tensor, " N"], *, chunk_size: int
) -> Float[Tensor, "V D"]:
    """G+ = sum_i 1/|y_i| sum_k R_{i,k} h_{i,k}^T over the correct rollouts i.

    It is the gradient of sum_i (1/|y_i|) log pi(y_i) with respect to W, hidden states held fixed.

    Args:
        group: the rollouts.
        head: the policy's head, weight in the accumulation dtype.
        weight_N: 1/|y_i| for the tokens of correct rollouts, 0 elsewhere.
        chunk_size: tokens per chunk.
    """
    counted = weight_N.nonzero()[:, 0]
    influence_VD = torch.zeros_like(head.weight_VD)
    for chunk in chunks(len(counted), chunk_size):
        rows = counted[chunk]
        hidden_CD = group.hidden_ND[rows].to(influence_VD.dtype)
        residual_CV = distribution(hidden_CD, head).residual(group.token_ids_N[rows].long())
        influence_VD.addmm_(residual_CV.T, hidden_CD * weight_N[rows, None])
    return influence_VD


def likelihood_change(
    group: TokenGroup, head: Head, influence_VD: Float[Tensor, "V D"], *, chunk_size: int
) -> Float[Tensor, " N"]:
    """d log pi(y_{j,k'}) as W moves along G+, <R h^T, G+>: THR but for its sign 2 r_j - 1."""
    change_N = influence_VD.new_empty(len(group.token_ids_N))
    for chunk in chunks(len(change_N), chunk_size):
        hidden_CD = group.hidden_ND[chunk].to(influence_VD.dtype)
        change_N[chunk] = distribution(hidden_CD, head).directional_derivative(
            hidden_CD @ influence_VD.T, group.token_ids_N[chunk].long()
        )
    return change_N


def pairwise_change(
    group: TokenGroup, head: Head, weight_N: Float[Tensor, " N"], *, chunk_size: int
) -> Float[Tensor, " N"]:
    """The same change as Definition 4.1's sum over token pairs, alpha_{k,k'} <h_k, h_k'>.

    alpha = <R_k, R_k'> splits into 1[y = y'] - pi_k(y') - pi_k'(y) + <pi_k, pi_k'>, each with its
    slope J. Quadratic in the tokens: the second witness of the linear route.
    """
    counted = weight_N.nonzero()[:, 0]
    change_N = torch.zeros_like(weight_N)
    for chunk in chunks(len(change_N), chunk_size):
        hidden_CD, ids, tilt_CV, top_C = _tilted(group, head, torch.arange(len(change_N))[chunk])
        for other in chunks(len(counted), chunk_size):
            hidden_KD, other_ids, tilt_KV, top_K = _tilted(group, head, counted[other])
            alpha_CK = (
                (ids[:, None] == other_ids) * top_C[:, None] * top_K
                - top_C[:, None] * tilt_KV[:, ids].T
                - top_K * tilt_CV[:, other_ids]
                + tilt_CV @ tilt_KV.T
            )
            kernel_CK = alpha_CK * (hidden_CD @ hidden_KD.T)
            change_N[chunk] += kernel_CK @ weight_N[counted[other]]
    return change_N


def _tilted(
    group: TokenGroup, head: Head, rows: Int[Tensor, " C"]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Hidden states, ids, J * pi and J at the sampled token of some tokens."""
    rows = rows.to(group.token_ids_N.device)
    hidden_CD = group.hidden_ND[rows].to(head.weight_VD.dtype)
    ids = group.token_ids_N[rows].long()
    pi = distribution(hidden_CD, head)
    slope_CV = torch.as_tensor(pi.slope, dtype=hidden_CD.dtype, device=ids.device)
    slope_CV = slope_CV.expand_as(pi.logprob_CV)
    return hidden_CD, ids, pi.logprob_CV.exp() * slope_CV, slope_CV.gather(1, ids[:, None])[:, 0]


def _prepared(
    group: TokenGroup, head: Head, *, bias_gradient: bool
) -> tuple[TokenGroup, Head, Tensor]:
    """Checked group, head in the accumulation dtype, 1/|y_i| of the correct rollouts' tokens."""
    check_tokens(group.hidden_ND, group.token_ids_N, head)
    dtype = accumulation_dtype(group.hidden_ND)
    head = in_accumulation_dtype(head, dtype)
    if bias_gradient:
        group, head = _with_bias_as_weight(group, head)
    weight_G = group.correct_G.to(dtype) / group.lengths
    return group, head, weight_G[group.rollout_index_N]


def _with_bias_as_weight(group: TokenGroup, head: Head) -> tuple[TokenGroup, Head]:
    """The bias as one more column of W behind a constant state: <h, h'> gains 1/scale^2."""
    if head.bias_V is None:
        raise UsageError(
            "bias_gradient: this head has no bias", hint="leave bias_gradient off for it"
        )
    bias_V1 = head.bias_V.to(head.weight_VD.dtype)[:, None]
    constant_N1 = group.hidden_ND.new_full((len(group.hidden_ND), 1), 1 / head.scale)
    widened = TokenGroup(
        torch.cat([group.hidden_ND, constant_N1], dim=1),
        group.token_ids_N,
        group.rollout_index_N,
        group.correct_G,
    )
    weight_VD = torch.cat([head.weight_VD, bias_V1], dim=1)
    return widened, Head(weight_VD, None, head.scale, head.softcap, head.temperature)


@torch.no_grad()
def token_hidden_reward(
    group: TokenGroup,
    head: Head,
    *,
    vocab: str = "full",
    chunk_size: int = 1024,
    bias_gradient: bool = False,
) -> TokenHiddenReward:
    """THR of every token (Corollary 4.2): the derivative of its log-probability along G+.

    THR_{j,k'} = (2 r_j - 1) sum_{i correct} 1/|y_i| sum_k <R_{i,k}, R_{j,k'}> <h_{i,k}, h_{j,k'}>
               = (2 r_j - 1) <R_{j,k'} h_{j,k'}^T, G+>,  the token's own completion included.

    Args:
        group: the G rollouts of one question.
        head: the policy's head at the temperature of the rollouts.
        vocab: `full`, linear in the tokens; `pairwise`, the quadratic sum over token pairs. Both
            are exact over the whole vocabulary.
        chunk_size: tokens per chunk; peak memory is V x D for G+ plus a few chunk_size x V.
        bias_gradient: count the bias of the head as trained, which adds 1 to <h, h'>.

    Returns:
        THR per token, float32 (float64 for float64 states); all NaN where no rollout is correct.

    Raises:
        DataError: sizes or ids that do not fit the head.
        UsageError: an unknown route.
    """
    check_route(vocab)
    group, head, weight_N = _prepared(group, head, bias_gradient=bias_gradient)
    nothing_N = torch.zeros_like(weight_N)
    if not bool(group.correct_G.any()):
        return TokenHiddenReward(torch.full_like(weight_N, math.nan), nothing_N, nothing_N)
    if vocab == "pairwise":
        change_N = pairwise_change(group, head, weight_N, chunk_size=chunk_size)
    else:
        influence_VD = likelihood_gradient(group, head, weight_N, chunk_size=chunk_size)
        change_N = likelihood_change(group, head, influence_VD, chunk_size=chunk_size)
    return TokenHiddenReward(group.signs * change_N, nothing_N, nothing_N)


def check_route(vocab: str) -> None:
    """Refuse routes that do not exist, or not yet, by name.

    Raises:
        UsageError: anything but `full` and `pairwise`.
    """
    if vocab in {"full", "pairwise"}:
        return
    if vocab in {"group", "sparse"}:
        raise UsageError(
            f"vocab={vocab!r} is not available in this version",
            hint='use vocab="full", which is exact',
        )
    raise UsageError(f"unknown vocab {vocab!r}; choose full or pairwise")


@torch.no_grad()
def influence_split(
    group: TokenGroup,
    head: Head,
    *,
    vocab: str = "full",
    chunk_size: int = 1024,
    bias_gradient: bool = False,
) -> InfluenceSplit:
    """How much of each token's THR comes from the token itself and from its own completion.

    For correct rollouts self = 1/|y_j| |R|^2 |h|^2 and within = <R h^T, g_j>, where
    g_j = 1/|y_j| sum_k R_{j,k} h_{j,k}^T. The mean of `within` over a completion is |g_j|_F^2,
    which `threshold(self_influence="exclude")` uses.

    Args, Raises: as `token_hidden_reward`.
    """
    check_route(vocab)
    group, head, weight_N = _prepared(group, head, bias_gradient=bias_gradient)
    if not bool(group.correct_G.any()):
        undefined_N = torch.full_like(weight_N, math.nan)
        return InfluenceSplit(undefined_N, undefined_N.clone())
    self_N, within_N = torch.zeros_like(weight_N), torch.zeros_like(weight_N)
    for rollout in group.correct_G.nonzero()[:, 0].tolist():
        rows = (group.rollout_index_N == rollout).nonzero()[:, 0]
        own = TokenGroup(
            group.hidden_ND[rows],
            group.token_ids_N[rows],
            torch.zeros_like(rows),
            group.correct_G[rollout : rollout + 1],
        )
        self_N[rows] = weight_N[rows] * _squared_norm(own, head, chunk_size=chunk_size)
        if vocab == "pairwise":
            within_N[rows] = pairwise_change(own, head, weight_N[rows], chunk_size=chunk_size)
        else:
            own_VD = likelihood_gradient(own, head, weight_N[rows], chunk_size=chunk_size)
            within_N[rows] = likelihood_change(own, head, own_VD, chunk_size=chunk_size)
    return InfluenceSplit(self_N, within_N)


def _squared_norm(group: TokenGroup, head: Head, *, chunk_size: int) -> Float[Tensor, " N"]:
    """|R h^T|_F^2 = |R|^2 |h|^2 of every token."""
    norm_N = head.weight_VD.new_empty(len(group.token_ids_N))
    for chunk in chunks(len(norm_N), chunk_size):
        hidden_CD = group.hidden_ND[chunk].to(norm_N.dtype)
        residual_CV = distribution(hidden_CD, head).residual(group.token_ids_N[chunk].long())
        norm_N[chunk] = residual_CV.square().sum(dim=1) * hidden_CD.square().sum(dim=1)
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
