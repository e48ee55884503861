"""The figures of the report: what they show as tables, then drawn and saved."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from thr_probe.analysis.result import Analysis, empty_analysis, latex_escape, summary_table
from thr_probe.figures.rows import plot_p_ablation, plot_pass_at_k_rows
from thr_probe.figures.save import save_analysis
from thr_probe.gallery import analyze_training
from thr_probe.reproduce.estimates import GREEDY, Results, passk
from thr_probe.reproduce.plan import Job, Stage
from thr_probe.reproduce.rows import BASE, GRPO, ROWS, row_named
from thr_probe.reproduce.tables import long_table

_SMOOTHED_OVER = 5  # steps
_INTERVALS = (
    r"95\,\% percentile intervals from 2,000 bootstrap resamples of the questions, seeds of a row "
    "being averaged first"
)
_FACTS: dict[str, object] = {
    "interval": "percentile bootstrap over questions, seeds averaged first",
    "level": 0.95,
    "num_resamples": 2000,
    "seed": 0,
}


def draw_all(results: Results, jobs: Sequence[Job], root: Path, out: Path, *, command: str) -> None:
    """Write every figure with its numbers into a folder.

    Args:
        results: what was measured.
        jobs: the jobs that something is there of.
        root: the folder of the replication.
        out: the folder of the figures.
        command: the command line, kept beside them.
    """
    overlay = pass_at_k_rows(results)
    save_analysis(overlay, plot_pass_at_k_rows(overlay), out, command=command)
    ablation = p_ablation(results)
    save_analysis(ablation, plot_p_ablation(ablation), out, command=command)
    runs = _core_runs(jobs, root)
    if runs:
        smooth = _SMOOTHED_OVER
        analyze_training("curves", runs, out, command=command, smooth=smooth)


def _core_runs(jobs: Sequence[Job], root: Path) -> list[Path]:
    """The finished training run of each core row, of its first seed."""
    first: dict[str, Path] = {}
    for job in jobs:
        if job.row.is_core and job.row.is_trained and job.is_done(root, Stage.TRAIN):
            first.setdefault(job.row.name, job.folder(root, Stage.TRAIN))
    return list(first.values())


def pass_at_k_rows(results: Results) -> Analysis:
    """Pass@K of the core rows, and their paired differences to GRPO."""
    columns = {str(k): passk(k) for k in results.ks()}
    rows = [row for row in results.rows if row.is_core]
    data = long_table(results, rows, columns, (GRPO,))
    if data.empty:
        return empty_analysis("passk-rows", "No Pass@K of a core row has been measured.", {})
    data = data.assign(row=data["title"], k=data["column"].astype(int))
    names = {"minus_grpo": "value", "minus_grpo_low": "low", "minus_grpo_high": "high"}
    differences = data[["row", "k", *names]].rename(columns=names).dropna(subset=["value"])
    differences = differences[differences["row"] != row_named(BASE).title]
    num_questions = int(data["num_questions"].max())
    return Analysis(
        name="passk-rows",
        summary=summary_table([]),
        curves={
            "values": data[["row", "seeds", "k", "value", "low", "high"]],
            "differences": differences.reset_index(drop=True),
        },
        facts={**_FACTS, "versus": "GRPO", "num_questions": num_questions},
        caption=f"(a) Unbiased Pass@K of the core rows on {num_questions} held-out problems of the "
        "lab. (b) Paired differences to GRPO, in percentage points, without "
        f"the base policy. Whiskers: {_INTERVALS}.",
    )


def p_ablation(results: Results) -> Analysis:
    """Greedy accuracy and Pass@K of plain THR(p) over p, beside GRPO."""
    ks = results.ks()
    shown = sorted({ks[0], ks[len(ks) // 2], ks[-1]}) if ks else []
    columns = {"greedy": GREEDY} | {f"Pass@{k}": passk(k) for k in shown}
    steered = [row for row in results.rows if row.p is not None]
    data = long_table(results, steered, columns, (GRPO,))
    if data.empty:
        return empty_analysis("p-ablation", "No row of THR(p) has been measured.", {})
    value_of_p = {row.name: row.p for row in ROWS}
    place = {name: index for index, name in enumerate(columns)}
    data = data.assign(p=data["row"].map(value_of_p).astype(float), place=data["column"].map(place))
    data = data.sort_values(["place", "p"], kind="stable")
    grpo = [row for row in results.rows if row.name == GRPO]
    level = long_table(results, grpo, columns, ())
    num_questions = ", ".join(str(count) for count in sorted(set(data["num_questions"])))
    return Analysis(
        name="p-ablation",
        summary=summary_table([]),
        curves={
            "curve": data[["column", "p", "seeds", "value", "low", "high"]].reset_index(drop=True),
            "grpo": level[["column", "seeds", "value", "low", "high"]],
        },
        facts={**_FACTS, "num_questions": num_questions},
        caption=latex_escape("Ablation of p in THR(p): (a) greedy accuracy, (b) Pass@K. ")
        + f"Dotted lines: GRPO. Whiskers: {_INTERVALS}; they hold what all rows share, so that "
        "differences between rows are surer than they look (see the tables).",
    )
