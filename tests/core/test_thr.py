"""THR against the literal loops, autograd, a JVP and the pairwise sum; tau; dominant tokens."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys

import numpy as np
import pytest
import reference
import torch
from cases import gradient_of_likelihood, log_probability, make_case, mean_log_likelihood
from hypothesis import given, settings
from hypothesis import strategies as st

from thr_probe.core.head import Head
from thr_probe.core.routes import likelihood_gradient
from thr_probe.core.thr import (
    TokenGroup,
    dominant_mask,
    influence_split,
    threshold,
    token_hidden_reward,
)
from thr_probe.errors import DataError, UsageError

close = torch.testing.assert_close


def sign(group):
    return torch.where(group.correct_G[group.rollout_index_N], 1.0, -1.0).double()


def test_thr_is_the_quadruple_loop_of_definition_4_1(case):
    expected = reference.thr_quadruple_loop(
        case.states, case.tokens, case.correct, case.weight, **case.keywords
    )
    close(
        token_hidden_reward(case.group, case.head).thr_N,
        case.packed(expected),
        rtol=1e-10,
        atol=1e-10,
    )


def test_the_pairwise_route_is_the_linear_route(case):
    linear = token_hidden_reward(case.group, case.head).thr_N
    for chunk_size in (1, 3, 100):
        pairs = token_hidden_reward(case.group, case.head, vocab="pairwise", chunk_size=chunk_size)
        close(pairs.thr_N, linear, rtol=1e-10, atol=1e-10)


def test_alpha_of_a_pair_is_its_decomposition_over_probabilities(plain_case):
    case = plain_case
    h, y = case.states[0][1], case.tokens[0][1]
    for j in range(4):
        for h_prime, y_prime in zip(case.states[j], case.tokens[j], strict=True):
            product = reference.residual(case.weight, h, y) @ reference.residual(
                case.weight, h_prime, y_prime
            )
            np.testing.assert_allclose(
                reference.alpha(case.weight, h, y, h_prime, y_prime), product, atol=1e-12
            )


def test_g_plus_is_the_gradient_of_the_correct_completions_mean_log_likelihood(case):
    group = case.group
    weight_G = group.correct_G.double() / group.lengths
    influence_VD = likelihood_gradient(
        group, case.head, weight_G[group.rollout_index_N], chunk_size=4
    )
    close(influence_VD, gradient_of_likelihood(case), rtol=1e-10, atol=1e-12)


def test_thr_is_the_jvp_of_the_log_probability_along_g_plus(case):
    direction_VD = gradient_of_likelihood(case)
    _, change_N = torch.func.jvp(
        lambda weight: log_probability(case.group, case.head, weight),
        (case.head.weight_VD,),
        (direction_VD,),
    )
    close(
        token_hidden_reward(case.group, case.head).thr_N,
        sign(case.group) * change_N,
        rtol=1e-10,
        atol=1e-10,
    )


def test_thr_is_a_finite_difference_of_the_likelihood_of_correct_completions(case):
    group, head, step = case.group, case.head, 1e-6
    thr_N = token_hidden_reward(group, head).thr_N
    for token in (0, 4, 9, 13):
        weight_VD = head.weight_VD.clone().requires_grad_()
        log_probability(group, head, weight_VD)[token].backward()
        step_VD = step * sign(group)[token] * weight_VD.grad
        up = mean_log_likelihood(group, head, head.weight_VD + step_VD)
        down = mean_log_likelihood(group, head, head.weight_VD - step_VD)
        close(thr_N[token], (up - down) / (2 * step), rtol=1e-5, atol=1e-8)


def test_a_trained_bias_adds_one_to_the_inner_product_of_states():
    case = make_case("bias")
    bias_V = case.head.bias_V.clone().requires_grad_()
    weight_VD = case.head.weight_VD.clone().requires_grad_()
    head = dataclasses.replace(case.head, bias_V=bias_V)
    mean_log_likelihood(case.group, head, weight_VD).backward()

    def moved(weight, bias):
        return log_probability(case.group, dataclasses.replace(case.head, bias_V=bias), weight)

    _, change_N = torch.func.jvp(
        moved, (case.head.weight_VD, case.head.bias_V), (weight_VD.grad, bias_V.grad)
    )
    thr = token_hidden_reward(case.group, case.head, bias_gradient=True).thr_N
    close(thr, sign(case.group) * change_N, rtol=1e-10, atol=1e-10)


def test_a_bias_gradient_without_a_bias_is_refused(plain_case):
    with pytest.raises(UsageError, match="no bias"):
        token_hidden_reward(plain_case.group, plain_case.head, bias_gradient=True)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    seed=st.integers(0, 1000),
    chunk_size=st.integers(1, 40),
    data=st.data(),
)
def test_chunk_size_and_order_of_rollouts_change_nothing(lengths, seed, chunk_size, data):
    correct = data.draw(st.lists(st.booleans(), min_size=len(lengths), max_size=len(lengths)))
    case = make_case(seed=seed, correct=tuple(correct), lengths=tuple(lengths))
    group, head = case.group, case.head
    whole = token_hidden_reward(group, head).thr_N
    close(
        token_hidden_reward(group, head, chunk_size=chunk_size).thr_N,
        whole,
        rtol=1e-9,
        atol=1e-10,
        equal_nan=True,
    )
    shuffled_G = torch.tensor(data.draw(st.permutations(range(len(lengths)))))
    new_index_N = shuffled_G[group.rollout_index_N]
    correct_G = torch.empty_like(group.correct_G)
    correct_G[shuffled_G] = group.correct_G
    order = torch.argsort(new_index_N, stable=True)
    permuted = TokenGroup(
        group.hidden_ND[order], group.token_ids_N[order], new_index_N[order], correct_G
    )
    close(
        token_hidden_reward(permuted, head).thr_N,
        whole[order],
        rtol=1e-9,
        atol=1e-10,
        equal_nan=True,
    )


def test_tokens_need_not_be_packed_rollout_by_rollout(plain_case):
    group = plain_case.group
    order = torch.randperm(14, generator=torch.Generator().manual_seed(1))
    mixed = TokenGroup(
        group.hidden_ND[order],
        group.token_ids_N[order],
        group.rollout_index_N[order],
        group.correct_G,
    )
    close(
        token_hidden_reward(mixed, plain_case.head).thr_N,
        token_hidden_reward(group, plain_case.head).thr_N[order],
    )


def test_without_a_correct_rollout_thr_and_tau_are_nan():
    case = make_case(correct=(False, False, False, False))
    for vocab in ("full", "pairwise"):
        assert token_hidden_reward(case.group, case.head, vocab=vocab).thr_N.isnan().all()
    split = influence_split(case.group, case.head)
    assert split.self_N.isnan().all()
    assert split.within_N.isnan().all()
    thr_N = token_hidden_reward(case.group, case.head).thr_N
    assert math.isnan(threshold(thr_N, case.group))
    assert not dominant_mask(thr_N, threshold(thr_N, case.group)).any()


def test_a_group_of_correct_rollouts_only_is_computed():
    case = make_case(correct=(True, True, True, True))
    expected = reference.thr_quadruple_loop(case.states, case.tokens, case.correct, case.weight)
    close(token_hidden_reward(case.group, case.head).thr_N, case.packed(expected))


def test_the_exact_routes_leave_nothing_out(plain_case):
    result = token_hidden_reward(plain_case.group, plain_case.head)
    close(result.thr_error_N, torch.zeros(14, dtype=torch.float64), rtol=0, atol=0)
    close(result.dropped_mass_N, torch.zeros(14, dtype=torch.float64), rtol=0, atol=0)


def test_a_restricted_vocabulary_loses_exactly_the_cross_terms_of_the_dropped_entries(plain_case):
    case = plain_case
    full = token_hidden_reward(case.group, case.head).thr_N.numpy()
    kept = np.unique(np.concatenate(case.tokens))
    assert len(kept) < 11
    restricted, left_out = reference.thr_restricted(
        case.states, case.tokens, case.correct, case.weight, kept
    )
    np.testing.assert_allclose(full - restricted, left_out, atol=1e-12)
    assert np.abs(left_out).max() > 1e-4
    everything, nothing = reference.thr_restricted(
        case.states, case.tokens, case.correct, case.weight, np.arange(11)
    )
    np.testing.assert_allclose(everything, full, atol=1e-12)
    np.testing.assert_allclose(nothing, 0, atol=0)


def test_an_unknown_route_is_refused(plain_case):
    with pytest.raises(UsageError, match="unknown vocab 'nucleus'"):
        token_hidden_reward(plain_case.group, plain_case.head, vocab="nucleus")


def test_sure_tokens_keep_their_sign_in_float32():
    """Sharp states, where u_y - <pi, u> cancels to zeros and wrong signs in float32."""
    generator = torch.Generator().manual_seed(3)
    weight_VD = torch.randn(50, 16, generator=generator, dtype=torch.float64)
    token_ids_N = torch.randint(50, (60,), generator=generator)
    # states that point along their own token's row: probability of the sampled token near 1
    hidden_ND = 1.3 * weight_VD[token_ids_N] + 0.3 * torch.randn(
        60, 16, generator=generator, dtype=torch.float64
    )
    index_N = torch.arange(60) // 15
    correct_G = torch.tensor([True, False, True, False])
    hidden_ND, weight_VD = hidden_ND.float(), weight_VD.float()
    exact = token_hidden_reward(
        TokenGroup(hidden_ND.double(), token_ids_N, index_N, correct_G), Head(weight_VD.double())
    ).thr_N
    single = token_hidden_reward(
        TokenGroup(hidden_ND, token_ids_N, index_N, correct_G), Head(weight_VD)
    ).thr_N
    assert single.dtype == torch.float32
    sure = exact.abs() < 1e-5
    assert sure.sum() > 20
    close(torch.sign(single[sure]), torch.sign(exact[sure]).float())
    close(single.double(), exact, rtol=2e-3, atol=1e-14)


def test_bf16_input_is_accumulated_in_float32(plain_case):
    group, head = plain_case.group, plain_case.head
    rounded = TokenGroup(
        group.hidden_ND.bfloat16(), group.token_ids_N, group.rollout_index_N, group.correct_G
    )
    rounded_head = Head(head.weight_VD.bfloat16())
    thr_N = token_hidden_reward(rounded, rounded_head).thr_N
    assert thr_N.dtype == torch.float32
    same_in_float64 = TokenGroup(
        rounded.hidden_ND.double(), group.token_ids_N, group.rollout_index_N, group.correct_G
    )
    exact = token_hidden_reward(same_in_float64, Head(rounded_head.weight_VD.double())).thr_N
    close(thr_N.double(), exact, rtol=1e-4, atol=1e-5)


def test_arguments_are_not_changed(case):
    hidden_ND, weight_VD = case.group.hidden_ND.clone(), case.head.weight_VD.clone()
    token_hidden_reward(case.group, case.head)
    influence_split(case.group, case.head)
    close(case.group.hidden_ND, hidden_ND, rtol=0, atol=0)
    close(case.head.weight_VD, weight_VD, rtol=0, atol=0)


def test_a_rollout_without_tokens_is_named():
    with pytest.raises(DataError, match="rollout 1 has no token"):
        TokenGroup(
            torch.zeros(2, 3),
            torch.zeros(2, dtype=torch.long),
            torch.zeros(2, dtype=torch.long),
            torch.tensor([True, False]),
        )


def test_lengths_and_indices_that_do_not_fit_are_named():
    ids = torch.zeros(2, dtype=torch.long)
    with pytest.raises(DataError, match=r"0\.\.0, got 0\.\.1"):
        TokenGroup(torch.zeros(2, 3), ids, torch.tensor([0, 1]), torch.tensor([True]))
    # without the test run's shape checker in front, as a user meets it
    program = """
