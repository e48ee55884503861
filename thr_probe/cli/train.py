"""`thr-probe train`: GRPO and THR, every method of the paper."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from thr_probe.cli.collect import (
    ConfigOption,
    OverwriteOption,
    ResumeOption,
)
from thr_probe.cli.options import flags_of
from thr_probe.cli.output import Format, FormatOption, print_rows
from thr_probe.cli.shell import (
    INTERRUPTED,
    command_line,
    limit_threads,
    quoted,
    resume_command,
    stderr,
    told_warnings,
)
from thr_probe.cli.training import train_view
from thr_probe.config import Given, from_saved
from thr_probe.train.config import TrainConfig
from thr_probe.train.resolve import resolve_train


@flags_of(TrainConfig)
def train_command(
    out: Annotated[Path, typer.Option("--out", "-o", help="The run directory to make.")],
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
    config: ConfigOption = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Print the plan (counts, tokens, memory, options) and stop."
        ),
    ] = False,
    format: FormatOption = Format.HUMAN,
    **flags: Any,
) -> None:
    """Train a policy with THR(p), GRPO or any other method of the paper.

    Without --model it trains the lab's policy on a CPU in minutes. Under `torchrun
    --nproc-per-node N -m thr_probe train ...` weights are sharded over N GPUs (FSDP2). The run is a
    trace that every analysis reads; RUN/model is the final policy.
    """
    limit_threads()
    options, given = _options(out, flags, config, resume=resume)
    if dry_run:
        from thr_probe.train.plan import plan_rows

        print_rows(plan_rows(options, given), format)
        return
    from thr_probe.train.engine import train

    with train_view() as view, told_warnings():
        complete = train(
            options,
            out,
            resume=resume,
            overwrite=overwrite,
            argv=command_line(),
            monitor=view,
        )
    if not complete:
        stderr().print(f"stopped; continue with: {resume_command()}")
        raise typer.Exit(INTERRUPTED)
    if os.environ.get("RANK", "0") == "0":
        _print_run(out, format)


def _options(
    out: Path, flags: dict[str, Any], config: Path | None, *, resume: bool
) -> tuple[TrainConfig, dict[str, Given]]:
    """The options; `--resume` starts from those that the run was started with."""
    saved = None
    if resume and config is None and (out / "config.toml").exists():
        from thr_probe.traces import read_config

        saved = from_saved(TrainConfig, read_config(out), out / "config.toml")
    return resolve_train(flags, environment=os.environ, config_file=config, saved=saved)


def _print_run(out: Path, style: Format) -> None:
    from thr_probe.traces.metrics import read_metrics

    steps, evals = read_metrics(out)
    last = steps.iloc[-1]
    row: dict[str, object] = {
        "run": str(out),
        "model": str(out / "model"),
        "steps": len(steps),
        "reward first": float(steps.iloc[0]["reward_generated"]),
        "reward last": float(last["reward_generated"]),
    }
    if len(evals):
        row["accuracy first"] = float(evals.iloc[0]["greedy_accuracy"])
        row["accuracy last"] = float(evals.iloc[-1]["greedy_accuracy"])
    row["minutes"] = float(steps["wall"].sum() / 60)
    print_rows([row], style)
    stderr().print(f"next: {quoted(['thr-probe', 'analyze', 'curves', str(out)])}")
