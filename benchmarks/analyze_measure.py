"""Time and memory of one side of `analyze.py`, in a process that does nothing else."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from typing import Any


def measured(work: Callable[[], Any]) -> tuple[dict[str, float], Any]:
    """Time and memory of the work, and what it found."""
    loaded = _peak()
    wall, cpu = time.perf_counter(), time.process_time()
    found = work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"wall": wall, "cpu": cpu, "peak": _peak(), "loaded": loaded}, found


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
