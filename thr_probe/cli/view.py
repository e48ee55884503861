"""`thr-probe view`: the tokens of a run's completions, coloured, as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from thr_probe.cli.analyzing import RunArgument, ScoreIdOption, warn_if_incomplete
from thr_probe.cli.shell import stderr


def view_command(
    run: RunArgument,
    prompt: Annotated[
        str | None,
        typer.Argument(help="One question: its prompt_id, or how it begins.", show_default="all"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The HTML file.", show_default="RUN/view.html"),
    ] = None,
    score_id: ScoreIdOption = None,
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", help="Questions are left out beyond this many tokens.")
    ] = 100_000,
    open_page: Annotated[
        bool, typer.Option("--open", help="Open the page in the web browser.")
    ] = False,
) -> None:
    """Every token of the completions, coloured by THR: one HTML page that needs no network."""
    from thr_probe.report.tokens.viewer import view_page
    from thr_probe.traces import read_run

    opened = read_run(run)
    warn_if_incomplete(run, complete=opened.is_complete)
    page = out or run / "view.html"
    prompts = None if prompt is None else [prompt]
    fragment = view_page(opened, page, score_id=score_id, prompts=prompts, max_tokens=max_tokens)
    if fragment.notice:
        stderr().print(fragment.notice)
    typer.echo(page)
    if open_page:
        typer.launch(str(page.resolve()))
