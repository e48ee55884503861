"""Losses of a mini-batch: Equation 2, GSPO, GSPO-token, KL-Cov, Clip-Cov, k3, importance weights.

Every objective yields one loss per token, to be minimised: the paper's objectives with their sign
turned. `aggregate_weights` says how much each token counts, so that the loss of a mini-batch is one
weighted sum, which may be split over micro-batches and processes at will.

Shapes: N completion tokens of a (micro- or mini-)batch, packed; R its rollouts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from thr_probe.core.advantages import largest_mask
from thr_probe.core.mismatch import LARGEST_LOG_RATIO
from thr_probe.errors import UsageError

AGGREGATES = ("group-token-mean", "token-mean", "sequence-mean", "dr-grpo")
"""How the token losses of a mini-batch become one number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLoss:
    """An objective at every token of a batch."""

    loss_N: Float[Tensor, " N"]
    """What to minimise, differentiable in the current log-probabilities."""
    clipped_N: Bool[Tensor, " N"]
    """Tokens whose loss a clip or a penalty changed: without any, the mechanism did nothing."""


def aggregate_weights(
    counted_R: Int[Tensor, " R"],
    group_R: Int[Tensor, " R"],
    *,
    aggregate: str,
    max_length: int | None = None,
) -> Float[Tensor, " R"]:
    """Weight of each token of a rollout, so that sum_r w_r sum_k loss_{r,k} is the aggregate.

    Args:
        counted_R: tokens that each rollout counts: its length, or the selected ones only.
        group_R: which question each rollout answers.
        aggregate: `group-token-mean`, Equation 2: the mean over questions of the mean over their
            tokens; `token-mean`, over all tokens (DAPO); `sequence-mean`, the mean over rollouts
            of the mean over their tokens (Shao et al. 2024, GSPO); `dr-grpo`, the sum divided by
            R * max_length (Liu et al. 2025, arXiv 2503.20783).
        max_length: the constant of `dr-grpo`.

    Returns:
        Float64 weights; 0 where nothing is counted. Questions and rollouts of which nothing is
        counted still count in the means over questions and rollouts.

    Raises:
        UsageError: an unknown aggregate, or `dr-grpo` without max_length.

    >>> lengths, groups = torch.tensor([1, 3, 4]), torch.tensor([0, 0, 1])
    >>> aggregate_weights(lengths, groups, aggregate="group-token-mean").tolist()
    [0.125, 0.125, 0.125]
    >>> aggregate_weights(lengths, groups, aggregate="sequence-mean").mul(12).tolist()
    [4.0, 1.3333333333333333, 1.0]
    """
    counted = counted_R.double()
    if aggregate == "group-token-mean":
        _, index_R = torch.unique(group_R, return_inverse=True)
        tokens_P = torch.bincount(index_R, weights=counted)
        divisor_R = len(tokens_P) * tokens_P[index_R]
    elif aggregate == "token-mean":
        divisor_R = counted.sum().expand_as(counted)
    elif aggregate == "sequence-mean":
        divisor_R = len(counted) * counted
    elif aggregate == "dr-grpo":
        divisor_R = torch.full_like(counted, len(counted) * _constant_length(max_length))
    else:
        raise UsageError(f"unknown aggregate {aggregate!r}; choose one of {', '.join(AGGREGATES)}")
    return torch.where(counted > 0, 1.0 / divisor_R, torch.zeros_like(counted))


def _constant_length(max_length: int | None) -> int:
    if max_length is None or max_length < 1:
        raise UsageError(
            f"aggregate dr-grpo divides by a constant length, got {max_length}",
            hint="give max_new_tokens, at least 1",
        )
    return max_length


def check_clip(clip_low: float, clip_high: float, dual_clip: float | None = None) -> None:
    """Refuse clip ranges that are none, by the words of their flags.

    Raises:
        UsageError: clip_low outside [0, 1), a negative clip_high, dual_clip at most 1.
    """
    if not 0 <= clip_low < 1:
        raise UsageError(f"clip_low must lie in [0, 1), got {clip_low}")
    if not 0 <= clip_high < math.inf:
        raise UsageError(f"clip_high must not be negative or infinite, got {clip_high}")
    if dual_clip is not None and not dual_clip > 1:
        raise UsageError(f"dual_clip must be greater than 1, got {dual_clip}")


