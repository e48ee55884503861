"""`thr-probe verify`: the labels of a run under the current verifier, and under a second grader."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from thr_probe.cli.analyzing import RunArgument, warn_if_incomplete
from thr_probe.cli.output import Format, FormatOption, print_rows
from thr_probe.cli.progress import ShellMonitor, shell_monitor
from thr_probe.cli.shell import INTERRUPTED, stderr

if TYPE_CHECKING:
    from thr_probe.audit import Audit


class GradingMonitor(ShellMonitor):
    """Problems done, completions per second and the stored labels' pass rate."""

    def rates(self) -> str:
        """Completions per second; the pass rate is that of the stored labels."""
        seconds = max(time.monotonic() - self.started, 1e-9)
        share = f"{self.correct / self.completions:.1%}" if self.completions else "-"
        return f"{self.completions / seconds:,.0f} completions/s  {share} correct as stored"


def verify_command(
    run: RunArgument,
    audit: Annotated[
        bool,
        typer.Option(
            "--audit", help="Also ask a second grader, independent of ours: math-verify alone."
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder of the tables.", show_default="none"),
    ] = None,
    workers: Annotated[int, typer.Option("--workers", help="Processes of each grader.")] = 2,
    limit: Annotated[
        float, typer.Option("--limit", help="Seconds that one comparison may take.")
    ] = 5.0,
    examples: Annotated[
        int, typer.Option("--examples", help="Examples of each kind to print, 5 at most.", min=0)
    ] = 2,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the resampling.")] = 0,
    format: FormatOption = Format.HUMAN,
) -> None:
    """Grade a run's saved completions again and compare with its labels; changes nothing.

    With --audit a second grader judges too: where the two disagree is listed by kind, with
    examples, and the share of labels that it contradicts is an estimate of the label noise.
    """
    from thr_probe.audit import AuditOptions, audit_run, write_audit
    from thr_probe.traces import read_run

    opened = read_run(run)
    warn_if_incomplete(run, complete=opened.is_complete)
    options = AuditOptions(second=audit, num_workers=workers, limit_s=limit, seed=seed)
    with shell_monitor(GradingMonitor) as monitor:
        found = audit_run(opened, options, monitor=monitor)
    if found is None:
        stderr().print("stopped; nothing was changed")
        raise typer.Exit(INTERRUPTED)
    if found.facts["num_without_gold"]:
        stderr().print(
            f"left out: {found.facts['num_without_gold']:,} completions without a gold answer"
        )
    _print(found, format, examples)
    for path in write_audit(found, out) if out else ():
        stderr().print(str(path))


def _print(found: Audit, style: Format, num_examples: int) -> None:
    """One table in the formats that hold one: the disagreements below the summary otherwise."""
    summary = [{str(key): row[key] for key in row} for row in found.summary.to_dict("records")]
    if style is not Format.HUMAN:
        print_rows(
            [
                {"quantity": row["quantity"], "kind": None, "count": None}
                | {name: row[name] for name in ("value", "low", "high")}
                for row in summary
            ]
            + [
                {"quantity": row["direction"], "kind": row["kind"], "count": row["count"]}
                | {"value": row["share"], "low": row["low"], "high": row["high"]}
                for row in found.kinds.to_dict("records")
            ],
            style,
        )
        return
    print_rows(summary, style)
    if len(found.kinds):
        typer.echo("")
        print_rows(
            [{str(key): row[key] for key in row} for row in found.kinds.to_dict("records")], style
        )
    shown = found.examples.groupby(["comparison", "direction", "kind"]).head(num_examples)
    if len(shown):
        typer.echo("")
        print_rows([_safe(row) for row in shown.to_dict("records")], style)


def _safe(row: Mapping[object, object]) -> dict[str, object]:
    """A model's text for the terminal: nothing in it acts."""
    from thr_probe.report.tokens.pieces import printable, visible

    kept = {"direction", "kind", "prompt_id", "rollout_id", "gold", "first", "second"}
    return {
        str(name): visible(printable(value)).replace("·", " ") if isinstance(value, str) else value
        for name, value in row.items()
        if name in kept
    }
