"""Rows that were left out, counted by their reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

EXAMPLES = 3
MAX_REASONS = 40
"""Different reasons that are kept apart."""
OTHER = "other reasons"


class RowRefusedError(Exception):
    """A row that cannot be taken; its only argument is the reason."""


@dataclass(slots=True, kw_only=True)
class Refusal:
    """One reason."""

    count: int = 0
    """Rows refused for it."""
    where: list[str] = field(default_factory=list)
    """The first of them."""


@dataclass(slots=True)
class Refusals:
    """All reasons."""

    by_reason: dict[str, Refusal] = field(default_factory=dict)
    """In the order of appearance."""

    def add(self, where: str, reason: str) -> None:
        """Count a row."""
        if reason not in self.by_reason and len(self.by_reason) >= MAX_REASONS:
            where, reason = f"{where}: {reason}", OTHER
        found = self.by_reason.setdefault(reason, Refusal())
        found.count += 1
        if len(found.where) < EXAMPLES:
            found.where.append(where)

    @property
    def count(self) -> int:
        """Rows refused."""
        return sum(found.count for found in self.by_reason.values())

    def rows(self) -> list[dict[str, object]]:
        """Reason, count and examples, the commonest first."""
        ordered = sorted(self.by_reason.items(), key=lambda item: -item[1].count)
        return [
            {"reason": reason, "rows": found.count, "examples": found.where}
            for reason, found in ordered
        ]


def first_words(refusals: Sequence[dict[str, object]]) -> str:
    """The commonest reason with its first place, for a sentence."""
    if not refusals:
        return "they hold no rows"
    first = refusals[0]
    examples = first["examples"]
    place = f" ({examples[0]})" if isinstance(examples, list) and examples else ""
    more = f", and {len(refusals) - 1} other reasons" if len(refusals) > 1 else ""
    return f"{first['reason']}{place}{more}"
