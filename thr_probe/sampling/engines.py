"""The sampler that the options name. An engine's own packages are loaded when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, cast

from thr_probe.engine_options import ENGINE_OPTIONS, OPENAI, TRANSFORMERS, VLLM, check_engine
from thr_probe.policy import AnyPolicy, Policy
from thr_probe.sampling.hf import TransformersSampler
from thr_probe.sampling.protocol import Sampler


def load_sampler(
    options: Mapping[str, Any], policy: AnyPolicy, *, max_length: int, gpu_share: float = 0.9
) -> Sampler:
    """The sampler of an engine.

    Args:
        options: of a command that samples, by name: engine, model, adapter, batch_tokens and
            those of the engines.
        policy: what is sampled.
        max_length: tokens of the longest prompt with its completion.
        gpu_share: share of the GPU's memory that vLLM takes where --gpu-memory does not say.

    Raises:
        UsageError: an unknown engine, or options of another one.
        PrerequisiteError: the engine is not installed, cannot run here, or no server answers.
    """
    check_engine(options)
    engine = options["engine"]
    if engine == TRANSFORMERS:
        assert isinstance(policy, Policy)
        return TransformersSampler(policy=policy, batch_tokens=options["batch_tokens"])
    given = {
        name: options[name] for name in ENGINE_OPTIONS[engine] if options.get(name) is not None
    }
    if engine == OPENAI:
        module: Any = importlib.import_module("thr_probe.sampling.openai")
        over_http = module.OpenAISampler(
            tokenizer=policy.tokenizer, eos_ids=policy.eos_ids, policy_name=policy.name, **given
        )
        over_http.check()
        return cast(Sampler, over_http)
    assert engine == VLLM
    module = importlib.import_module("thr_probe.sampling.vllm")
    return cast(
        Sampler,
        module.load_vllm(policy, options, max_length=max_length, gpu_share=gpu_share),
    )