def _ratio(log_ratio_N: Tensor) -> Tensor:
    """gamma, capped at e^20: an overflow would be NaN where A is 0 or the loss is clipped."""
    return log_ratio_N.clamp(max=LARGEST_LOG_RATIO).exp()


def _clipped(ratio_N: Tensor, advantage_N: Tensor, clip_low: float, clip_high: float) -> TokenLoss:
    """-min(ratio A, clip(ratio, 1 - low, 1 + high) A)."""
    check_clip(clip_low, clip_high)
    plain_N = -ratio_N * advantage_N
    bounded_N = -ratio_N.clamp(1 - clip_low, 1 + clip_high) * advantage_N
    return TokenLoss(loss_N=torch.maximum(plain_N, bounded_N), clipped_N=bounded_N > plain_N)


def clipped_loss(
    logprob_N: Float[Tensor, " N"],
    old_logprob_N: Float[Tensor, " N"],
    advantage_N: Float[Tensor, " N"],
    *,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None = None,
) -> TokenLoss:
    """The GRPO objective of Equation 2, -min(gamma A, clip(gamma, 1 - low, 1 + high) A).

    Args:
        logprob_N: current log-probabilities.
        old_logprob_N: those at the start of the step.
        advantage_N: per token, after any reweighing.
        clip_low: epsilon below, 0.2 in the paper.
        clip_high: epsilon above; 0.28 is Clip-High (Yu et al. 2025, section E.3 of the paper).
        dual_clip: c > 1 bounds the loss of a negative advantage by c |A| (Ye et al. 2020, arXiv
            1912.09729); not in the paper.

    Raises:
        UsageError: an impossible clip range.
    """
    check_clip(clip_low, clip_high, dual_clip)
    ratio_N = _ratio(logprob_N - old_logprob_N)
    clipped = _clipped(ratio_N, advantage_N, clip_low, clip_high)
    if dual_clip is None:
        return clipped
    ceiling_N = torch.where(advantage_N < 0, -dual_clip * advantage_N, math.inf)
    return TokenLoss(
        loss_N=torch.minimum(clipped.loss_N, ceiling_N),
        clipped_N=clipped.clipped_N | (clipped.loss_N > ceiling_N),
    )


def rollout_means(
    value_N: Float[Tensor, " N"], rollout_index_N: Int[Tensor, " N"]
) -> Float[Tensor, " N"]:
    """The mean of each token's rollout, at every token; differentiable."""
    if not len(value_N):
        return value_N
    lengths_R = torch.bincount(rollout_index_N)
    # float64: a mean over thousands of tokens meets clip ranges of a few 1e-4
    total_R = torch.zeros(len(lengths_R), dtype=torch.float64, device=value_N.device)
    total_R = total_R.index_add(0, rollout_index_N, value_N.double())
    return (total_R[rollout_index_N] / lengths_R[rollout_index_N]).to(value_N.dtype)


def gspo_loss(
    logprob_N: Float[Tensor, " N"],
    old_logprob_N: Float[Tensor, " N"],
    advantage_N: Float[Tensor, " N"],
    rollout_index_N: Int[Tensor, " N"],
    *,
    clip_low: float,
    clip_high: float,
) -> TokenLoss:
    """GSPO (Equations 7 and 8): the clipped objective of the sequence ratio, at every token.

    s_i = exp(1/|y_i| sum_k log gamma_{i,k}), the geometric mean of the token ratios; Equation 8
    prints gamma for its logarithm. Under `sequence-mean` the tokens of a rollout add up to its
    share of Equation 7, value and gradient.

    Args:
        logprob_N: current log-probabilities.
        old_logprob_N: those at the start of the step.
        advantage_N: one value per rollout, at each of its tokens.
        rollout_index_N: which rollout each token belongs to; every rollout must be whole.
        clip_low: epsilon below, on the sequence ratio; GSPO's own setting is 3e-4.
        clip_high: epsilon above, on the sequence ratio; GSPO's own setting is 4e-4.

    Raises:
        UsageError: an impossible clip range.
    """
    ratio_N = _ratio(rollout_means(logprob_N - old_logprob_N, rollout_index_N))
    return _clipped(ratio_N, advantage_N, clip_low, clip_high)


