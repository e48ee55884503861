"""`thr-probe reproduce`: the paper's rows on the lab, trained, evaluated and put in tables."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thr_probe.cli.options import flags_of
from thr_probe.cli.output import Format, FormatOption, print_rows
from thr_probe.cli.shell import command_line, limit_threads, quoted, stderr
from thr_probe.config import resolve_config
from thr_probe.reproduce.settings import ReproduceConfig

if TYPE_CHECKING:
    from thr_probe.reproduce.launch import Failure


@flags_of(ReproduceConfig)
def reproduce_command(
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder of all runs.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the jobs and their commands, and stop.")
    ] = False,
    format: FormatOption = Format.HUMAN,
    **flags: Any,
) -> None:
    """Train the rows of the paper's tables on the lab, evaluate them alike, write the report.

    Every row is a method with the lab preset and the same budget. What is done stays done: the same
    command goes on where it was stopped, and several may work in one folder.
    """
    limit_threads()
    config = resolve_config(ReproduceConfig, flags, command="reproduce", environment=os.environ)
    if dry_run:
        _print_plan(out, config, format)
        return
    failures = [] if config.report_only else _run(out, config)
    _report(out, config)
    if failures:
        from thr_probe.reproduce.launch import failure_error

        raise failure_error(failures)


def _run(out: Path, config: ReproduceConfig) -> list[Failure]:
    from thr_probe.reproduce.launch import Launcher
    from thr_probe.reproduce.plan import planned_jobs

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        return Launcher(out, config, tell=stderr().print).run(planned_jobs(config))
    except KeyboardInterrupt:
        stderr().print("stopped; the same command goes on where it stopped")
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _print_plan(out: Path, config: ReproduceConfig, style: Format) -> None:
    from thr_probe.reproduce.plan import commands, planned_jobs

    rows = [
        {
            "job": job.name,
            "stage": stage.name.lower(),
            "done": "yes" if job.is_done(out, stage) else "no",
            "command": quoted(["thr-probe", *words]),
        }
        for job in planned_jobs(config)
        for stage, words in commands(job, out, config)
    ]
    if style is not Format.HUMAN:
        print_rows(rows, style)
        return
    for line in _plan_lines(rows):
        typer.echo(line)


def _plan_lines(rows: list[dict[str, str]]) -> Iterator[str]:
    """For people: each job with its stages, commands whole, so that they can be pasted."""
    jobs = list(dict.fromkeys(row["job"] for row in rows))
    for job in jobs:
        yield job
        for row in rows:
            if row["job"] == job:
                mark = "done" if row["done"] == "yes" else "    "
                yield f"  {mark}  {row['stage']:<8}{row['command']}"
    done = sum(row["done"] == "yes" for row in rows)
    yield f"{len(jobs)} jobs, {len(rows)} stages, {done} of them done"


def _report(out: Path, config: ReproduceConfig) -> None:
    from thr_probe.reproduce.report import write_report

    typer.echo(write_report(out, config, command=quoted(command_line())))
