"""Equations 1, 4, 5, 6 and the mixes against quotients, enumeration and measured changes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import reference
import torch
from cases import log_probability, mean_log_likelihood

from thr_probe.core.advantages import (
    group_advantages,
    mixed_pass_at_k_advantages,
    pass_at_k_advantages,
    pass_at_k_factor,
    thr_advantages,
)
from thr_probe.core.thr import threshold, token_hidden_reward
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


def test_the_factors_and_both_mixes_have_the_tabulated_values():
    table = {
        1: (0.378, 0.456, 0.922), 2: (0.302, 0.476, 0.825), 3: (0.215, 0.509, 0.706),
        4: (0.120, 0.560, 0.560), 5: (0.0, 0.625, 0.375), 6: (0.0, 0.750, 0.250),
        7: (0.0, 0.875, 0.125),
    }  # fmt: skip
    for num_correct, (factor, paper, chen) in table.items():
        correct_G = outcomes(num_correct)
        base = group_advantages(correct_G)
        # the table carries three decimals
        np.testing.assert_allclose(pass_at_k_factor(8, num_correct, 4), factor, atol=6e-4)
        for mix, weight in (("paper", paper), ("chen", chen)):
            mixed = mixed_pass_at_k_advantages(correct_G, 4, mix=mix)
            np.testing.assert_allclose(mixed / base, np.full(8, weight), atol=6e-4)


def test_pass_at_1_training_is_grpo():
    for num_correct in range(1, 8):
        np.testing.assert_allclose(
            pass_at_k_advantages(outcomes(num_correct), 1), group_advantages(outcomes(num_correct))
        )


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


@pytest.mark.parametrize("p", [1.0, -1.0, math.nan, 2.0])
def test_a_p_that_could_flip_an_advantage_is_refused(p):
    with pytest.raises(UsageError, match="p must lie strictly between -1 and 1"):
        thr_advantages(torch.ones(1), torch.ones(1), 0.0, p)


def test_impossible_options_are_refused_by_name():
    with pytest.raises(UsageError, match=r"k must lie in 1\.\.8"):
        pass_at_k_advantages(outcomes(2), 9)
    with pytest.raises(UsageError, match="unknown mix"):
        mixed_pass_at_k_advantages(outcomes(2), 4, mix="half")
    with pytest.raises(UsageError, match="unknown std"):
        group_advantages(outcomes(2), std="robust")
