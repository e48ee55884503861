"""The states a policy predicts from, its head, and the check of its logits."""

from __future__ import annotations

import pytest
import torch
from tiny_models import byte_tokenizer, tiny_model, tiny_policy
from torch.testing import assert_close

from thr_probe.core.head import head_pass
from thr_probe.errors import DataError, PrerequisiteError
from thr_probe.policy import as_policy
from thr_probe.policy.families import LogitRule, check_logits, logit_rule

FAMILIES = ["qwen2", "qwen3", "llama", "gemma2", "gpt2", "cohere", "granite", "gemma3_text", "phi"]
PROMPT = [2, 50, 61, 7, 90]
COMPLETIONS = [[10, 11, 12, 1], [200], [33, 34, 35, 36, 37, 38, 39, 1], [99, 98, 1]]

FLOAT32_ATTENTION = {"gemma2": {"rtol": 2e-6, "atol": 2e-6}}
"""Gemma 2 soft-caps its attention, which makes transformers take the softmax itself, in float32
even in a float64 model: its sum, and so the states by some 1e-7, depend on the padding."""


def unpadded_states(policy, prompt, completion):
    """The slow route: one sequence, no padding, transformers' own last hidden state."""
    ids = torch.tensor([[*prompt, *completion]])
    output = policy.model(input_ids=ids, output_hidden_states=True)
    return output.hidden_states[-1][0, len(prompt) - 1 : -1], output.logits[0, len(prompt) - 1 : -1]


@pytest.mark.parametrize("family", FAMILIES)
def test_hidden_states_are_those_of_an_unpadded_forward_one_position_before_each_token(family):
    policy = tiny_policy(family)
    with torch.no_grad():
        expected = [unpadded_states(policy, PROMPT, c)[0] for c in COMPLETIONS]
    tolerance = FLOAT32_ATTENTION.get(family, {"rtol": 1e-9, "atol": 1e-10})
    assert_close(policy.hidden(PROMPT, COMPLETIONS), torch.cat(expected), **tolerance)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("family", FAMILIES)
def test_logprobs_from_stored_states_are_those_of_the_models_own_logits(family, temperature):
    """The off-by-one guard: logits recomputed from h give the old log-probabilities."""
    policy = tiny_policy(family)
    expected, entropy = [], []
    for completion in COMPLETIONS:
        with torch.no_grad():
            logits = unpadded_states(policy, PROMPT, completion)[1]
        logprob = torch.log_softmax(logits / temperature, dim=-1)
        expected.append(logprob[range(len(completion)), completion])
        entropy.append(torch.distributions.Categorical(logits=logits / temperature).entropy())
    replay = head_pass(
        policy.hidden(PROMPT, COMPLETIONS),
        torch.tensor([token for completion in COMPLETIONS for token in completion]),
        policy.head(temperature),
    )
    tolerance = FLOAT32_ATTENTION.get(family, {"rtol": 1e-8, "atol": 1e-9})
    assert_close(replay.logprob_N, torch.cat(expected), **tolerance)
    assert_close(replay.entropy_N, torch.cat(entropy), **tolerance)


def test_a_soft_cap_that_bites_is_part_of_the_logprobs():
    policy = tiny_policy("gemma2", initializer_range=3.0, tie_word_embeddings=False)
    ids = torch.tensor([token for completion in COMPLETIONS for token in completion])
    hidden = policy.hidden(PROMPT, COMPLETIONS)
    with torch.no_grad():
        logits = torch.cat([unpadded_states(policy, PROMPT, c)[1] for c in COMPLETIONS])
    raw = hidden @ policy.head().weight_VD.T
    assert raw.abs().max() > 40
    assert logits.abs().max() < 30
    expected = torch.log_softmax(logits, dim=-1)[range(len(ids)), ids]
    actual = head_pass(hidden, ids, policy.head()).logprob_N
    assert_close(actual, expected, **FLOAT32_ATTENTION["gemma2"])


def test_states_do_not_depend_on_how_completions_are_batched():
    policy = tiny_policy()
    alone = torch.cat([policy.hidden(PROMPT, [c]) for c in COMPLETIONS])
    for batch_tokens in (1, 12, 30, 16384):
        batched = policy.hidden(PROMPT, COMPLETIONS, batch_tokens=batch_tokens)
        assert_close(batched, alone, rtol=1e-10, atol=1e-11)


def test_a_small_batch_budget_does_not_stick():
    policy = tiny_policy()
    policy.hidden(PROMPT, COMPLETIONS, batch_tokens=1)
    assert policy.ceiling is None


def test_states_of_a_completion_do_not_depend_on_where_the_prompt_ends():
    """Moving the border between prompt and completion moves the slice, not the states."""
    policy = tiny_policy("llama")
    whole = [*PROMPT, *COMPLETIONS[2]]
    from_start = policy.hidden(whole[:1], [whole[1:]])
    assert_close(policy.hidden(whole[:6], [whole[6:]]), from_start[5:], rtol=1e-10, atol=1e-11)


