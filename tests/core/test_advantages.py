"""Equations 1, 4, 5, 6 and the mixes against quotients, enumeration and measured changes."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import reference
import torch
from cases import log_probability, mean_log_likelihood

from thr_probe.core.advantages import (
    dr_grpo_advantages,
    group_advantages,
    mixed_pass_at_k_advantages,
    pass_at_k_advantages,
    pass_at_k_factor,
    pkpo_advantages,
    static_pass_at_k_advantages,
    thr_advantages,
)
from thr_probe.core.thr import TokenGroup, threshold, token_hidden_reward
from thr_probe.errors import UsageError


def outcomes(num_correct, size=8):
    return torch.tensor([i < num_correct for i in range(size)])


@pytest.mark.parametrize("num_correct", range(1, 8))
def test_equation_1_is_the_reward_standardised_by_the_population_deviation(num_correct):
    rewards = [1.0] * num_correct + [0.0] * (8 - num_correct)
    np.testing.assert_allclose(
        group_advantages(outcomes(num_correct)), reference.grpo_advantages(rewards), rtol=1e-12
    )
    sample = (np.array(rewards) - np.mean(rewards)) / np.std(rewards, ddof=1)
    np.testing.assert_allclose(group_advantages(outcomes(num_correct), std="sample"), sample)


@pytest.mark.parametrize("num_correct", [0, 8])
def test_equal_outcomes_have_no_advantage(num_correct):
    for advantages in (
        group_advantages(outcomes(num_correct)),
        pass_at_k_advantages(outcomes(num_correct), 4),
        mixed_pass_at_k_advantages(outcomes(num_correct), 4),
        static_pass_at_k_advantages(outcomes(num_correct), 4),
        dr_grpo_advantages(outcomes(num_correct)),
    ):
        np.testing.assert_array_equal(advantages, np.zeros(8))


@pytest.mark.parametrize("num_correct", range(9))
@pytest.mark.parametrize("k", [1, 2, 4, 8])
def test_equation_6_is_the_mean_advantage_over_all_draws_of_k_rollouts(num_correct, k):
    correct_G = outcomes(num_correct)
    if num_correct in {0, 8}:
        expected = [0.0] * 8
    else:
        expected = reference.chen_pass_at_k_advantages(correct_G.tolist(), k)
    np.testing.assert_allclose(pass_at_k_advantages(correct_G, k), expected, atol=1e-12)


def test_the_factors_and_all_mixes_have_the_tabulated_values():
    table = {
        1: (0.378, 0.456, 0.922, 0.876), 2: (0.302, 0.476, 0.825, 0.860),
        3: (0.215, 0.509, 0.706, 0.843), 4: (0.120, 0.560, 0.560, 0.824),
        5: (0.0, 0.625, 0.375, 0.8), 6: (0.0, 0.750, 0.250, 0.8), 7: (0.0, 0.875, 0.125, 0.8),
    }  # fmt: skip
    for num_correct, (factor, paper, chen, static) in table.items():
        correct_G = outcomes(num_correct)
        base = group_advantages(correct_G)
        # the table carries three decimals
        np.testing.assert_allclose(pass_at_k_factor(8, num_correct, 4), factor, atol=6e-4)
        for mix, weight in (("paper", paper), ("chen", chen)):
            mixed = mixed_pass_at_k_advantages(correct_G, 4, mix=mix)
            np.testing.assert_allclose(mixed / base, np.full(8, weight), atol=6e-4)
        fixed = static_pass_at_k_advantages(correct_G, 4)
        np.testing.assert_allclose(fixed / base, np.full(8, static), atol=6e-4)


def test_pass_at_1_training_is_grpo():
    for num_correct in range(1, 8):
        np.testing.assert_allclose(
            pass_at_k_advantages(outcomes(num_correct), 1), group_advantages(outcomes(num_correct))
        )


@pytest.mark.parametrize("num_correct", range(1, 8))
@pytest.mark.parametrize("std", ["population", "sample", "none"])
def test_pass_at_k_advantages_use_the_deviation_asked_for(num_correct, std):
    correct_G = outcomes(num_correct)
    base = group_advantages(correct_G, std=std)
    factor = pass_at_k_factor(8, num_correct, 4)
    q = num_correct / 8
    for actual, weight in (
        (pass_at_k_advantages(correct_G, 4, std=std), factor),
        (mixed_pass_at_k_advantages(correct_G, 4, std=std), q + (1 - q) * factor),
        (mixed_pass_at_k_advantages(correct_G, 4, mix="chen", std=std), q * factor + 1 - q),
        (static_pass_at_k_advantages(correct_G, 4, chi=0.5, std=std), 0.5 + 0.5 * factor),
    ):
        np.testing.assert_allclose(actual, weight * base, rtol=1e-12)


@pytest.mark.parametrize("num_correct", range(9))
def test_dr_grpo_is_the_reward_less_its_mean(num_correct):
    expected = [float(i < num_correct) - num_correct / 8 for i in range(8)]
    np.testing.assert_allclose(dr_grpo_advantages(outcomes(num_correct)), expected, atol=1e-15)
    np.testing.assert_array_equal(
        group_advantages(outcomes(num_correct), std="none"),
        dr_grpo_advantages(outcomes(num_correct)),
    )


@pytest.mark.parametrize("baseline", ["none", "loo", "loo-minus-one"])
@pytest.mark.parametrize("k", [1, 2, 3, 5])
@pytest.mark.parametrize("num_correct", range(7))
def test_pkpo_is_the_sum_over_all_sets_of_k_rollouts(num_correct, k, baseline):
    correct_G = outcomes(num_correct, size=6)
    expected = reference.pkpo_weights(correct_G.tolist(), k, baseline=baseline)
    # the paper's weights add up over rollouts; a loss takes the mean over them
    np.testing.assert_allclose(
        pkpo_advantages(correct_G, k, baseline=baseline) / 6, expected, rtol=1e-12, atol=1e-14
    )


def pkpo_moments(rho, size, k, baseline):
    """Mean and variance of the estimate over all outcomes of rollouts that are right with rho."""
    mean = square = 0.0
    for pattern in itertools.product([True, False], repeat=size):
        correct_G = torch.tensor(pattern)
        # grad log P(right) = 1 / rho, grad log P(wrong) = -1 / (1 - rho), in rho
        score_G = -1 / (1 - rho) + correct_G.double() / (rho * (1 - rho))
        chance = math.prod(rho if right else 1 - rho for right in pattern)
        estimate = float((pkpo_advantages(correct_G, k, baseline=baseline) * score_G).mean())
        mean += chance * estimate
        square += chance * estimate**2
    return mean, square - mean**2


@pytest.mark.parametrize(("size", "k"), [(5, 3), (6, 2), (4, 1), (8, 4)])
@pytest.mark.parametrize("rho", [0.1, 0.4, 0.8])
def test_pkpo_estimates_the_gradient_of_pass_at_k_without_bias(rho, size, k):
    gradient = k * (1 - rho) ** (k - 1)
    variances = {}
    for baseline in ("none", "loo", "loo-minus-one"):
        mean, variances[baseline] = pkpo_moments(rho, size, k, baseline)
        np.testing.assert_allclose(mean, gradient, rtol=1e-10)
    if k > 1:
        assert variances["loo-minus-one"] < variances["none"]


def test_pkpo_by_default_moves_the_correct_rollouts_only():
    # k C(N-, k - 1) / C(G - 1, k - 1) = 4 C(6, 3) / C(7, 3)
    np.testing.assert_allclose(pkpo_advantages(outcomes(2), 4), [16 / 7] * 2 + [0.0] * 6)
    np.testing.assert_array_equal(pkpo_advantages(outcomes(6), 4), np.zeros(8))


def test_thr_advantages_mask_then_reweigh_by_sign():
    thr_N = torch.tensor([2.0, -2.0, 0.5, -0.5, 1.0, math.nan])
    advantage_N = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, 1.0])
    np.testing.assert_allclose(
        thr_advantages(advantage_N, thr_N, 1.0, 0.25), [1.25, -0.75, 0, 0, 0, 0]
    )
    np.testing.assert_allclose(thr_advantages(advantage_N, thr_N, 1.0, 0.0), [1, -1, 0, 0, 0, 0])
    np.testing.assert_allclose(
        thr_advantages(advantage_N, thr_N, 0.0, -0.5), [0.5, -1.5, 0.5, -1.5, 0.5, 0]
    )


def test_the_first_order_change_of_the_likelihood_is_affine_in_p(case):
    """dF(p) = sum over dominant of |A| THR + p sum |A| |THR|, measured on W itself."""
    group, head = case.group, case.head
    thr_N = token_hidden_reward(group, head).thr_N
    tau = threshold(thr_N, group)
    advantage_N = group_advantages(group.correct_G)[group.rollout_index_N]

    mask = thr_N.abs() > tau
    net = (advantage_N.abs() * thr_N)[mask].sum()
    slope = (advantage_N.abs() * thr_N.abs())[mask].sum()
    changes = []
    for p in (-0.5, 0.0, 0.5):
        weight_VD = head.weight_VD.clone().requires_grad_()
        (
            thr_advantages(advantage_N, thr_N, tau, p) * log_probability(group, head, weight_VD)
        ).sum().backward()
        _, change = torch.func.jvp(
            lambda weight: mean_log_likelihood(group, head, weight),
            (head.weight_VD,),
            (weight_VD.grad,),
        )
        torch.testing.assert_close(change, net + p * slope, rtol=1e-9, atol=1e-11)
        changes.append(float(change))
    assert changes == sorted(changes)


@pytest.mark.parametrize("num_correct", range(1, 4))
def test_keeping_every_token_without_steering_is_grpo_bit_for_bit(case, num_correct):
    group = TokenGroup(
        case.group.hidden_ND,
        case.group.token_ids_N,
        case.group.rollout_index_N,
        outcomes(num_correct, size=4),
    )
    thr_N = token_hidden_reward(group, case.head).thr_N
    tau = threshold(thr_N, group, beta=-math.inf)
    advantage_N = group_advantages(group.correct_G)[group.rollout_index_N]
    torch.testing.assert_close(
        thr_advantages(advantage_N, thr_N, tau, 0.0), advantage_N, rtol=0, atol=0
    )


@pytest.mark.parametrize("p", [1.0, -1.0, math.nan, 2.0])
def test_a_p_that_could_flip_an_advantage_is_refused(p):
    with pytest.raises(UsageError, match="p must lie strictly between -1 and 1"):
        thr_advantages(torch.ones(1), torch.ones(1), 0.0, p)


def test_impossible_options_are_refused_by_name():
    with pytest.raises(UsageError, match=r"k must lie in 1\.\.8"):
        pass_at_k_advantages(outcomes(2), 9)
    with pytest.raises(UsageError, match=r"chi must lie in \[0, 1\], got 1.5"):
        static_pass_at_k_advantages(outcomes(2), 4, chi=1.5)
    with pytest.raises(UsageError, match="unknown baseline 'mean'"):
        pkpo_advantages(outcomes(2), 4, baseline="mean")
    with pytest.raises(UsageError, match=r"k must lie in 1\.\.7 for baseline 'loo', got 8"):
        pkpo_advantages(outcomes(2), 8, baseline="loo")
    with pytest.raises(UsageError, match=r"k must lie in 1\.\.8"):
        pkpo_advantages(outcomes(2), 0)
    with pytest.raises(UsageError, match="unknown mix"):
        mixed_pass_at_k_advantages(outcomes(2), 4, mix="half")
    with pytest.raises(UsageError, match="unknown std"):
        group_advantages(outcomes(2), std="robust")
