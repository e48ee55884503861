"""`thr-probe collect`, `score` and `demo`: the commands that run a policy."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from thr_probe.cli.options import flags_of
from thr_probe.cli.output import Format, FormatOption, print_rows
from thr_probe.cli.progress import shell_monitor
from thr_probe.cli.shell import (
    INTERRUPTED,
    command_line,
    limit_threads,
    quoted,
    resume_command,
    stderr,
    told_warnings,
)
from thr_probe.config import (
    CollectConfig,
    DemoConfig,
    ScoreConfig,
    config_dict,
    from_saved,
    resolve_config,
)
from thr_probe.errors import IncompleteError, PrerequisiteError

RunArgument = Annotated[Path, typer.Argument(help="A run directory.", show_default=False)]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace the run that stands there.")
]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="TOML file with options, keys as flags.")
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Print the resolved options and stop.")
]


@flags_of(CollectConfig)
def collect_command(
    out: Annotated[Path, typer.Option("--out", "-o", help="The run directory to make.")],
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
    config: ConfigOption = None,
    dry_run: DryRunOption = False,
    format: FormatOption = Format.HUMAN,
    **flags: Any,
) -> None:
    """Sample completions, verify them, compute THR (unless --no-score), and write the trace.

    Without --model and --dataset it runs the lab: a small policy and problems that come with the
    package. An interrupted run is continued with --resume; nothing is overwritten silently.
    """
    limit_threads()
    options = _collect_options(out, flags, config, resume=resume)
    if dry_run:
        print_rows([{"option": k, "value": v} for k, v in config_dict(options).items()], format)
        return
    from thr_probe.collect import collect

    with shell_monitor() as monitor, told_warnings(), told_how_to_resume(out):
        complete = collect(
            options, out, resume=resume, overwrite=overwrite, argv=command_line(), monitor=monitor
        )
    if not complete:
        _stop_early()
    _print_run(out, format)


@contextmanager
def told_how_to_resume(out: Path) -> Iterator[None]:
    """Where something that is missing ends a run halfway, the command that continues it."""
    from thr_probe.resume import has_manifest
    from thr_probe.traces import RunStatus, read_manifest

    try:
        yield
    except PrerequisiteError:
        if has_manifest(out) and read_manifest(out).status is RunStatus.INCOMPLETE:
            stderr().print(f"what is finished is kept; continue with: {resume_command()}")
        raise


def _collect_options(
    out: Path, flags: dict[str, Any], config: Path | None, *, resume: bool
) -> CollectConfig:
    """The options; `--resume` starts from those that the run was started with."""
    if resume and config is None and (out / "config.toml").exists():
        from thr_probe.traces import read_config

        given = {name: value for name, value in flags.items() if value is not None}
        saved = read_config(out)
        return from_saved(CollectConfig, {**saved, **given}, out / "config.toml")
    return resolve_config(
        CollectConfig, flags, command="collect", environment=os.environ, config_file=config
    )


@flags_of(ScoreConfig)
def score_command(
    run: RunArgument,
    resume: ResumeOption = False,
    config: ConfigOption = None,
    dry_run: DryRunOption = False,
    format: FormatOption = Format.HUMAN,
    **flags: Any,
) -> None:
    """Score the rollouts of a run with another checkpoint (or other options).

    Adds a score set beside those that are there; several checkpoints may score the same rollouts.
    """
    limit_threads()
    options = resolve_config(
        ScoreConfig, flags, command="score", environment=os.environ, config_file=config
    )
    if dry_run:
        print_rows([{"option": k, "value": v} for k, v in config_dict(options).items()], format)
        return
    from thr_probe.score import score_run

    with shell_monitor() as monitor, told_warnings():
        score_id = score_run(run, options, resume=resume, monitor=monitor)
    if score_id is None:
        _stop_early()
    print_rows([{"run": str(run), "score_id": score_id, "model": options.model}], format)
    stderr().print(
        f"next: {quoted(['thr-probe', 'analyze', 'all', str(run), '--score-id'])} {score_id}"
    )


@flags_of(DemoConfig)
def demo_command(
    out: Annotated[Path, typer.Option("--out", "-o", help="Where run and figures go.")] = Path(
        "thr-probe-demo"
    ),
    overwrite: OverwriteOption = False,
    **flags: Any,
) -> None:
    """From problems to figures on the lab: collect, score, analyze all. No GPU, no network."""
    limit_threads()
    options = resolve_config(DemoConfig, flags, command="demo", environment=os.environ)
    from thr_probe.demo import demo

    with shell_monitor() as monitor:
        story = demo(out, options, overwrite=overwrite, monitor=monitor)
    if story is None:
        stderr().print("stopped; run the same command again with --overwrite")
        raise typer.Exit(INTERRUPTED)
    typer.echo(story)


def _stop_early() -> None:
    stderr().print(f"stopped; continue with: {resume_command()}")
    raise typer.Exit(INTERRUPTED)


def _print_run(out: Path, style: Format) -> None:
    from thr_probe.traces import list_values, read_run

    run = read_run(out)
    correct = completions = tokens = 0
    endings: Counter[str] = Counter()
    for table in run.iter_completions(["correct", "token_ids", "verify_status"]):
        completions += table.num_rows
        endings.update(table["verify_status"].to_pylist())
        correct += sum(table["correct"].to_pylist())
        tokens += len(list_values(table["token_ids"])[0])
    row: dict[str, object] = {
        "run": str(out),
        "prompts": run.manifest.num_prompts,
        "completions": completions,
        "accuracy": correct / completions if completions else float("nan"),
        "tokens": tokens,
    }
    row |= {
        name: count
        for name, count in run.manifest.counts.items()
        if name.startswith("skipped") and count
    }
    row |= {
        f"verifier {ending}": endings[ending] for ending in ("timeout", "error") if endings[ending]
    }
    print_rows([row], style)
    analysis = "all" if run.score_ids else "passk"  # what needs no THR
    stderr().print(f"next: {quoted(['thr-probe', 'analyze', analysis, str(out)])}")
    if endings["error"]:
        raise IncompleteError(
            f"the verifier failed on {endings['error']} of {completions} completions",
            "they count as wrong; their verify_status is error",
        )
