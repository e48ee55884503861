"""The influence split, tau and the dominant tokens against autograd and the literal formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import reference
import torch
from cases import gradient_of_likelihood, log_probability, make_case

from thr_probe.core.thr import (
    dominant_mask,
    influence_split,
    retain_top_threshold,
    threshold,
    token_hidden_reward,
)
from thr_probe.errors import UsageError

close = torch.testing.assert_close


def completion_gradients(case):
    """g_i of each correct completion by autograd, None for the incorrect."""
    gradients = []
    for i in range(4):
        weight_VD = case.head.weight_VD.clone().requires_grad_()
        logprob_N = log_probability(case.group, case.head, weight_VD)
        logprob_N[case.group.rollout_index_N == i].mean().backward()
        gradients.append(weight_VD.grad if case.correct[i] else None)
    return gradients


def test_influence_splits_into_the_token_itself_and_its_own_completion(case):
    group, head = case.group, case.head
    for vocab in ("full", "pairwise"):
        split = influence_split(group, head, vocab=vocab, chunk_size=3)
        for token in range(14):
            rollout = int(group.rollout_index_N[token])
            if not case.correct[rollout]:
                assert split.self_N[token] == 0
                assert split.within_N[token] == 0
                continue
            weight_VD = head.weight_VD.clone().requires_grad_()
            log_probability(group, head, weight_VD)[token].backward()
            own_VD = completion_gradients(case)[rollout]
            close(split.within_N[token], (weight_VD.grad * own_VD).sum(), rtol=1e-9, atol=1e-11)
            itself = weight_VD.grad.square().sum() / len(case.tokens[rollout])
            close(split.self_N[token], itself, rtol=1e-9, atol=1e-11)


def test_tau_is_the_least_mean_thr_of_a_correct_completion(case):
    scores = reference.thr_quadruple_loop(
        case.states, case.tokens, case.correct, case.weight, **case.keywords
    )
    thr_N = token_hidden_reward(case.group, case.head).thr_N
    for beta in (0.0, 0.1, 1.0):
        np.testing.assert_allclose(
            threshold(thr_N, case.group, beta=beta),
            reference.tau(scores, case.correct, beta=beta),
            atol=1e-10,
        )
    means = [np.mean(scores[0]), np.mean(scores[2])]
    np.testing.assert_allclose(threshold(thr_N, case.group, reduce="mean"), np.mean(means))


def test_the_mean_thr_of_correct_completions_adds_up_to_the_squared_norm_of_g_plus(case):
    group = case.group
    thr_N = token_hidden_reward(group, case.head).thr_N
    means = torch.stack([thr_N[group.rollout_index_N == i].mean() for i in (0, 2)])
    close(means.sum(), gradient_of_likelihood(case).square().sum(), rtol=1e-10, atol=1e-12)


def test_excluding_self_influence_takes_the_squared_norm_of_each_completion_away(case):
    group = case.group
    thr_N = token_hidden_reward(group, case.head).thr_N
    within_N = influence_split(group, case.head).within_N
    gradients = completion_gradients(case)
    influence_VD = gradient_of_likelihood(case)
    expected = min(
        float((g * influence_VD).sum() - g.square().sum()) for g in gradients if g is not None
    )
    tau = threshold(thr_N, group, self_influence="exclude", within_N=within_N)
    np.testing.assert_allclose(tau, expected, rtol=1e-9, atol=1e-11)


def test_a_single_correct_rollout_without_self_influence_gives_tau_zero():
    case = make_case(correct=(False, True, False, False))
    thr_N = token_hidden_reward(case.group, case.head).thr_N
    within_N = influence_split(case.group, case.head).within_N
    tau = threshold(thr_N, case.group, self_influence="exclude", within_N=within_N)
    np.testing.assert_allclose(tau, 0, atol=1e-12)
    included = threshold(thr_N, case.group)
    np.testing.assert_allclose(included, float(gradient_of_likelihood(case).square().sum()))


def test_beta_minus_infinity_keeps_every_token(case):
    thr_N = token_hidden_reward(case.group, case.head).thr_N
    tau = threshold(thr_N, case.group, beta=-math.inf)
    assert tau == -math.inf
    assert dominant_mask(thr_N, tau).all()


def test_excluding_self_influence_needs_the_split(plain_case):
    thr_N = token_hidden_reward(plain_case.group, plain_case.head).thr_N
    with pytest.raises(UsageError, match="within_N"):
        threshold(thr_N, plain_case.group, self_influence="exclude")
    with pytest.raises(UsageError, match="reduce='median'"):
        threshold(thr_N, plain_case.group, reduce="median")


def test_dominance_is_strict_and_of_the_absolute_value():
    thr_N = torch.tensor([-2.0, -1.0, 0.0, 1.0, 1.5, math.nan])
    assert dominant_mask(thr_N, 1.0).tolist() == [True, False, False, False, True, False]
    assert dominant_mask(thr_N, 0.0).tolist() == [True, True, False, True, True, False]


def test_retain_top_keeps_the_asked_share():
    thr_N = torch.tensor([0.1, -3.0, 2.0, -0.2, 0.5, 0.0, 1.0, -1.5, 0.3, 0.4])
    for share, kept in ((0.1, 1), (0.25, 2), (0.5, 5), (1.0, 10)):
        assert int(dominant_mask(thr_N, retain_top_threshold(thr_N, share)).sum()) == kept
    with pytest.raises(UsageError, match="retain_top"):
        retain_top_threshold(thr_N, 0.0)
