"""The token viewer: completions side by side, every token coloured by what is known of it.

As a part of a larger page or as a page of its own. Everything is in the one file: style, script
and numbers; nothing is fetched.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import jinja2
from markupsafe import Markup

from thr_probe import __version__
from thr_probe.analysis.result import counted
from thr_probe.report.tokens.viewer_data import ViewerData, viewer_data
from thr_probe.report.tokens.viewer_payload import payload
from thr_probe.traces import Run
from thr_probe.traces.atomic import write_result

MAX_TOKENS = 100_000
"""Tokens on one page unless more are asked for; about 1 MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewerFragment:
    """The parts of the viewer, for a page to put together.

    The page puts `css` in a <style>, `html` and `payload_html` in its body and `js` in a <script>
    after them, and may allow just these by `csp_hash`: the html has no inline style and no handler.
    All class names and ids begin with `tv`. The colours follow `data-theme` ("light" or "dark") of
    the <html> element, else the system; the state is kept in the URL hash once the reader changes
    something, and a hash without "=" is left to the page.
    """

    html: Markup
    """One <section>; the numbers are filled in by the script."""
    css: str
    """The style sheet."""
    js: str
    """The script; it needs nothing but the fragment."""
    payload_html: Markup
    """Inert <script> elements that hold the numbers."""
    notice: str | None
    """What the limit of tokens left out, which the html says too; None where all is shown."""


def viewer_fragment(
    run: Run,
    *,
    score_id: str | None = None,
    prompts: Sequence[str] | None = None,
    max_tokens: int = MAX_TOKENS,
) -> ViewerFragment:
    """The viewer of a run's questions.

    Args:
        run: the trace; it needs token ids and scores.
        score_id: which scores; the only ones by default.
        prompts: the questions, by prompt_id or the beginning of one; all by default.
        max_tokens: questions are shown in the order of the trace until the next would exceed it.

    Raises:
        DataError: the run has no scores, no token ids, or no completions.
        UsageError: no question, or more than one, begins as asked; `max_tokens` below 1.
    """
    data = viewer_data(run, score_id=score_id, prompts=prompts, max_tokens=max_tokens)
    notice = _notice(data, max_tokens)
    return ViewerFragment(
        html=Markup(_render("viewer.html", notice=notice)),
        css=_static("viewer.css"),
        js=_static("viewer.js"),
        payload_html=_payload_html(run, data),
        notice=notice,
    )


def view_page(
    run: Run,
    out: Path,
    *,
    score_id: str | None = None,
    prompts: Sequence[str] | None = None,
    max_tokens: int = MAX_TOKENS,
) -> ViewerFragment:
    """Writes the viewer as one HTML file that works from the disk, without network.

    Args:
        run: the trace; it needs token ids and scores.
        out: the file.
        score_id: which scores; the only ones by default.
        prompts: the questions, by prompt_id or the beginning of one; all by default.
        max_tokens: see `viewer_fragment`.

    Returns:
        The parts that the page is made of.

    Raises:
        DataError: the run has no scores, no token ids, or no completions.
        UsageError: no question, or more than one, begins as asked; `max_tokens` below 1.
    """
    fragment = viewer_fragment(run, score_id=score_id, prompts=prompts, max_tokens=max_tokens)
    page = _render(
        "viewer_page.html",
        fragment=fragment,
        css=Markup(fragment.css),
        js=Markup(fragment.js),
        run_name=run.path.resolve().name,
        version=__version__,
        script_hash=csp_hash(fragment.js),
        style_hash=csp_hash(fragment.css),
    )
    write_result(out, page.encode())
    return fragment


def csp_hash(text: str) -> str:
    """The source expression that allows just this inline script or style, such as 'sha256-...'."""
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _payload_html(run: Run, data: ViewerData) -> Markup:
    return Markup("\n").join(
        Markup('<script type="application/octet-stream" id="{}">{}</script>').format(name, text)
        for name, text in payload(run, data).items()
    )


def _notice(data: ViewerData, max_tokens: int) -> str | None:
    if not data.num_left_out:
        return None
    total = len(data.groups) + data.num_left_out
    noun = "question" if all(group.step is None for group in data.groups) else "group"
    return (
        f"Shown: the first {len(data.groups):,} of {counted(total, noun)}. "
        f"{data.num_left_out:,} left out, which would exceed {counted(max_tokens, 'token')}: view "
        "one with thr-probe view RUN PROMPT, where PROMPT is its prompt_id, or more with "
        "--max-tokens."
    )


def _static(name: str) -> str:
    return (resources.files("thr_probe.report") / "static" / name).read_text(encoding="utf-8")


def _render(name: str, **values: object) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("thr_probe.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    return environment.get_template(name).render(**values)
