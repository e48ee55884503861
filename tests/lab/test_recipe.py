"""The recipe: deterministic from its seed, one directory out, a card of what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from thr_probe.lab import measure, recipe
from thr_probe.lab.card import TARGETS, card_text
from thr_probe.lab.problems import lab_problems
from thr_probe.lab.tokenizer import train_tokenizer
from thr_probe.lab.training import (
    RecipeSettings,
    batches,
    completion_loss,
    new_policy,
    stages,
)

TINY = [
    *(
        "--updates",
        "3",
        "--final-updates",
        "2",
        "--batch-size",
        "4",
        "--hidden-size",
        "32",
        "--num-layers",
        "1",
    ),
    *("--tokenizer-texts", "200", "--num-greedy", "8", "--num-sampled", "4", "--num-samples", "8"),
]


@pytest.fixture(scope="module")
def tiny_runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    directories = [tmp_path_factory.mktemp("lab") / name for name in ("first", "second")]
    # without training an untrained model rambles: keep the samples short
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "MAX_NEW_TOKENS", 12)
        for directory in directories:
            recipe.main(["--out", str(directory), *TINY])
    return directories


def test_the_recipe_repeats_itself_to_the_byte(tiny_runs: list[Path]) -> None:
    first, second = tiny_runs
    names = {path.name for path in first.iterdir()}
    assert names == {path.name for path in second.iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "README.md"} <= names
    for name in names - {"recipe.json", "README.md"}:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    one, two = (json.loads((path / "recipe.json").read_text()) for path in tiny_runs)
    assert one["figures"] == two["figures"]
    assert one["loss"] == two["loss"]


def test_weights_are_stored_as_float16_and_read_as_float32(tiny_runs: list[Path]) -> None:
    stored = load_file(tiny_runs[0] / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    assert json.loads((tiny_runs[0] / "config.json").read_text())["dtype"] == "float32"


def test_the_card_names_command_seed_licence_and_every_target(tiny_runs: list[Path]) -> None:
    card = (tiny_runs[0] / "README.md").read_text()
    assert "license: apache-2.0" in card
    assert "--out DIR --updates 3 --final-updates 2" in card
    assert "--seed 0" in card
    for target in TARGETS:
        assert f"| {target.name} | {target.wanted} |" in card
    assert card == card_text(json.loads((tiny_runs[0] / "recipe.json").read_text()))


def test_the_loss_covers_completion_tokens_only() -> None:
    settings = RecipeSettings(batch_size=4, hidden_size=32, num_layers=1)
    tokenizer = train_tokenizer(num_texts=200, seed=0)
    policy = new_policy(settings, tokenizer).eval()
    token_ids, labels = next(batches(tokenizer, stages(settings)[1], size=4))
    total, counted = 0.0, 0
    for row, wanted in zip(token_ids, labels, strict=True):
        logprobs = functional.log_softmax(policy(row[None]).logits[0], dim=-1)
        for position in range(1, len(row)):
            if wanted[position] >= 0:
                total -= logprobs[position - 1, row[position]].item()
                counted += 1
    loss = completion_loss(policy, token_ids, labels)
    torch.testing.assert_close(loss.item(), total / counted, rtol=1e-5, atol=1e-5)
    prompts = tokenizer.batch_decode(
        [row[keep < 0] for row, keep in zip(token_ids, labels, strict=True)]
    )
    assert all(text.startswith("Question: ") and "Answer:" in text for text in prompts)
    assert not any("boxed" in text for text in prompts)


def test_other_seeds_give_other_texts_and_weights() -> None:
    tokenizer = train_tokenizer(num_texts=200, seed=0)
    streams = [batches(tokenizer, stages(RecipeSettings(seed=seed))[0], size=4) for seed in (0, 1)]
    first, second = (next(stream)[0] for stream in streams)
    assert first.tolist() != second.tolist()


def test_greedy_sampling_equals_repeated_argmax_without_a_cache(tiny_runs: list[Path]) -> None:
    policy, tokenizer = measure.load_lab_policy(tiny_runs[0])
    prompt = torch.tensor([tokenizer.encode("Question: Find 12 * 34.\nAnswer:")])
    generator = torch.Generator().manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "MAX_NEW_TOKENS", 10)
        ((token_ids, entropies),) = measure.sample_rows(
            policy, prompt, temperature=0.0, generator=generator
        )
    row = prompt
    for token, nats in zip(token_ids, entropies, strict=True):
        logits = policy(row).logits[0, -1]
        torch.testing.assert_close(
            nats,
            torch.distributions.Categorical(logits=logits).entropy().item(),
            rtol=1e-4,
            atol=1e-4,
        )
        assert logits.argmax().item() == token
        row = torch.cat([row, torch.tensor([[token]])], dim=1)


def test_a_completion_is_right_by_its_last_box() -> None:
    assert measure.is_correct(" so \\boxed{3} wait \\boxed{41}", "41")
    assert not measure.is_correct(" so \\boxed{41} wait \\boxed{3}", "41")
    assert not measure.is_correct(" 41", "41")


def test_mixed_groups_and_pass_at_k_are_counted_over_questions() -> None:
    correct_PS = np.zeros((2, 16), dtype=bool)
    correct_PS[0, :3] = True
    # question 0: first group of eight mixed, second all wrong; question 1: both all wrong
    assert measure.mixed_share(correct_PS) == 0.25
    curve = measure.pass_curve(correct_PS)
    assert list(curve) == ["1", "2", "4", "8", "16"]
    assert curve["16"] == 0.5
    np.testing.assert_allclose(curve["1"], 3 / 32)


def test_problems_of_different_prompt_lengths_keep_their_place(tiny_runs: list[Path]) -> None:
    policy, tokenizer = measure.load_lab_policy(tiny_runs[0])
    problems = lab_problems("test", 6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "MAX_NEW_TOKENS", 6)
        together = measure.sample_problems(policy, tokenizer, problems)
        alone = [measure.sample_problems(policy, tokenizer, [problem])[0] for problem in problems]
    assert [drawn[0].text for drawn in together] == [drawn[0].text for drawn in alone]


def test_a_directory_must_be_named() -> None:
    with pytest.raises(SystemExit, match="2"):
        recipe.main([])
