"""Samplers: engines that answer prompts with groups of completions.

The protocol loads nothing heavy; each engine is a module of its own, imported when asked for.
"""

from __future__ import annotations

from thr_probe.sampling.protocol import (
    Completion,
    FinishReason,
    IdsSource,
    Prompt,
    Sampler,
    SamplingSettings,
    close,
    closing,
    expect,
    renew,
    rest,
)

__all__ = [
    "Completion",
    "FinishReason",
    "IdsSource",
    "Prompt",
    "Sampler",
    "SamplingSettings",
    "close",
    "closing",
    "expect",
    "renew",
    "rest",
]
