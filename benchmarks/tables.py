"""How the benchmarks tell repetitions: median and range, in Markdown tables."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


def told(values: Sequence[float]) -> str:
    """Median and range."""
    middle, low, high = map(number, (statistics.median(values), min(values), max(values)))
    return middle if len(values) == 1 else f"{middle} ({low}-{high})"


def number(value: float) -> str:
    """Three significant digits, without an exponent above 100."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A Markdown table, as README.md holds it."""
    print(f"\n| {' | '.join(head)} |")
    print(f"|{' --- |' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)
