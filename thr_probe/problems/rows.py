"""A row's question and golds, before any template; cells as text."""

from __future__ import annotations

import math
from dataclasses import dataclass

from thr_probe.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What one row of a source holds."""

    dataset: str
    """Name of the set."""
    level: str | None
    """Difficulty, where stated."""
    question: str
    """The question, not blank."""
    answer: str
    """The gold as the source writes it; may be empty."""
    answer_alt: str | None
    """A second gold."""
    prompt_text: str | None
    """The finished prompt where the source brings one; None: the template makes it."""


def text_value(where: str, value: object) -> str:
    """A cell as stripped text; empty for null and NaN.

    >>> [text_value("", value) for value in (" 7 ", 7, 7.0, 0.5, float("nan"), None)]
    ['7', '7', '7', '0.5', '', '']
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise DataError(f"{where}: expected text or a number, found {found(value)}")


def found(value: object) -> str:
    """Type and start of a value, for messages."""
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"
