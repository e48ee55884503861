"""`thr-probe import`: rollouts that other programs saved become a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thr_probe.cli.output import Format, FormatOption, print_rows
from thr_probe.cli.progress import ShellMonitor, shell_monitor
from thr_probe.cli.shell import (
    INTERRUPTED,
    command_line,
    limit_threads,
    quoted,
    resume_command,
    stderr,
)
from thr_probe.errors import IncompleteError, UsageError

if TYPE_CHECKING:
    from thr_probe.importing import ImportReport

FORMATS_HELP = """verl: STEP.jsonl of rollout_data_dir or validation_data_dir

trl: completions_STEP.parquet of log_completions

lighteval: details_TASK_DATE.parquet of --save-details

lm-eval: samples_TASK_DATE.jsonl of --log_samples

inspect: logs, .eval or .json

slime: .pt of --save-debug-rollout-data, with --trust; of a folder not those of evaluation

nemo-rl: train_data_stepSTEP.jsonl, val_data_stepSTEP.jsonl; of a folder not val beside train

prime-rl: rollouts/step_N, token_exports/step_N

verifiers: results.jsonl or traces.jsonl of vf-eval

generic: any .parquet, .jsonl, .jsonl.gz or .csv, with --map
"""


class ImportMonitor(ShellMonitor):
    """Groups done, completions per second and the share of right ones."""

    def rates(self) -> str:
        """Completions per second."""
        import time

        seconds = max(time.monotonic() - self.started, 1e-9)
        share = f"{self.correct / self.completions:.1%}" if self.completions else "-"
        return f"{self.completions / seconds:,.0f} completions/s  {share} correct"


def import_command(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE|DIR...", help="Files or folders of one format.", show_default=False
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The run directory to make.")],
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="FORMAT",
            help=FORMATS_HELP,
            show_default="recognised from the files",
        ),
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="FIELD=COLUMN,...",
            help="Of generic: which column holds prompt, prompt_text, question, answer, "
            "completion, correct, reward, step, rollout, token_ids, prompt_token_ids, logprobs, "
            "finish_reason, dataset, level, seed, model or extracted. What is not named is found "
            "by its obvious name.",
            show_default=False,
        ),
    ] = None,
    reward_column: Annotated[
        str | None,
        typer.Option("--reward-column", help="Which of several rewards, metrics or scores counts."),
    ] = None,
    correct_above: Annotated[
        float | None,
        typer.Option(
            "--correct-above",
            help="A completion whose reward is above it is right.",
            show_default="0, for rewards that are all 0 or 1, or all -1 or 1",
        ),
    ] = None,
    regrade: Annotated[
        bool,
        typer.Option("--regrade", help="Grade again what has a label; agreement is reported."),
    ] = False,
    verifier: Annotated[
        str,
        typer.Option("--verifier", help="What grades: math, or module:function."),
    ] = "math",
    tokenizer: Annotated[
        str | None,
        typer.Option(
            "--tokenizer",
            help="The policy's: lab, a directory or a hub id. Gives ids to completions without, an "
            "end-of-sequence id behind those that stopped by themselves; checks those that are "
            "there. Its chat template is applied to prompts that the files keep as messages.",
        ),
    ] = None,
    no_chat_template: Annotated[
        bool,
        typer.Option(
            "--no-chat-template", help="Leave prompts that are messages as role and text."
        ),
    ] = False,
    revision: Annotated[
        str | None, typer.Option("--revision", help="Revision of a hub tokenizer.")
    ] = None,
    model_name: Annotated[
        str | None, typer.Option("--model-name", help="The policy, where the files do not say.")
    ] = None,
    dataset_name: Annotated[
        str | None,
        typer.Option(
            "--dataset-name",
            help="The problem set; runs of the same set are compared question by question.",
            show_default="as the files say, else the file's name",
        ),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option("--temperature", help="That the completions were sampled at, for scoring."),
    ] = None,
    steps: Annotated[
        str | None, typer.Option("--steps", metavar="A:B", help="Only the steps A to B - 1.")
    ] = None,
    max_groups: Annotated[
        int | None, typer.Option("--max-groups", help="Only the first so many groups.", min=1)
    ] = None,
    trust: Annotated[
        bool,
        typer.Option("--trust", help="Open files that can run code when they are opened (.pt)."),
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue an interrupted import.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the run that stands there.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read, grade and report; write no run.")
    ] = False,
    format: FormatOption = Format.HUMAN,
) -> None:
    """Make a run of rollouts that another program saved.

    Completions of one prompt are brought together, graded where the files have no label, tokenized
    where a tokenizer is given, and written as the trace that every other command reads. What was
    found and what was refused is printed and kept in import.json.
    """
    limit_threads()
    from thr_probe.importing import ImportSettings, import_rollouts
    from thr_probe.importing.formats import find_source
    from thr_probe.importing.settings import parse_steps

    found = find_source(paths, source)
    mapped = _mapping(columns or [])
    _check_columns(found.importer.name, mapped, reward_column)
    settings = ImportSettings(
        columns=mapped,
        reward_column=reward_column,
        correct_above=correct_above,
        regrade=regrade,
        verifier=verifier,
        tokenizer=tokenizer,
        chat_template=not no_chat_template,
        revision=revision,
        model_name=model_name,
        dataset_name=dataset_name,
        temperature=temperature,
        steps=parse_steps(steps),
        max_groups=max_groups,
        trust=trust,
    )
    size = sum(path.stat().st_size for path in found.files)
    many = "" if len(found.files) == 1 else "s"
    stderr().print(
        f"reading {len(found.files)} file{many}, {size / 1e6:,.1f} MB, as {found.importer.name}"
    )
    if found.left_out:
        stderr().print(_left_out(found.left_out))
    if found.importer.name == "generic":
        _tell_columns(found.files[0], mapped)
    words: Any = None
    if tokenizer is not None:
        from thr_probe.policy import load_tokenizer

        words = load_tokenizer(tokenizer, revision=revision)
    with shell_monitor(ImportMonitor) as monitor:
        report = import_rollouts(
            found,
            out,
            settings,
            words=words,
            resume=resume,
            overwrite=overwrite,
            dry_run=dry_run,
            argv=command_line(),
            monitor=monitor,
        )
    if report is None:
        stderr().print(f"stopped; continue with: {resume_command()}")
        raise typer.Exit(INTERRUPTED)
    _print(report, format)
    if not dry_run:
        stderr().print(f"next: {quoted(['thr-probe', 'analyze', 'passk', str(out)])}")
    if report.rows_refused:
        raise IncompleteError(
            f"refused {report.rows_refused:,} of {report.rows_read:,} rows",
            "the run holds the others" if not dry_run else None,
        )


def _mapping(texts: list[str]) -> dict[str, str]:
    """FIELD=COLUMN pairs, separated by commas or given one by one."""
    mapped: dict[str, str] = {}
    for pair in (part for text in texts for part in text.split(",")):
        name, equals, column = (part.strip() for part in pair.partition("="))
        if not (name and equals and column):
            raise UsageError(f"--map {pair!r} is no pair", "write --map answer=gold,reward=score")
        if name in mapped:
            raise UsageError(f"--map names the field {name} twice")
        mapped[name] = column
    return mapped


def _check_columns(source: str, mapped: dict[str, str], reward_column: str | None) -> None:
    """Options that the format would not look at are refused."""
    if mapped and source != "generic":
        raise UsageError(
            f"--map names the columns of generic tables, and this is {source}",
            "leave --map out, or add --from generic",
        )
    if reward_column is not None and source == "generic":
        raise UsageError(
            "--reward-column is not for generic tables", f"add --map reward={reward_column}"
        )


def _left_out(files: Sequence[Path]) -> str:
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    return f"left out, as evaluation beside training: {files[0]}{more}; name a file to import it"


def _tell_columns(path: Path, mapped: dict[str, str]) -> None:
    """Which column was taken for what: by their names they may be something else."""
    from thr_probe.traces.importers.generic import columns_used

    used = ", ".join(f"{name}={column}" for name, column in columns_used(path, mapped).items())
    stderr().print(f"columns: {used or 'none'}")


def _print(report: ImportReport, style: Format) -> None:
    from thr_probe.importing.report import report_json, report_rows

    if style is Format.JSON:
        typer.echo(report_json(report), nl=False)
        return
    print_rows(report_rows(report), style)
    if style is Format.HUMAN and report.refused:
        typer.echo("")
        print_rows(
            [{**row, "examples": "; ".join(row["examples"])} for row in report.refused], style
        )
