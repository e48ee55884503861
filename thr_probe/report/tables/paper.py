"""The result tables of the paper, filled from a user's runs (`thr-probe table`)."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from thr_probe.errors import DataError, UsageError
from thr_probe.report.tables.published import beside_published
from thr_probe.report.tables.questions import greedy_table, passk_table
from thr_probe.report.tables.record import Table
from thr_probe.report.tables.shares import reflection_table, retention_table
from thr_probe.report.tables.sources import TableSource, baseline_of, read_table_sources
from thr_probe.report.tables.timing import timing_table

TABLES: Mapping[str, Callable[[Sequence[TableSource], TableSource], Table]] = {
    "greedy": greedy_table,
    "passk": passk_table,
    "timing": timing_table,
    "reflection": reflection_table,
    "retention": retention_table,
}
"""Tables 1, 5, 8, 11; 2-4, 6, 7, 9, 12, 13; 10; 15; 16."""


def paper_table(
    name: str,
    sources: Sequence[str | Path],
    *,
    versus: str | None = None,
    paper: str | None = None,
) -> Table:
    """One table of the paper from some runs.

    Args:
        name: one of `TABLES`.
        sources: paths of runs, evaluations or training runs, each as it is or as `LABEL=PATH`; an
            evaluation of several checkpoints as `PATH:CHECKPOINT`.
        versus: label of the source that the others are compared with; the first one by default.
        paper: put the published rows of this base model beside them; `all` for every model.

    Raises:
        UsageError: an unknown table, label or model, or a source given twice.
        DataError: sources that hold nothing for this table, or are no runs.
    """
    if name not in TABLES:
        close = difflib.get_close_matches(name, TABLES, n=1)
        raise UsageError(
            f"unknown table {name!r}",
            (f"did you mean {close[0]}? " if close else "") + f"choose one of {', '.join(TABLES)}",
        )
    read = read_table_sources(sources)
    return _filled(name, read, baseline_of(read, versus), paper)


def paper_tables(
    sources: Sequence[str | Path], *, versus: str | None = None, paper: str | None = None
) -> list[Table]:
    """Every table of the paper that some runs can fill, in the order of `TABLES`.

    Args:
        sources: as of `paper_table`.
        versus: likewise.
        paper: likewise.

    Raises:
        UsageError: an unknown label or model, or a source given twice.
        DataError: a source that is no run.
    """
    read = read_table_sources(sources)
    baseline = baseline_of(read, versus)
    tables = []
    for name in TABLES:
        try:
            tables.append(_filled(name, read, baseline, paper))
        except DataError:  # the sources hold nothing for this table
            continue
    return tables


def _filled(
    name: str, sources: Sequence[TableSource], baseline: TableSource, paper: str | None
) -> Table:
    table = TABLES[name](sources, baseline)
    return table if paper is None else beside_published(table, paper)
