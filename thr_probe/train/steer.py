"""p over the steps: constant, a schedule, or a loop that holds a target entropy.

The paper leaves adapting p to future work (section 7); these two are ours and off by default.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from thr_probe.train.config import TrainConfig


@dataclass(slots=True, kw_only=True)
class Steerer:
    """Yields p of each step; its state goes into the checkpoint."""

    config: TrainConfig
    """`p`, `adaptive_p` and what belongs to it."""
    current: float
    """p of the next step."""
    target: float
    """Entropy to hold, nats per token; NaN until the first step has been seen."""

    @classmethod
    def of(cls, config: TrainConfig) -> Steerer:
        """At the start of a run."""
        target = math.nan if config.target_entropy is None else config.target_entropy
        return cls(config=config, current=config.p, target=target)

    def p(self, step: int) -> float:
        """p of a step.

        `schedule` goes in a straight line from `p` in the first step to `p_final` in the last.
        """
        if self.config.adaptive_p == "schedule":
            share = step / max(1, self.config.steps - 1)
            return (1 - share) * self.config.p + share * self.config.p_final
        return self.current

    def observe(self, entropy: float) -> None:
        """`entropy`: p grows by gain * (entropy - target), within the limit.

        Entropy below the target lowers p, which explores; above it, p exploits. It is an integral
        controller: a lasting deviation keeps moving p.

        Args:
            entropy: mean over the step's tokens, nats.
        """
        if self.config.adaptive_p != "entropy" or not math.isfinite(entropy):
            return
        if math.isnan(self.target):
            self.target = entropy
        moved = self.current + self.config.p_gain * (entropy - self.target)
        limit = min(self.config.p_limit, math.nextafter(1.0, 0.0))
        self.current = max(-limit, min(limit, moved))

    def state(self) -> dict[str, float | None]:
        """For the checkpoint; JSON knows no NaN."""
        target = None if math.isnan(self.target) else self.target
        return {"p": self.current, "target_entropy": target}

    def restore(self, state: dict[str, float | None]) -> None:
        """Go on from a checkpoint."""
        self.current = float(state["p"] or 0.0)
        target = state["target_entropy"]
        self.target = math.nan if target is None else float(target)
