"""What a long command tells whoever watches it; silent unless somebody does."""

from __future__ import annotations

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
