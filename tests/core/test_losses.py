"""Losses and aggregates against literal loops: values, gradients, clips and penalties."""

from __future__ import annotations

import math

import pytest
import reference
import torch
from torch.testing import assert_close

from thr_probe.core.losses import (
    AGGREGATES,
    aggregate_weights,
    clipped_loss,
    gspo_loss,
    gspo_token_loss,
    k3,
    kl_cov_loss,
    rollout_means,
)
from thr_probe.errors import UsageError

LENGTHS = torch.tensor([5, 1, 7, 3, 6, 2])
GROUPS = torch.tensor([4, 9, 4, 9, 9, 2])
INDEX = torch.arange(len(LENGTHS)).repeat_interleave(LENGTHS)
RANGE = {"clip_low": 0.2, "clip_high": 0.28}


def batch(*, seed=0, spread=0.4, by_token=True):
    """logprob (a leaf), old_logprob, advantage of every token."""
    generator = torch.Generator().manual_seed(seed)
    size = int(LENGTHS.sum())
    old_N = -3 * torch.rand(size, generator=generator, dtype=torch.float64)
    noise_N = spread * torch.randn(size, generator=generator, dtype=torch.float64)
    advantage_R = torch.tensor([1.2, -0.7, 0.5, -2.0, 0.9, -1.1], dtype=torch.float64)
    weight_N = torch.rand(size, generator=generator, dtype=torch.float64) + 0.5
    advantage_N = advantage_R[INDEX] * (weight_N if by_token else 1.0)
    return (old_N + noise_N).requires_grad_(), old_N, advantage_N


def by_rollout(value_N):
    return [part.tolist() for part in value_N.detach().split(LENGTHS.tolist())]


def total(loss_N, aggregate, **options):
    weight_R = aggregate_weights(LENGTHS, GROUPS, aggregate=aggregate, **options)
    return (weight_R[INDEX] * loss_N).sum()


def gradient(value, logprob_N):
    return torch.autograd.grad(value, logprob_N, retain_graph=True)[0]


def slope(function, logprob_N, step=1e-6):
    """Central differences of a number in every log-probability."""
    found_N = torch.zeros_like(logprob_N)
    for n in range(len(found_N)):
        moved = [logprob_N.detach().clone() for _ in range(2)]
        moved[0][n] += step
        moved[1][n] -= step
        found_N[n] = (function(moved[0]) - function(moved[1])) / (2 * step)
    return found_N


# aggregates


def test_the_weights_of_each_aggregate_are_its_quotients():
    tokens, lengths, groups = int(LENGTHS.sum()), LENGTHS.tolist(), GROUPS.tolist()
    own = [sum(n for n, g in zip(lengths, groups, strict=True) if g == mine) for mine in groups]
    expected = {
        "group-token-mean": [1 / (3 * length) for length in own],
        "token-mean": [1 / tokens] * 6,
        "sequence-mean": [1 / (6 * length) for length in lengths],
        "dr-grpo": [1 / (6 * 40)] * 6,
    }
    assert set(expected) == set(AGGREGATES)
    for aggregate, weights in expected.items():
        actual = aggregate_weights(LENGTHS, GROUPS, aggregate=aggregate, max_length=40)
        assert_close(actual, torch.tensor(weights, dtype=torch.float64), rtol=1e-14, atol=0)


@pytest.mark.parametrize("aggregate", ["group-token-mean", "token-mean", "sequence-mean"])
def test_a_loss_of_one_everywhere_has_a_mean_of_one(aggregate):
    assert float(total(torch.ones(len(INDEX)).double(), aggregate)) == pytest.approx(1.0)


@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_rollouts_without_counted_tokens_weigh_nothing(aggregate):
    counted_R = torch.tensor([0, 1, 0, 3, 0, 0])
    weight_R = aggregate_weights(counted_R, GROUPS, aggregate=aggregate, max_length=9)
    assert weight_R[counted_R == 0].tolist() == [0.0] * 4
    assert bool((weight_R[counted_R > 0] > 0).all())
    nothing_R = aggregate_weights(0 * LENGTHS, GROUPS, aggregate=aggregate, max_length=9)
    assert nothing_R.tolist() == [0.0] * 6


def test_a_question_of_which_nothing_is_counted_still_counts_as_one():
    counted_R, group_R = torch.tensor([2, 2, 0]), torch.tensor([0, 0, 1])
    weight_R = aggregate_weights(counted_R, group_R, aggregate="group-token-mean")
    assert weight_R.tolist() == [1 / 8, 1 / 8, 0]


def test_aggregates_that_do_not_exist_are_refused():
    with pytest.raises(UsageError, match="unknown aggregate 'mean'; choose one of group"):
        aggregate_weights(LENGTHS, GROUPS, aggregate="mean")
    for length in (None, 0):
        with pytest.raises(UsageError, match="divides by a constant length"):
            aggregate_weights(LENGTHS, GROUPS, aggregate="dr-grpo", max_length=length)


# Equation 2


