"""The paper's settings by model (METHOD 6), and the lab's."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from thr_probe.errors import UsageError

NO_PRESET = "none"

_QWEN_MATH: Mapping[str, object] = {
    "template": "qwen-boxed",
    "prompts": 256,
    "group_size": 8,
    "max_new_tokens": 3072,
    "max_prompt_tokens": 1024,
    "lr": 1e-6,
    "mini_batch": 64,
    "mini_batch_unit": "rollouts",  # 32 updates per step, as the paper states twice
    "steps": 40,
    "kl_coef": 1e-4,
    "trace_every": 10,
}

PRESETS: dict[str, Mapping[str, object]] = {
    NO_PRESET: {},
    "lab": {
        "max_prompts": 4000,
        "max_prompt_tokens": 200,
        "validation": "lab:validation",
        "validation_prompts": 100,
        "eval_every": 10,
        "prompts": 32,
        "gen_prompts": 40,  # a sixth of the groups has no advantage
        "group_size": 8,
        "max_new_tokens": 160,
        "mini_batch": 4,  # eight updates per step
        "lr": 1.2e-4,
        "lr_decay": "linear",
        "warmup_steps": 4,
        "steps": 40,
        "save_every": 20,
        "trace_every": 10,
        "chunk_size": 4096,
    },
    "qwen-math-1.5b": {"model": "Qwen/Qwen2.5-Math-1.5B", **_QWEN_MATH},
    "qwen-math-7b": {"model": "Qwen/Qwen2.5-Math-7B", **_QWEN_MATH},
    "qwen2.5-0.5b-instruct": {
        "model": "Qwen/Qwen2.5-0.5B-Instruct",
        "template": "abel",
        "prompts": 32,
        "group_size": 8,
        "max_new_tokens": 2500,
        "lr": 5e-7,
        "mini_batch": 16,
        "steps": 105,  # the paper is silent; Deng et al. 2025 for the same setting
        "keep_entropy": 0.2,
        "trace_every": 10,
    },
    "llama3.2-3b-instruct": {
        "model": "meta-llama/Llama-3.2-3B-Instruct",
        "template": "abel",
        "prompts": 256,
        "group_size": 8,
        "max_new_tokens": 3000,
        "lr": 1e-6,
        "mini_batch": 16,
        "steps": 40,
        "keep_entropy": 0.2,
        "trace_every": 10,
    },
}
"""Options by name, as flags without dashes."""


def preset_values(name: str) -> Mapping[str, object]:
    """The options of a preset.

    Raises:
        UsageError: no such preset, with the closest one.
    """
    if name not in PRESETS:
        close = difflib.get_close_matches(name, PRESETS, n=1)
        raise UsageError(
            f"unknown preset {name!r}",
            f"did you mean {close[0]!r}?" if close else f"known are {', '.join(PRESETS)}",
        )
    return PRESETS[name]
