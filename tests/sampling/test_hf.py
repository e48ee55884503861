"""The transformers sampler: whole groups, reproducible, with the right log-probabilities."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from scipy import stats
from tiny_models import tiny_policy
from transformers import GenerationConfig

from thr_probe.errors import DataError, PrerequisiteError, UsageError
from thr_probe.sampling import FinishReason, Prompt, Sampler, SamplingSettings
from thr_probe.sampling.draws import sampled_logprobs
from thr_probe.sampling.hf import TransformersSampler

# gemma2 in float32: with left padding, transformers' float64 mask has rows without a softmax
FAMILIES = [
    ("qwen2", torch.float64),
    ("qwen3", torch.float64),
    ("llama", torch.float64),
    ("gpt2", torch.float64),
    ("gemma2", torch.float32),
    ("cohere", torch.float64),
]
PROMPTS = [
    Prompt(prompt_id="a", token_ids=[2, 50, 61]),
    Prompt(prompt_id="b", token_ids=[2, 7, 8, 9, 10, 11, 12, 13, 14]),
    Prompt(prompt_id="c", token_ids=[90]),
]


def settings(**changes):
    return SamplingSettings(**({"group_size": 4, "max_new_tokens": 12, "seed": 3} | changes))


def eos_ids(policy, *ids):
    policy.model.generation_config.eos_token_id = list(ids)
    return policy


def stops_often(family="qwen2", **options):
    """A policy of which a fifth of the vocabulary ends the completion."""
    return eos_ids(tiny_policy(family, **options), *range(0, 270, 5))


def own_logits(policy, prompt, completion):
    """The model's logits for each completion token, one unpadded sequence at a time."""
    ids = torch.tensor([[*prompt.token_ids, *completion.token_ids]])
    with torch.no_grad():
        return policy.model(input_ids=ids).logits[0, len(prompt.token_ids) - 1 : -1]


def test_it_is_a_sampler():
    sampler: Sampler = TransformersSampler(policy=tiny_policy())
    assert sampler.name == "transformers"


def test_every_prompt_gets_a_whole_group_in_order():
    groups = TransformersSampler(policy=stops_often()).sample(PROMPTS, settings())
    assert [len(group) for group in groups] == [4, 4, 4]
    reversed_groups = TransformersSampler(policy=stops_often()).sample(PROMPTS[::-1], settings())
    assert tokens(reversed_groups[::-1]) == tokens(groups)


def tokens(groups):
    return [[completion.token_ids for completion in group] for group in groups]


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 1.0), (1.3, 0.8), (0.0, 1.0)])
@pytest.mark.parametrize(("family", "dtype"), FAMILIES)
def test_logprobs_are_those_of_the_sampled_distribution(family, dtype, temperature, top_p):
    policy = stops_often(family, dtype=dtype)
    groups = TransformersSampler(policy=policy).sample(
        PROMPTS, settings(temperature=temperature, top_p=top_p)
    )
    tolerance = 1e-8 if dtype == torch.float64 else 2e-4
    for prompt, group in zip(PROMPTS, groups, strict=True):
        for completion in group:
            logits = own_logits(policy, prompt, completion)
            expected = sampled_logprobs(logits, temperature=temperature or 1.0, top_p=top_p)
            expected = expected[range(len(completion.token_ids)), completion.token_ids]
            assert completion.logprobs == pytest.approx(expected.tolist(), abs=tolerance)


@pytest.mark.parametrize(("family", "dtype"), FAMILIES)
def test_greedy_completions_are_those_of_generate(family, dtype):
    policy = stops_often(family, dtype=dtype)
    groups = TransformersSampler(policy=policy).sample(
        PROMPTS, settings(temperature=0.0, group_size=2)
    )
    config = GenerationConfig(
        max_new_tokens=12, do_sample=False, eos_token_id=list(policy.eos_ids), pad_token_id=0
    )
    for prompt, group in zip(PROMPTS, groups, strict=True):
        ids = torch.tensor([prompt.token_ids])
        generated = policy.model.generate(
            ids, attention_mask=torch.ones_like(ids), generation_config=config
        )
        expected = tuple(generated[0, ids.shape[1] :].tolist())
        assert tokens([group]) == [[expected, expected]]


