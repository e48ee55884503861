"""Sampler against policy: the estimators of KL by enumeration, weights against literal loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from thr_probe.core.losses import clipped_loss, kl_cov_loss, truncated_importance_weights
from thr_probe.core.mismatch import token_mismatch
from thr_probe.errors import UsageError


def distributions(seed=0, size=30):
    """The policy and what a sampler of lower precision makes of it, over a whole vocabulary."""
    rng = np.random.default_rng(seed)
    logits = 3 * rng.standard_normal(size)
    other = logits + 0.5 * rng.standard_normal(size)
    return (np.exp(each) / np.exp(each).sum() for each in (logits, other))


def test_every_number_is_that_of_a_loop():
    rng = np.random.default_rng(1)
    policy, sampler = (np.float32(-rng.gamma(1.0, 2.0, 50)) for _ in range(2))
    found = token_mismatch(policy, sampler)
    for n in range(50):
        difference = float(policy[n]) - float(sampler[n])
        ratio = math.exp(difference)
        np.testing.assert_allclose(found.k1[n], -difference)
        np.testing.assert_allclose(found.gap[n], abs(difference))
        np.testing.assert_allclose(found.ratio[n], ratio)
        np.testing.assert_allclose(found.k3[n], ratio - 1 - difference, atol=1e-12)
        assert found.truncated(2.0)[n] == (ratio > 2)
    assert found.k3.min() >= 0 < found.truncated(2.0).sum() < 50


def test_k1_and_k3_are_unbiased_for_the_divergence_of_the_sampler_from_the_policy():
    pi, mu = distributions()
    found = token_mismatch(np.log(pi), np.log(mu))
    divergence = sum(m * math.log(m / p) for m, p in zip(mu, pi, strict=True))
    assert divergence > 0.01
    np.testing.assert_allclose(mu @ found.k1, divergence)
    np.testing.assert_allclose(mu @ found.k3, divergence)
    np.testing.assert_allclose(mu @ found.ratio, 1.0)


def test_under_top_p_k3_falls_short_by_the_mass_outside_of_the_nucleus():
    pi, _ = distributions()
    order = np.argsort(-pi)
    nucleus = order[: int(np.searchsorted(np.cumsum(pi[order]), 0.9)) + 1]
    mass = pi[nucleus].sum()
    mu = pi[nucleus] / mass
    found = token_mismatch(np.log(pi[nucleus]), np.log(mu))
    np.testing.assert_allclose(found.ratio, mass)
    np.testing.assert_allclose(mu @ found.k1, -math.log(mass))
    np.testing.assert_allclose(mu @ found.k3, -math.log(mass) - (1 - mass))


def test_a_tiny_difference_keeps_its_k3_and_an_impossible_token_overflows_nowhere():
    found = token_mismatch(np.array([-1.0 + 1e-7, -1.0]), np.array([-1.0, -9999.0]))
    np.testing.assert_allclose(found.k3[0], 1e-14 / 2, rtol=1e-6)
    np.testing.assert_allclose(found.ratio[1], math.exp(20))
    assert np.isfinite(found.k3).all()


def tokens(seed=0, size=40):
    generator = torch.Generator().manual_seed(seed)
    old_N = -3 * torch.rand(size, generator=generator, dtype=torch.float64)
    drawn = [torch.randn(size, generator=generator, dtype=torch.float64) for _ in range(3)]
    return (old_N + 0.3 * drawn[0]).requires_grad_(), old_N, old_N - 0.8 * drawn[1], drawn[2]


@pytest.mark.parametrize("cap", [1.0, 2.0, 3.5])
def test_weights_are_the_ratio_of_trainer_to_sampler_up_to_the_cap(cap):
    _, old_N, sampler_N, _ = tokens()
    weight_N = truncated_importance_weights(old_N, sampler_N, cap=cap)
    literal = [
        min(math.exp(a - b), cap) for a, b in zip(old_N.tolist(), sampler_N.tolist(), strict=True)
    ]
    assert_close(weight_N, torch.tensor(literal, dtype=torch.float64), rtol=1e-12, atol=0)
    assert min(literal) < 1
    assert max(literal) == cap
    np.testing.assert_array_equal(
        (weight_N == cap).numpy(), token_mismatch(old_N.numpy(), sampler_N.numpy()).truncated(cap)
    )


def test_the_gradient_is_that_of_the_written_out_loss_and_no_more():
    logprob_N, old_N, sampler_N, advantage_N = tokens()
    old_N, sampler_N = old_N.requires_grad_(), sampler_N.requires_grad_()
    weight_N = truncated_importance_weights(old_N, sampler_N, cap=2.0)
    assert not weight_N.requires_grad
    loss = clipped_loss(logprob_N, old_N.detach(), advantage_N, clip_low=0.2, clip_high=0.2)
    (actual,) = torch.autograd.grad((weight_N * loss.loss_N).sum(), logprob_N)
    literal = torch.zeros((), dtype=torch.float64)
    for now, old, drawn, advantage in zip(
        logprob_N, old_N.tolist(), sampler_N.tolist(), advantage_N.tolist(), strict=True
    ):
        ratio = (now - old).exp()
        bounded = min(max(float(ratio.detach()), 0.8), 1.2)
        plain = float(ratio.detach()) * advantage
        term = ratio * advantage if plain <= bounded * advantage else bounded * advantage
        literal = literal - min(math.exp(old - drawn), 2.0) * term
    (expected,) = torch.autograd.grad(literal, logprob_N)
    assert_close(actual, expected, rtol=1e-10, atol=1e-12)


def test_at_a_ratio_of_1_nothing_changes_by_a_bit():
    logprob_N, old_N, _, advantage_N = tokens()
    weight_N = truncated_importance_weights(old_N.float(), old_N.float(), cap=2.0)
    assert_close(weight_N, torch.ones_like(weight_N), rtol=0, atol=0)
    penalised_N = torch.ones_like(advantage_N, dtype=torch.bool)
    loss_N = kl_cov_loss(logprob_N, old_N, advantage_N, penalised_N, coef=1.0).loss_N.float()
    assert_close(weight_N * loss_N, loss_N, rtol=0, atol=0)


@pytest.mark.parametrize("cap", [0.9, 0.0, -1.0, math.inf, math.nan])
def test_a_cap_that_would_cut_agreement_is_refused(cap):
    _, old_N, sampler_N, _ = tokens()
    with pytest.raises(UsageError, match="tis_cap must be a number of at least 1"):
        truncated_importance_weights(old_N, sampler_N, cap=cap)
