"""`thr-probe eval`: greedy accuracy and Pass@K of a policy or of the checkpoints of a run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thr_probe.cli.collect import (
    ConfigOption,
    OverwriteOption,
    ResumeOption,
    told_how_to_resume,
)
from thr_probe.cli.options import flags_of
from thr_probe.cli.output import Format, FormatOption, print_rows
from thr_probe.cli.progress import ShellMonitor, shell_monitor
from thr_probe.cli.shell import (
    INTERRUPTED,
    command_line,
    limit_threads,
    resume_command,
    stderr,
    told_warnings,
)
from thr_probe.config import resolve_config
from thr_probe.errors import IncompleteError
from thr_probe.evaluate.settings import BEST, EvalConfig

if TYPE_CHECKING:
    from thr_probe.evaluate.plan import Task
    from thr_probe.evaluate.run import Evaluation

ModelArgument = Annotated[
    str,
    typer.Argument(
        help="lab, a model directory, a hub id, or the directory of a training run.",
        show_default=False,
    ),
]


@flags_of(EvalConfig)
def eval_command(
    model: ModelArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder of all its runs.")],
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
    config: ConfigOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the runs that would be made and stop.")
    ] = False,
    format: FormatOption = Format.HUMAN,
    **flags: Any,
) -> None:
    """Greedy accuracy (T = 0) and Pass@K on problem sets, per set and averaged, with intervals.

    Saves one trace per set and measure, and the table as eval.json and eval.csv. A completion that
    the length limit cuts off counts as wrong.
    """
    limit_threads()
    options = resolve_config(
        EvalConfig, flags, command="eval", environment=os.environ, config_file=config
    )
    if dry_run:
        _print_plan(model, options, out, format)
        return
    from thr_probe.evaluate.run import evaluate

    with told_warnings():
        result = evaluate(
            model,
            options,
            out,
            resume=resume,
            overwrite=overwrite,
            argv=command_line(),
            watch=_watched,
        )
    if result is None:
        stderr().print(f"stopped; continue with: {resume_command()}")
        raise typer.Exit(INTERRUPTED)
    if int(os.environ.get("RANK", "0")) == 0:
        _print_result(result, options, out, format)


@contextmanager
def _watched(task: Task) -> Iterator[ShellMonitor]:
    stderr().print(f"{task.checkpoint}: {task.measure.value} on {task.problems.name}")
    with shell_monitor() as monitor, told_how_to_resume(task.run_path):
        yield monitor


def _print_plan(model: str, options: EvalConfig, out: Path, style: Format) -> None:
    from thr_probe.evaluate.plan import plan_evaluation

    plan = plan_evaluation(model, options, out)
    print_rows([_planned(task) for task in plan.tasks], style)
    for note in plan.notes:
        stderr().print(f"note: {note}")


def _planned(task: Task) -> dict[str, object]:
    limit = task.config.max_new_tokens
    return {
        "checkpoint": task.checkpoint,
        "measure": task.measure.value,
        "dataset": task.problems.name,
        "source": task.problems.source,
        "samples": task.config.group_size,
        "temperature": task.config.temperature,
        "max_new_tokens": limit or "3072, or what the context leaves",
        "run": str(task.run_path),
    }


def _print_result(result: Evaluation, options: EvalConfig, out: Path, style: Format) -> None:
    shown = _chosen(result) if options.select == BEST else [dict(row) for row in result.rows]
    print_rows(shown, style)
    for note in result.notes:
        stderr().print(f"note: {note}")
    for warning in result.warnings:
        stderr().print(f"warning: {warning}")
    stderr().print(f"tables: {out / 'eval.csv'}, {out / 'eval.json'}")
    if result.failed:
        raise IncompleteError(
            f"the verifier failed on {result.failed} completions",
            "they count as wrong; their verify_status is error or timeout",
        )


def _chosen(result: Evaluation) -> list[dict[str, object]]:
    """The best checkpoint beside the final one."""
    rows: list[dict[str, object]] = []
    for name, checkpoint in (("best, optimistic", result.best), ("final", "final")):
        rows += [
            {"selected": name, **row} for row in result.rows if row["checkpoint"] == checkpoint
        ]
    return rows
