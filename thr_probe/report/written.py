"""The files of an analysis, read back: what the report shows is what was written, nothing else."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thr_probe.core.stats import Interval
from thr_probe.gallery import Outcome
from thr_probe.report.captions_html import caption_of_file


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """An analysis as its files have it."""

    name: str
    """The analysis."""
    folder: Path
    """Where its files are."""
    tables: tuple[str, ...]
    """File names of its tables, the summary first."""
    facts: Mapping[str, Any]
    """Counts, exclusions, estimator, interval method, seed."""
    summary: tuple[Mapping[str, Any], ...]
    """The rows of the summary; None where a number is not defined."""
    command: str
    """The command line that made it."""
    caption: str
    """LaTeX."""
    empty_reason: str | None
    """Why there is nothing to draw."""

    def interval(self, quantity: str, split: str = "all") -> Interval | None:
        """A quantity with its bounds, NaN where there are none; None where it is not defined."""
        for row in self.summary:
            if row["quantity"] == quantity and row["split"] == split:
                value, low, high = (_number(row[key]) for key in ("value", "low", "high"))
                return None if math.isnan(value) else Interval(value=value, low=low, high=high)
        return None

    def splits(self, quantity: str) -> list[str]:
        """The splits that have the quantity, in the order of the summary."""
        return [row["split"] for row in self.summary if row["quantity"] == quantity]

    def count(self, fact: str) -> int:
        """A fact that is a count; 0 where the analysis does not tell it."""
        value = self.facts.get(fact)
        return value if isinstance(value, int) else 0

    def rows(self, curve: str) -> list[dict[str, str]]:
        """The lines of one of its tables, as text."""
        path = self.folder / f"{self.name}-{curve}.csv"
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    def text(self, suffix: str) -> str:
        """The text of its file with that ending."""
        return (self.folder / f"{self.name}.{suffix}").read_text(encoding="utf-8")


def read_written(outcome: Outcome, folder: Path) -> Written | None:
    """The files of one analysis; None where it could not be computed.

    Args:
        outcome: of `analyze_all`.
        folder: where that wrote them.
    """
    if outcome.analysis is None:
        return None
    name = outcome.name
    content = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    caption = caption_of_file((folder / f"{name}.tex").read_text(encoding="utf-8"))
    curves = tuple(f"{name}-{curve}.csv" for curve in outcome.analysis.curves)
    return Written(
        name=name,
        folder=folder,
        tables=(f"{name}.csv", *curves),
        facts=content["facts"],
        summary=tuple(content["summary"]),
        command=content["command"],
        caption=caption,
        empty_reason=content["empty_reason"],
    )


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
