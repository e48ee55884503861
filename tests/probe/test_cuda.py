"""The probe and the sampler on CUDA against the same policy on the CPU."""

from __future__ import annotations

import pytest
import torch
from tiny_models import tiny_policy
from torch.testing import assert_close

from thr_probe.probe import ProbeOptions, score_group
from thr_probe.sampling import Prompt, SamplingSettings
from thr_probe.sampling.hf import TransformersSampler

PROMPTS = [
    Prompt(prompt_id="short", token_ids=[2, 50]),
    Prompt(prompt_id="long", token_ids=[2, 50, 61, 7, 90, 91, 92, 93, 94]),
]
COMPLETIONS = [[10, 11, 12, 1], [200, 1], [33, 34, 35, 10, 11, 12, 1]]

pytestmark = pytest.mark.gpu


def on_cuda(policy):
    policy.model.to("cuda")
    return policy


@pytest.mark.parametrize("family", ["qwen2", "gemma2", "phi"])
@pytest.mark.parametrize("correct", [[True, False, True], [False, False, False]])
@pytest.mark.parametrize("vocab", ["full", "pairwise"])
def test_scores_on_cuda_are_those_of_the_cpu(family, correct, vocab):
    options = ProbeOptions(vocab=vocab, split=True, self_influence="exclude", chunk_size=5)
    arguments = (PROMPTS[1].token_ids, COMPLETIONS, correct)
    expected = score_group(tiny_policy(family), *arguments, options=options)
    found = score_group(on_cuda(tiny_policy(family)), *arguments, options=options)
    for name in ("logprob_N", "entropy_N", "thr_N", "thr_self_N", "thr_within_N", "retained_G"):
        assert_close(getattr(found, name), getattr(expected, name), equal_nan=True, msg=name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sampling_on_cuda_yields_finite_logprobs_for_prompts_of_unequal_length(dtype):
    policy = on_cuda(tiny_policy("qwen2", dtype=dtype))
    settings = SamplingSettings(group_size=4, temperature=1.0, top_p=0.9, max_new_tokens=8, seed=0)
    for group in TransformersSampler(policy=policy).sample(PROMPTS, settings):
        assert len(group) == 4
        for completion in group:
            assert torch.tensor(completion.logprobs).isfinite().all()


def test_float64_draws_on_cuda_are_those_of_the_cpu():
    settings = SamplingSettings(group_size=4, temperature=1.0, top_p=1.0, max_new_tokens=8, seed=0)
    expected = TransformersSampler(policy=tiny_policy("llama")).sample(PROMPTS, settings)
    found = TransformersSampler(policy=on_cuda(tiny_policy("llama"))).sample(PROMPTS, settings)
    assert [[c.token_ids for c in g] for g in found] == [[c.token_ids for c in g] for g in expected]
