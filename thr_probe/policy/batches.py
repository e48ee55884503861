"""Rows of unequal length in batches that fit the memory."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from thr_probe.errors import PrerequisiteError, UsageError

EVEN = 0.75
"""Rows shorter than this share of a batch's longest wait for the next one: padding is not free."""

ENOUGH_TOKENS = 1024
"""Up to here a batch takes rows of any length: several tiny batches cost more than padding."""


@dataclass(slots=True)
class TokenBudget:
    """How many tokens, padding included, one batch may hold; shrinks when memory runs out."""

    tokens: int
    """The budget as it stands."""

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise UsageError(f"batch_tokens must be at least 1, got {self.tokens}")

    def halve(self) -> None:
        """Half the budget, and say so."""
        self.tokens = max(1, self.tokens // 2)
        warnings.warn(
            f"out of GPU memory: batch_tokens is now {self.tokens}; "
            "a smaller --batch-tokens from the start avoids the failed attempt",
            stacklevel=3,
        )


def run_batches(
    lengths: Sequence[int],
    budget: TokenBudget,
    run: Callable[[list[int]], None],
    *,
    together: int = 1,
) -> None:
    """Call `run` on batches of row numbers, longest rows first, until every row was in one.

    A batch holds rows times its longest row <= budget tokens, and at least one row; of rows that
    come in runs of `together` (a prompt's rollouts) whole runs, where one fits. On CUDA out of
    memory the budget is halved and the batch tried again.

    Raises:
        PrerequisiteError: a single row does not fit the memory.
    """
    # longest first: the largest batch comes first, so memory runs out early or never
    waiting = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    while waiting:
        longest = max(1, lengths[waiting[0]])
        size = max(1, budget.tokens // longest)
        batch = waiting[: size - size % together if size > together else size]
        batch = [
            row
            for place, row in enumerate(batch)
            if place * longest < ENOUGH_TOKENS or lengths[row] >= EVEN * longest
        ]
        if _fits(run, batch):
            waiting = waiting[len(batch) :]
            continue
        if len(batch) == 1:
            raise PrerequisiteError(
                f"out of GPU memory with a single row of {longest} tokens",
                hint="use a larger GPU, bfloat16 or a smaller model",
            )
        # the budget may have allowed more rows than there were
        budget.tokens = min(budget.tokens, len(batch) * longest)
        budget.halve()


def _fits(run: Callable[[list[int]], None], batch: list[int]) -> bool:
    try:
        run(batch)
    except torch.OutOfMemoryError:
        # the tensors of the failed attempt die with the traceback, after this block
        pass
    else:
        return True
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return False