def test_completions_end_with_their_first_end_of_sequence_or_at_the_limit():
    policy = stops_often()
    groups = TransformersSampler(policy=policy).sample(PROMPTS, settings(group_size=30))
    reasons = set()
    for completion in (completion for group in groups for completion in group):
        assert not set(completion.token_ids[:-1]) & set(policy.eos_ids)
        assert len(completion.logprobs) == len(completion.token_ids)
        stopped = completion.token_ids[-1] in policy.eos_ids
        assert completion.finish_reason == ("stop" if stopped else "length")
        assert stopped or len(completion.token_ids) == 12
        reasons.add(completion.finish_reason)
    assert reasons == {FinishReason.STOP, FinishReason.LENGTH}


def test_the_same_call_gives_bitwise_the_same_completions():
    first, second = (
        TransformersSampler(policy=stops_often()).sample(PROMPTS, settings()) for _ in range(2)
    )
    assert first == second


def test_another_seed_gives_other_completions():
    sampler = TransformersSampler(policy=stops_often())
    assert tokens(sampler.sample(PROMPTS, settings(seed=4))) != tokens(
        sampler.sample(PROMPTS, settings(seed=3))
    )


def test_rollouts_of_a_group_differ():
    group = TransformersSampler(policy=stops_often()).sample(PROMPTS[:1], settings())[0]
    assert len({completion.token_ids for completion in group}) == 4


@pytest.mark.parametrize("batch_tokens", [1, 40, 100, 65536])
def test_a_prompts_completions_do_not_depend_on_the_rest_of_the_batch(batch_tokens):
    policy = stops_often()
    together = TransformersSampler(policy=policy).sample(PROMPTS, settings())
    alone = [
        TransformersSampler(policy=policy, batch_tokens=batch_tokens).sample([prompt], settings())
        for prompt in PROMPTS
    ]
    assert tokens(group for (group,) in alone) == tokens(together)


def test_a_longer_limit_or_a_larger_group_only_adds():
    sampler = TransformersSampler(policy=stops_often())
    short = sampler.sample(PROMPTS, settings(max_new_tokens=3))
    long = sampler.sample(PROMPTS, settings(max_new_tokens=20, group_size=6))
    for few, many in zip(tokens(short), tokens(long), strict=True):
        for completion, other in zip(few, many, strict=False):
            assert other[: len(completion)] == completion


def test_first_tokens_are_drawn_with_the_policys_probabilities():
    policy = tiny_policy("llama", initializer_range=0.15)
    prompt = Prompt(prompt_id="frequencies", token_ids=[2, 40, 41])
    (group,) = TransformersSampler(policy=policy).sample(
        [prompt], settings(group_size=4000, max_new_tokens=1, temperature=0.8)
    )
    with torch.no_grad():
        logits = policy.model(input_ids=torch.tensor([prompt.token_ids])).logits[0, -1]
    expected = 4000 * torch.softmax(logits / 0.8, dim=0)
    observed = torch.bincount(torch.tensor([c.token_ids[0] for c in group]), minlength=270)
    often = expected > 20
    assert int(often.sum()) > 10
    pooled = [*observed[often].tolist(), int(observed[~often].sum())]
    assert (
        stats.chisquare(pooled, [*expected[often].tolist(), float(expected[~often].sum())]).pvalue
        > 0.01
    )


