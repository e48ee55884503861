"""Right or wrong, as a foreign file says it: a label, a reward, or nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from thr_probe.errors import UsageError
from thr_probe.importing.refusals import RowRefusedError
from thr_probe.importing.settings import ImportSettings
from thr_probe.traces.importers.foreign import ForeignCompletion

_HINT = (
    "say above which reward a completion is right with --correct-above VALUE, or judge the "
    "completions again with --regrade"
)
_PLAIN = frozenset({-1.0, 0.0, 1.0})


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """What the source says of a completion; None: nothing, it is to be graded."""

    reward: float | None
    """Its reward, or 1 and 0 for its label."""
    correct: bool | None
    """Its label, or its reward above the threshold."""


UNLABELLED = Label(reward=None, correct=None)


@dataclass(slots=True, kw_only=True)
class Labels:
    """Reads labels; keeps in mind which rewards occurred, as their meaning must not be guessed."""

    settings: ImportSettings
    """Threshold, and whether everything is graded anyway."""
    seen: set[float] = field(default_factory=set)
    """Rewards that had to be read as labels."""

    def read(self, row: ForeignCompletion) -> Label:
        """The label of a row.

        Raises:
            RowRefusedError: a reward that is no number, or no label and nothing to grade against.
            UsageError: a reward whose meaning the user has to say.
        """
        reward = None if row.reward is None else float(row.reward)
        if reward is not None and not math.isfinite(reward):
            raise RowRefusedError(f"the reward is {reward}")
        if row.correct is not None:
            correct = bool(row.correct)
            return Label(reward=float(correct) if reward is None else reward, correct=correct)
        if reward is not None and not (self.settings.regrade and self._is_shaped(reward)):
            return Label(reward=reward, correct=self._is_right(reward, row.where))
        if not row.answer:
            raise RowRefusedError("neither a label nor a reward nor a gold answer")
        return UNLABELLED

    def check(self) -> None:
        """Refuse rewards that mean different things in different programs.

        Raises:
            UsageError: -1 and 0 in the same files.
        """
        if self.settings.correct_above is None and self.seen >= {-1.0, 0.0}:
            raise UsageError("the rewards hold -1 and 0: is 0 right or wrong?", _HINT)

    def _is_shaped(self, reward: float) -> bool:
        return self.settings.correct_above is None and reward not in _PLAIN

    def _is_right(self, reward: float, where: str) -> bool:
        if self._is_shaped(reward):
            raise UsageError(f"{where}: the reward is {reward:g}, neither 0, 1 nor -1", _HINT)
        self.seen.add(reward if reward in _PLAIN else 1.0)
        return reward > (self.settings.correct_above or 0.0)