@pytest.mark.parametrize("spread", [0.05, 0.4, 2.0])
def test_equation_2_is_the_double_mean_of_the_loop(spread):
    logprob_N, old_N, advantage_N = batch(spread=spread)

    def objective(moved_N):
        return reference.equation_2(
            by_rollout(moved_N),
            by_rollout(old_N),
            by_rollout(advantage_N),
            GROUPS.tolist(),
            low=0.2,
            high=0.28,
        )

    loss = clipped_loss(logprob_N, old_N, advantage_N, **RANGE)
    value = total(loss.loss_N, "group-token-mean")
    assert value.item() == pytest.approx(-objective(logprob_N), rel=1e-12)
    assert_close(gradient(value, logprob_N), -slope(objective, logprob_N), rtol=1e-6, atol=5e-9)
    assert bool(loss.clipped_N.any()) == (spread > 0.05)


@pytest.mark.parametrize("clip_low", [0.0, 0.2])
def test_at_ratio_1_the_gradient_is_the_policy_gradient_for_any_clip(clip_low):
    logprob_N, _, advantage_N = batch()
    old_N = logprob_N.detach().clone()
    clip = {"clip_low": clip_low, "clip_high": clip_low}
    losses = [
        clipped_loss(logprob_N, old_N, advantage_N, **clip),
        clipped_loss(logprob_N, old_N, advantage_N, **clip, dual_clip=3.0),
        gspo_token_loss(logprob_N, old_N, advantage_N, INDEX, **clip),
        kl_cov_loss(logprob_N, old_N, advantage_N, advantage_N > 0, coef=1.0),
    ]
    for loss in losses:
        assert_close(loss.loss_N, -advantage_N)
        assert_close(gradient(loss.loss_N.sum(), logprob_N), -advantage_N)
        assert not bool(loss.clipped_N.any())


def test_the_four_sides_of_the_clip():
    ratio = torch.tensor([1.5, 0.5, 1.5, 0.5], dtype=torch.float64)
    logprob_N = ratio.log().requires_grad_()
    advantage_N = torch.tensor([1.0, 1.0, -1.0, -1.0], dtype=torch.float64)
    loss = clipped_loss(logprob_N, torch.zeros(4).double(), advantage_N, **RANGE)
    assert_close(loss.loss_N.detach(), torch.tensor([-1.28, -0.5, 1.5, 0.8]).double())
    assert loss.clipped_N.tolist() == [True, False, False, True]
    expected = torch.tensor([0.0, -0.5, 1.5, 0.0], dtype=torch.float64)
    assert_close(gradient(loss.loss_N.sum(), logprob_N), expected)


def test_the_dual_clip_bounds_the_loss_of_negative_advantages():
    logprob_N = torch.tensor([9.0, 2.5, 9.0], dtype=torch.float64).log().requires_grad_()
    advantage_N = torch.tensor([-2.0, -2.0, 2.0], dtype=torch.float64)
    zero_N = torch.zeros(3, dtype=torch.float64)
    loss = clipped_loss(logprob_N, zero_N, advantage_N, **RANGE, dual_clip=3.0)
    assert_close(loss.loss_N.detach(), torch.tensor([6.0, 5.0, -2.56]).double())
    assert loss.clipped_N.tolist() == [True, False, True]
    assert_close(gradient(loss.loss_N.sum(), logprob_N), torch.tensor([0.0, 5.0, 0.0]).double())


@pytest.mark.parametrize("advantage", [0.0, 1.0])
def test_a_ratio_that_overflows_leaves_no_nan_where_it_is_clipped_or_masked(advantage):
    logprob_N = torch.tensor([0.0, -1.0], requires_grad=True)
    old_N, advantage_N = torch.tensor([-200.0, -1.0]), torch.full((2,), advantage)
    index_N = torch.tensor([0, 1])
    for loss in (
        clipped_loss(logprob_N, old_N, advantage_N, **RANGE),
        gspo_loss(logprob_N, old_N, advantage_N, index_N, **RANGE),
        gspo_token_loss(logprob_N, old_N, advantage_N, index_N, **RANGE),
    ):
        assert_close(loss.loss_N.detach(), torch.tensor([-1.28, -1.0]) * advantage)
        assert_close(gradient(loss.loss_N.sum(), logprob_N), torch.tensor([0.0, -advantage]))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"clip_low": 1.0, "clip_high": 0.2}, r"clip_low must lie in \[0, 1\), got 1.0"),
        ({"clip_low": -0.1, "clip_high": 0.2}, "clip_low"),
        ({"clip_low": 0.2, "clip_high": -0.1}, "clip_high must not be negative"),
        ({"clip_low": 0.2, "clip_high": math.inf}, "clip_high"),
        ({"clip_low": math.nan, "clip_high": 0.2}, "clip_low"),
    ],
)
def test_impossible_clip_ranges_are_refused(options, words):
    parts = batch()
    with pytest.raises(UsageError, match=words):
        clipped_loss(*parts, **options)
    for objective in (gspo_loss, gspo_token_loss):
        with pytest.raises(UsageError, match=words):
            objective(*parts, INDEX, **options)


