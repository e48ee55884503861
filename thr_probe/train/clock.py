"""Seconds of a step by phase, the modules of the paper's Table 10."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

PHASES = ("gen", "update", "thr", "ref", "old")
"""In the paper's order; their sum is `total`."""


class Clock:
    """Adds up seconds by phase; on CUDA a phase ends when its kernels have."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self.started = time.perf_counter()

    @contextmanager
    def measure(self, phase: str) -> Iterator[None]:
        """Count the block towards a phase."""
        self._synchronise()
        before = time.perf_counter()
        yield
        self._synchronise()
        self.seconds[phase] += time.perf_counter() - before

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def record(self) -> dict[str, float]:
        """Seconds of each phase, their sum, and the wall time since the clock was made."""
        wall = time.perf_counter() - self.started
        return {**self.seconds, "total": sum(self.seconds.values()), "wall": wall}
