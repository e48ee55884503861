"""GWHES (Deng et al. 2025, arXiv 2505.18830, Eq. 5; the paper's Equation 3 and Theorem 3.1).

Shapes: G rollouts of one question; N their completion tokens, packed; V vocabulary; D hidden size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from thr_probe.core.advantages import group_advantages
from thr_probe.core.group import TokenGroup
from thr_probe.core.head import Head
from thr_probe.core.routes import Route, prepared, weighted_change


@dataclass(frozen=True, slots=True, kw_only=True)
class Gwhes:
    """The group weighted hidden embedding score of each rollout, and its two parts.

    Float64; NaN for incorrect rollouts, and for all where none or every one is correct.
    """

    from_incorrect_G: Float[Tensor, " G"]
    """q- sum over incorrect j of <S_i, S_j>: what their penalty takes from the likelihood of i."""
    from_correct_G: Float[Tensor, " G"]
    """q+ sum over correct i' of <S_i, S_i'>, i itself included: what their reward adds."""

    @property
    def score(self) -> Float[Tensor, " G"]:
        """GWHES_i, the first minus the second; the larger, the less the likelihood of i grows."""
        return self.from_incorrect_G - self.from_correct_G


@torch.no_grad()
def gwhes(group: TokenGroup, head: Head, *, vocab: str = "full", chunk_size: int = 1024) -> Gwhes:
    """GWHES_i = q- sum_{j incorrect} <S_i, S_j> - q+ sum_{i' correct} <S_i, S_i'> (Equation 3).

    S_i = sum_k R_{i,k} h_{i,k}^T, without 1/|y_i|; q+ = sqrt((1 - q) / q), q- = sqrt(q / (1 - q)).
    The weights are the GRPO advantages but for the sign, so -GWHES_i is the change of
    log pi(y_i | x) per unit of step size along the gradient of sum_{j,k} A_j log pi(y_{j,k}) with
    respect to W, hidden states held fixed (the unembedding's part of Theorem 3.1). Unit: nats per
    unit of step size.

    Args:
        group: the G rollouts of one question.
        head: the policy's head at the temperature of the rollouts.
        vocab: route of the sums, as for `token_hidden_reward`; `full` holds one V x D matrix at a
            time, `pairwise` none.
        chunk_size: tokens per chunk.

    Returns:
        One score per rollout, NaN where it is not defined.

    Raises:
        DataError: sizes or ids that do not fit the head.
        UsageError: an unknown route.
    """
    route = Route(vocab=vocab, chunk_size=chunk_size)
    group, head, _ = prepared(group, head)
    advantage_G = group_advantages(group.correct_G)
    correct_G = group.correct_G.bool()
    if not bool((advantage_G != 0).any()):
        undefined_G = torch.full_like(advantage_G, math.nan)
        return Gwhes(from_incorrect_G=undefined_G, from_correct_G=undefined_G)

    def influence(counted_G: Bool[Tensor, " G"]) -> Float[Tensor, " G"]:
        weight_G = torch.where(counted_G, advantage_G.abs(), torch.zeros_like(advantage_G))
        change_N = weighted_change(group, head, weight_G[group.rollout_index_N], route).change_N
        total_G = torch.zeros_like(advantage_G)
        total_G.index_add_(0, group.rollout_index_N, change_N.double())
        return torch.where(correct_G, total_G, torch.full_like(total_G, math.nan))

    return Gwhes(from_incorrect_G=influence(~correct_G), from_correct_G=influence(correct_G))