def test_a_dual_clip_of_one_is_refused():
    with pytest.raises(UsageError, match="dual_clip must be greater than 1"):
        clipped_loss(*batch(), **RANGE, dual_clip=1.0)


# GSPO


@pytest.mark.parametrize(("low", "high"), [(0.2, 0.2), (0.03, 0.05)])
def test_gspo_is_equation_7_of_the_loop_and_gspo_token_equals_it(low, high):
    """Value and gradient, where the advantage is constant within each rollout (METHOD 12, 9)."""
    logprob_N, old_N, advantage_N = batch(by_token=False)
    advantage_of = [row[0] for row in by_rollout(advantage_N)]

    def objective(moved_N):
        return reference.gspo_objective(
            by_rollout(moved_N), by_rollout(old_N), advantage_of, low=low, high=high
        )

    clip = {"clip_low": low, "clip_high": high}
    losses = [
        loss(logprob_N, old_N, advantage_N, INDEX, **clip) for loss in (gspo_loss, gspo_token_loss)
    ]
    for loss in losses:
        value = total(loss.loss_N, "sequence-mean")
        assert value.item() == pytest.approx(-objective(logprob_N), rel=1e-12)
        assert_close(gradient(value, logprob_N), -slope(objective, logprob_N), rtol=1e-6, atol=5e-9)
    assert_close(losses[0].clipped_N, losses[1].clipped_N)
    assert bool(losses[0].clipped_N.any())
    assert not bool(losses[0].clipped_N.all())


def test_the_gradient_of_gspo_token_is_the_formula_appendix_a_leaves_out():
    logprob_N, old_N, advantage_N = batch(spread=0.1)
    loss = gspo_token_loss(logprob_N, old_N, advantage_N, INDEX, clip_low=0.9, clip_high=9.0)
    assert not bool(loss.clipped_N.any())
    ratio_N = rollout_means(logprob_N.detach() - old_N, INDEX).exp()
    # -1/G s_i 1/|y_i| A_ik d log pi
    expected = -ratio_N * advantage_N / (6 * LENGTHS[INDEX])
    actual = gradient(total(loss.loss_N, "sequence-mean"), logprob_N)
    assert_close(actual, expected, rtol=1e-12, atol=1e-14)


def test_at_ratio_1_gspo_has_the_gradient_of_grpos_sequence_mean():
    logprob_N, _, advantage_N = batch(by_token=False)
    old_N = logprob_N.detach().clone()
    expected = gradient(
        total(clipped_loss(logprob_N, old_N, advantage_N, **RANGE).loss_N, "sequence-mean"),
        logprob_N,
    )
    for objective in (gspo_loss, gspo_token_loss):
        loss = objective(logprob_N, old_N, advantage_N, INDEX, **RANGE)
        actual = gradient(total(loss.loss_N, "sequence-mean"), logprob_N)
        assert_close(actual, expected, rtol=1e-12, atol=1e-14)


def test_token_advantages_of_one_sign_are_clipped_completion_by_completion():
    logprob_N, old_N, advantage_N = batch(spread=0.6)
    loss = gspo_token_loss(logprob_N, old_N, advantage_N, INDEX, clip_low=0.05, clip_high=0.05)
    for part in loss.clipped_N.split(LENGTHS.tolist()):
        assert bool(part.all()) or not bool(part.any())


def test_rollout_means_of_nothing_are_nothing():
    assert len(rollout_means(torch.zeros(0), torch.zeros(0, dtype=torch.long))) == 0


# k3


def test_k3_is_never_negative_and_has_its_value_and_gradient():
    logprob_N, ref_N, _ = batch(spread=1.5)
    difference_N = (ref_N - logprob_N).detach()
    actual = k3(logprob_N, ref_N)
    assert bool((actual >= 0).all())
    inside_N = actual < 10
    assert_close(actual[inside_N], (difference_N.exp() - difference_N - 1)[inside_N])
    expected = torch.where(inside_N, 1 - difference_N.exp(), 0.0)
    assert_close(gradient(actual.sum(), logprob_N), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_k3_of_tiny_huge_and_no_differences(dtype):
    ref_N = torch.tensor([0.0, 1e-4, -1e-4, 1e-9, 500.0, -500.0], dtype=dtype)
    logprob_N = torch.zeros(6, dtype=dtype, requires_grad=True)
    actual = k3(logprob_N, ref_N)
    expected = torch.tensor([0.0, 5e-9, 5e-9, 0.0, 10.0, 10.0], dtype=dtype)
    # float32 resolves 1e-4 to about 1e-11
    assert_close(actual.detach(), expected, rtol=1e-3, atol=2e-11)
    assert bool((actual >= 0).all())
    assert bool(gradient(actual.sum(), logprob_N).isfinite().all())
    assert gradient(actual.sum(), logprob_N)[0] == 0
