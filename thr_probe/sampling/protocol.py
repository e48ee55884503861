"""What a sampler is: prompts and settings in, groups of completions out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, runtime_checkable

from thr_probe.errors import UsageError


class FinishReason(StrEnum):
    """Why a completion ended."""

    STOP = "stop"
    """The policy emitted an end-of-sequence token, which is part of the completion."""
    LENGTH = "length"
    """The limit of tokens was reached."""
    ABORT = "abort"
    """The engine gave up."""


class IdsSource(StrEnum):
    """Where the ids of a completion come from."""

    SAMPLED = "sampled"
    """The engine's own ids."""
    RETOKENIZED = "retokenized"
    """The engine's text, tokenized again: they may differ from what was sampled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingSettings:
    """How every prompt is sampled."""

    group_size: int
    """G, completions per prompt."""
    temperature: float = 1.0
    """Divides the logits; 0 takes the likeliest token."""
    top_p: float = 1.0
    """Keep the smallest set of likeliest tokens with at least this mass."""
    max_new_tokens: int = 512
    """Longest completion, end-of-sequence included."""
    seed: int = 0
    """With prompt id, rollout and position it decides every draw."""

    def __post_init__(self) -> None:
        if self.group_size < 1:
            raise UsageError(f"group_size must be at least 1, got {self.group_size}")
        if not 0 <= self.temperature < float("inf"):
            raise UsageError(f"temperature must be 0 or positive, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise UsageError(f"top_p must lie in (0, 1], got {self.top_p}")
        if self.max_new_tokens < 1:
            raise UsageError(f"max_new_tokens must be at least 1, got {self.max_new_tokens}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A prompt as the policy reads it."""

    prompt_id: str
    """Keys the draws, together with seed, rollout and position."""
    token_ids: Sequence[int]
    """At least one token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """One sampled completion."""

    token_ids: Sequence[int]
    """The sampled ids, an emitted end-of-sequence included."""
    logprobs: Sequence[float] | None
    """Log-probability of each id in the distribution it was drawn from (temperature and top-p
    applied); of greedy completions, the one at temperature 1. None where the engine gave none."""
    finish_reason: FinishReason
    """Why it ended."""
    ids_source: IdsSource = IdsSource.SAMPLED
    """Whether the ids are those that were sampled."""
    text: str | None = None
    """The engine's own text; None: what the ids decode to."""


@runtime_checkable
class Sampler(Protocol):
    """An engine that answers prompts."""

    @property
    def name(self) -> str:
        """Recorded in the manifest."""
        ...

    def sample(
        self, prompts: Sequence[Prompt], settings: SamplingSettings
    ) -> list[list[Completion]]:
        """A group of `settings.group_size` completions per prompt, in the order given."""
        ...


@runtime_checkable
class Colocated(Protocol):
    """A sampler that holds weights of its own, on the machine of those that are trained."""

    def renew(self) -> None:
        """The policy's weights changed: the next completions are drawn with the new ones."""
        ...

    def rest(self) -> None:
        """Leave the GPU's memory to others until the next call of `sample`."""
        ...

    def close(self) -> None:
        """Give back all memory; nothing is sampled any more."""
        ...


@runtime_checkable
class Anticipating(Protocol):
    """A sampler that can begin with prompts before their groups are asked for."""

    def expect(self, prompts: Iterable[Prompt], settings: SamplingSettings) -> None:
        """Begin with as many of these as is useful; `sample` gives their groups later."""
        ...


def expect(sampler: Sampler, prompts: Iterable[Prompt], settings: SamplingSettings) -> None:
    """Tell a sampler which prompts it will be asked for next, if it can use that."""
    if isinstance(sampler, Anticipating):
        sampler.expect(prompts, settings)


def renew(sampler: Sampler) -> None:
    """Tell a sampler with weights of its own that the policy's changed."""
    if isinstance(sampler, Colocated):
        sampler.renew()


def rest(sampler: Sampler) -> None:
    """Have the GPU's memory for scoring and training until the next call of `sample`."""
    if isinstance(sampler, Colocated):
        sampler.rest()


def close(sampler: Sampler) -> None:
    """Give back what a sampler holds."""
    if isinstance(sampler, Colocated):
        sampler.close()


@contextmanager
def closing(sampler: Sampler) -> Iterator[None]:
    """Give back what a sampler holds when the work with it ends, however it ends."""
    try:
        yield
    finally:
        close(sampler)
