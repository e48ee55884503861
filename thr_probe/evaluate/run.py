"""Does an evaluation: a run of `collect` for each set and measure, then the table of them all."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import pandas as pd

from thr_probe.analysis.result import plain_facts
from thr_probe.collect import collect
from thr_probe.config import config_dict
from thr_probe.engine import engine_on_demand
from thr_probe.errors import UsageError
from thr_probe.evaluate.plan import Plan, Task, plan_evaluation
from thr_probe.evaluate.settings import BEST, EvalConfig
from thr_probe.evaluate.table import Counts, best_checkpoint, count_run, measure_rows
from thr_probe.processes import World
from thr_probe.progress import SILENT, Monitor
from thr_probe.resume import has_manifest
from thr_probe.traces import Run, read_run
from thr_probe.traces.atomic import make_folder, write_text
from thr_probe.versions import library_versions

RESULT_NAME = "eval.json"
TABLE_NAME = "eval.csv"

Watch = Callable[[Task], AbstractContextManager[Monitor]]
"""Who watches a run while it is made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The result; the same numbers are in `eval.json` and `eval.csv`."""

    rows: tuple[Mapping[str, object], ...]
    """checkpoint, measure, dataset, value, low, high, num_questions, samples, truncated."""
    best: str | None
    """The checkpoint with the highest greedy average, where it was asked for."""
    notes: tuple[str, ...]
    """What was left out, as sentences."""
    warnings: tuple[str, ...]
    """What makes the numbers other than those of the paper's sets, as sentences."""
    failed: int
    """Completions that the verifier failed on."""


def _silent(_: Task) -> AbstractContextManager[Monitor]:
    return nullcontext(SILENT)


def evaluate(  # noqa: PLR0913  the options of a command, each with a default
    model: str,
    config: EvalConfig,
    out: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    argv: Sequence[str] = (),
    watch: Watch = _silent,
) -> Evaluation | None:
    """Answer every set greedily and, for Pass@K, n times; save the traces and the table.

    Args:
        model: lab, a model directory, a hub id, or the directory of a training run.
        config: the resolved options.
        out: the folder to make: OUT/<checkpoint>/greedy|sampled/<set>, eval.json, eval.csv.
        resume: continue an interrupted evaluation, or add sets and checkpoints to one.
        overwrite: make the planned runs anew.
        argv: the command line, for the records.
        watch: opened around each run; its monitor is asked whether to stop.

    Returns:
        The numbers; None when stopped early.

    Raises:
        UsageError, DataError, PrerequisiteError: what is wrong with options, problems or policy.
    """
    world = World.from_environment()
    plan = plan_evaluation(model, config, out)
    if resume and overwrite:
        raise UsageError("--resume continues a run, --overwrite replaces it: choose one")
    # the other processes may look when the first one's runs stand already
    if world.is_first and not resume and not overwrite:
        _check_room(plan, out)
    pending = list(plan.tasks)
    for _, grouped in groupby(plan.tasks, key=lambda task: task.checkpoint):
        tasks = list(grouped)
        # one policy is in memory at a time, and none where all its runs are complete
        with engine_on_demand(tasks[0].config, world, scores=False) as load:
            for task in tasks:
                with watch(task) as monitor:
                    complete = collect(
                        task.config,
                        task.run_path,
                        resume=resume,
                        overwrite=overwrite,
                        argv=argv,
                        monitor=monitor,
                        load=load,
                    )
                    pending.remove(task)
                    if not complete or (pending and monitor.should_stop()):
                        return None
    result = _result(plan, config)
    if world.is_first:
        _write(out, model, config, plan, result, argv)
    world.wait()
    return result


def _check_room(plan: Plan, out: Path) -> None:
    there = [task.run_path for task in plan.tasks if has_manifest(task.run_path)]
    if there:
        raise UsageError(
            f"{out} holds {there[0].relative_to(out)} already",
            "continue it with --resume, replace it with --overwrite, or choose another -o",
        )


