"""`thr-probe preview`: what a method would do to saved rollouts."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thr_probe.cli.analyzing import (
    OutOption,
    RunArgument,
    ScoreIdOption,
    SeedOption,
    VenueOption,
    default_folder,
    tell_files,
    warn_if_incomplete,
)
from thr_probe.cli.output import Format, FormatOption, print_rows
from thr_probe.cli.shell import command_line, limit_threads, quoted, stderr
from thr_probe.train.config import TrainConfig

if TYPE_CHECKING:
    from thr_probe.traces import Run

_MEANINGS = {item.name: str(item.metadata["help"]) for item in fields(TrainConfig)}

LARGE_GAP = 0.05
"""Nats of mean distance between replayed and stored log-probabilities that is told of."""


def _flag(name: str, *names: str) -> Any:
    """A flag of the trainer under its own name and in its own words."""
    panel = "Method" if name not in {"model", "revision", "device", "dtype"} else "Policy"
    return typer.Option(
        *(names or (f"--{name.replace('_', '-')}",)),
        help=_MEANINGS[name],
        rich_help_panel=panel,
    )


def preview_command(
    run: RunArgument,
    p: Annotated[
        list[float] | None,
        typer.Option(
            "--p",
            help=f"{_MEANINGS['p']} May be repeated.",
            show_default="0",
            rich_help_panel="Method",
        ),
    ] = None,
    out: OutOption = None,
    method: Annotated[str, _flag("method")] = "thr",
    keep_entropy: Annotated[float, _flag("keep_entropy")] = 0.0,
    entropy_share: Annotated[float, _flag("entropy_share")] = 0.2,
    advantage: Annotated[str, _flag("advantage")] = "grpo",
    adv_std: Annotated[str, _flag("adv_std")] = "population",
    pass_at_k: Annotated[str, _flag("pass_at_k")] = "none",
    mix: Annotated[str, _flag("mix")] = "paper",
    chi: Annotated[float, _flag("chi")] = 0.2,
    k: Annotated[int, _flag("k")] = 4,
    tau: Annotated[str, _flag("tau")] = "auto",
    cov_share: Annotated[float, _flag("cov_share")] = 2e-3,
    prompts: Annotated[int, _flag("prompts")] = 256,
    mini_batch: Annotated[int, _flag("mini_batch")] = 64,
    nthr: Annotated[
        bool,
        typer.Option(
            "--nthr",
            help="Have the policy replay the groups for NTHR's tokens.",
            rich_help_panel="Policy",
        ),
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="Policy of --nthr and of --method nthr or random.",
            show_default="the run's",
            rich_help_panel="Policy",
        ),
    ] = None,
    revision: Annotated[str | None, _flag("revision")] = None,
    device: Annotated[str, _flag("device")] = "auto",
    dtype: Annotated[str, _flag("dtype")] = "auto",
    score_id: ScoreIdOption = None,
    seed: SeedOption = 0,
    venue: VenueOption = "neurips",
    format: FormatOption = Format.HUMAN,
) -> None:
    """What a method would do to saved rollouts: weights, gradient shares, drift, overlaps.

    Nothing is trained: advantages are the trainer's own, over the saved THR, entropies and
    log-probabilities. Only NTHR's score needs the policy (--nthr).
    """
    limit_threads()
    from thr_probe.figures import plot_preview, save_analysis
    from thr_probe.preview import PreviewOptions, preview
    from thr_probe.traces import read_run

    opened = read_run(run)
    warn_if_incomplete(run, complete=opened.is_complete)
    options = PreviewOptions(
        config=TrainConfig(
            method=method,
            keep_entropy=keep_entropy,
            entropy_share=entropy_share,
            advantage=advantage,
            adv_std=adv_std,
            pass_at_k=pass_at_k,
            mix=mix,
            chi=chi,
            k=k,
            tau=tau,
            cov_share=cov_share,
            prompts=prompts,
            mini_batch=mini_batch,
            group_size=max(2, opened.manifest.group_size),
            temperature=_temperature(opened),
            model=model or opened.manifest.model or "lab",
            revision=revision if model else revision or opened.manifest.revision,
            device=device,
            dtype=dtype,
        ),
        ps=tuple(p or ()),
        with_nthr=nthr,
        score_id=score_id,
        seed=seed,
    )
    _check_policy(opened, model, needed=options.needs_nthr)
    analysis = preview(opened, options)
    figure = plot_preview(analysis, venue=venue)
    folder = out or default_folder(run, score_id)
    paths = save_analysis(analysis, figure, folder, command=quoted(command_line()))
    print_rows(
        [
            {str(key): value for key, value in row.items()}
            for row in analysis.summary.to_dict("records")
        ],
        format,
    )
    _tell_of_nthr(analysis.facts, needed=options.needs_nthr)
    tell_files(analysis, paths)


def _temperature(run: Run) -> float:
    """Of the rollouts; greedy ones are scored at 1."""
    return float(run.config.get("temperature", 1.0)) or 1.0


def _check_policy(run: Run, model: str | None, *, needed: bool) -> None:
    from thr_probe.errors import UsageError

    if needed and model is None and run.manifest.model is None:
        raise UsageError(
            f"{run.path} does not say which policy it was sampled from, and NTHR's score needs it",
            "name it with --model",
        )


def _tell_of_nthr(facts: dict[str, object], *, needed: bool) -> None:
    if not needed:
        stderr().print(
            "NTHR is not among the masks: its score is not in the trace; --nthr has the policy "
            "replay the groups for it"
        )
    gap = float(str(facts.get("replayed_logprob_gap", 0.0)))
    if gap > LARGE_GAP:
        stderr().print(
            f"warning: log-probabilities of the replay lie {gap:.3g} nats from those of the trace "
            f"on average: {facts['nthr_policy']} is not the policy that scored this run"
        )
