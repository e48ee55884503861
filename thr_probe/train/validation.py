"""Greedy accuracy of a policy while it is trained, the same for any number of processes."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import numpy as np

from thr_probe.core.stats import bootstrap_ratio, question_weights
from thr_probe.groups import sample_groups
from thr_probe.policy import Policy
from thr_probe.problems import Verifier
from thr_probe.processes import World
from thr_probe.prompts import TokenizedProblem
from thr_probe.sampling import FinishReason, Sampler, SamplingSettings

BLOCK_PROMPTS = 64
"""Problems that are answered in one call. What else is in a batch moves the rounding of the logits,
so blocks are dealt whole: another number of processes gives the same completions."""

Answer = tuple[bool, int, bool]
"""Of one completion: whether it counts as right, its tokens, whether it was cut off."""


def validate(
    policy: Policy,
    sampler: Sampler,
    verifier: Verifier,
    tasks: Sequence[TokenizedProblem],
    *,
    max_new_tokens: int,
    world: World,
) -> dict[str, object]:
    """Answer every problem once, greedily (T = 0); an answer that was cut off is wrong (METHOD 8).

    Every process calls it with the same problems and gets the same numbers.

    Args:
        policy: decodes what the sampler drew.
        sampler: of the same policy.
        verifier: judges the answers.
        tasks: the problems, at least one.
        max_new_tokens: longest completion.
        world: the processes that share the work.

    Returns:
        num_prompts, greedy_accuracy, greedy_low and greedy_high (95 % from resampling questions;
        absent with one question), length_mean, truncated_share, seconds (of the slowest process).
    """
    started = time.monotonic()
    settings = SamplingSettings(group_size=1, temperature=0.0, max_new_tokens=max_new_tokens)
    blocks = range(0, len(tasks), BLOCK_PROMPTS)
    own = [start for index, start in enumerate(blocks) if world.owns(index)]
    answers = _answers(
        policy,
        sampler,
        verifier,
        [tasks[start : start + BLOCK_PROMPTS] for start in own],
        settings,
    )
    gathered = world.gather((answers, time.monotonic() - started))
    joined = [answer for part, _ in gathered for answer in part]
    return {**_summary(joined), "seconds": max(seconds for _, seconds in gathered)}


def _answers(
    policy: Policy,
    sampler: Sampler,
    verifier: Verifier,
    blocks: Sequence[Sequence[TokenizedProblem]],
    settings: SamplingSettings,
) -> list[Answer]:
    """The answers of this process's blocks."""
    groups = [
        group
        for block in blocks
        for group in sample_groups(policy, sampler, verifier, block, settings, truncated_wrong=True)
    ]
    answers = []
    for group in groups:
        (completion,), (right,) = group.completions, group.correct
        truncated = completion.finish_reason is FinishReason.LENGTH
        answers.append((right, len(completion.token_ids), truncated))
    return answers


def _summary(answers: Sequence[Answer]) -> dict[str, object]:
    """Means over the problems; their order plays no part in the value."""
    # sorted: the resamples, too, must not depend on which process answered what
    right, lengths, truncated = (np.array(column, float) for column in zip(*answers, strict=True))
    weights_BP = question_weights(len(answers))
    accuracy = bootstrap_ratio(np.sort(right), np.ones(len(answers)), weights_BP)
    bounds = {"greedy_low": accuracy.low, "greedy_high": accuracy.high}
    return {
        "num_prompts": len(answers),
        "greedy_accuracy": accuracy.value,
        **{name: bound for name, bound in bounds.items() if not math.isnan(bound)},
        "length_mean": float(lengths.mean()),
        "truncated_share": float(truncated.mean()),
    }