def gspo_token_loss(
    logprob_N: Float[Tensor, " N"],
    old_logprob_N: Float[Tensor, " N"],
    advantage_N: Float[Tensor, " N"],
    rollout_index_N: Int[Tensor, " N"],
    *,
    clip_low: float,
    clip_high: float,
) -> TokenLoss:
    """GSPO-token (Appendix A): s_{i,k} = sg[s_i] pi / sg[pi], the sequence ratio token by token.

    Numerically s_{i,k} is s_i at every token, so that a completion is clipped as a whole as long as
    its advantages share one sign; the gradient of an unclipped one is
    -s_i A_{i,k} grad log pi(y_{i,k}), the formula Appendix A leaves out.

    Args:
        logprob_N: current log-probabilities.
        old_logprob_N: those at the start of the step.
        advantage_N: per token.
        rollout_index_N: which rollout each token belongs to; every rollout must be whole.
        clip_low: epsilon below, on the sequence ratio; GSPO's own setting is 3e-4.
        clip_high: epsilon above, on the sequence ratio; GSPO's own setting is 4e-4.

    Raises:
        UsageError: an impossible clip range.
    """
    sequence_N = rollout_means(logprob_N.detach() - old_logprob_N, rollout_index_N)
    ratio_N = _ratio(logprob_N - logprob_N.detach() + sequence_N)
    return _clipped(ratio_N, advantage_N, clip_low, clip_high)


def covariance(
    advantage_N: Float[Tensor, " N"], logprob_N: Float[Tensor, " N"]
) -> Float[Tensor, " N"]:
    """Cov_t = (A_t - mean A)(log pi_t - mean log pi) of Cui et al. 2025 (arXiv 2505.22617).

    The means run over the tokens given: give all of a mini-batch. No gradient flows.
    """
    advantage, logprob = advantage_N.detach().double(), logprob_N.detach().double()
    return (advantage - advantage.mean()) * (logprob - logprob.mean())


def _covariance_count(share: float, size: int) -> int:
    """max(1, floor(share N)), never more than N."""
    if not 0 < share <= 1:
        raise UsageError(f"cov_share must lie in (0, 1], got {share}")
    return min(max(1, math.floor(share * size)), size)


def kl_cov_penalised(covariance_N: Float[Tensor, " N"], share: float) -> Bool[Tensor, " N"]:
    """The tokens KL-Cov penalises: the floor(share N), at least one, of largest covariance.

    Ties go to the earlier token.

    Raises:
        UsageError: a share outside (0, 1].
    """
    count = _covariance_count(share, len(covariance_N))
    return largest_mask(covariance_N, count)


def kl_cov_loss(
    logprob_N: Float[Tensor, " N"],
    old_logprob_N: Float[Tensor, " N"],
    advantage_N: Float[Tensor, " N"],
    penalised_N: Bool[Tensor, " N"],
    *,
    coef: float,
) -> TokenLoss:
    """KL-Cov (Cui et al. 2025): -gamma A, with coef |log gamma| added at the penalised tokens.

    There is no clip. At a ratio of exactly 1 the penalty and its gradient are 0.

    Raises:
        UsageError: a negative coef.
    """
    if not 0 <= coef < math.inf:
        raise UsageError(f"cov_coef must not be negative or infinite, got {coef}")
    log_ratio_N = logprob_N - old_logprob_N
    penalty_N = torch.where(penalised_N, coef * log_ratio_N.abs(), 0.0)
    return TokenLoss(
        loss_N=penalty_N - _ratio(log_ratio_N) * advantage_N, clipped_N=penalty_N.detach() > 0
    )


