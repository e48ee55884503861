"""The report: claims, tables and figures of whatever part of the jobs is done."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from thr_probe.errors import DataError
from thr_probe.reproduce import sections
from thr_probe.reproduce.claims import claims_table
from thr_probe.reproduce.costs import hours_sentence, read_costs
from thr_probe.reproduce.draw import draw_all
from thr_probe.reproduce.estimates import Results
from thr_probe.reproduce.exact import exact_check
from thr_probe.reproduce.kept import read_settings
from thr_probe.reproduce.markdown import LEGEND, table_markdown
from thr_probe.reproduce.measure import jobs_on_disk, measure
from thr_probe.reproduce.plan import Job, commands, planned_jobs
from thr_probe.reproduce.settings import ReproduceConfig
from thr_probe.reproduce.tables import Table, question_tables, seed_table
from thr_probe.reproduce.training import time_table, training_table
from thr_probe.traces.atomic import make_folder, write_text

REPORT_NAME = "report.md"


def write_report(
    root: Path,
    config: ReproduceConfig,
    *,
    command: str = "",
    check: Callable[[], pd.DataFrame] = exact_check,
) -> Path:
    """Measure what is on disk and write tables, figures and the report.

    Args:
        root: the folder of the replication.
        config: its options; those that all rows share are taken from the folder.
        command: the command line, named in the report.
        check: makes the table of the exact check.

    Returns:
        The report, in Markdown.

    Raises:
        DataError: there is no such folder.
    """
    if not root.is_dir():
        raise DataError(
            f"{root} is not a replication: there is no such folder",
            "run the same command without --report-only",
        )
    out = root / "report" if config.report is None else Path(config.report)
    config = replace(config, **(read_settings(root) or {}))
    jobs = jobs_on_disk(root)
    results = Results(measure(job, root) for job in jobs)
    tables = question_tables(results)
    others = {
        "claims": claims_table(results),
        "seeds": seed_table(results),
        "times": time_table(results),
        "training": training_table(results),
        "commands": command_table(root, config, jobs),
        "first-order": check(),
    }
    for folder in (out, out / "tables", out / "figures"):
        make_folder(folder)
    for name, frame in (others | {table.name: table.data for table in tables}).items():
        write_text(out / "tables" / f"{name}.csv", frame.to_csv(index=False, lineterminator="\n"))
    draw_all(results, jobs, root, out / "figures", command=command)
    opening = sections.opening(results, config, hours_sentence(read_costs(root)), command)
    text = _text(opening, results, tables, others, sorted((out / "figures").glob("*.png")))
    write_text(out / REPORT_NAME, text)
    return out / REPORT_NAME


def _text(
    opening: str,
    results: Results,
    tables: Sequence[Table],
    others: dict[str, pd.DataFrame],
    figures: Sequence[Path],
) -> str:
    parts = [
        opening,
        sections.claims(others["claims"]),
        f"## Tables\n\n{LEGEND}",
        *(table_markdown(table) for table in tables),
        sections.module_times(others["times"]),
        sections.training(others["training"], results),
        sections.exact(others["first-order"]),
        sections.figures(figures),
        sections.not_run(results, others["commands"]),
        sections.run_commands(others["commands"]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def command_table(root: Path, config: ReproduceConfig, jobs: Sequence[Job]) -> pd.DataFrame:
    """The command of every stage, of the jobs that are planned and of those that are there.

    Returns:
        row, seed, stage, done, command.
    """
    listed = {job.name: job for job in [*planned_jobs(config), *jobs]}
    lines = [
        {
            "row": job.row.name,
            "title": job.row.title,
            "seed": job.seed,
            "stage": stage.name.lower(),
            "done": job.is_done(root, stage),
            "command": shlex.join(["thr-probe", *words]),
        }
        for job in listed.values()
        for stage, words in commands(job, root, config)
    ]
    return pd.DataFrame(lines, columns=["row", "title", "seed", "stage", "done", "command"])
