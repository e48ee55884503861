"""KL-Cov and Clip-Cov: which tokens they choose, how many, and what becomes of their loss."""

from __future__ import annotations

import math

import numpy as np
import pytest
import reference
import torch
from torch.testing import assert_close

from thr_probe.core.losses import (
    clip_cov_dropped,
    clip_cov_loss,
    clipped_loss,
    covariance,
    kl_cov_loss,
    kl_cov_penalised,
)
from thr_probe.errors import UsageError

RANGE = {"clip_low": 0.2, "clip_high": 0.2}
BAND = {"low": 1.0, "high": 5.0}


def batch(size=50, seed=0):
    generator = torch.Generator().manual_seed(seed)
    old_N = -3 * torch.rand(size, generator=generator, dtype=torch.float64)
    noise_N = 0.3 * torch.randn(size, generator=generator, dtype=torch.float64)
    advantage_N = torch.randn(size, generator=generator, dtype=torch.float64)
    return (old_N + noise_N).requires_grad_(), old_N, advantage_N


def draws(seed=0):
    return np.random.default_rng(seed)


def test_the_covariance_is_that_of_the_loop_and_carries_no_gradient():
    logprob_N, _, advantage_N = batch()
    expected = reference.covariances(advantage_N.tolist(), logprob_N.tolist())
    actual = covariance(advantage_N, logprob_N)
    assert_close(actual, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-14)
    assert not actual.requires_grad
    population = np.cov(advantage_N.numpy(), logprob_N.detach().numpy(), ddof=0)[0, 1]
    assert float(actual.mean()) == pytest.approx(population)


@pytest.mark.parametrize(
    ("size", "share", "count"),
    [(50, 0.1, 5), (50, 0.119, 5), (50, 2e-3, 1), (50, 1.0, 50), (1, 2e-3, 1), (1000, 2e-3, 2)],
)
def test_kl_cov_penalises_exactly_the_share_of_largest_covariance(size, share, count):
    logprob_N, _, advantage_N = batch(size)
    covariance_N = covariance(advantage_N, logprob_N)
    penalised_N = kl_cov_penalised(covariance_N, share)
    assert int(penalised_N.sum()) == count
    ranked = sorted(range(size), key=lambda n: -float(covariance_N[n]))
    assert set(penalised_N.nonzero()[:, 0].tolist()) == set(ranked[:count])


def test_ties_of_the_covariance_go_to_the_earlier_token():
    assert kl_cov_penalised(torch.ones(6), 0.5).tolist() == [True] * 3 + [False] * 3


def test_no_tokens_have_no_penalty():
    assert len(kl_cov_penalised(torch.zeros(0), 0.5)) == 0


def test_kl_cov_adds_the_absolute_log_ratio_at_the_penalised_tokens_and_never_clips():
    logprob_N, old_N, advantage_N = batch()
    penalised_N = kl_cov_penalised(covariance(advantage_N, logprob_N), 0.2)
    loss = kl_cov_loss(logprob_N, old_N, advantage_N, penalised_N, coef=0.7)
    expected, slopes = [], []
    for new, old, advantage, penalised in zip(
        logprob_N.tolist(), old_N.tolist(), advantage_N.tolist(), penalised_N.tolist(), strict=True
    ):
        gamma = math.exp(new - old)
        expected.append(-gamma * advantage + 0.7 * penalised * abs(new - old))
        slopes.append(-gamma * advantage + 0.7 * penalised * math.copysign(1, new - old))
    assert_close(loss.loss_N.detach(), torch.tensor(expected, dtype=torch.float64))
    assert loss.clipped_N.tolist() == penalised_N.tolist()
    (actual,) = torch.autograd.grad(loss.loss_N.sum(), logprob_N)
    assert_close(actual, torch.tensor(slopes, dtype=torch.float64))