def test_left_padding_leaves_the_models_states_unchanged():
    """What the sampler reads (padded on the left) and what the probe reads agree."""
    policy = tiny_policy()
    ids = torch.tensor([[0, 0, 0, *PROMPT, *COMPLETIONS[0]]])
    mask = torch.tensor([[0] * 3 + [1] * (ids.shape[1] - 3)])
    with torch.no_grad():
        padded = policy.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(1) - 1).clamp(min=0),
            output_hidden_states=True,
        ).hidden_states[-1][0, 3 + len(PROMPT) - 1 : -1]
    assert_close(policy.hidden(PROMPT, COMPLETIONS[:1]), padded, rtol=1e-9, atol=1e-10)


def test_bfloat16_weights_pass_the_check_and_score_close_to_float32():
    exact = tiny_policy("gemma2", dtype=torch.float32)
    half = tiny_policy("gemma2", dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    ids = torch.tensor([token for completion in COMPLETIONS for token in completion])
    scores = [
        head_pass(policy.hidden(PROMPT, COMPLETIONS), ids, policy.head()).logprob_N
        for policy in (exact, half)
    ]
    assert scores[1].dtype == torch.float32
    assert_close(scores[1], scores[0], rtol=0.1, atol=0.3)


@pytest.mark.parametrize(
    ("family", "scale", "softcap"),
    [
        ("qwen2", 1.0, None),
        ("gemma2", 1.0, 30.0),
        ("gemma3_text", 1.0, 20.0),
        ("cohere", 0.0625, None),
        ("granite", 0.125, None),
    ],
)
def test_the_rule_of_a_family_is_read_from_its_config(family, scale, softcap):
    rule = logit_rule(tiny_model(family).config)
    assert (rule.scale, rule.softcap) == (scale, softcap)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["gemma2", "gemma3_text", "cohere", "granite"])
def test_a_plain_head_is_refused_for_families_that_scale_or_soft_cap(family, dtype):
    """Even with logits so small that a soft-cap changes them by less than rounding."""
    model = tiny_model(family, dtype=dtype, initializer_range=0.02)
    check_logits(model, logit_rule(model.config))
    with pytest.raises(PrerequisiteError, match=f"family '{family}'.*differ from W h"):
        check_logits(model, LogitRule())


def changed(model, change):
    """The model with a forward of its own and another family name."""
    inner = model.forward
    model.forward = lambda **inputs: change(inner(**inputs))
    model.config.model_type = "odd"
    return model


def doubled(output):
    output.logits = 2 * output.logits
    return output


def one_too_few(output):
    output.logits = output.logits[..., :-1]
    return output


@pytest.mark.parametrize(
    ("change", "reason"),
    [(doubled, "differ from W h [+] b by 50.00%"), (one_too_few, "logits have shape")],
)
def test_an_unknown_family_whose_logits_are_not_plain_is_refused_by_name(change, reason):
    model = changed(tiny_model("llama"), change)
    with pytest.raises(PrerequisiteError, match=rf"'odd' \(LlamaForCausalLM\).*{reason}"):
        as_policy(model, byte_tokenizer(), name="odd")


def test_an_unknown_family_with_a_plain_head_passes():
    model = changed(tiny_model("llama"), lambda output: output)
    assert as_policy(model, byte_tokenizer(), name="odd").family == "odd"


def test_a_model_that_looks_ahead_is_refused():
    with pytest.raises(PrerequisiteError, match=r"'bert'.*not a causal model"):
        as_policy(tiny_model("bert"), byte_tokenizer(), name="bert")


def test_a_model_without_a_linear_unembedding_is_refused():
    model = tiny_model("qwen2")
    model.set_output_embeddings(torch.nn.Sequential(model.lm_head))
    with pytest.raises(PrerequisiteError, match=r"'qwen2'.*unembedding is Sequential"):
        as_policy(model, byte_tokenizer(), name="odd")


@pytest.mark.parametrize(
    ("prompt", "completions", "sentence"),
    [
        ([], [[3]], "empty prompt"),
        ([3], [], "no completions"),
        ([3], [[4], []], "completion 1 is empty"),
        ([3], [[4] * 128], "129 tokens; tiny-qwen2 takes 128"),
        ([3], [[4, 270]], "token id 270 is outside the vocabulary"),
    ],
)
def test_completions_that_cannot_be_scored_are_named(prompt, completions, sentence):
    with pytest.raises(DataError, match=sentence):
        tiny_policy().hidden(prompt, completions)


def test_the_head_shares_the_models_weight_and_carries_no_gradient():
    policy = tiny_policy("phi")
    head = policy.head(0.5)
    assert head.weight_VD.data_ptr() == policy.model.lm_head.weight.data_ptr()
    assert head.bias_V is not None
    assert not head.weight_VD.requires_grad
    assert not head.bias_V.requires_grad
    assert head.temperature == 0.5