def test_second_tokens_follow_the_first():
    """A Markov check through the cache: pairs, not only single tokens, have the right odds."""
    policy = tiny_policy("gpt2", initializer_range=0.3)
    prompt = Prompt(prompt_id="pairs", token_ids=[40])
    (group,) = TransformersSampler(policy=policy).sample(
        [prompt], settings(group_size=3000, max_new_tokens=2, top_p=0.4)
    )
    pairs = [c.token_ids for c in group]
    with torch.no_grad():
        first = policy.model(input_ids=torch.tensor([[40]])).logits[:, -1]
        probability = sampled_logprobs(first, temperature=1.0, top_p=0.4)[0].exp()
        likeliest = int(probability.argmax())
        second = policy.model(input_ids=torch.tensor([[40, likeliest]])).logits[:, -1]
        given = sampled_logprobs(second, temperature=1.0, top_p=0.4)[0].exp()
    joint = probability[likeliest] * given
    observed = torch.bincount(torch.tensor([b for a, b in pairs if a == likeliest]), minlength=270)
    kept = joint > 0.01
    rest = 3000 - int(observed[kept].sum())
    expected = [*(3000 * joint[kept]).tolist(), 3000 * float(1 - joint[kept].sum())]
    assert stats.chisquare([*observed[kept].tolist(), rest], expected).pvalue > 0.01


def test_completions_stop_where_the_models_context_ends():
    policy = tiny_policy("gpt2", max_position_embeddings=20, n_positions=20)
    groups = TransformersSampler(policy=eos_ids(policy, 1)).sample(
        PROMPTS, settings(max_new_tokens=100)
    )
    for prompt, group in zip(PROMPTS, groups, strict=True):
        for completion in group:
            total = len(prompt.token_ids) + len(completion.token_ids)
            assert total == 20 or completion.finish_reason == FinishReason.STOP


@pytest.mark.parametrize(
    ("ids", "sentence"),
    [([], "prompt x has no token"), ([3] * 128, "prompt x has 128 tokens; tiny-qwen2 takes 128")],
)
def test_prompts_that_leave_no_room_are_named(ids, sentence):
    with pytest.raises(DataError, match=sentence):
        TransformersSampler(policy=tiny_policy()).sample(
            [Prompt(prompt_id="x", token_ids=ids)], settings()
        )


@pytest.mark.filterwarnings("ignore:.*the sequential implementation")
def test_families_with_recurrent_state_are_refused_by_name():
    with pytest.raises(PrerequisiteError, match="cannot sample from 'mamba'"):
        TransformersSampler(policy=tiny_policy("mamba")).sample(PROMPTS, settings())


def test_out_of_memory_halves_the_batch_and_changes_no_completion():
    expected = TransformersSampler(policy=stops_often()).sample(PROMPTS, settings())
    policy = stops_often()
    inner = policy.model.forward

    def forward(input_ids, attention_mask, position_ids, past_key_values, **options):
        if input_ids.shape[0] > 6:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return inner(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            **options,
        )

    policy.model.forward = forward
    sampler = TransformersSampler(policy=policy, batch_tokens=10**6)
    with pytest.warns(UserWarning, match="out of GPU memory"):
        groups = sampler.sample(PROMPTS, settings())
    assert tokens(groups) == tokens(expected)
    assert sampler.batch_tokens < 10**6


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"group_size": 0}, "group_size must be at least 1, got 0"),
        ({"temperature": -1.0}, "temperature must be 0 or positive, got -1"),
        ({"temperature": float("nan")}, "temperature must be 0 or positive, got nan"),
        ({"top_p": 0.0}, r"top_p must lie in \(0, 1\], got 0.0"),
        ({"top_p": 1.1}, r"top_p must lie in \(0, 1\], got 1.1"),
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1, got 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, sentence):
    with pytest.raises(UsageError, match=sentence):
        settings(**changes)


def test_no_prompts_give_no_groups():
    assert TransformersSampler(policy=tiny_policy()).sample([], settings()) == []


def test_finished_rows_leave_the_batch():
    policy = stops_often()
    sizes = []
    policy.model.register_forward_pre_hook(
        lambda _module, _args, inputs: sizes.append(inputs["input_ids"].shape[0]), with_kwargs=True
    )
    TransformersSampler(policy=policy).sample(PROMPTS[:1], settings(group_size=40))
    # the prompt is read once, then its rollouts, fewer and fewer
    assert sizes[:2] == [1, 40] or (sizes[0] == 1 and sizes[1] < 40)
    assert all(later <= earlier for earlier, later in pairwise(sizes[1:]))
    assert sizes[-1] < 20
