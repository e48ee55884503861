"""Prompts, settings and what a fake server draws for them, for the tests of its sampler."""

from __future__ import annotations

import math

import pytest
from fake_server import is_real
from tiny_models import byte_tokenizer

from thr_probe.sampling import IdsSource, Prompt, SamplingSettings
from thr_probe.sampling.openai import OpenAISampler, request_seed

EOS = 1
TOKENIZER = byte_tokenizer()
TEXTS = ("the ab", "in the", "a", "éa the in")


def sampler_of(fake, **options):
    address = None if fake is None else fake.url
    defaults = {"base_url": address, "tokenizer": TOKENIZER, "eos_ids": (EOS,)}
    defaults |= {"policy_name": "tiny", "concurrency": 4, "retries": 3, "request_timeout": 5.0}
    return OpenAISampler(**(defaults | options))


def prompts():
    return [
        Prompt(prompt_id=f"p{place}", token_ids=TOKENIZER.encode(text))
        for place, text in enumerate(TEXTS)
    ]


def settings_of(**options):
    return SamplingSettings(**({"group_size": 3, "max_new_tokens": 6, "seed": 7} | options))


def expected(fake, settings, *, first_of_each=False):
    """What the fake model draws for the requests that a sampler should make."""
    groups = []
    for prompt in prompts():
        group = []
        for rollout in range(settings.group_size):
            base = rollout if first_of_each else 0
            seed = request_seed(settings.seed, prompt.prompt_id, base)
            ids, reason = fake.model.draw(
                prompt.token_ids,
                seed=seed + rollout - base,
                max_tokens=settings.max_new_tokens,
                temperature=settings.temperature,
                top_p=settings.top_p,
            )
            shares = fake.model.distribution(
                prompt.token_ids, settings.temperature or 1.0, settings.top_p
            )
            group.append((tuple(ids), [math.log(shares[token]) for token in ids], reason))
        groups.append(group)
    return groups


def check(groups, wanted, *, source=IdsSource.SAMPLED, logprobs=True):
    for group, wanted_group in zip(groups, wanted, strict=True):
        for completion, (ids, values, reason) in zip(group, wanted_group, strict=True):
            assert completion.token_ids == ids
            assert completion.finish_reason == reason
            assert completion.ids_source is source
            if logprobs:
                assert completion.logprobs == pytest.approx(values, abs=1e-12)
            else:
                assert completion.logprobs is None


def asked(fake):
    """The requests for completions, those that find out the dialect aside."""
    return [body for body in fake.bodies if is_real(body)]