import torch
from thr_probe.core.thr import TokenGroup
ids = torch.zeros(2, dtype=torch.long)
TokenGroup(torch.zeros(3, 3), ids, ids, torch.tensor([True]))
"""
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert "DataError: TokenGroup: 3 hidden states, 2 token ids, 2 rollout indices" in run.stderr


def test_ids_and_sizes_that_do_not_fit_the_head_are_named(plain_case):
    group = plain_case.group
    with pytest.raises(DataError, match="size 6, the unembedding takes 5"):
        token_hidden_reward(group, Head(torch.zeros(11, 5, dtype=torch.float64)))
    with pytest.raises(DataError, match="the unembedding has 4 rows"):
        token_hidden_reward(group, Head(torch.zeros(4, 6, dtype=torch.float64)))


def test_a_chunk_size_of_zero_is_refused(plain_case):
    with pytest.raises(DataError, match="chunk_size"):
        token_hidden_reward(plain_case.group, plain_case.head, chunk_size=0)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"temperature": 0.0}, "temperature"),
        ({"softcap": -1.0}, "softcap"),
        ({"scale": 0.0}, "scale"),
    ],
)
def test_an_impossible_head_is_refused(keywords, message):
    with pytest.raises(DataError, match=message):
        Head(torch.zeros(2, 2), **keywords)


@pytest.mark.gpu
def test_cuda_gives_the_numbers_of_the_cpu(case):
    group, head = case.group, case.head
    moved = TokenGroup(
        group.hidden_ND.cuda(),
        group.token_ids_N.cuda(),
        group.rollout_index_N.cuda(),
        group.correct_G.cuda(),
    )
    bias_V = None if head.bias_V is None else head.bias_V.cuda()
    moved_head = dataclasses.replace(head, weight_VD=head.weight_VD.cuda(), bias_V=bias_V)
    for vocab in ("full", "pairwise"):
        close(
            token_hidden_reward(moved, moved_head, vocab=vocab).thr_N.cpu(),
            token_hidden_reward(group, head).thr_N,
            rtol=1e-9,
            atol=1e-10,
        )
