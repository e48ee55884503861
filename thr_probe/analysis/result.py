"""What every analysis returns: one tidy table with intervals, the curves drawn, the facts."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from thr_probe.core.stats import Interval

SUMMARY_COLUMNS = ("quantity", "split", "unit", "value", "low", "high", "num_questions")


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """The numbers of one analysis, ready to be written or drawn; a figure adds none of its own."""

    name: str
    """Stem of the files it is written to, such as `density`."""
    summary: pd.DataFrame
    """One row per quantity and split, columns `SUMMARY_COLUMNS`."""
    curves: dict[str, pd.DataFrame]
    """Exactly the numbers that the figure draws, by the name of the curve."""
    facts: dict[str, object]
    """Counts, exclusions, estimator, interval method, seed: whatever the numbers depend on."""
    caption: str
    """LaTeX text of the caption, complete sentences, already escaped."""
    empty_reason: str | None = None
    """A sentence, where there is nothing to draw: the figure then says so."""

    def value(self, quantity: str, split: str = "all") -> Interval:
        """The summary's row of a quantity in a split.

        Raises:
            KeyError: no such row.
        """
        rows = self.summary
        found = rows[(rows["quantity"] == quantity) & (rows["split"] == split)]
        if len(found) != 1:
            raise KeyError(f"{self.name}: no quantity {quantity!r} in split {split!r}")
        value, low, high = (float(found[column].iloc[0]) for column in ("value", "low", "high"))
        return Interval(value=value, low=low, high=high)

    def count(self, fact: str) -> int:
        """A fact that is a count."""
        return int(str(self.facts[fact]))


def summary_row(
    quantity: str, split: str, unit: str, interval: Interval, *, num_questions: int
) -> dict[str, object]:
    """One row of the summary.

    Args:
        quantity: what is measured, such as `dominant_share`.
        split: which completions, such as `correct`.
        unit: what the value counts, such as `share of tokens`.
        interval: the estimate with its bounds.
        num_questions: questions behind it.
    """
    values = (quantity, split, unit, interval.value, interval.low, interval.high, num_questions)
    return dict(zip(SUMMARY_COLUMNS, values, strict=True))


def summary_table(rows: Iterable[dict[str, object]]) -> pd.DataFrame:
    """The summary of rows made by `summary_row`; without rows, an empty table with its columns."""
    return pd.DataFrame(list(rows), columns=list(SUMMARY_COLUMNS))


def empty_analysis(name: str, reason: str, facts: dict[str, object]) -> Analysis:
    """The analysis of a run in which there is nothing to draw; the reason also serves as caption.

    Args:
        name: of the analysis.
        reason: a plain sentence with its counts.
        facts: the counts and options.
    """
    return Analysis(
        name=name,
        summary=summary_table([]),
        curves={},
        facts=facts,
        caption=latex_escape(reason),
        empty_reason=reason,
    )


def plain_facts(value: object) -> object:
    """Facts as JSON can carry them: numpy values as Python's, NaN and infinity as null."""
    if isinstance(value, dict):
        return {str(key): plain_facts(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_facts(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain_facts(value.tolist())
    if isinstance(value, np.generic):
        return plain_facts(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{symbol: "\\" + symbol for symbol in "&%$#_{}"},
}


def latex_escape(text: str) -> str:
    """Plain text with the ten special characters of LaTeX escaped."""
    return "".join(_LATEX.get(character, character) for character in text)


def latex_percent(interval: Interval, *, digits: int = 1) -> str:
    r"""A share in percent with its interval, `12.3\,\% [11.0, 13.9]`; no bounds if undefined."""
    text = rf"{100 * interval.value:.{digits}f}\,\%"
    if math.isfinite(interval.low):
        text += f" [{100 * interval.low:.{digits}f}, {100 * interval.high:.{digits}f}]"
    return text


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A count with its noun, thousands set apart: `1 question`, `12,345 tokens`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
