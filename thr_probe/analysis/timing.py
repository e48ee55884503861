"""Seconds of a training step by module, in the columns of the paper's Table 10."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd

from thr_probe.analysis.result import (
    Analysis,
    counted,
    empty_analysis,
    latex_escape,
    summary_row,
    summary_table,
)
from thr_probe.analysis.training_runs import (
    TrainingRun,
    names_with_steps,
    not_begun,
    read_training_runs,
)
from thr_probe.core.stats import Interval
from thr_probe.errors import UsageError

MODULES: Mapping[str, str] = {
    "gen": "Data Gen",
    "update": "Model Upd",
    "thr": "THR",
    "ref": "Ref",
    "old": "Old Prob",
}
"""The timers of `metrics.jsonl` under the column names of Table 10, in its order."""

TOTAL = "Total (Sec)"
UNITS = ("seconds", "percent")

_UNIT = "seconds per step, mean over steps"
_SHARE_UNIT = "share of the modules' total"


def module_timing(paths: Sequence[Path], *, skip_steps: int = 0) -> Analysis:
    """Mean seconds per step of every module (Table 10).

    A module that some steps did without took 0 seconds there, so that the row adds up; one that no
    step had is NaN.

    Args:
        paths: folders of training runs.
        skip_steps: leave out that many first steps, which may hold one-time work.

    Returns:
        curve `table`: run, steps, and the columns of Table 10. Curve `modules`: run, module,
        column, seconds, std (over the steps, not of the mean), share (of the total), num_steps.
        summary: seconds and shares by run, also those of `total` (the modules) and `wall` (all).

    Raises:
        UsageError: no run, one given twice, or a negative `skip_steps`.
        DataError: a folder that is no training run.
    """
    if skip_steps < 0:
        raise UsageError(f"--skip-steps must be 0 or positive, got {skip_steps}")
    runs = read_training_runs(paths)
    timed = {run.name: timers(run, skip_steps=skip_steps) for run in runs}
    facts = _facts(runs, timed, skip_steps)
    if all(table.empty for table in timed.values()):
        return empty_analysis("timing", _nothing(runs, timed, skip_steps), facts)
    missing = [run for run in runs if timed[run.name].empty]
    facts["exclusions"] = exclusions = _nothing(missing, timed, skip_steps)
    timed = {name: table for name, table in timed.items() if not table.empty}
    modules = pd.DataFrame([row for name, table in timed.items() for row in _modules(name, table)])
    generated = {run.name: run.values("prompts_generated") for run in runs}
    return Analysis(
        name="timing",
        summary=summary_table(
            row
            for name, table in timed.items()
            for row in _summary(name, table, num_questions=int(generated[name][table.index].sum()))
        ),
        curves={"table": pd.DataFrame(_paper_rows(modules)), "modules": modules},
        facts=facts,
        caption=_caption(runs, modules, skip_steps, exclusions),
    )


def timing_rows(analysis: Analysis, *, unit: str = "seconds") -> list[dict[str, object]]:
    """Table 10: one row per run, in seconds or in percent of the total.

    Args:
        analysis: of `module_timing`.
        unit: `seconds` or `percent`.

    Raises:
        UsageError: another unit.
    """
    check_unit(unit)
    if analysis.empty_reason is not None:
        return []
    return _paper_rows(analysis.curves["modules"], unit)


def check_unit(unit: str) -> None:
    """Raises a UsageError for a unit that `timing_rows` does not have."""
    if unit not in UNITS:
        raise UsageError(f"unknown unit {unit!r}", f"choose {' or '.join(UNITS)}")


def timers(run: TrainingRun, *, skip_steps: int = 0) -> pd.DataFrame:
    """The timers of the steps that have them, by module.

    Args:
        run: the training run.
        skip_steps: leave out that many first steps.
    """
    table = pd.DataFrame({name: run.values(name) for name in (*MODULES, "total", "wall")})
    return table[(run.steps["step"] >= skip_steps) & table["total"].notna()]


def mean_timers(table: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation over the steps, of each timer.

    A module that some steps did without took 0 seconds there; one that no step had is NaN.

    Args:
        table: of `timers`.
    """
    found = {}
    for name in table:
        column = table[name]
        if name != "wall" and column.notna().any():
            column = column.fillna(0.0)
        found[str(name)] = (float(column.mean()), float(column.std()))
    return found