def clip_cov_dropped(
    covariance_N: Float[Tensor, " N"],
    eligible_N: Bool[Tensor, " N"],
    share: float,
    *,
    low: float,
    high: float,
    generator: np.random.Generator,
) -> Bool[Tensor, " N"]:
    """The tokens whose gradient Clip-Cov drops (Cui et al. 2025), drawn uniformly at random.

    Args:
        covariance_N: of all tokens of the mini-batch.
        eligible_N: tokens that the ordinary clip leaves alone.
        share: floor(share N), at least one, are drawn, or all candidates where they are fewer.
        low: candidates have low < covariance < high.
        high: see low.
        generator: draws them; equal ones on all processes, so that they agree.

    Raises:
        UsageError: a share outside (0, 1], or an empty band.
    """
    if not low < high:
        raise UsageError(f"cov_low must be smaller than cov_high, got {low} and {high}")
    count = _covariance_count(share, len(covariance_N))
    inside_N = eligible_N & (covariance_N > low) & (covariance_N < high)
    candidates = inside_N.nonzero()[:, 0]
    drawn = generator.permutation(len(candidates))[:count]
    dropped_N = torch.zeros_like(inside_N)
    dropped_N[candidates[torch.from_numpy(drawn).to(candidates.device)]] = True
    return dropped_N


def clip_cov_loss(
    logprob_N: Float[Tensor, " N"],
    old_logprob_N: Float[Tensor, " N"],
    advantage_N: Float[Tensor, " N"],
    dropped_N: Bool[Tensor, " N"],
    *,
    clip_low: float,
    clip_high: float,
) -> TokenLoss:
    """Clip-Cov (Cui et al. 2025): the loss of Equation 2, and 0 at the tokens that were drawn.

    Raises:
        UsageError: an impossible clip range.
    """
    clipped = clipped_loss(
        logprob_N, old_logprob_N, advantage_N, clip_low=clip_low, clip_high=clip_high
    )
    return TokenLoss(
        loss_N=torch.where(dropped_N, 0.0, clipped.loss_N),
        clipped_N=clipped.clipped_N | dropped_N,
    )


def truncated_importance_weights(
    old_logprob_N: Float[Tensor, " N"], sampler_logprob_N: Float[Tensor, " N"], *, cap: float
) -> Float[Tensor, " N"]:
    """min(pi_old / mu, C), the weight of each token's loss (truncated importance sampling, TIS).

    mu is the distribution that the sampler drew from, pi_old the trainer's own pass over the same
    weights (Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL
    training"; the truncation is that of Ionides 2008). No gradient flows.

    Args:
        old_logprob_N: log pi at the start of the step, recomputed by the trainer.
        sampler_logprob_N: log mu.
        cap: C.

    Raises:
        UsageError: a cap below 1, which would change the loss where sampler and policy agree.
    """
    check_tis_cap(cap)
    return _ratio((old_logprob_N - sampler_logprob_N).detach()).clamp(max=cap)


def check_tis_cap(cap: float) -> None:
    """Refuse a bound of importance weights that is none, by the word of its flag.

    Raises:
        UsageError: below 1, or infinite.
    """
    if not 1 <= cap < math.inf:
        raise UsageError(
            f"tis_cap must be a number of at least 1, got {cap}",
            "a lower one would change the loss where sampler and policy agree; 2 is usual",
        )


def k3(logprob_N: Float[Tensor, " N"], ref_logprob_N: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
    """The KL penalty exp(D) - D - 1 with D = log pi_ref - log pi, at most 10 (Schulman's k3)."""
    # |D| beyond 20 has a k3 beyond 10 already: the inner clamp changes no value, it keeps the
    # gradient of an exp that overflowed from becoming 0 * inf
    difference_N = (ref_logprob_N - logprob_N).clamp(-20, 20)
    return (torch.expm1(difference_N) - difference_N).clamp(0, 10)
