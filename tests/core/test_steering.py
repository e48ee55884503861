"""net, slope and total against loops, and dF(p) measured by finite differences on W."""

from __future__ import annotations

import math

import pytest
import reference
import torch
from cases import log_probability, make_case, mean_log_likelihood

from thr_probe.core.advantages import (
    group_advantages,
    kept_entropy_advantages,
    thr_advantages,
    top_entropy_mask,
)
from thr_probe.core.head import head_pass
from thr_probe.core.steering import Steering, steering
from thr_probe.core.thr import dominant_mask, threshold, token_hidden_reward


def parts(case):
    """Advantage, THR, tau and the dominant tokens of a group."""
    thr_N = token_hidden_reward(case.group, case.head).thr_N
    tau = threshold(thr_N, case.group)
    advantage_N = group_advantages(case.group.correct_G)[case.group.rollout_index_N]
    return advantage_N, thr_N, tau, dominant_mask(thr_N, tau)


def measured(case, advantage_N, step_size=1e-5):
    """dF per unit of step size, by a central difference, of the gradient step with advantages."""
    weight_VD = case.head.weight_VD.clone().requires_grad_()
    (advantage_N * log_probability(case.group, case.head, weight_VD)).sum().backward()
    above, below = (
        mean_log_likelihood(case.group, case.head, case.head.weight_VD + step * weight_VD.grad)
        for step in (step_size, -step_size)
    )
    return float(above - below) / (2 * step_size)


def test_the_three_sums_are_those_of_the_loop(case):
    advantage_N, thr_N, tau, dominant_N = parts(case)
    lengths = [len(tokens) for tokens in case.tokens]
    expected = reference.steering(
        [part.tolist() for part in thr_N.split(lengths)],
        reference.grpo_advantages([float(verdict) for verdict in case.correct]),
        tau,
    )
    known = steering(advantage_N, thr_N, dominant_N, dominant_N)
    assert (known.net, known.slope, known.total) == pytest.approx(expected, rel=1e-10)


def test_the_measured_change_of_the_likelihood_is_affine_in_p(case):
    advantage_N, thr_N, tau, dominant_N = parts(case)
    known = steering(advantage_N, thr_N, dominant_N, dominant_N)
    assert known.slope > 0
    for p in (-0.9, -0.5, 0.0, 0.3, 0.9):
        change = measured(case, thr_advantages(advantage_N, thr_N, tau, p))
        scale = abs(known.net) + known.slope
        assert change == pytest.approx(known.net + p * known.slope, abs=1e-5 * scale)


def test_kept_entropy_tokens_count_in_net_and_not_in_slope(case):
    advantage_N, thr_N, tau, dominant_N = parts(case)
    read = head_pass(case.group.hidden_ND, case.group.token_ids_N, case.head)
    top_N = top_entropy_mask(read.entropy_N, 0.4)
    assert bool((top_N & ~dominant_N).any())
    known = steering(advantage_N, thr_N, dominant_N, dominant_N | top_N)
    for p in (-0.5, 0.0, 0.5):
        weighted_N = thr_advantages(advantage_N, thr_N, tau, p)
        kept_N = kept_entropy_advantages(advantage_N, weighted_N, dominant_N, top_N)
        scale = abs(known.net) + known.slope
        expected = known.net + p * known.slope
        assert measured(case, kept_N) == pytest.approx(expected, abs=1e-5 * scale)


def test_the_drift_vanishes_at_p_zero_and_the_shares_lie_between_0_and_1(case):
    advantage_N, thr_N, _, dominant_N = parts(case)
    known = steering(advantage_N, thr_N, dominant_N, dominant_N)
    assert known.net + known.p_zero * known.slope == pytest.approx(0, abs=1e-12 * known.slope)
    assert 0 < known.influence_captured <= 1
    every_N = torch.ones_like(dominant_N)
    assert steering(advantage_N, thr_N, every_N, every_N).influence_captured == 1


def test_p_zero_and_the_captured_share_have_the_values_of_their_quotients():
    known = Steering(net=-1.0, slope=4.0, total=5.0)
    assert (known.p_zero, known.influence_captured) == (0.25, 0.8)
    nothing = Steering(net=0.0, slope=0.0, total=0.0)
    assert math.isnan(nothing.p_zero)
    assert math.isnan(nothing.influence_captured)


def test_without_a_correct_rollout_nothing_is_defined():
    case = make_case(correct=(False,) * 4)
    advantage_N, thr_N, _, dominant_N = parts(case)
    known = steering(advantage_N, thr_N, dominant_N, dominant_N)
    values = (known.net, known.slope, known.total, known.p_zero, known.influence_captured)
    assert all(math.isnan(value) for value in values)


def test_a_group_of_correct_rollouts_has_no_advantage_and_so_no_drift():
    case = make_case(correct=(True,) * 4)
    advantage_N, thr_N, _, dominant_N = parts(case)
    known = steering(advantage_N, thr_N, dominant_N, dominant_N)
    assert (known.net, known.slope, known.total) == (0.0, 0.0, 0.0)
