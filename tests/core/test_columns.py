"""The restricted routes against the whole vocabulary: their bounds hold, their columns converge."""

from __future__ import annotations

import pytest
import torch
from cases import HEADS, in_dtype, wide_case

from thr_probe.core.columns import (
    every_column,
    more_columns,
    own_columns,
    pass_for_columns,
)
from thr_probe.core.group import TokenGroup
from thr_probe.core.head import Head
from thr_probe.core.routes import Route, prepared
from thr_probe.core.thr import influence_split, token_hidden_reward
from thr_probe.errors import UsageError

close = torch.testing.assert_close
RESTRICTED = [
    {"vocab": "group"},
    {"vocab": "sparse"},
    {"vocab": "sparse", "tolerance": 0.3},
    {"vocab": "sparse", "eps": 0.0},
    {"vocab": "sparse", "eps": 1e-3},
    {"vocab": "sparse", "eps": 0.05},
]


def assert_certified(group, head, options, **keywords):
    """|thr - exact| <= thr_error, with the exact one in float64 from the same inputs."""
    exact_N = token_hidden_reward(*in_dtype(group, head, torch.float64), **keywords).thr_N
    found = token_hidden_reward(group, head, **options, **keywords)
    assert found.thr_N.dtype == torch.float64
    error_N = (found.thr_N - exact_N).abs()
    assert (error_N <= found.thr_error_N).all(), (error_N / found.thr_error_N).max()
    return exact_N, found


@pytest.mark.parametrize("options", RESTRICTED, ids=str)
@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_bound_holds(kind, options, dtype):
    for sharpness in (0.0, 1.0, 3.0, 8.0):
        group, head = in_dtype(*wide_case(kind, sharpness=sharpness), dtype)
        assert_certified(group, head, {**options, "chunk_size": 17})


@pytest.mark.parametrize("options", RESTRICTED, ids=str)
@pytest.mark.parametrize(
    "correct", [(False, False, True, False), (True, True, True, True)], ids=["one", "all"]
)
def test_the_bound_holds_with_one_correct_rollout_and_with_all(correct, options):
    for seed in range(5):
        group, head = in_dtype(*wide_case("plain", correct=correct, seed=seed), torch.float32)
        assert_certified(group, head, options)


@pytest.mark.parametrize("options", RESTRICTED, ids=str)
@pytest.mark.parametrize("kind", ["bias", "everything"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_bound_holds_where_the_bias_counts(options, kind, dtype):
    group, head = in_dtype(*wide_case(kind), dtype)
    assert_certified(group, head, options, bias_gradient=True)


def test_products_of_less_than_float32_precision_have_no_bound():
    group, head = in_dtype(*wide_case("plain"), torch.float32)
    torch.set_float32_matmul_precision("medium")
    try:
        with pytest.raises(UsageError, match="matmul precision is 'medium'"):
            token_hidden_reward(group, head, vocab="sparse")
        assert token_hidden_reward(group, head).thr_N.isfinite().all()
    finally:
        torch.set_float32_matmul_precision("highest")


def test_mass_is_dropped_also_where_its_influence_is_below_the_smallest_number():
    # the correct rollout is so sure that its probability of the other columns is 0 in float32
    weight_VD = torch.tensor([[200.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 0.5]])
    hidden_ND = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    group = TokenGroup(
        hidden_ND, torch.tensor([0, 1]), torch.tensor([0, 1]), torch.tensor([True, False])
    )
    found = token_hidden_reward(group, Head(weight_VD), vocab="group")
    outside = (hidden_ND @ weight_VD.T).softmax(dim=1)[:, 2:].sum(dim=1)
    assert outside[1] > 0.3
    assert (found.dropped_mass_N >= outside.double() * (1 - 1e-6)).all()


def test_what_is_dropped_is_the_mass_outside_of_the_completions_ids():
    group, head = wide_case("everything")
    found = token_hidden_reward(group, head, vocab="group")
    logits_NV = head.scale * (group.hidden_ND @ head.weight_VD.T) + head.bias_V
    logits_NV = head.softcap * torch.tanh(logits_NV / head.softcap) / head.temperature
    pi_NV = logits_NV.softmax(dim=1)
    pi_NV[:, group.token_ids_N] = 0.0
    close(found.dropped_mass_N, pi_NV.sum(dim=1), rtol=1e-9, atol=1e-12)


def test_a_smaller_tolerance_takes_more_columns_and_meets_it():
    group, head = wide_case("plain")
    exact_N = token_hidden_reward(group, head).thr_N
    bounds = []
    for tolerance in (1e-1, 1e-2, 1e-4):
        found = token_hidden_reward(group, head, vocab="sparse", tolerance=tolerance)
        bounds.append(float(found.thr_error_N.mean()))
        assert bounds[-1] <= 1.1 * tolerance * float(exact_N.abs().mean())
    assert bounds == sorted(bounds, reverse=True)


@pytest.mark.parametrize("kind", HEADS)
def test_every_column_is_the_full_route_in_float64(kind):
    group, head = in_dtype(*wide_case(kind), torch.float32)
    exact_N = group.signs * token_hidden_reward(*in_dtype(group, head, torch.float64)).thr_N
    group, head, weight_N = prepared(group, head)
    read = pass_for_columns(group, head, weight_N, chunk_size=7)
    start = own_columns(group, head, weight_N, read, chunk_size=7)
    rows = torch.tensor([3, 20, 41, 59])
    found = every_column(start, rows)
    close(found.change_N[rows], exact_N[rows], rtol=1e-10, atol=1e-12)
    assert (found.error[rows] <= 1e-9 * exact_N.abs().max()).all()


def test_columns_for_some_tokens_leave_the_others_with_their_bound():
    group, head, weight_N = prepared(*wide_case("plain"))
    read = pass_for_columns(group, head, weight_N, chunk_size=1024)
    start = own_columns(group, head, weight_N, read, chunk_size=1024)
    rows = torch.tensor([0, 1, 2, 30])
    found = more_columns(start, 50, rows)
    others = torch.ones(60, dtype=torch.bool)
    others[rows] = False
    close(found.change_N[others], start.change_N[others], rtol=0, atol=0)
    close(found.error[others], start.error[others], rtol=0, atol=0)
    assert (found.error[rows] < start.error[rows]).all()
    with pytest.raises(AssertionError, match="a token lacks earlier columns"):
        more_columns(found, 50)
    exact_N = group.signs * token_hidden_reward(group, head).thr_N
    assert ((found.change_N - exact_N).abs() <= found.error).all()


@pytest.mark.parametrize("options", RESTRICTED, ids=str)
@pytest.mark.parametrize("kind", HEADS)
def test_the_split_is_bounded_too(kind, options):
    group, head = wide_case(kind)
    exact = influence_split(group, head)
    found = influence_split(group, head, **options)
    assert ((found.within_N - exact.within_N).abs() <= found.error_N).all()
    assert ((found.self_N - exact.self_N).abs() <= 2 * found.error_N).all()


def test_impossible_options_are_refused():
    with pytest.raises(UsageError, match="tolerance must be positive, got 0"):
        Route(vocab="sparse", tolerance=0.0)
    with pytest.raises(UsageError, match="eps must be 0 or positive"):
        Route(vocab="sparse", eps=-1e-3)
    with pytest.raises(UsageError, match="eps does nothing with vocab 'full'"):
        Route(vocab="full", eps=1e-3)
    with pytest.raises(UsageError, match="exact does nothing with vocab 'group'"):
        Route(vocab="group", exact=True)
