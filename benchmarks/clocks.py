"""Two clocks: wall time, and the processors' time, which other processes hardly touch."""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Seconds:
    """A span on both clocks."""

    wall: float = 0.0
    """Passed."""
    cpu: float = 0.0
    """Of processors: this process and those that it waited for."""

    def __add__(self, other: Seconds) -> Seconds:
        return Seconds(self.wall + other.wall, self.cpu + other.cpu)

    def __sub__(self, other: Seconds) -> Seconds:
        return Seconds(self.wall - other.wall, self.cpu - other.cpu)


def now() -> Seconds:
    """Both clocks; the difference of two readings is a span."""
    waited = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Seconds(time.perf_counter(), time.process_time() + waited.ru_utime + waited.ru_stime)
