"""NTHR's score against the literal loop, the log-likelihood's derivative and THR."""

from __future__ import annotations

import math

import pytest
import reference
import torch
from cases import log_probability, make_case
from torch.testing import assert_close

from thr_probe.core.nthr import unit_influence
from thr_probe.core.thr import threshold, token_hidden_reward
from thr_probe.errors import DataError, UsageError


@pytest.mark.parametrize("vocab", ["full", "pairwise"])
@pytest.mark.parametrize("chunk_size", [1, 5, 1024])
def test_the_score_is_the_literal_sum_over_pairs_of_tokens(case, vocab, chunk_size):
    expected = reference.unit_influence(
        case.states, case.tokens, case.correct, case.weight, **case.keywords
    )
    actual = unit_influence(case.group, case.head, vocab=vocab, chunk_size=chunk_size)
    assert_close(actual, case.packed(expected), rtol=1e-9, atol=1e-10)


def test_the_score_is_the_derivative_along_the_correct_completions_whole_likelihood(case):
    group, head = case.group, case.head
    weight_VD = head.weight_VD.clone().requires_grad_()
    correct_N = group.correct_G[group.rollout_index_N]
    log_probability(group, head, weight_VD)[correct_N].sum().backward()
    _, change_N = torch.func.jvp(
        lambda weight: log_probability(group, head, weight), (head.weight_VD,), (weight_VD.grad,)
    )
    assert_close(unit_influence(group, head), change_N, rtol=1e-9, atol=1e-10)


def test_completions_of_one_length_have_thr_times_that_length_but_for_the_sign():
    case = make_case("everything", lengths=(4, 4, 4, 4))
    thr_N = token_hidden_reward(case.group, case.head).thr_N
    assert_close(unit_influence(case.group, case.head), 4 * case.group.signs * thr_N)


def test_its_threshold_is_the_least_mean_score_of_a_correct_completion(case):
    score = reference.unit_influence(
        case.states, case.tokens, case.correct, case.weight, **case.keywords
    )
    actual = threshold(unit_influence(case.group, case.head), case.group)
    assert actual == pytest.approx(reference.tau(score, case.correct), rel=1e-9)


def test_without_a_correct_rollout_the_score_is_undefined():
    case = make_case(correct=(False,) * 4)
    actual = unit_influence(case.group, case.head)
    assert actual.shape == case.group.token_ids_N.shape
    assert bool(actual.isnan().all())
    assert math.isnan(threshold(actual, case.group))


def test_the_score_of_float32_states_is_float32(plain_case):
    group, head = plain_case.group, plain_case.head
    single = type(group)(
        group.hidden_ND.float(), group.token_ids_N, group.rollout_index_N, group.correct_G
    )
    actual = unit_influence(single, head)
    assert actual.dtype == torch.float32
    assert_close(actual.double(), unit_influence(group, head), rtol=1e-4, atol=1e-4)


def test_routes_and_tokens_that_do_not_exist_are_refused(plain_case):
    with pytest.raises(UsageError, match="unknown vocab 'nucleus'"):
        unit_influence(plain_case.group, plain_case.head, vocab="nucleus")
    short = type(plain_case.head)(plain_case.head.weight_VD[:3])
    with pytest.raises(DataError, match="token ids run from"):
        unit_influence(plain_case.group, short)
