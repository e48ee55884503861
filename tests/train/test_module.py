"""The trained module: values and gradients are those of full logits, in any number of processes."""

from __future__ import annotations

import pytest
import torch
from tiny_models import tiny_model, tiny_policy
from trained_pairs import ALONE, assert_same, built, loss_of, micro_batch
from two_processes import run_in_processes

from thr_probe.errors import DataError, PrerequisiteError
from thr_probe.train import module as module_file
from thr_probe.train.module import PolicyModule, decoder_layers, push_weights

FAMILIES = [
    ("qwen2", {"tie_word_embeddings": False}),
    ("qwen2", {"tie_word_embeddings": True}),
    ("llama", {}),
    ("gemma2", {"final_logit_softcapping": 3.0}),
    ("granite", {}),
]
TEMPERATURE = 0.7


def full_logits(policy, input_ids_BL, places_2N, token_ids_N):
    """Log-probability, entropy and last states by the model's own logits of all positions."""
    output = policy.model(input_ids=input_ids_BL, use_cache=False, output_hidden_states=True)
    logprob_BLV = torch.log_softmax(output.logits / TEMPERATURE, dim=-1)
    logprob_NV = logprob_BLV[places_2N[0], places_2N[1]]
    logprob_N = logprob_NV[torch.arange(len(token_ids_N)), token_ids_N]
    entropy_N = torch.distributions.Categorical(logits=logprob_NV).entropy()
    return logprob_N, entropy_N, output.hidden_states[-1][places_2N[0], places_2N[1]]


def gradients_of(model, value):
    model.zero_grad()
    value.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters()}


@pytest.mark.parametrize("kept", [True, False], ids=["logits kept", "logits formed again"])
@pytest.mark.parametrize("chunk_size", [1, 5, 1000])
@pytest.mark.parametrize(("family", "changes"), FAMILIES)
def test_values_and_gradients_are_those_of_full_logits(
    family, changes, chunk_size, kept, monkeypatch
):
    if not kept:
        monkeypatch.setattr(module_file, "KEPT_LOGITS", 0)
    policy = tiny_policy(family, **changes)
    module = built(policy, ALONE, recompute=chunk_size == 5)
    batch = micro_batch(3, rows=3)
    weight_N = torch.linspace(-1.0, 2.0, len(batch[2]), dtype=torch.float64)

    def value(logprob_N, entropy_N):
        return (weight_N * logprob_N).sum() + (weight_N.flip(0) * entropy_N).sum()

    expected = full_logits(policy, *batch)
    expected_gradients = gradients_of(policy.model, value(*expected[:2]))
    actual = module(*batch, TEMPERATURE, chunk_size)
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    actual_gradients = gradients_of(policy.model, value(*actual[:2]))
    assert_same(actual_gradients, expected_gradients, rtol=1e-8, atol=1e-9)


def test_states_that_are_scored_carry_no_gradient_and_are_those_of_the_policy():
    policy = tiny_policy()
    input_ids_BL, places_2N, token_ids_N = micro_batch(0)
    _, _, hidden_ND = built(policy, ALONE)(input_ids_BL, places_2N, token_ids_N, TEMPERATURE, 4)
    assert not hidden_ND.requires_grad
    expected_BLD = policy.states(input_ids_BL)
    torch.testing.assert_close(hidden_ND, expected_BLD[places_2N[0], places_2N[1]])


def test_padding_on_the_right_changes_nothing():
    module = built(tiny_policy(), ALONE)
    input_ids_BL, places_2N, token_ids_N = micro_batch(0)
    padded_BL = torch.nn.functional.pad(input_ids_BL, (0, 4))
    first = module(input_ids_BL, places_2N, token_ids_N, TEMPERATURE, 4)
    second = module(padded_BL, places_2N, token_ids_N, TEMPERATURE, 4)
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one, other)


def test_activations_formed_again_give_the_same_bits():
    kept, recomputed = (
        built(tiny_policy(dtype=torch.float32), ALONE, recompute=recompute)
        for recompute in (False, True)
    )
    assert_same(
        gradients_of(recomputed.model, loss_of(recomputed, 0)),
        gradients_of(kept.model, loss_of(kept, 0)),
    )


def test_dropout_of_the_config_is_never_active():
    policy = tiny_policy("gpt2", resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5)
    policy.model.train()
    module = built(policy, ALONE)
    torch.testing.assert_close(loss_of(module, 0), loss_of(module, 0), rtol=0, atol=0)


@pytest.mark.parametrize("tied", [True, False])
def test_pushed_weights_are_exactly_the_trained_ones(tied):
    module = built(tiny_policy(tie_word_embeddings=tied), ALONE)
    snapshot = tiny_policy(tie_word_embeddings=tied, seed=1)
    names = [name for name, _ in snapshot.model.named_parameters()]
    push_weights(module, snapshot)
    assert_same(dict(snapshot.model.named_parameters()), dict(module.model.named_parameters()))
    assert [name for name, _ in snapshot.model.named_parameters()] == names
    head, embedding = snapshot.model.lm_head.weight, snapshot.model.get_input_embeddings().weight
    assert (head is embedding) == tied


def test_pushed_weights_are_copies_in_the_snapshots_own_precision():
    module = built(tiny_policy(), ALONE)
    snapshot = tiny_policy(dtype=torch.bfloat16, seed=1)
    push_weights(module, snapshot)
    before = {name: weight.clone() for name, weight in snapshot.model.named_parameters()}
    for name, weight in module.model.named_parameters():
        torch.testing.assert_close(before[name], weight.detach().bfloat16(), rtol=0, atol=0)
    with torch.no_grad():
        for weight in module.parameters():
            weight.add_(1.0)
    assert_same(dict(snapshot.model.named_parameters()), before)


def test_the_layers_are_the_longest_list_of_modules_outside_of_the_others():
    model = tiny_model("qwen2", num_hidden_layers=3)
    layers = model.model.layers
    layers[0].mlp.experts = torch.nn.ModuleList(torch.nn.Linear(2, 2) for _ in range(8))
    assert decoder_layers(model) is layers
    del model.model.layers
    with pytest.raises(PrerequisiteError, match="Qwen2ForCausalLM has no list of layers"):
        decoder_layers(model)


def test_a_chunk_size_of_nothing_is_refused():
    policy = tiny_policy()
    with pytest.raises(DataError, match="chunk_size"):
        PolicyModule(policy.model, policy.rule)(*micro_batch(0), TEMPERATURE, 0)


@pytest.mark.slow
def test_two_processes_have_the_gradients_of_one_and_push_their_weights_whole(tmp_path):
    run_in_processes("trained_pairs", "gradients", tmp_path)
