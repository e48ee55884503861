"""The vLLM engine in this process, held against the policy in transformers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from thr_probe.errors import DataError, UsageError
from thr_probe.lab import lab_problems, prompt_text
from thr_probe.sampling import FinishReason, Prompt, SamplingSettings
from thr_probe.sampling.draws import sampled_logprobs
from thr_probe.sampling.hf import TransformersSampler


def lab_prompts(policy, number: int = 6) -> list[Prompt]:
    problems = lab_problems("test", number)
    return [
        Prompt(prompt_id=f"p{place}", token_ids=policy.encode_prompt(prompt_text(problem.question)))
        for place, problem in enumerate(problems)
    ]


def settings(**given) -> SamplingSettings:
    return SamplingSettings(**{"group_size": 4, "max_new_tokens": 100, "seed": 3, **given})


@torch.no_grad()
def expected_logprobs(policy, prompt, ids, *, temperature: float, top_p: float) -> list[float]:
    """One forward pass over prompt and completion, read at every sampled id."""
    row = torch.tensor([[*prompt.token_ids, *ids]])
    logits = policy.model(input_ids=row, use_cache=False).logits[0]
    first = len(prompt.token_ids) - 1
    logprobs = sampled_logprobs(
        logits[first : first + len(ids)], temperature=temperature, top_p=top_p
    )
    return [float(logprobs[place, token_id]) for place, token_id in enumerate(ids)]


def largest_error(policy, prompts, groups, **distribution) -> float:
    errors = []
    for prompt, group in zip(prompts, groups, strict=True):
        for completion in group:
            expected = expected_logprobs(policy, prompt, completion.token_ids, **distribution)
            errors.append(np.abs(np.array(completion.logprobs) - expected).max())
    return float(max(errors))


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 1.0), (1.0, 0.9), (0.7, 0.9)])
def test_logprobs_are_those_of_the_distribution_drawn_from(engine, temperature, top_p):
    prompts = lab_prompts(engine.policy)
    groups = engine.sampler.sample(prompts, settings(temperature=temperature, top_p=top_p))
    assert [len(group) for group in groups] == [4] * len(prompts)
    error = largest_error(engine.policy, prompts, groups, temperature=temperature, top_p=top_p)
    assert error < 1e-4


def test_completions_end_with_the_end_of_sequence_or_at_the_limit(engine):
    prompts = lab_prompts(engine.policy)
    groups = engine.sampler.sample(prompts, settings(max_new_tokens=20))
    completions = [completion for group in groups for completion in group]
    assert {completion.finish_reason for completion in completions} == {
        FinishReason.STOP,
        FinishReason.LENGTH,
    }
    (eos,) = engine.policy.eos_ids
    for completion in completions:
        stopped = completion.finish_reason is FinishReason.STOP
        assert (completion.token_ids[-1] == eos) is stopped
        assert eos not in completion.token_ids[:-1]
        assert stopped or len(completion.token_ids) == 20
        assert len(completion.logprobs) == len(completion.token_ids)


def test_the_same_seed_gives_the_same_completions_whatever_else_is_asked(engine):
    prompts = lab_prompts(engine.policy)

    def drawn(asked, **given) -> list[list[tuple[int, ...]]]:
        groups = engine.sampler.sample(asked, settings(**given))
        return [[completion.token_ids for completion in group] for group in groups]

    ids = drawn(prompts)
    assert drawn(prompts) == ids
    assert drawn(prompts[2:3]) == ids[2:3]
    assert drawn(prompts, seed=4) != ids
    assert len(set(ids[0])) > 1


def test_greedy_completions_are_those_of_the_transformers_sampler(engine):
    prompts = lab_prompts(engine.policy, 12)
    # top-p plays no part where the likeliest token is taken
    greedy = settings(temperature=0.0, group_size=2, top_p=0.5)
    found = engine.sampler.sample(prompts, greedy)
    expected = TransformersSampler(policy=engine.policy).sample(prompts, greedy)
    for group, wanted in zip(found, expected, strict=True):
        for completion, other in zip(group, wanted, strict=True):
            assert completion.token_ids == other.token_ids
            assert completion.finish_reason is other.finish_reason
            np.testing.assert_allclose(completion.logprobs, other.logprobs, atol=1e-4)


def test_what_is_drawn_has_the_frequencies_of_the_distribution(engine):
    (prompt,) = lab_prompts(engine.policy, 1)
    (group,) = engine.sampler.sample([prompt], settings(group_size=500, max_new_tokens=1))
    ids = torch.tensor([completion.token_ids[0] for completion in group])
    with torch.no_grad():
        logits = engine.policy.model(input_ids=torch.tensor([prompt.token_ids])).logits[0, -1]
    expected = logits.double().softmax(0)
    found = torch.bincount(ids, minlength=len(expected)) / len(ids)
    error = (expected * (1 - expected) / len(ids)).sqrt()
    assert float(((found - expected).abs() / error.clamp(min=1e-3)).max()) < 4


def test_new_weights_are_sampled_after_an_update_and_not_before(fresh):
    policy, sampler = fresh.policy, fresh.sampler
    prompts = lab_prompts(policy)
    temperature = {"temperature": 1.0, "top_p": 1.0}
    ask = settings(max_new_tokens=24)
    sampler.sample(prompts, ask)
    optimizer = torch.optim.AdamW(policy.model.parameters(), lr=1e-2)
    with torch.enable_grad():
        policy.model.requires_grad_(True)
        ids = torch.tensor([prompts[0].token_ids])
        policy.model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        policy.model.zero_grad()
    before = sampler.sample(prompts, ask)
    assert largest_error(policy, prompts, before, **temperature) > 1e-2
    sampler.renew()
    after = sampler.sample(prompts, ask)
    assert largest_error(policy, prompts, after, **temperature) < 1e-4


def test_prompts_that_cannot_be_answered_are_named(engine):
    sampler = engine.sampler
    with pytest.raises(DataError, match="prompt a has no token"):
        sampler.sample([Prompt(prompt_id="a", token_ids=[])], settings())
    long = Prompt(prompt_id="b", token_ids=[5] * sampler.max_length)
    with pytest.raises(DataError, match=r"prompt b has \d+ tokens"):
        sampler.sample([long], settings())
    with pytest.raises(UsageError, match=r"temperature 0, or from 0\.01"):
        sampler.sample(lab_prompts(engine.policy, 1), settings(temperature=0.001))
    assert sampler.sample([], settings()) == []


def test_a_completion_may_fill_the_context_to_its_end(engine):
    sampler = engine.sampler
    nearly = Prompt(prompt_id="c", token_ids=[5] * (sampler.max_length - 3))
    ((completion, *_),) = sampler.sample([nearly], settings())
    assert 1 <= len(completion.token_ids) <= 3
