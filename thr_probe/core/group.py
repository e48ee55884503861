"""The tokens of one question's rollouts, packed: what every formula of THR is about."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from thr_probe.errors import DataError


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

    @property
    def likelihood_weights(self) -> Float[Tensor, " N"]:
        """1/|y_i| for the tokens of correct rollouts, 0 elsewhere, float64."""
        return (self.correct_G.double() / self.lengths)[self.rollout_index_N]

    @property
    def norms(self) -> Float[Tensor, " N"]:
        """|h| of every token, float64."""
        norm_N: Tensor = torch.linalg.vector_norm(self.hidden_ND, dim=1, dtype=torch.float64)
        return norm_N
