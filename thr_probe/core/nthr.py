"""The score of NTHR (Deng et al. 2025, arXiv 2505.18830), the method that THR grew out of."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from thr_probe.core.group import TokenGroup
from thr_probe.core.head import Head
from thr_probe.core.routes import Route, prepared, weighted_change


@torch.no_grad()
def unit_influence(
    group: TokenGroup, head: Head, *, vocab: str = "full", chunk_size: int = 1024
) -> Float[Tensor, " N"]:
    """s_{j,k'} = sum_{i correct} sum_k <R_{i,k}, R_{j,k'}> <h_{i,k}, h_{j,k'}>.

    The derivative of a token's log-probability along the unit-weight gradient of the correct
    completions' log-likelihood: THR without its 1/|y_i| and without its sign. At the tokens of
    incorrect completions it is the s^- that NTHR holds against `threshold(s, group)`.

    Args:
        group: the G rollouts of one question.
        head: the policy's head at the temperature of the rollouts.
        vocab: as for `token_hidden_reward`.
        chunk_size: tokens per chunk.

    Returns:
        Scores, float32 (float64 for float64 states); all NaN where no rollout is correct.

    Raises:
        DataError: sizes or ids that do not fit the head.
        UsageError: an unknown route.
    """
    route = Route(vocab=vocab, chunk_size=chunk_size)
    group, head, weight_N = prepared(group, head)
    unit_N = unit_weights(weight_N)
    if not bool(group.correct_G.any()):
        return torch.full_like(unit_N, math.nan, dtype=head.weight_VD.dtype)
    return weighted_change(group, head, unit_N, route).change_N


def unit_weights(weight_N: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
    """1 where THR has 1/|y_i|: at the tokens of correct rollouts."""
    return (weight_N > 0).to(weight_N.dtype)
