"""Numbers with intervals as text, and words that say no more than an interval allows."""

from __future__ import annotations

import math

from thr_probe.core.stats import Interval


def percent(interval: Interval, *, digits: int = 1) -> str:
    """A share with its interval, `12.3 % [11.0, 13.9]`; without bounds where there are none.

    >>> percent(Interval(value=0.123, low=0.11, high=0.139)).split()
    ['12.3', '%', '[11.0,', '13.9]']
    """
    text = f"{100 * interval.value:.{digits}f}\u202f%"
    if has_bounds(interval):
        text += f" [{100 * interval.low:.{digits}f},\u00a0{100 * interval.high:.{digits}f}]"
    return text.replace("-", "−")


def number(interval: Interval) -> str:
    """A value with its interval, to three significant digits of the value.

    >>> number(Interval(value=0.8801, low=0.8708, high=0.89)).split()
    ['0.880', '[0.871,', '0.890]']
    """
    size = abs(interval.value)
    digits = 2 - math.floor(math.log10(size)) if size > 0 else 3
    digits = min(max(digits, 0), 6)
    text = f"{interval.value:.{digits}f}"
    if has_bounds(interval):
        text += f" [{interval.low:.{digits}f},\u00a0{interval.high:.{digits}f}]"
    return text.replace("-", "−")


def has_bounds(interval: Interval) -> bool:
    """Whether there is an interval: a single question gives none."""
    return math.isfinite(interval.low) and math.isfinite(interval.high)


def beside(interval: Interval, reference: float) -> str:
    """Where an interval lies beside a number: "above", "below", or "" where it cannot be told.

    >>> half = Interval(value=0.6, low=0.55, high=0.65)
    >>> beside(half, 0.5), beside(half, 0.7), beside(half, 0.6)
    ('above', 'below', '')
    """
    if has_bounds(interval) and interval.low > reference:
        return "above"
    return "below" if has_bounds(interval) and interval.high < reference else ""


def apart(one: Interval, other: Interval) -> str:
    """Where one interval lies beside another: "above", "below", or "" where they overlap."""
    if not (has_bounds(one) and has_bounds(other)):
        return ""
    if one.low > other.high:
        return "above"
    return "below" if one.high < other.low else ""


def judged(texts: tuple[str, str, str], where: str, *intervals: Interval) -> str:
    """The words for "above", "below" or "not to be told", or that there is nothing to judge by.

    Args:
        texts: the three, in that order.
        where: from `beside` or `apart`.
        intervals: those that it was judged by.
    """
    if not all(map(has_bounds, intervals)):
        return "without an interval, which takes two questions, this cannot be judged"
    return texts[("above", "below", "").index(where)]
