"""`thr-probe analyze gwhes`: one GRPO step on each question of a run, beside what GWHES says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from thr_probe.cli.analyzing import (
    OutOption,
    RunArgument,
    SeedOption,
    VenueOption,
    analyze_app,
    default_folder,
    tell_files,
)
from thr_probe.cli.output import Format, FormatOption, print_rows
from thr_probe.cli.progress import shell_monitor
from thr_probe.cli.shell import command_line, limit_threads, quoted

if TYPE_CHECKING:
    from thr_probe.policy import Policy
    from thr_probe.traces import Run


@analyze_app.command("gwhes")
def gwhes_command(
    run: RunArgument,
    out: OutOption = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="Policy that takes the steps: lab, a directory or a hub id.",
            show_default="the run's",
        ),
    ] = None,
    revision: Annotated[
        str | None, typer.Option("--revision", help="Revision of a hub model.")
    ] = None,
    optimizer: Annotated[
        str, typer.Option("--optimizer", help="sgd, a plain gradient step, or adamw.")
    ] = "sgd",
    lr: Annotated[
        float | None,
        typer.Option(
            "--lr", help="Learning rate of the step.", show_default="1e-3 of sgd, 1e-6 of adamw"
        ),
    ] = None,
    max_questions: Annotated[
        int | None,
        typer.Option(
            "--max-questions",
            help="Only the first so many with right and wrong completions.",
            show_default="all",
        ),
    ] = None,
    micro_batch_tokens: Annotated[
        int, typer.Option("--micro-batch-tokens", help="Tokens per pass, padding included.")
    ] = 16384,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    seed: SeedOption = 0,
    venue: VenueOption = "neurips",
    format: FormatOption = Format.HUMAN,
) -> None:
    """GWHES against the change that one GRPO step makes to correct likelihoods (Theorem 3.1).

    Takes one step on every question alone, always from the same float32 weights, and compares the
    order of the questions. It computes with the policy, so `analyze all` leaves it out.
    """
    limit_threads()
    from thr_probe.analysis.gwhes import gwhes_agreement
    from thr_probe.figures import plot_gwhes, save_analysis
    from thr_probe.figures.style import venue_width
    from thr_probe.one_step import StepOptions, measure_run, run_temperature
    from thr_probe.traces import read_run

    venue_width(venue)  # refused before the steps rather than after them
    opened = read_run(run)
    options = StepOptions(
        optimizer=optimizer,
        lr=lr,
        temperature=run_temperature(opened),
        micro_batch_tokens=micro_batch_tokens,
    )
    policy = _policy(opened, model, revision, device)
    with shell_monitor() as monitor:
        tables = measure_run(opened, policy, options, max_questions=max_questions, monitor=monitor)
    analysis = gwhes_agreement(
        tables.questions,
        tables.completions,
        facts={
            "model": policy.name,
            "model_digest": policy.weights_digest,
            "optimizer": options.optimizer,
            "lr": options.rate,
            "temperature": options.temperature,
            "num_unmixed": tables.num_unmixed,
            "num_left": tables.num_left,
        },
        exclusions=tables.exclusion_sentence(),
        seed=seed,
    )
    paths = save_analysis(
        analysis,
        plot_gwhes(analysis, venue=venue),
        out or default_folder(run, None),
        command=quoted(command_line()),
    )
    rows = analysis.summary.to_dict("records")
    print_rows([{str(name): value for name, value in row.items()} for row in rows], format)
    tell_files(analysis, paths)


def _policy(run: Run, model: str | None, revision: str | None, device: str) -> Policy:
    """The policy named, or the run's own with its adapter."""
    from thr_probe.errors import UsageError
    from thr_probe.policy import load_policy

    if model is not None:
        return load_policy(model, device=device, dtype="float32", revision=revision)
    if run.manifest.model is None:
        raise UsageError(
            f"{run.path} does not say which policy sampled it", "give one with --model"
        )
    return load_policy(
        run.manifest.model,
        device=device,
        dtype="float32",
        revision=revision or run.manifest.revision,
        adapter=run.config.get("adapter"),
    )
