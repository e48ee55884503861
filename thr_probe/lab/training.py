"""Plain supervised training of the lab's policy on freshly written texts."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch.nn import functional
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from thr_probe.lab.completions import training_text
from thr_probe.lab.mix import FIRST_MIX, LAB_MIX, Mix
from thr_probe.lab.problems import prompt_text, worded_tasks

IGNORED = -100
BUCKET_BATCHES = 32
LOG_EVERY = 25


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeSettings:
    """What the recipe can be asked for; the defaults made the shipped policy."""

    updates: int = 4500
    """Optimiser updates of the first stage."""
    final_updates: int = 2000
    """Optimiser updates of the second stage."""
    batch_size: int = 48
    """Texts per update."""
    learning_rate: float = 2e-3
    """Peak learning rate of AdamW, after warm-up, before the linear decay to zero."""
    final_learning_rate: float = 1e-3
    """The same for the second stage."""
    warmup: int = 150
    """Updates until the peak learning rate."""
    weight_decay: float = 0.05
    """AdamW weight decay."""
    hidden_size: int = 128
    """Width of the model; heads have 32 dimensions."""
    num_layers: int = 4
    """Depth of the model."""
    tokenizer_texts: int = 5000
    """Texts the tokenizer learns from."""
    seed: int = 0
    """Seed of the texts, the tokenizer and the initial weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One warm-up and decay over texts of one mix."""

    mix: Mix
    """Which texts."""
    updates: int
    """Optimiser updates."""
    learning_rate: float
    """Peak learning rate."""
    seed: int
    """Seed of the texts."""


def stages(settings: RecipeSettings) -> tuple[Stage, Stage]:
    """First the harder mix with more short cuts, then the lab's own."""
    return (
        Stage(
            mix=FIRST_MIX,
            updates=settings.updates,
            learning_rate=settings.learning_rate,
            seed=settings.seed,
        ),
        Stage(
            mix=LAB_MIX,
            updates=settings.final_updates,
            learning_rate=settings.final_learning_rate,
            seed=settings.seed + 1_000_000,
        ),
    )


def new_policy(settings: RecipeSettings, tokenizer: PreTrainedTokenizerFast) -> Qwen2ForCausalLM:
    """A freshly initialised Qwen2 model of the recipe's size."""
    heads = settings.hidden_size // 32
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=settings.hidden_size,
        intermediate_size=3 * settings.hidden_size,
        num_hidden_layers=settings.num_layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    torch.manual_seed(settings.seed)
    return Qwen2ForCausalLM(config)


def encoded_texts(
    tokenizer: PreTrainedTokenizerFast, seed: int, mix: Mix
) -> Iterator[tuple[list[int], int]]:
    """Endless (token ids, prompt length) of fresh training texts, each ended by eos."""
    rng = random.Random(f"texts/{seed}")
    for task, question in worded_tasks("train", seed, mix):
        prompt = tokenizer.encode(prompt_text(question))
        completion = tokenizer.encode(training_text(task, rng, mix).text)
        yield [*prompt, *completion, tokenizer.eos_token_id], len(prompt)


def batches(
    tokenizer: PreTrainedTokenizerFast, stage: Stage, size: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless (token ids, labels) batches of texts of similar length, right-padded."""
    rng = random.Random(f"batches/{stage.seed}")
    texts = encoded_texts(tokenizer, stage.seed, stage.mix)
    while True:
        chunk = sorted(islice(texts, BUCKET_BATCHES * size), key=lambda text: len(text[0]))
        starts = list(range(0, len(chunk), size))
        rng.shuffle(starts)
        for start in starts:
            yield collate(chunk[start : start + size], tokenizer.pad_token_id)


def collate(texts: list[tuple[list[int], int]], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded ids and labels; prompts and padding carry no loss."""
    width = max(len(ids) for ids, _ in texts)
    token_ids = torch.full((len(texts), width), pad_id)
    labels = torch.full((len(texts), width), IGNORED)
    for row, (ids, prompt_length) in enumerate(texts):
        token_ids[row, : len(ids)] = torch.tensor(ids)
        labels[row, prompt_length : len(ids)] = torch.tensor(ids[prompt_length:])
    return token_ids, labels


def completion_loss(
    policy: Qwen2ForCausalLM, token_ids: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """Mean negative log-likelihood of the completion tokens; causality masks right padding."""
    hidden = policy.model(input_ids=token_ids, use_cache=False).last_hidden_state[:, :-1]
    targets = labels[:, 1:]
    wanted = targets != IGNORED
    return functional.cross_entropy(policy.lm_head(hidden[wanted]), targets[wanted])


def learning_rate_factor(updates: int, warmup: int) -> Callable[[int], float]:
    """Linear warm-up, then linear decay to zero."""

    def factor(update: int) -> float:
        warm = min(1.0, (update + 1) / warmup)
        left = (updates - update) / max(1, updates - warmup)
        return min(warm, max(0.0, left))

    return factor


def train(
    policy: Qwen2ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    stage: Stage,
    settings: RecipeSettings,
    *,
    report: Callable[[int, float, float], None],
) -> float:
    """Train one stage in place; returns the last mean loss.

    `report(update, mean loss, seconds)` is called every 25 updates.
    """
    optimizer = torch.optim.AdamW(
        policy.parameters(),
        lr=stage.learning_rate,
        betas=(0.9, 0.98),
        weight_decay=settings.weight_decay,
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, learning_rate_factor(stage.updates, settings.warmup)
    )
    policy.train()
    started, losses, mean = time.monotonic(), [], float("nan")
    stream = islice(batches(tokenizer, stage, settings.batch_size), stage.updates)
    for update, (token_ids, labels) in enumerate(stream, start=1):
        loss = completion_loss(policy, token_ids, labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        losses.append(loss.item())
        if update % LOG_EVERY == 0 or update == stage.updates:
            mean = sum(losses) / len(losses)
            report(update, mean, time.monotonic() - started)
            losses.clear()
    policy.eval()
    return mean
