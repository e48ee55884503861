"""A batch of packed tokens as padded matrices, as verl and TRL take them."""

from __future__ import annotations

import pytest
import torch

from thr_probe.core.losses import (
    aggregate_weights,
)

close = torch.testing.assert_close

# both peers warn of deprecations of their own when they are imported and when they run
pytestmark = pytest.mark.filterwarnings("ignore")

LENGTHS = torch.tensor([5, 1, 7, 3, 6, 2])
GROUPS = torch.tensor([0, 0, 0, 1, 1, 1])
WIDTH = 9
"""Of the padded matrices: more than the longest completion."""


class Batch:
    """Random log-probabilities and advantages, padded and packed."""

    def __init__(self, *, seed=0, spread=0.4, by_token=True):
        generator = torch.Generator().manual_seed(seed)
        shape = (len(LENGTHS), WIDTH)
        self.mask = (torch.arange(WIDTH) < LENGTHS[:, None]).double()
        self.old = -torch.rand(shape, generator=generator, dtype=torch.float64) * 3
        noise = spread * torch.randn(shape, generator=generator, dtype=torch.float64)
        self.logprob = (self.old + noise).requires_grad_()
        signs = torch.tensor([1.0, -1.0, 1.0, -1.0, -1.0, 1.0], dtype=torch.float64)[:, None]
        size = torch.rand(shape, generator=generator, dtype=torch.float64) + 0.5
        # a token's advantage keeps the sign of its completion, as under THR(p)
        self.advantage = signs * (size if by_token else size[:, :1].expand(shape)) * self.mask

    def packed(self, matrix):
        return matrix[self.mask.bool()]

    @property
    def rollout_index(self):
        return torch.arange(len(LENGTHS)).repeat_interleave(LENGTHS)

    @property
    def tokens(self):
        """logprob, old_logprob, advantage as our losses take them."""
        return self.packed(self.logprob), self.packed(self.old), self.packed(self.advantage)

    def total(self, loss_N, aggregate, **options):
        weight_R = aggregate_weights(LENGTHS, GROUPS, aggregate=aggregate, **options)
        return (weight_R[self.rollout_index] * loss_N).sum()

    def gradient(self, total):
        return torch.autograd.grad(total, self.logprob, retain_graph=True)[0] * self.mask
