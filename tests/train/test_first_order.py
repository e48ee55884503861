"""The exact first-order statement about THR(p), by the trainer's own loss and real policies."""

from __future__ import annotations

import math

import pytest
import reference
import torch
from tiny_models import tiny_policy
from torch.testing import assert_close

from thr_probe.errors import IncompleteError, UsageError
from thr_probe.lab import lab_problems, prompt_text
from thr_probe.policy import load_policy
from thr_probe.problems import load_verifier
from thr_probe.sampling import Prompt, SamplingSettings
from thr_probe.sampling.hf import TransformersSampler
from thr_probe.train.first_order import SECOND_ORDER, first_order_check

PS = (-0.5, 0.0, 0.5)
PROMPT = [2, 50, 61, 7]
COMPLETIONS = [[10, 11, 12, 1], [200, 1], [33, 34, 35, 10, 11, 12, 1], [99, 98, 1], [10, 7]]
CORRECT = [True, False, True, False, True]


@pytest.fixture(scope="module")
def lab_policy():
    return load_policy("lab", device="cpu")


@pytest.fixture(scope="module")
def questions(lab_policy):
    """The first two of the lab's problems that the shipped policy sometimes solves."""
    sampler = TransformersSampler(policy=lab_policy)
    settings = SamplingSettings(group_size=8, max_new_tokens=192, seed=0)
    found = []
    with load_verifier("math", num_workers=1) as verifier:
        for problem in lab_problems("train", 40):
            ids = lab_policy.encode_prompt(prompt_text(problem.question))
            prompt = Prompt(prompt_id=problem.question, token_ids=ids)
            (group,) = sampler.sample([prompt], settings)
            completions = [completion.token_ids for completion in group]
            texts = [lab_policy.decode(completion) for completion in completions]
            verdicts = verifier.verify(texts, [problem.answer] * len(texts))
            correct = [verdict.correct for verdict in verdicts]
            if 1 < sum(correct) < len(correct) - 1:
                found.append((ids, completions, correct))
            if len(found) == 2:
                return found
    raise AssertionError("fewer than two of the lab's first problems are sometimes solved")


def assert_first_order(rows):
    """A step changes F by e (net + p slope), measured, within 1 % of the larger of the two."""
    assert [row.p for row in rows] == list(PS)
    for row in rows:
        known = row.steering
        scale = max(abs(known.net), known.slope)
        assert row.second_order < SECOND_ORDER
        assert abs(row.measured - (known.net + row.p * known.slope)) < 0.01 * scale
        assert row.error == pytest.approx(abs(row.measured - row.predicted) / scale)
    measured = [row.measured for row in rows]
    assert measured == sorted(measured)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("family", ["llama", "gemma2", "cohere"])
def test_one_sgd_step_changes_the_likelihood_as_thr_says(family, temperature):
    policy = tiny_policy(family)
    rows = first_order_check(policy, PROMPT, COMPLETIONS, CORRECT, ps=PS, temperature=temperature)
    assert_first_order(rows)


def test_a_soft_cap_that_bites_is_part_of_the_statement():
    policy = tiny_policy("gemma2", initializer_range=3.0)
    assert (policy.hidden(PROMPT, COMPLETIONS) @ policy.head().weight_VD.T).abs().max() > 40
    assert_first_order(first_order_check(policy, PROMPT, COMPLETIONS, CORRECT))


@pytest.mark.parametrize("number", [0, 1])
def test_one_sgd_step_on_the_lab_policy_changes_the_likelihood_as_thr_says(
    lab_policy, questions, number
):
    rows = first_order_check(lab_policy, *questions[number])
    assert_first_order(rows)
    assert 0 < rows[0].steering.influence_captured < 1


def test_net_and_slope_are_sums_over_the_quadruple_loop():
    policy = tiny_policy("llama")
    states = [policy.hidden(PROMPT, [completion]).numpy() for completion in COMPLETIONS]
    thr = reference.thr_quadruple_loop(
        states, COMPLETIONS, CORRECT, policy.head().weight_VD.numpy()
    )
    tau = reference.tau(thr, CORRECT)
    advantages = reference.grpo_advantages([float(verdict) for verdict in CORRECT])
    expected = reference.steering(thr, advantages, tau)
    known = first_order_check(policy, PROMPT, COMPLETIONS, CORRECT, ps=(0.0,))[0].steering
    assert (known.net, known.slope, known.total) == pytest.approx(expected, rel=1e-8)


def test_the_policy_is_left_as_it_was(lab_policy, questions):
    before = {name: weight.clone() for name, weight in lab_policy.model.named_parameters()}
    first_order_check(lab_policy, *questions[0], ps=(0.5,))
    for name, weight in lab_policy.model.named_parameters():
        assert_close(weight, before[name], rtol=0, atol=0)
        assert weight.grad is None


@pytest.mark.parametrize("verdict", [True, False])
def test_a_question_whose_verdicts_are_all_the_same_is_refused(verdict):
    with pytest.raises(UsageError, match="right and completions that are wrong"):
        first_order_check(tiny_policy(), PROMPT, COMPLETIONS, [verdict] * 5)


def test_a_question_without_any_drift_is_named():
    policy = tiny_policy()
    with torch.no_grad():
        # states of 0: THR is 0 everywhere, no token is dominant and no step moves anything
        policy.model.model.norm.weight.zero_()
    with pytest.raises(IncompleteError, match="dF is not linear") as caught:
        first_order_check(policy, PROMPT, COMPLETIONS, CORRECT)
    assert "larger net drift" in str(caught.value.hint)


def test_a_p_that_flips_an_advantage_is_refused():
    with pytest.raises(UsageError, match="p must lie strictly"):
        first_order_check(tiny_policy(), PROMPT, COMPLETIONS, CORRECT, ps=(math.nan,))
