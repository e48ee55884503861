"""Seconds per training step by module: Table 10."""

from __future__ import annotations

from collections.abc import Sequence

from thr_probe.analysis.timing import MODULES, TOTAL, module_timing
from thr_probe.analysis.training_runs import run_names
from thr_probe.errors import DataError
from thr_probe.report.tables.record import Cell, Table, TableRow
from thr_probe.report.tables.sources import TableSource


def timing_table(sources: Sequence[TableSource], _baseline: TableSource) -> Table:
    """Mean seconds per training step of every module.

    Raises:
        DataError: no source is a training run with timed steps.
    """
    training = [each for each in sources if each.is_training]
    hint = "thr-probe train writes the seconds of each step into its journal"
    if not training:
        labels = ", ".join(each.label for each in sources)
        raise DataError(f"no training run among the sources: {labels}", hint)
    analysis = module_timing([each.path for each in training])
    if analysis.empty_reason is not None:
        raise DataError(analysis.empty_reason.rstrip("."), hint)
    names = run_names([each.path for each in training])
    label_of = {name: each.label for name, each in zip(names, training, strict=True)}
    rows = []
    num_steps = []
    for row in analysis.curves["table"].to_dict("records"):
        label = label_of[str(row["run"])]
        num_steps.append(f"{label} {row['steps']}")
        cells = {column: Cell(value=float(row[column])) for column in (*MODULES.values(), TOTAL)}
        rows.append(TableRow(label=label, section="", cells=cells))
    others = [f"{each.label} is no training run: it has no row." for each in sources]
    exclusions = str(analysis.facts["exclusions"])
    return Table(
        name="timing",
        title="Mean seconds per training step by module (Table 10 of the paper).",
        head="Run",
        columns={column: column for column in (*MODULES.values(), TOTAL)},
        sections={"": ""},
        rows=tuple(rows),
        unit="seconds",
        digits=_digits(rows),
        notes=(
            f"Mean over steps ({', '.join(num_steps)}) of one run on one machine: no intervals, "
            "no ranks, no marks.",
            *[note for each, note in zip(sources, others, strict=True) if not each.is_training],
            *([exclusions] if exclusions else []),
        ),
    )


def _digits(rows: Sequence[TableRow]) -> int:
    """As many digits as the smallest total needs to be told from its parts; the paper has none."""
    smallest = min(row.cells[TOTAL].value for row in rows)
    return 0 if smallest >= 100 else 1 if smallest >= 10 else 2
