"""GWHES against Equation 3 written out, autograd, and what it says of a step."""

from __future__ import annotations

import math

import pytest
import reference
import torch
from cases import HEADS, log_probability, make_case
from torch.testing import assert_close

from thr_probe.core.advantages import group_advantages
from thr_probe.core.gwhes import gwhes
from thr_probe.errors import UsageError


def written_out(case):
    """Equation 3, token pair by token pair."""
    size, right = len(case.correct), sum(case.correct)
    q = right / size
    q_plus, q_minus = math.sqrt((1 - q) / q), math.sqrt(q / (1 - q))
    residuals = [
        [
            reference.residual(case.weight, h, y, **case.keywords)
            for h, y in zip(states, tokens, strict=True)
        ]
        for states, tokens in zip(case.states, case.tokens, strict=True)
    ]

    def pairs(i, j):
        total = 0.0
        for k in range(len(case.tokens[i])):
            for other in range(len(case.tokens[j])):
                alpha = sum(
                    a * b for a, b in zip(residuals[i][k], residuals[j][other], strict=True)
                )
                total += alpha * float(case.states[i][k] @ case.states[j][other])
        return total

    scores = []
    for i in range(size):
        if not case.correct[i]:
            scores.append(math.nan)
            continue
        negative = sum(pairs(i, j) for j in range(size) if not case.correct[j])
        positive = sum(pairs(i, j) for j in range(size) if case.correct[j])
        scores.append(q_minus * negative - q_plus * positive)
    return torch.tensor(scores, dtype=torch.float64)


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("correct", [(True, False, True, False), (False, False, True, False)])
def test_it_is_equation_3_written_out(kind, correct):
    case = make_case(kind, correct=correct)
    assert_close(
        gwhes(case.group, case.head).score, written_out(case), rtol=1e-9, atol=1e-9,
        equal_nan=True,
    )  # fmt: skip


@pytest.mark.parametrize("kind", HEADS)
def test_it_is_minus_the_derivative_along_the_gradient_of_the_weighted_likelihoods(kind):
    case = make_case(kind, lengths=(4, 2, 3, 5), correct=(True, True, False, True))
    group, head = case.group, case.head
    advantage_N = group_advantages(group.correct_G)[group.rollout_index_N]
    weight_VD = head.weight_VD.clone().requires_grad_()
    (advantage_N * log_probability(group, head, weight_VD)).sum().backward()
    _, change_N = torch.func.jvp(
        lambda weight: log_probability(group, head, weight), (head.weight_VD,), (weight_VD.grad,)
    )
    expected_G = torch.stack([change_N[group.rollout_index_N == i].sum() for i in range(4)])
    actual_G = gwhes(group, head).score
    right_G = group.correct_G
    assert_close(-actual_G[right_G], expected_G[right_G], rtol=1e-9, atol=1e-9)
    assert bool(actual_G[~right_G].isnan().all())


@pytest.mark.parametrize("vocab", ["pairwise", "sparse"])
def test_the_routes_agree(vocab):
    case = make_case()
    full_G = gwhes(case.group, case.head).score
    other_G = gwhes(case.group, case.head, vocab=vocab).score
    # sparse bounds its error by a thousandth
    tolerance = {"pairwise": 1e-9, "sparse": 1e-2}[vocab]
    assert_close(other_G, full_G, rtol=tolerance, atol=tolerance, equal_nan=True)


def test_the_chunk_size_and_the_order_of_the_rollouts_do_not_matter():
    case = make_case("everything")
    whole_G = gwhes(case.group, case.head).score
    assert_close(gwhes(case.group, case.head, chunk_size=3).score, whole_G, equal_nan=True)
    group = case.group
    mirrored = type(group)(
        group.hidden_ND.flip(0), group.token_ids_N.flip(0), 3 - group.rollout_index_N.flip(0),
        group.correct_G.flip(0),
    )  # fmt: skip
    assert_close(gwhes(mirrored, case.head).score.flip(0), whole_G, equal_nan=True)


def test_the_parts_add_up_and_the_own_part_is_a_squared_norm():
    case = make_case(correct=(True, False, False, False))
    found = gwhes(case.group, case.head)
    assert_close(found.score, found.from_incorrect_G - found.from_correct_G, equal_nan=True)
    # a single correct rollout is rewarded along its own S: q+ |S|^2
    assert float(found.from_correct_G[0]) > 0


@pytest.mark.parametrize("verdict", [True, False])
def test_a_group_of_one_outcome_has_no_score(verdict):
    case = make_case(correct=(verdict,) * 4)
    assert bool(gwhes(case.group, case.head).score.isnan().all())


def test_routes_that_do_not_exist_are_refused():
    case = make_case()
    with pytest.raises(UsageError, match="unknown vocab 'nucleus'"):
        gwhes(case.group, case.head, vocab="nucleus")
