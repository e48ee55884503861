"""A group scored through a real model, against autograd through that model and a literal loop."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import reference
import torch
from tiny_models import tiny_policy
from torch.testing import assert_close

from thr_probe.errors import DataError, UsageError
from thr_probe.probe import ProbeOptions, score_group

PROMPT = [2, 50, 61, 7]
COMPLETIONS = [[10, 11, 12, 1], [200, 1], [33, 34, 35, 10, 11, 12, 1], [99, 98, 1], [10, 7]]
CORRECT = [True, False, True, False, True]
FAMILIES = ["qwen2", "qwen3", "llama", "gemma2", "gpt2", "cohere", "phi"]

FLOAT32_ATTENTION = {"gemma2": {"rtol": 5e-6, "atol": 2e-6}}
"""Gemma 2 soft-caps its attention, which makes transformers take the softmax itself, in float32
even in a float64 model: its sum, and so the states by some 1e-7, depend on the padding."""


def untied(family, **options):
    """Autograd on the unembedding alone needs it to be a weight of its own."""
    return tiny_policy(family, tie_word_embeddings=False, **options)


def own_logprobs(policy, completion, temperature):
    """log pi of a completion's tokens through the model's own forward, unpadded."""
    ids = torch.tensor([[*PROMPT, *completion]])
    logits = policy.model(input_ids=ids).logits[0, len(PROMPT) - 1 : -1]
    return torch.log_softmax(logits / temperature, dim=-1)[range(len(completion)), completion]


def autograd_thr(policy, temperature):
    """<d log pi(y_jk') / dW, G+> with G+ = d F / dW, both by autograd through the model."""
    weight = policy.model.get_output_embeddings().weight
    likelihood = sum(
        own_logprobs(policy, completion, temperature).mean()
        for completion, correct in zip(COMPLETIONS, CORRECT, strict=True)
        if correct
    )
    (influence,) = torch.autograd.grad(likelihood, weight)
    thr = []
    for completion, correct in zip(COMPLETIONS, CORRECT, strict=True):
        for logprob in own_logprobs(policy, completion, temperature):
            (gradient,) = torch.autograd.grad(logprob, weight, retain_graph=True)
            thr.append((1 if correct else -1) * float((gradient * influence).sum()))
    return torch.tensor(thr, dtype=torch.float64)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("family", FAMILIES)
def test_thr_is_the_derivative_along_the_correct_completions_likelihood(family, temperature):
    policy = untied(family)
    options = ProbeOptions(temperature=temperature, vocab="full")
    scores = score_group(policy, PROMPT, COMPLETIONS, CORRECT, options=options)
    tolerance = FLOAT32_ATTENTION.get(family, {"rtol": 1e-7, "atol": 1e-9})
    exact_N = autograd_thr(policy, temperature)
    assert_close(scores.thr_N, exact_N, **tolerance)
    bounded = score_group(
        policy, PROMPT, COMPLETIONS, CORRECT, options=replace(options, vocab="sparse", error=True)
    )
    rounding_N = tolerance["rtol"] * exact_N.abs() + tolerance["atol"]
    assert ((bounded.thr_N - exact_N).abs() <= bounded.thr_error_N + rounding_N).all()
    assert_close(bounded.retained_G, scores.retained_G, rtol=0, atol=0)


def test_a_bound_of_an_exact_route_is_refused():
    with pytest.raises(UsageError, match="bound on the error of THR and vocab 'full'"):
        ProbeOptions(vocab="full", error=True)


def test_thr_under_a_soft_cap_that_bites():
    policy = untied("gemma2", initializer_range=3.0)
    hidden = policy.hidden(PROMPT, COMPLETIONS)
    assert (hidden @ policy.head().weight_VD.T).abs().max() > 40
    options = ProbeOptions(vocab="full")
    scores = score_group(policy, PROMPT, COMPLETIONS, CORRECT, options=options)
    assert_close(scores.thr_N, autograd_thr(policy, 1.0), **FLOAT32_ATTENTION["gemma2"])


@pytest.mark.parametrize("vocab", ["full", "pairwise"])
def test_thr_and_tau_are_those_of_the_quadruple_loop(vocab):
    policy = tiny_policy("llama")
    ends = np.cumsum([len(completion) for completion in COMPLETIONS])
    states = np.split(policy.hidden(PROMPT, COMPLETIONS).numpy(), ends[:-1])
    expected = reference.thr_quadruple_loop(
        states, COMPLETIONS, CORRECT, policy.head().weight_VD.numpy()
    )
    scores = score_group(
        policy, PROMPT, COMPLETIONS, CORRECT, options=ProbeOptions(vocab=vocab, chunk_size=3)
    )
    np.testing.assert_allclose(
        scores.thr_N.numpy(), np.concatenate(expected), rtol=1e-8, atol=1e-10
    )
    tau = reference.tau(expected, CORRECT)
    assert scores.tau == pytest.approx(tau, rel=1e-9)
    retained = [sum(abs(score) > tau for score in row) / len(row) for row in expected]
    np.testing.assert_allclose(scores.retained_G.numpy(), retained, rtol=1e-12)
    assert any(0 < share < 1 for share in retained)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprob_and_entropy_are_the_models(temperature):
    policy = tiny_policy("qwen2")
    scores = score_group(
        policy, PROMPT, COMPLETIONS, CORRECT, options=ProbeOptions(temperature=temperature)
    )
    with torch.no_grad():
        expected = torch.cat([own_logprobs(policy, c, temperature) for c in COMPLETIONS])
    assert_close(scores.logprob_N, expected, rtol=1e-8, atol=1e-9)
    assert scores.entropy_N.shape == expected.shape
    assert float(scores.entropy_N.max()) < math.log(270)


def test_counts_advantages_and_lengths_of_the_group():
    scores = score_group(tiny_policy(), PROMPT, COMPLETIONS, CORRECT)
    assert (scores.num_correct, scores.q) == (3, 0.6)
    assert scores.lengths_G.tolist() == [4, 2, 7, 3, 2]
    assert scores.advantage_G.tolist() == pytest.approx(
        reference.grpo_advantages([float(correct) for correct in CORRECT])
    )


def test_greedy_rollouts_are_scored_at_temperature_one():
    policy = tiny_policy()
    at_zero, at_one = (
        score_group(
            policy, PROMPT, COMPLETIONS, CORRECT, options=ProbeOptions(temperature=temperature)
        )
        for temperature in (0.0, 1.0)
    )
    assert_close(at_zero.thr_N, at_one.thr_N, rtol=0, atol=0)
    assert_close(at_zero.logprob_N, at_one.logprob_N, rtol=0, atol=0)


def test_without_a_correct_rollout_thr_is_undefined_and_the_rest_is_not():
    scores = score_group(
        tiny_policy(), PROMPT, COMPLETIONS, [False] * 5, options=ProbeOptions(split=True)
    )
    assert bool(scores.thr_N.isnan().all())
    assert bool(scores.thr_within_N.isnan().all())
    assert bool(scores.retained_G.isnan().all())
    assert math.isnan(scores.tau)
    assert bool(scores.logprob_N.isfinite().all())
    assert (scores.q, scores.num_correct) == (0.0, 0)
    assert scores.advantage_G.tolist() == [0.0] * 5


def test_a_group_of_correct_rollouts_has_thr_and_no_advantage():
    scores = score_group(tiny_policy(), PROMPT, COMPLETIONS, [True] * 5)
    assert bool(scores.thr_N.isfinite().all())
    assert scores.advantage_G.tolist() == [0.0] * 5


def test_the_split_is_given_only_where_asked_for():
    policy = tiny_policy()
    plain = score_group(policy, PROMPT, COMPLETIONS, CORRECT)
    assert plain.thr_self_N is None
    assert plain.thr_within_N is None
    split = score_group(policy, PROMPT, COMPLETIONS, CORRECT, options=ProbeOptions(split=True))
    incorrect = torch.tensor([False] * 4 + [True] * 2 + [False] * 7 + [True] * 3 + [False] * 2)
    assert bool((split.thr_within_N[incorrect] == 0).all())
    # a lone correct rollout influences nobody but itself
    lone = score_group(policy, PROMPT, COMPLETIONS[:1], [True], options=ProbeOptions(split=True))
    assert_close(lone.thr_within_N, lone.thr_N, rtol=1e-10, atol=1e-12)


def test_tau_without_self_influence_leaves_out_each_completions_own_part():
    policy = tiny_policy()
    options = ProbeOptions(self_influence="exclude", split=True)
    scores = score_group(policy, PROMPT, COMPLETIONS, CORRECT, options=options)
    other_N = scores.thr_N - scores.thr_within_N
    means = [float(part.mean()) for part in other_N.split(scores.lengths_G.tolist())]
    assert scores.tau == pytest.approx(min(means[0], means[2], means[4]))
    hidden_split = score_group(
        policy, PROMPT, COMPLETIONS, CORRECT, options=ProbeOptions(self_influence="exclude")
    )
    assert hidden_split.tau == scores.tau
    assert hidden_split.thr_within_N is None


def test_beta_and_the_mean_reach_tau():
    policy = tiny_policy()
    scores = score_group(
        policy, PROMPT, COMPLETIONS, CORRECT, options=ProbeOptions(beta=0.5, reduce="mean")
    )
    means = [float(part.mean()) for part in scores.thr_N.split(scores.lengths_G.tolist())]
    assert scores.tau == pytest.approx(0.5 * (means[0] + means[2] + means[4]) / 3)
    everything = score_group(
        policy, PROMPT, COMPLETIONS, CORRECT, options=ProbeOptions(beta=-math.inf)
    )
    assert everything.retained_G.tolist() == [1.0] * 5


def test_batching_and_the_order_of_rollouts_change_nothing_beyond_rounding():
    policy = tiny_policy("gpt2")
    whole = score_group(policy, PROMPT, COMPLETIONS, CORRECT)
    single = score_group(
        policy, PROMPT, COMPLETIONS, CORRECT, options=ProbeOptions(batch_tokens=1, chunk_size=2)
    )
    assert_close(single.thr_N, whole.thr_N, rtol=1e-9, atol=1e-11)
    reverse = score_group(policy, PROMPT, COMPLETIONS[::-1], CORRECT[::-1])
    parts = whole.thr_N.split(whole.lengths_G.tolist())
    assert_close(reverse.thr_N, torch.cat(parts[::-1]), rtol=1e-9, atol=1e-11)
    assert reverse.tau == pytest.approx(whole.tau)


def test_float32_and_bfloat16_policies_give_float32_scores_by_the_full_route():
    full = {"options": ProbeOptions(vocab="full")}
    exact = score_group(tiny_policy("qwen2"), PROMPT, COMPLETIONS, CORRECT, **full)
    float32 = tiny_policy("qwen2", dtype=torch.float32)
    single = score_group(float32, PROMPT, COMPLETIONS, CORRECT, **full)
    assert single.thr_N.dtype == torch.float32
    assert_close(single.thr_N, exact.thr_N.float(), rtol=1e-3, atol=1e-4)
    bfloat16 = tiny_policy("qwen2", dtype=torch.bfloat16)
    half = score_group(bfloat16, PROMPT, COMPLETIONS, CORRECT, **full)
    assert half.thr_N.dtype == half.logprob_N.dtype == torch.float32
    assert bool((half.thr_N.sign() == exact.thr_N.sign())[exact.thr_N.abs() > 1].all())


@pytest.mark.parametrize(
    ("completions", "correct", "sentence"),
    [
        ([[3], []], [True, False], "prompt abc, rollout 1: the completion is empty"),
        ([[3], [4]], [True], "prompt abc: 2 completions, 1 verdicts"),
    ],
)
def test_groups_that_cannot_be_scored_are_named(completions, correct, sentence):
    with pytest.raises(DataError, match=sentence):
        score_group(tiny_policy(), PROMPT, completions, correct, prompt_id="abc")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"temperature": -0.5}, "temperature must be 0 or positive"),
        ({"vocab": "nucleus"}, "nucleus"),
    ],
)
def test_options_that_do_not_exist_are_refused(options, sentence):
    with pytest.raises(UsageError, match=sentence):
        score_group(tiny_policy(), PROMPT, COMPLETIONS, CORRECT, options=ProbeOptions(**options))