def _modules(run: str, table: pd.DataFrame) -> Iterator[dict[str, object]]:
    means = mean_timers(table)
    total = means["total"][0]
    for name, column in {**MODULES, "total": TOTAL}.items():
        seconds, std = means[name]
        yield {
            "run": run,
            "module": name,
            "column": column,
            "seconds": seconds,
            "std": std,
            "share": seconds / total if total > 0 else math.nan,
            "num_steps": len(table),
        }


def _paper_rows(modules: pd.DataFrame, unit: str = "seconds") -> list[dict[str, object]]:
    rows = []
    for name, part in modules.groupby("run", sort=False):
        values = part["seconds"] if unit == "seconds" else 100 * part["share"]
        columns = [column if unit == "seconds" else _percent(column) for column in part["column"]]
        row: dict[str, object] = {"run": name, "steps": int(part["num_steps"].iloc[0])}
        rows.append(row | dict(zip(columns, values.tolist(), strict=True)))
    return rows


def _percent(column: str) -> str:
    return f"{column.removesuffix(' (Sec)')} (%)"


def _summary(run: str, table: pd.DataFrame, *, num_questions: int) -> Iterator[dict[str, object]]:
    means = mean_timers(table)
    total = means["total"][0]
    for name, (seconds, _) in means.items():
        value = Interval(value=seconds, low=math.nan, high=math.nan)
        yield summary_row(f"{name}_seconds", run, _UNIT, value, num_questions=num_questions)
        if name in MODULES:
            share = Interval(
                value=seconds / total if total > 0 else math.nan, low=math.nan, high=math.nan
            )
            yield summary_row(f"{name}_share", run, _SHARE_UNIT, share, num_questions=num_questions)


def _facts(
    runs: Sequence[TrainingRun], timed: Mapping[str, pd.DataFrame], skip_steps: int
) -> dict[str, object]:
    return {
        "estimator": "mean over steps; shares are of the mean total, the sum of the modules",
        "interval": "none: the steps of one run on one machine; std is over the steps",
        "skip_steps": skip_steps,
        "num_runs": len(runs),
        "num_steps": {run.name: len(run.steps) for run in runs},
        "num_steps_timed": {name: len(table) for name, table in timed.items()},
        "exclusions": "",
    }


def _nothing(
    runs: Sequence[TrainingRun], timed: Mapping[str, pd.DataFrame], skip_steps: int
) -> str:
    """Why runs have no row."""
    waiting = [run for run in runs if run.steps.empty]
    sentences = [not_begun(waiting)]
    for run in runs:
        if run.steps.empty or not timed[run.name].empty:
            continue
        if (run.steps["step"] < skip_steps).all():
            steps = counted(len(run.steps), "step")
            sentences.append(f"{run.name} has {steps}, all within the first {skip_steps} skipped.")
        else:
            sentences.append(f"The steps of {run.name} have no timers.")
    return " ".join(filter(None, sentences))


def _caption(
    runs: Sequence[TrainingRun], modules: pd.DataFrame, skip_steps: int, exclusions: str
) -> str:
    totals = modules[modules["module"] == "total"].set_index("run")["seconds"]
    thr = modules.loc[(modules["module"] == "thr") & (modules["share"] > 0), "share"]
    sentences = [
        "Mean seconds per training step by module, as Table 10 of the paper: "
        + latex_escape(names_with_steps([run for run in runs if run.name in totals.index])),
        "Numbers in the bars are shares of the total, the sum of the five modules: data generation "
        "with verification and resampling, model update, THR, and the forward passes for the "
        "reference and the old log-probabilities; the total and the share of THR stand at the end",
    ]
    if len(thr):
        low, high = (rf"{100 * share:.1f}\,\%" for share in (thr.min(), thr.max()))
        sentences.append(f"THR takes {low if low == high else f'{low} to {high}'} of the total")
    if skip_steps:
        sentences.append(f"Without the first {counted(skip_steps, 'step')} of each run")
    text = " ".join(f"{sentence}." for sentence in sentences)
    return f"{text} {latex_escape(exclusions)}".strip()
