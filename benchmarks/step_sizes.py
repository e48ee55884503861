"""What both sides of the comparison are given, and what each reports back. Loads no torch."""

from __future__ import annotations

import json
import resource
from dataclasses import asdict, dataclass, field

PHASES = ("gen", "old", "thr", "ref", "update")
"""Parts of a step in their order: sampling and verification, old log-probabilities, THR, reference
log-probabilities, updates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """One step, and how many of them are timed."""

    prompts: int = 16
    """Questions per step; every group is trained on."""
    group_size: int = 8
    """Completions per question."""
    updates: int = 4
    """Optimiser updates per step."""
    max_new_tokens: int = 160
    """Longest completion."""
    steps: int = 3
    """Timed steps, after one that is not."""
    lr: float = 1e-4
    """Learning rate of AdamW."""
    kl_coef: float = 1e-4
    """Coefficient of the k3 penalty: above 0, so that the reference policy runs."""
    chunk_size: int = 4096
    """Tokens whose logits thr_probe holds at once."""
    seed: int = 0
    """Of problems and draws."""
    model: str = "lab"
    """The lab's policy, or a directory with one of its vocabulary."""
    device: str = "cpu"
    """cpu or cuda."""
    dtype: str = "float32"
    """Of forward and backward."""
    verifier: str = "math"
    """Of the rewards, on both sides."""

    @property
    def rows_per_update(self) -> int:
        """Completions of one update."""
        return self.prompts * self.group_size // self.updates


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step as it was timed."""

    seconds: float
    """Wall time."""
    cpu: float
    """Processor time of the process, which other processes on the machine hardly touch."""
    tokens: int
    """Completion tokens."""
    phases: dict[str, float]
    """Wall time of each part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one process says of its steps."""

    steps: list[Step] = field(default_factory=list)
    """Those that were timed."""
    loaded: int = 0
    """Peak bytes before the first step: libraries, weights."""
    peak: int = 0
    """Peak bytes after the last one; on CUDA those of the device."""

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(line: str) -> Report:
        """The report that a line holds."""
        values = json.loads(line)
        return Report(**{**values, "steps": [Step(**step) for step in values["steps"]]})


def peak_rss() -> int:
    """Most bytes that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
