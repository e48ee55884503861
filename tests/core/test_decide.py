"""The restricted route carried on until it decides what Equation 5 does."""

from __future__ import annotations

import math

import pytest
import torch
from cases import in_dtype, wide_case

from thr_probe.core.decide import decided, open_tokens
from thr_probe.core.routes import Route, prepared
from thr_probe.core.thr import dominant_mask, threshold, token_hidden_reward


def by(group, head, route, tau_of):
    group, head, weight_N = prepared(group, head)
    return decided(group, head, weight_N, route, sign_N=group.signs, tau_of=tau_of)


@pytest.mark.parametrize("beta", [1.0, 0.3, -1.0, -math.inf])
@pytest.mark.parametrize("sharpness", [0.0, 1.0, 4.0])
@pytest.mark.parametrize("eps", [1e-2, 1e-4])
@pytest.mark.parametrize("exact", [True, False])
def test_masks_and_signs_are_those_of_float64_but_for_undecided_tokens(beta, sharpness, eps, exact):
    for seed in range(6):
        group, head = in_dtype(*wide_case("plain", sharpness=sharpness, seed=seed), torch.float32)
        exact_N = token_hidden_reward(*in_dtype(group, head, torch.float64)).thr_N
        tau = threshold(exact_N, group, beta=beta)
        found = by(
            group,
            head,
            Route(vocab="sparse", eps=eps, chunk_size=16, exact=exact),
            lambda thr_N, group=group: threshold(thr_N, group, beta=beta),
        )
        dominant_N = dominant_mask(exact_N, tau)
        masks_agree_N = dominant_mask(found.score_N, found.tau) == dominant_N
        signs_agree_N = found.score_N.sign() == exact_N.sign()
        assert (masks_agree_N & (signs_agree_N | ~dominant_N) | found.undecided_N).all()
        assert not (found.undecided_N & ~found.open_N).any()
        if exact:
            assert not found.undecided_N.any()
        assert ((found.score_N - exact_N).abs() <= found.error_N).all()


def test_open_tokens_are_computed_again_and_counted():
    group, head = in_dtype(*wide_case("plain", sharpness=1.0), torch.float32)
    coarse = Route(vocab="sparse", eps=1e-2)
    found = by(group, head, coarse, lambda thr_N: threshold(thr_N, group))
    plain = token_hidden_reward(group, head, vocab="sparse", eps=1e-2)
    assert found.open_N.any()
    assert (found.error_N[found.open_N] < plain.thr_error_N[found.open_N]).all()
    assert found.num_columns > 0


def test_open_tokens_get_columns_in_several_rounds_and_keep_their_bound():
    for seed in range(4):
        group, head = in_dtype(*wide_case("plain", vocab_size=6000, seed=seed), torch.float32)
        exact_N = token_hidden_reward(*in_dtype(group, head, torch.float64)).thr_N
        found = by(
            group,
            head,
            Route(vocab="sparse", eps=1.0),
            lambda thr_N, group=group: threshold(thr_N, group, beta=-1.0),
        )
        assert found.num_columns >= 2 * 1024
        assert ((found.score_N - exact_N).abs() <= found.error_N).all()


def test_the_group_route_counts_open_tokens_and_leaves_them():
    group, head = wide_case("plain", sharpness=1.0)
    found = by(group, head, Route(vocab="group"), lambda thr_N: threshold(thr_N, group))
    plain = token_hidden_reward(group, head, vocab="group")
    assert found.open_N.any()
    torch.testing.assert_close(found.score_N, plain.thr_N, rtol=0, atol=0)
    assert found.num_columns == 0


def test_a_token_is_open_where_its_bound_reaches_tau_or_hides_a_sign_that_counts():
    score_N = torch.tensor([2.0, 1.05, 0.95, 0.1, -1.2, 0.0])
    error_N = torch.tensor([0.1, 0.1, 0.1, 0.2, 0.1, 0.0])
    assert open_tokens(score_N, error_N, 1.0).tolist() == [False, True, True, False, False, False]
    assert open_tokens(score_N, error_N, 1.0, 0.15).tolist()[4]
    nonpositive = open_tokens(score_N, error_N, -0.5)
    assert nonpositive.tolist() == [False, False, False, True, False, False]
    assert open_tokens(score_N, error_N, -math.inf).tolist() == nonpositive.tolist()


def test_an_exact_route_leaves_nothing_open():
    group, head = wide_case("plain")
    found = by(group, head, Route(vocab="full"), lambda thr_N: threshold(thr_N, group))
    assert not found.open_N.any()
    assert found.num_columns == 400
