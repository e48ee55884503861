"""Every causal family of transformers that can be built small: supported, or refused by name."""

from __future__ import annotations

import pytest
import torch
from tiny_families import VOCAB_SIZE, small_model
from tiny_models import byte_tokenizer
from torch.testing import assert_close
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from thr_probe.core.head import logits_and_slope
from thr_probe.core.thr import TokenGroup, token_hidden_reward
from thr_probe.errors import PrerequisiteError
from thr_probe.policy import as_policy
from thr_probe.policy.families import (
    LogitRule,
    capture_states,
    check_logits,
    known_families,
    logit_rule,
    unembedding,
)
from thr_probe.policy.known import DECODERS, REFUSED
from thr_probe.probe import ProbeOptions, score_group
from thr_probe.train.module import PolicyModule

PROMPT = [5, 50, 61, 7]
COMPLETIONS = [[10, 11, 1], [20, 33, 34, 1], [7, 7, 9]]
CORRECT = [True, False, True]
NAMES = sorted({name for names in known_families().values() for name in names})
CAPS = known_families()["soft-capped"]
SCALES = known_families()["scaled"]
ROWS = known_families()["first rows of W h"]
BIASED = [
    *("codegen", "ctrl", "ernie4_5_moe", "gptj", "modernbert-decoder", "phi", "phimoe", "zaya"),
    *(name for name in DECODERS if name != "reformer"),
]
SINGLE = {"rtol": 2e-4, "atol": 2e-5}


def supported_model(family):
    """The family's model with untied weights and logits so large that a soft-cap bends them."""
    model = small_model(family, **({"is_decoder": True} if family in DECODERS else {}))
    head = unembedding(model)
    states = states_and_logits(model)[0]
    rule = logit_rule(model.config)
    size = (rule.scale * states @ head.weight.T).abs().max()
    largest = 1.5 * rule.softcap if rule.softcap else 8.0
    # a parameter of its own: what it changes must not reach the embedding
    head.weight = torch.nn.Parameter((head.weight * (largest / size)).detach().clone())
    return model


def states_and_logits(model, **inputs):
    ids = inputs.pop("ids", [*PROMPT, *COMPLETIONS[1]])
    with capture_states(model, keep_logits=True) as states, torch.set_grad_enabled(bool(inputs)):
        logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits
    return states[0][0].detach(), logits[0]


def own_logprobs(model):
    """log pi of every completion token by the model's own logits, differentiable."""
    rows = []
    for completion in COMPLETIONS:
        ids = [*PROMPT, *completion]
        _, logits = states_and_logits(model, ids=ids, differentiable=True)
        logprob = torch.log_softmax(logits.float(), dim=-1)[len(PROMPT) - 1 : -1]
        rows.append(logprob[range(len(completion)), completion])
    return rows


def influence_by_autograd(model, weights):
    """THR from the model's own forward pass: <d log pi / d weights, d F / d weights>."""
    for weight in model.parameters():
        weight.requires_grad_(False)
    for weight in weights:
        weight.requires_grad_(True)
    rows = own_logprobs(model)
    likelihood = sum(row.mean() for row, verdict in zip(rows, CORRECT, strict=True) if verdict)
    direction = torch.autograd.grad(likelihood, weights, retain_graph=True)
    found = []
    for row, verdict in zip(rows, CORRECT, strict=True):
        for logprob in row:
            own = torch.autograd.grad(logprob, weights, retain_graph=True)
            product = sum((a * b).sum() for a, b in zip(own, direction, strict=True))
            found.append(product if verdict else -product)
    return torch.stack(found), torch.cat(rows).detach()


@pytest.mark.parametrize("family", NAMES)
def test_head_score_and_thr_of_a_known_family_are_those_of_the_models_own_logits(family):
    model = supported_model(family)
    policy = as_policy(model, byte_tokenizer(), name=family)
    states, logits = states_and_logits(model)
    head = policy.head()
    assert_close(logits_and_slope(states.float(), head)[0], logits.float(), **SINGLE)

    scores = score_group(policy, PROMPT, COMPLETIONS, CORRECT, options=ProbeOptions(vocab="full"))
    thr_N, logprob_N = influence_by_autograd(model, [unembedding(model).weight])
    assert_close(scores.logprob_N, logprob_N, rtol=1e-3, atol=1e-4)
    size = float(thr_N.abs().max())
    assert_close(scores.thr_N / size, thr_N / size, rtol=1e-3, atol=1e-4)
    assert size > 0
    assert (head.bias_V is not None) == (family in BIASED)


@pytest.mark.parametrize("family", BIASED)
def test_a_trained_bias_counts_only_where_it_is_asked_for(family):
    model = supported_model(family)
    policy = as_policy(model, byte_tokenizer(), name=family)
    head = unembedding(model)
    group = TokenGroup(
        policy.hidden(PROMPT, COMPLETIONS),
        torch.tensor([token for completion in COMPLETIONS for token in completion]),
        torch.arange(3).repeat_interleave(torch.tensor([3, 4, 3])),
        torch.tensor(CORRECT),
    )
    with_bias_N, _ = influence_by_autograd(model, [head.weight, head.bias])
    counted = token_hidden_reward(group, policy.head(), bias_gradient=True).thr_N
    size = float(with_bias_N.abs().max())
    assert_close(counted / size, with_bias_N / size, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("family", CAPS)
def test_logits_of_a_soft_capped_family_are_bent(family):
    model = supported_model(family)
    cap = logit_rule(model.config).softcap
    states, logits = states_and_logits(model)
    raw = states.float() @ unembedding(model).weight.T
    assert raw.abs().max() > 1.4 * cap
    assert 0.8 * cap < logits.abs().max() < cap


@pytest.mark.parametrize("family", [*CAPS, *SCALES, *ROWS])
def test_a_plain_rule_is_refused_where_the_family_has_another(family):
    with pytest.raises(PrerequisiteError, match=r"is refused: .*(differ from W h|have shape)"):
        check_logits(small_model(family), LogitRule())


@pytest.mark.parametrize("family", ROWS)
def test_rows_that_pad_the_unembedding_have_no_part_in_the_distribution(family):
    model = supported_model(family)
    policy = as_policy(model, byte_tokenizer(), name=family)
    assert policy.head().weight_VD.shape[0] == VOCAB_SIZE - 2
    assert states_and_logits(model)[1].shape[-1] == VOCAB_SIZE - 2
    module = PolicyModule(model, policy.rule)
    completion = COMPLETIONS[1]
    places = torch.tensor([[0] * 4, range(len(PROMPT) - 1, len(PROMPT) + 3)])
    logprob_N, _, _ = module(
        torch.tensor([[*PROMPT, *completion]]), places, torch.tensor(completion), 1.0, 2
    )
    assert_close(logprob_N.detach(), own_logprobs(model)[1].detach(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("family", sorted({*REFUSED, *DECODERS} - {"reformer"}))
def test_a_family_that_looks_ahead_is_refused_by_name(family):
    model = small_model(family)
    with pytest.raises(PrerequisiteError, match=f"model family '{family}'") as caught:
        as_policy(model, byte_tokenizer(), name=family)
    assert ("is_decoder" in caught.value.hint) == (family in DECODERS)


def test_families_are_listed_once_and_exist():
    listed = [*NAMES, *REFUSED]
    assert len(listed) == len(set(listed))
    assert set(listed) <= set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    assert sum(map(len, known_families().values())) - len(set(CAPS) & set(ROWS)) == len(NAMES)
