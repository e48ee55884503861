"""Options of `thr-probe preview`: those of the trainer, and several p at once."""

from __future__ import annotations

from dataclasses import dataclass, replace

from thr_probe.errors import UsageError
from thr_probe.train.config import TrainConfig

NTHR_METHODS = ("nthr", "random")
"""Methods that need NTHR's score, which no trace holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewOptions:
    """What is previewed, and how."""

    config: TrainConfig
    """The method with its options, as `thr-probe train` takes them; `prompts` and `mini_batch` say
    how many groups make up a step and a mini-batch."""
    ps: tuple[float, ...] = ()
    """Values of p, each with a row of its own; none: that of the config."""
    with_nthr: bool = False
    """Whether the policy replays the groups for NTHR's score, although the method does not ask."""
    score_id: str | None = None
    """Which scores; the only ones by default."""
    seed: int = 0
    """Of the bootstrap over questions."""

    def __post_init__(self) -> None:
        if self.ps and self.config.method != "thr":
            raise UsageError(
                f"--p belongs to --method thr, and --method {self.config.method} has no p",
                "leave one of the two out",
            )
        for p in self.ps:
            replace(self.config, p=p)  # refused in the trainer's words

    @property
    def needs_nthr(self) -> bool:
        """Whether a policy has to replay the groups."""
        return self.with_nthr or self.config.method in NTHR_METHODS

    @property
    def cov_share(self) -> float:
        """Share of tokens that KL-Cov would penalise, whatever the config's objective."""
        return replace(self.config, cov="kl-cov").effective_cov_share

    @property
    def settings(self) -> dict[str, float]:
        """The values of p by the name of their rows; without a p, the method's name."""
        if self.config.method != "thr":
            return {self.config.method: 0.0}
        return {f"p = {p:+g}": p for p in self.ps or (self.config.p,)}
