"""What a long command tells whoever watches it; silent unless somebody does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Advance:
    """What one finished shard adds."""

    prompts: int
    """Problems finished."""
    completions: int = 0
    """Completions of them."""
    correct: int = 0
    """Correct completions."""
    tokens: int = 0
    """Completion tokens."""
    undecided: int = 0
    """Tokens that the bound on THR left open."""
    resumed: bool = False
    """Whether an earlier process had finished the shard."""


class Monitor:
    """Watches a long command between its shards; this one watches nothing and stops nothing."""

    def begin(self, num_prompts: int) -> None:
        """The work is known: so many problems."""

    def advance(self, advance: Advance) -> None:
        """A shard is on disk."""

    def should_stop(self) -> bool:
        """Whether to stop before the next shard."""
        return False


SILENT = Monitor()


class TrainMonitor:
    """Watches a training run between its steps; this one watches nothing and stops nothing.

    The records are those of `metrics.jsonl`. The first process tells its monitor everything, the
    others only ask theirs whether to stop.
    """

    def begin(self, num_steps: int, done: int = 0) -> None:
        """The work is known: so many steps, of which an earlier process did the first ones."""

    def phase(self, name: str) -> None:
        """A part of the step begins, named as its timer (`gen`, `update` ...), `eval` or `save`."""

    def step(self, record: Mapping[str, object]) -> None:
        """A step is done."""

    def evaluated(self, record: Mapping[str, object]) -> None:
        """The policy was evaluated on a validation set."""

    def should_stop(self) -> bool:
        """Whether to stop before the next step, after a checkpoint."""
        return False


SILENT_TRAINING = TrainMonitor()
