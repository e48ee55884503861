"""`thr-probe show`: a question's completions in the terminal, token by token."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from thr_probe.cli.analyzing import RunArgument, ScoreIdOption, VenueOption, warn_if_incomplete
from thr_probe.cli.output import WIDTH_OF_FILES, Format, FormatOption, print_rows
from thr_probe.cli.shell import command_line, quoted, stderr
from thr_probe.errors import UsageError

if TYPE_CHECKING:
    from thr_probe.report.tokens.show import Look
    from thr_probe.report.tokens.show_data import ShownQuestion

STYLES = ("tokens", "fig1")
DEFAULT_P = {"tokens": 0.0, "fig1": 0.1}


def show_command(
    run: RunArgument,
    prompt: Annotated[
        str,
        typer.Argument(
            help="The question: its prompt_id, how that begins, or its place in the run from 0.",
            show_default=False,
        ),
    ],
    rollout: Annotated[
        int | None, typer.Argument(help="One completion of it.", show_default="all")
    ] = None,
    by: Annotated[
        str, typer.Option("--by", help="What colours: thr, thr-tau, entropy, logprob, advantage.")
    ] = "thr",
    p: Annotated[
        float | None,
        typer.Option(
            "--p", help="Of the advantage under THR(p), and of fig1.", show_default="0, fig1: 0.1"
        ),
    ] = None,
    style: Annotated[
        str,
        typer.Option(
            "--style", help="tokens, or fig1: a correct and an incorrect one with their weights."
        ),
    ] = "tokens",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="fig1: folder of the figure.", show_default="none"),
    ] = None,
    score_id: ScoreIdOption = None,
    venue: VenueOption = "neurips",
    format: FormatOption = Format.HUMAN,
) -> None:
    """A question and its completions, every token coloured by its THR (or another number).

    Dominant tokens are bold and underlined. Without colours (NO_COLOR, or not a terminal) marks
    around the tokens say the same. The other formats print the numbers per token.
    """
    from thr_probe.report.tokens.show import Look
    from thr_probe.report.tokens.show_data import check_by, shown_question, token_rows
    from thr_probe.traces import read_run

    check_by(by)
    _check(style, p, out)
    opened = read_run(run)
    warn_if_incomplete(run, complete=opened.is_complete)
    p = DEFAULT_P[style] if p is None else p
    question = shown_question(
        opened, prompt, None if style == "fig1" else rollout, score_id=score_id
    )
    if style == "fig1":
        question = _fig1(question, rollout, abs(p), out, venue)
    if format is not Format.HUMAN:
        print_rows(token_rows(question, by, p), format)
        return
    _print(question, Look(by=by, p=abs(p) if style == "fig1" else p, with_weights=style == "fig1"))


def _check(style: str, p: float | None, out: Path | None) -> None:
    if style not in STYLES:
        raise UsageError(f"--style {style!r} does not exist", f"choose {' or '.join(STYLES)}")
    if out is not None and style != "fig1":
        raise UsageError(
            "-o writes the figure of --style fig1", "add --style fig1, or leave -o out"
        )
    if p is not None and not abs(p) < 1:
        raise UsageError(f"--p must lie strictly between -1 and 1, got {p}")


def _fig1(
    question: ShownQuestion, rollout: int | None, p: float, out: Path | None, venue: str
) -> ShownQuestion:
    """The two completions of Figure 1; with a folder also the figure."""
    from thr_probe.report.tokens.show_fig1 import completions_analysis, pair_of

    pair = pair_of(question, rollout)
    analysis = completions_analysis(pair, p)
    if out is not None:
        from thr_probe.figures import plot_completions, save_analysis

        figure = plot_completions(analysis, venue=venue)
        for path in save_analysis(analysis, figure, out, command=quoted(command_line())):
            stderr().print(str(path))
    return pair


def _print(question: ShownQuestion, look: Look) -> None:
    from dataclasses import replace

    from thr_probe.report.tokens.show import shown

    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, emoji=False, width=WIDTH_OF_FILES)
    coloured = console.is_terminal and not console.no_color and console.color_system is not None
    for line in shown(question, replace(look, coloured=coloured)):
        console.print(line)