def test_clip_cov_draws_the_share_among_the_candidates_in_the_band():
    covariance_N = torch.linspace(-2, 8, 101, dtype=torch.float64)
    eligible_N = torch.arange(101) % 2 == 0
    candidates = eligible_N & (covariance_N > 1) & (covariance_N < 5)
    dropped_N = clip_cov_dropped(covariance_N, eligible_N, 0.05, **BAND, generator=draws())
    assert int(dropped_N.sum()) == 5
    assert not bool((dropped_N & ~candidates).any())
    again_N = clip_cov_dropped(covariance_N, eligible_N, 0.05, **BAND, generator=draws())
    assert_close(again_N, dropped_N)
    every_N = clip_cov_dropped(covariance_N, eligible_N, 1.0, **BAND, generator=draws())
    assert_close(every_N, candidates)


def test_the_edges_of_the_band_are_outside_it():
    covariance_N = torch.tensor([1.0, 5.0, 3.0], dtype=torch.float64)
    every_N = torch.ones(3, dtype=torch.bool)
    dropped_N = clip_cov_dropped(covariance_N, every_N, 1.0, **BAND, generator=draws())
    assert dropped_N.tolist() == [False, False, True]


def test_every_candidate_is_as_likely_to_be_drawn():
    covariance_N = torch.tensor([2.0, 0.0, 3.0, 4.0], dtype=torch.float64)
    every_N, random = torch.ones(4, dtype=torch.bool), draws()
    drawn = sum(
        clip_cov_dropped(covariance_N, every_N, 0.25, **BAND, generator=random).long()
        for _ in range(3000)
    )
    # 1000 expected, deviation 26
    np.testing.assert_allclose(drawn, [1000, 0, 1000, 1000], atol=130)


def test_without_a_candidate_in_the_band_clip_cov_is_the_clipped_loss():
    logprob_N, old_N, advantage_N = batch()
    plain = clipped_loss(logprob_N, old_N, advantage_N, **RANGE)
    covariance_N = covariance(advantage_N, logprob_N)
    dropped_N = clip_cov_dropped(
        covariance_N, ~plain.clipped_N, 0.5, low=1e3, high=2e3, generator=draws()
    )
    assert not bool(dropped_N.any())
    loss = clip_cov_loss(logprob_N, old_N, advantage_N, dropped_N, **RANGE)
    assert_close(loss.loss_N, plain.loss_N, rtol=0, atol=0)
    assert_close(loss.clipped_N, plain.clipped_N)


def test_dropped_tokens_have_neither_loss_nor_gradient():
    logprob_N, old_N, advantage_N = batch()
    plain = clipped_loss(logprob_N, old_N, advantage_N, **RANGE)
    covariance_N = covariance(advantage_N, logprob_N)
    dropped_N = clip_cov_dropped(
        covariance_N, ~plain.clipped_N, 0.1, low=0.1, high=5.0, generator=draws()
    )
    assert int(dropped_N.sum()) == 5
    loss = clip_cov_loss(logprob_N, old_N, advantage_N, dropped_N, **RANGE)
    kept_N = (~dropped_N).double()
    assert_close(loss.loss_N, plain.loss_N * kept_N)
    assert_close(loss.clipped_N, plain.clipped_N | dropped_N)
    (expected,) = torch.autograd.grad((plain.loss_N * kept_N).sum(), logprob_N)
    (actual,) = torch.autograd.grad(loss.loss_N.sum(), logprob_N)
    assert_close(actual, expected)
    assert bool((actual[dropped_N] == 0).all())


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5, math.nan])
def test_shares_that_are_none_are_refused(share):
    with pytest.raises(UsageError, match=r"cov_share must lie in \(0, 1\]"):
        kl_cov_penalised(torch.ones(3), share)
    with pytest.raises(UsageError, match="cov_share"):
        clip_cov_dropped(
            torch.ones(3), torch.ones(3, dtype=torch.bool), share, **BAND, generator=draws()
        )


def test_an_empty_band_and_a_negative_penalty_are_refused():
    with pytest.raises(UsageError, match="cov_low must be smaller than cov_high"):
        clip_cov_dropped(
            torch.ones(3),
            torch.ones(3, dtype=torch.bool),
            0.5,
            low=5.0,
            high=5.0,
            generator=draws(),
        )
    logprob_N, old_N, advantage_N = batch()
    for coef in (-0.1, math.inf, math.nan):
        with pytest.raises(UsageError, match="cov_coef must not be negative"):
            kl_cov_loss(logprob_N, old_N, advantage_N, advantage_N > 0, coef=coef)
