"""The advantage of a completion, chosen once from the options."""

from __future__ import annotations

import functools

from thr_probe.core.advantages import (
    dr_grpo_advantages,
    group_advantages,
    mixed_pass_at_k_advantages,
    pass_at_k_advantages,
    pkpo_advantages,
    static_pass_at_k_advantages,
)
from thr_probe.train.config import TrainConfig
from thr_probe.train.rollouts import CompletionAdvantage


def completion_advantage(config: TrainConfig) -> CompletionAdvantage:
    """From the verdicts of a group to the advantages of its completions (METHOD 4)."""
    k, std = config.k, config.adv_std
    if config.advantage == "pkpo":
        return functools.partial(pkpo_advantages, k=k)
    if config.advantage == "dr-grpo":
        return dr_grpo_advantages
    if config.pass_at_k == "pure":
        return functools.partial(pass_at_k_advantages, k=k, std=std)
    if config.pass_at_k == "mixed":
        return functools.partial(mixed_pass_at_k_advantages, k=k, mix=config.mix, std=std)
    if config.pass_at_k == "static":
        return functools.partial(static_pass_at_k_advantages, k=k, chi=config.chi, std=std)
    return functools.partial(group_advantages, std=std)
