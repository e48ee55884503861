"""The policy and the engine that samples from it, loaded together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from thr_probe.config import RolloutConfig, config_dict
from thr_probe.engine_options import TRANSFORMERS
from thr_probe.policy import AnyPolicy, UnloadedPolicy, load_unloaded
from thr_probe.processes import World
from thr_probe.prompts import longest_sequence
from thr_probe.sampling import Sampler, close
from thr_probe.sampling.engines import load_sampler
from thr_probe.score import policy_of

SHARE_BESIDE_SCORING, SHARE_ALONE = 0.6, 0.9
"""Of a GPU's memory, for vLLM with and without the policy that computes THR beside it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """What answers problems."""

    policy: AnyPolicy
    """Reads prompts, decodes completions, computes THR."""
    sampler: Sampler
    """Generates."""


def load_engine(config: RolloutConfig, world: World, *, scores: bool) -> Engine:
    """Load what the options name.

    Args:
        config: the resolved options.
        world: the processes.
        scores: whether THR is computed with the policy.

    Raises:
        UsageError, DataError, PrerequisiteError: what is wrong with the policy or the engine.
    """
    policy = (
        policy_of(config, world)
        if needs_weights(config, scores=scores)
        else _unloaded(config, world)
    )
    sampler = load_sampler(
        config_dict(config),
        policy,
        max_length=longest_sequence(policy, config.max_prompt_tokens, config.max_new_tokens),
        gpu_share=SHARE_BESIDE_SCORING if scores else SHARE_ALONE,
    )
    return Engine(policy=policy, sampler=sampler)


@contextmanager
def engine_on_demand(
    config: RolloutConfig,
    world: World,
    *,
    scores: bool,
    given: Callable[[], Engine] | None = None,
) -> Iterator[Callable[[], Engine]]:
    """What the options name, loaded when it is first asked for and closed at the end.

    Args:
        config: the resolved options.
        world: the processes.
        scores: whether THR is computed with the policy.
        given: what the caller has, and closes, in its place.
    """
    if given is not None:
        yield given
        return
    loaded: list[Engine] = []

    def load() -> Engine:
        if not loaded:
            loaded.append(load_engine(config, world, scores=scores))
        return loaded[0]

    try:
        yield load
    finally:
        for engine in loaded:
            close(engine.sampler)


def needs_weights(config: RolloutConfig, *, scores: bool) -> bool:
    """Whether the policy's own weights are loaded: to sample, to score, to merge an adapter."""
    return scores or config.engine == TRANSFORMERS or config.adapter is not None


def _unloaded(config: RolloutConfig, world: World) -> UnloadedPolicy:
    return load_unloaded(
        config.model,
        device=world.device(config.device),
        dtype=config.dtype,
        revision=config.revision,
    )
