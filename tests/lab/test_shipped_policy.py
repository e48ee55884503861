"""The policy in the package: loads offline, is small, reads its world, is right at times."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from thr_probe.lab import lab_problems, policy_directory, prompt_text
from thr_probe.lab.card import card_text
from thr_probe.lab.measure import sample_problems
from thr_probe.lab.tokenizer import sample_texts


@pytest.fixture(scope="module")
def policy():
    return AutoModelForCausalLM.from_pretrained(policy_directory())


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(policy_directory())


def test_it_is_a_small_qwen2_model_in_float32(policy) -> None:
    assert policy.config.model_type == "qwen2"
    assert policy.config.hidden_size // policy.config.num_attention_heads == 32
    assert 500_000 <= sum(tensor.numel() for tensor in policy.parameters()) <= 2_000_000
    assert {tensor.dtype for tensor in policy.parameters()} == {torch.float32}


def test_the_directory_stays_within_four_mebibytes() -> None:
    sizes = [path.stat().st_size for path in policy_directory().iterdir()]
    assert sum(sizes) <= 4 * 2**20


def test_the_tokenizer_returns_every_text_and_keeps_digits_single(tokenizer) -> None:
    texts = [
        *sample_texts(50, seed=9),
        "Was für ein Tag, 東京 \\frac{1}{2} $x^2$\n\n  two  spaces\ttab",
    ]
    for text in texts:
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert [tokenizer.decode([i]) for i in tokenizer.encode(" 4096")] == [" 4", "0", "9", "6"]


def test_prompt_and_completion_are_tokenised_apart_as_together(tokenizer) -> None:
    for text in sample_texts(50, seed=10):
        prompt, completion = text.split("Answer:")
        apart = tokenizer.encode(prompt + "Answer:") + tokenizer.encode(completion)
        assert apart == tokenizer.encode(text)


def test_pad_and_eos_are_two_entries_of_their_own(tokenizer, policy) -> None:
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert policy.config.eos_token_id == tokenizer.eos_token_id
    assert policy.config.pad_token_id == tokenizer.pad_token_id
    assert policy.config.vocab_size == len(tokenizer)
    assert tokenizer.eos_token_id not in tokenizer.encode(prompt_text("Find 12 * 34."))


def test_it_is_right_at_times_and_wrong_at_times(policy, tokenizer) -> None:
    problems = lab_problems("test", 80)
    (correct,) = zip(*sample_problems(policy, tokenizer, problems), strict=True)
    accuracy = sum(sample.correct for sample in correct) / len(problems)
    figures = json.loads((policy_directory() / "recipe.json").read_text())["figures"]
    assert abs(accuracy - figures["greedy"]["accuracy"]) < 0.2
    assert sum("\\boxed{" in sample.text for sample in correct) >= 0.9 * len(problems)


def test_the_card_is_written_from_the_record() -> None:
    record = json.loads((policy_directory() / "recipe.json").read_text())
    assert (policy_directory() / "README.md").read_text() == card_text(record)
