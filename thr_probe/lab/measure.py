"""Measures the lab's policy on held-out problems: every figure of its card, each with its N."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from transformers import (
    DynamicCache,
    PreTrainedTokenizerFast,
    Qwen2ForCausalLM,
)

from thr_probe.core.pass_at_k import pass_at_k
from thr_probe.lab.problems import LabProblem, lab_problems, prompt_text

# The reflection words of Table 14 of the paper.
REFLECTION_WORDS = frozenset(
    (
        *("actually", "although", "alternating", "but", "correct", "despite", "error", "fix"),
        *("however", "incorrect", "instead", "mistake", "nevertheless", "nonetheless", "note"),
        *("realize", "realized", "rethink", "reconsider", "still", "thinking", "think", "though"),
        *("wait", "whereas", "otherwise", "wrong", "yet", "unless"),
    )
)
MAX_NEW_TOKENS = 256
MAX_ROWS = 512
GROUP_SIZE = 8
BOX = re.compile(r"\\boxed\{(\d+)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureSizes:
    """How much is sampled for the card."""

    num_greedy: int = 500
    """Test problems answered greedily."""
    num_sampled: int = 100
    """Test problems sampled at temperature 1."""
    num_samples: int = 128
    """Samples of each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One completion of the policy."""

    text: str
    """Decoded, without eos."""
    correct: bool
    """Whether its last box holds the gold answer."""
    entropies: tuple[float, ...]
    """Entropy in nats at every emitted token, eos included."""


def load_lab_policy(directory: Path) -> tuple[Qwen2ForCausalLM, PreTrainedTokenizerFast]:
    """Model in float32 and tokenizer of a policy directory."""
    policy = Qwen2ForCausalLM.from_pretrained(directory, dtype=torch.float32)
    return policy.eval(), PreTrainedTokenizerFast.from_pretrained(directory)


def is_correct(text: str, answer: str) -> bool:
    """Whether the last box of a completion holds the answer."""
    boxes = BOX.findall(text)
    return bool(boxes) and int(boxes[-1]) == int(answer)


@torch.inference_mode()
def sample_rows(
    policy: Qwen2ForCausalLM,
    prompt_rows: torch.Tensor,
    *,
    temperature: float,
    generator: torch.Generator,
) -> list[tuple[list[int], list[float]]]:
    """(token ids, entropies) per row of equally long prompts; temperature 0 is greedy."""
    num_rows = len(prompt_rows)
    token_ids: list[list[int]] = [[] for _ in range(num_rows)]
    entropies: list[list[float]] = [[] for _ in range(num_rows)]
    alive, inputs, cache = torch.arange(num_rows), prompt_rows, DynamicCache()
    for _ in range(MAX_NEW_TOKENS):
        logits = policy(input_ids=inputs, past_key_values=cache, logits_to_keep=1).logits[:, -1]
        logprobs = logits.log_softmax(-1)
        probs = logprobs.exp()
        if temperature == 0:
            chosen = logits.argmax(-1)
        else:
            tempered = probs if temperature == 1 else (logits / temperature).softmax(-1)
            chosen = torch.multinomial(tempered, 1, generator=generator)[:, 0]
        entropy = -(probs * logprobs).sum(-1)
        for row, token, nats in zip(alive.tolist(), chosen.tolist(), entropy.tolist(), strict=True):
            token_ids[row].append(token)
            entropies[row].append(nats)
        going = (chosen != policy.config.eos_token_id).nonzero()[:, 0]
        if not len(going):
            break
        if len(going) < len(alive):
            cache.batch_select_indices(going)
        alive, inputs = alive[going], chosen[going, None]
    return list(zip(token_ids, entropies, strict=True))


def prompt_batches(
    prompts: Sequence[list[int]], rows: int
) -> Iterator[tuple[list[int], torch.Tensor]]:
    """(indices, ids) of equally long prompts, so that no row is padded."""
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    for _, same in groupby(order, key=lambda index: len(prompts[index])):
        indices = list(same)
        for start in range(0, len(indices), rows):
            part = indices[start : start + rows]
            yield part, torch.tensor([prompts[index] for index in part])


def sample_problems(
    policy: Qwen2ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    problems: Sequence[LabProblem],
    *,
    num_samples: int = 1,
    temperature: float = 0.0,
    seed: int = 0,
) -> list[list[Sample]]:
    """`num_samples` completions of every problem."""
    generator = torch.Generator().manual_seed(seed)
    prompts = [tokenizer.encode(prompt_text(problem.question)) for problem in problems]
    samples: list[list[Sample]] = [[] for _ in problems]
    for indices, prompt_rows in prompt_batches(prompts, max(1, MAX_ROWS // num_samples)):
        rows = prompt_rows.repeat_interleave(num_samples, dim=0)
        drawn = sample_rows(policy, rows, temperature=temperature, generator=generator)
        for row, (token_ids, entropies) in enumerate(drawn):
            index = indices[row // num_samples]
            text = str(tokenizer.decode(token_ids, skip_special_tokens=True))
            samples[index].append(
                Sample(
                    text=text,
                    correct=is_correct(text, problems[index].answer),
                    entropies=tuple(entropies),
                )
            )
    return samples


def has_reflection(text: str) -> bool:
    """Whether one of the 29 words occurs as a whole word, in any case."""
    return not REFLECTION_WORDS.isdisjoint(re.findall(r"[a-z]+", text.lower()))


def mixed_share(correct_PS: np.ndarray) -> float:
    """Share of the groups of 8 that hold both correct and incorrect completions."""
    num_samples = correct_PS.shape[1] - correct_PS.shape[1] % GROUP_SIZE
    groups = correct_PS[:, :num_samples].reshape(-1, GROUP_SIZE).sum(axis=1)
    return float(((groups > 0) & (groups < GROUP_SIZE)).mean())


def pass_curve(correct_PS: np.ndarray) -> dict[str, float]:
    """Unbiased Pass@K for K = 1, 2, 4 ... number of samples."""
    num_samples = correct_PS.shape[1]
    counts = correct_PS.sum(axis=1)
    return {
        str(k): float(np.mean(pass_at_k(num_samples, counts, k)))
        for k in (2**power for power in range(num_samples.bit_length()))
    }


def greedy_figures(
    problems: Sequence[LabProblem], samples: Sequence[Sequence[Sample]]
) -> dict[str, object]:
    """Greedy accuracy, overall and per kind."""
    right = {kind: [] for kind in sorted({problem.kind for problem in problems})}  # type: dict[str, list[bool]]
    for problem, (sample,) in zip(problems, samples, strict=True):
        right[problem.kind].append(sample.correct)
    return {
        "num_problems": len(problems),
        "accuracy": float(np.mean([sample.correct for (sample,) in samples])),
        "per_kind": {kind: float(np.mean(values)) for kind, values in right.items()},
        "num_per_kind": {kind: len(values) for kind, values in right.items()},
    }


def sampled_figures(
    problems: Sequence[LabProblem], samples: Sequence[Sequence[Sample]]
) -> dict[str, object]:
    """Accuracy, Pass@K, mixed groups, texts and entropies at temperature 1."""
    correct_PS = np.array([[sample.correct for sample in drawn] for drawn in samples])
    everything = [sample for drawn in samples for sample in drawn]
    entropies = np.concatenate([sample.entropies for sample in everything])
    kinds = np.array([problem.kind for problem in problems])
    return {
        "num_problems": len(problems),
        "num_samples": correct_PS.shape[1],
        "accuracy": float(correct_PS.mean()),
        "pass_at_k": pass_curve(correct_PS),
        "mixed_groups_of_8": mixed_share(correct_PS),
        "reflection_share": float(np.mean([has_reflection(s.text) for s in everything])),
        "boxed_share": float(np.mean([bool(BOX.search(s.text)) for s in everything])),
        "median_tokens": statistics.median(len(sample.entropies) for sample in everything),
        "entropy_median": float(np.median(entropies)),
        "entropy_80th_percentile": float(np.quantile(entropies, 0.8)),
        "entropy_mean": float(entropies.mean()),
        "accuracy_per_kind": {
            kind: float(correct_PS[kinds == kind].mean()) for kind in sorted(set(kinds))
        },
        "pass_at_all_per_kind": {
            kind: float(correct_PS[kinds == kind].any(axis=1).mean()) for kind in sorted(set(kinds))
        },
    }


def measure(directory: Path, sizes: MeasureSizes) -> dict[str, object]:
    """Every figure of the card, on the test split."""
    policy, tokenizer = load_lab_policy(directory)
    problems = lab_problems("test", max(sizes.num_greedy, sizes.num_sampled))
    few = problems[: sizes.num_sampled]
    greedy = sample_problems(policy, tokenizer, problems)
    drawn = sample_problems(policy, tokenizer, few, num_samples=sizes.num_samples, temperature=1.0)
    return {
        "greedy": greedy_figures(problems, greedy),
        "greedy_on_sampled": greedy_figures(few, greedy[: sizes.num_sampled]),
        "sampled": sampled_figures(few, drawn),
    }
