"""The commands of `thr-probe`. Importing this loads typer and rich, nothing heavier."""

from __future__ import annotations

import typer

from thr_probe import __version__
from thr_probe.cli import analyze, analyze_influence, analyze_runs, analyze_tokens, gwhes
from thr_probe.cli.analyzing import analyze_app
from thr_probe.cli.collect import collect_command, demo_command, score_command
from thr_probe.cli.compare import compare_command
from thr_probe.cli.data import data_app
from thr_probe.cli.doctor import doctor_command
from thr_probe.cli.evaluate import eval_command
from thr_probe.cli.import_ import import_command
from thr_probe.cli.preview import preview_command
from thr_probe.cli.report import report_command
from thr_probe.cli.reproduce import reproduce_command
from thr_probe.cli.shell import ThrGroup
from thr_probe.cli.show import show_command
from thr_probe.cli.tables import table_command
from thr_probe.cli.theory import theory_command
from thr_probe.cli.train import train_command
from thr_probe.cli.verify import verify_command
from thr_probe.cli.view import view_command

ANALYSES = (analyze, analyze_influence, analyze_tokens, analyze_runs, gwhes)
"""The modules whose import adds their commands to `thr-probe analyze`."""

app = typer.Typer(
    cls=ThrGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Shows which tokens of your rollouts steer a policy towards exploitation or exploration.",
    epilog="Exit codes: 0 done, 1 a bug of ours, 2 usage, 3 bad data, 4 something to install or "
    "provide, 5 finished with failures, 130 interrupted.",
)


def _print_version(value: bool) -> bool:
    if value:
        typer.echo(f"thr-probe {__version__}")
        raise typer.Exit
    return value


@app.callback()
def main(
    version: bool = typer.Option(
        False, "--version", is_eager=True, callback=_print_version, help="Print the version."
    ),
) -> None:
    """Shows which tokens of your rollouts steer a policy towards exploitation or exploration."""


app.command("demo")(demo_command)
app.command("collect")(collect_command)
app.command("import")(import_command)
app.command("score")(score_command)
app.command("eval")(eval_command)
app.add_typer(analyze_app, name="analyze")  # the commands of ANALYSES are in it
app.command("compare")(compare_command)
app.command("preview")(preview_command)
app.command("verify")(verify_command)
app.command("train")(train_command)
app.command("report")(report_command)
app.command("view")(view_command)
app.command("show")(show_command)
app.command("table")(table_command)
app.add_typer(data_app, name="data")
app.command("reproduce")(reproduce_command)
app.command("doctor")(doctor_command)
app.command("theory")(theory_command)
