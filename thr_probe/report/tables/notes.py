"""The sentences below a table: what intervals, marks and ranks mean."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from thr_probe.report.tables.record import DOWN, UP, TableRow


def legend(rows: Sequence[TableRow], baseline: str, *, within: str = "") -> Iterator[str]:
    """What is in the cells.

    Args:
        rows: of the table.
        baseline: label of the source that the others are compared with.
        within: what questions are resampled within, as ` within each dataset`.
    """
    cells = [cell for row in rows for cell in row.cells.values()]
    if any(math.isfinite(cell.low) for cell in cells):
        yield (
            f"In brackets: 95 % percentile interval from 2,000 resamples of the questions{within}."
        )
    if any(math.isfinite(cell.difference.low) for cell in cells):
        yield (
            f"{UP} and {DOWN}: the 95 % interval of the paired difference to {baseline}, over the "
            "same resampled questions, lies above or below zero."
        )
    if any(cell.rank for cell in cells):
        yield "Bold: the largest number of its column as printed; underlined: the second largest."


def compared_note(baseline: str, labels: Sequence[str], differing: Sequence[str]) -> Iterator[str]:
    """Why there are rows without a difference.

    Args:
        baseline: label of the source that the others are compared with.
        labels: of the sources that have a row.
        differing: those whose questions are others, with where.
    """
    if baseline not in labels:
        yield f"{baseline}, to compare with, has no row: there are no marks."
    if differing:
        are = "answered other questions than" if len(differing) > 1 else "answered other questions"
        than = "" if len(differing) > 1 else " than"
        yield f"{'; '.join(differing)} {are}{than} {baseline}: no difference is given there."