def _result(plan: Plan, config: EvalConfig) -> Evaluation:
    """Everything again from the saved runs."""
    runs = {task.run_path: read_run(task.run_path) for task in plan.tasks}
    rows: list[dict[str, object]] = []
    warnings: list[str] = []
    failed = 0
    for (checkpoint, measure), grouped in groupby(
        plan.tasks, key=lambda task: (task.checkpoint, task.measure)
    ):
        tasks = list(grouped)
        sets = [count_run(runs[task.run_path], task.problems.name) for task in tasks]
        rows += measure_rows(checkpoint, measure, sets, plan.ks)
        for task, counts in zip(tasks, sets, strict=True):
            warnings += _warnings(task, runs[task.run_path], counts)
            failed += counts.failed
    notes, best = list(plan.notes), None
    if any(row["low"] == row["high"] for row in rows):
        notes.append(
            "an interval without width: no problem of the set was solved, or every one was; how "
            "far off the value may be, resampling cannot say"
        )
    if config.select == BEST:
        best = best_checkpoint(rows, plan.checkpoints)
        notes.append(
            f"{best} is the best of {len(plan.checkpoints)} checkpoints by its greedy average, "
            "chosen on the problems it is reported on: optimistic beside final"
        )
    return Evaluation(
        rows=tuple(rows),
        best=best,
        notes=tuple(notes),
        warnings=tuple(dict.fromkeys(warnings)),
        failed=failed,
    )


def _warnings(task: Task, run: Run, counts: Counts) -> Iterator[str]:
    name, size, found = task.problems.name, task.problems.size, len(counts.correct_P)
    if size is not None and found != size:
        yield f"{name}: {found} problems, the paper's set has {size}"
    long = run.manifest.counts.get("skipped_long_prompt", 0)
    if long:
        yield f"{name}: {long} problems left out, their prompts are too long"
    label = f"{task.checkpoint}, {task.measure.value}, {name}"
    if counts.timeouts:
        yield f"{label}: the verifier gave up on {counts.timeouts} completions, counted as wrong"
    if counts.failed:
        yield f"{label}: the verifier failed on {counts.failed} completions, counted as wrong"


def _write(
    out: Path,
    model: str,
    config: EvalConfig,
    plan: Plan,
    result: Evaluation,
    argv: Sequence[str],
) -> None:
    """The table for machines: eval.csv as it is printed, eval.json with how it came about."""
    content = {
        "model": model,
        "config": config_dict(config),
        "runs": [_record(task, out) for task in plan.tasks],
        "ks": list(plan.ks),
        "best": result.best,
        "best_is_optimistic": None if result.best is None else len(plan.checkpoints) > 1,
        "average": "unweighted mean over sets",
        "interval": "95 % percentile bootstrap over problems, within each set, 2000 resamples",
        "truncated": "wrong",
        "notes": list(result.notes),
        "warnings": list(result.warnings),
        "rows": list(result.rows),
        "argv": list(argv),
        "versions": library_versions(),
    }
    make_folder(out)
    text = json.dumps(plain_facts(content), indent=2, ensure_ascii=False, allow_nan=False)
    write_text(out / RESULT_NAME, text + "\n")
    table = pd.DataFrame(result.rows).to_csv(index=False, lineterminator="\n")
    write_text(out / TABLE_NAME, table)


def _record(task: Task, out: Path) -> dict[str, object]:
    manifest = read_run(task.run_path).manifest
    return {
        "path": str(task.run_path.relative_to(out)),
        "checkpoint": task.checkpoint,
        "measure": task.measure.value,
        "dataset": task.problems.name,
        "source": task.problems.source,
        "dataset_digest": manifest.dataset_digest,
        "model": manifest.model,
        "model_digest": manifest.model_digest,
        "num_prompts": manifest.num_prompts,
        "counts": dict(manifest.counts),
        "temperature": task.config.temperature,
        "top_p": task.config.top_p,
        "samples": task.config.group_size,
        "seed": task.config.seed,
    }
