"""Did the mechanism of a row act at all? A row whose mechanism slept is GRPO by another name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import pandas as pd

from thr_probe.reproduce.rows import Activity

INACTIVE_BELOW = 0.01
"""A mechanism that acted in a smaller share is called inactive."""

GRPO_UPPER_BOUND = 1.2
"""Ratios above it are what Clip-High treats differently."""

RATIO_ROUNDING = 1e-4
"""Ratios of one policy to itself differ from 1 by less: single precision."""


def active_share(activity: Activity, steps: pd.DataFrame) -> float:
    """The share of a training run's updates, or of its steps, in which the mechanism acted.

    Args:
        activity: by which metric it is seen.
        steps: the records of the steps.

    Returns:
        A share; NaN where there is no training, or the metric was not recorded.
    """
    if activity is Activity.ALWAYS:
        return 1.0
    rule = _RULES.get(activity)
    return math.nan if rule is None or steps.empty else rule(steps)


def is_inactive(share: float) -> bool:
    """Whether a row is to be marked; an unknown share (NaN) is not."""
    return share < INACTIVE_BELOW


def _updates(steps: pd.DataFrame) -> float:
    active, total = (numbers(steps, name).sum() for name in ("active_updates", "num_updates"))
    recorded = numbers(steps, "active_updates").notna().any()
    return float(active / total) if recorded and total else math.nan


def _positive(name: str) -> Callable[[pd.DataFrame], float]:
    return lambda steps: _share(numbers(steps, name), lambda value: value > 0)


def _above_grpo(steps: pd.DataFrame) -> float:
    return _share(numbers(steps, "ratio_max"), lambda value: value > GRPO_UPPER_BOUND)


def _not_one(steps: pd.DataFrame) -> float:
    return _share(_furthest(steps), lambda value: value > RATIO_ROUNDING)


def _penalised(steps: pd.DataFrame) -> float:
    # the gradient of |log ratio| is 0 at a ratio of exactly 1
    furthest, number = _furthest(steps), numbers(steps, "penalised_tokens")
    number = number.mask((furthest <= RATIO_ROUNDING) & number.notna(), 0.0)
    return _share(number.mask(furthest.isna() & (number > 0)), lambda value: value > 0)


def _furthest(steps: pd.DataFrame) -> pd.Series[float]:
    """How far the ratio of a token was from 1 in each step; NaN where that is not known."""
    low, high = numbers(steps, "ratio_min"), numbers(steps, "ratio_max")
    sides = pd.concat([1 - low, high - 1], axis=1)
    furthest = sides.max(axis=1)
    # one side alone can tell that a ratio moved, not that none did
    return furthest.where(sides.notna().all(axis=1) | (furthest > RATIO_ROUNDING))


_RULES: Mapping[Activity, Callable[[pd.DataFrame], float]] = {
    Activity.MASKED: _positive("masked_share"),
    Activity.KEPT_ENTROPY: _positive("kept_entropy_share"),
    Activity.CLIPPED: _updates,
    Activity.PENALISED: _penalised,
    Activity.UPPER_CLIP: _above_grpo,
    Activity.RATIO: _not_one,
}


def numbers(steps: pd.DataFrame, name: str) -> pd.Series[float]:
    """A column of the records as numbers; NaN where it was not recorded."""
    if name not in steps:
        return pd.Series(math.nan, index=steps.index, dtype=float)
    return steps[name].astype(float)


def _share(value: pd.Series[float], acts: Callable[[pd.Series[float]], pd.Series[bool]]) -> float:
    recorded = value.dropna()
    return float(acts(recorded).mean()) if len(recorded) else math.nan
