"""LaTeX captions as HTML and plain text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from thr_probe.analysis.result import latex_escape
from thr_probe.report.captions_html import (
    caption_html,
    caption_of_file,
    caption_text,
    first_sentence,
)

ROOT = Path(__file__).parents[2]
COMMITTED = sorted((ROOT / "reports").rglob("*.tex"))

CASES = [
    (r"12.3\,\% [11.0, 13.9]", "12.3\u202f% [11.0, 13.9]", "12.3\u202f% [11.0, 13.9]"),
    (
        r"$|\mathrm{THR}| > \tau$",
        "|THR|\u00a0>\u00a0τ",
        '<span class="formula">|THR|\u00a0&gt;\u00a0<i>τ</i></span>',
    ),
    (r"$> \tau$", ">\u00a0τ", '<span class="formula">&gt;\u00a0<i>τ</i></span>'),
    (r"$\pm 1$", "±1", '<span class="formula">±1</span>'),
    (r"$-1$ and $a-b$", "−1 and a\u00a0−\u00a0b", None),
    (r"$n = 16$", "n\u00a0=\u00a016", '<span class="formula"><i>n</i>\u00a0=\u00a016</span>'),
    (r"$\tau_\min$", "τ_min", '<span class="formula"><i>τ</i><sub>min</sub></span>'),
    (r"$x^{2k}$", "x^2k", '<span class="formula"><i>x</i><sup>2<i>k</i></sup></span>'),
    (r"$x^23$", "x^23", '<span class="formula"><i>x</i><sup>2</sup>3</span>'),
    (r"$\sum|\mathrm{THR}|$", "∑|THR|", None),
    (r"$\log p$ $\Delta$", "logp Δ", None),
    (r"$\hat A_i$", "A\u0302_i", None),
    (r"\emph{a \textbf{b}}", "a b", "<em>a <strong>b</strong></em>"),
    (r"``a'' -- b's --- c~d", "“a” – b’s — c\u00a0d", None),
    (r"a\textbackslash{}b {c}", "a\\b c", None),
    (r"<b> \& 'x'", "<b> & ’x’", "&lt;b&gt; &amp; ’x’"),
]


@pytest.mark.parametrize(("caption", "text", "html"), CASES)
def test_constructs_become_what_latex_sets(caption, text, html):
    assert caption_text(caption) == text
    if html is not None:
        assert str(caption_html(caption)) == html


@pytest.mark.parametrize(
    "caption", [r"\unknown", r"$\unknown$", "a_b", "$a", r"\emph{a", "a}", r"\cite{a}", "$a$$"]
)
def test_what_is_not_known_is_an_error_and_not_a_wrong_caption(caption):
    with pytest.raises(ValueError, match="caption"):
        caption_html(caption)


def test_escaped_text_comes_back_as_it_was():
    text = 'a_b% & $5 #1 {x} \\ ~ ^ < > | " @ é → <script>'
    assert caption_text(latex_escape(text)) == text


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_every_committed_caption_is_converted(path):
    caption = caption_of_file(path.read_text())
    text = caption_text(caption)
    assert not set("\\${}~") & set(text)
    marked = re.sub(r"(?<=\w)[\^_](?=[\w−])", "", text)  # indices are tags there
    assert caption_html(caption).striptags() == " ".join(marked.split())


def test_every_caption_of_the_gallery_is_converted(lab_report):
    paths = sorted((lab_report / "files").glob("*.tex"))
    assert len(paths) >= 6
    for path in paths:
        assert not set("\\${}") & set(caption_text(caption_of_file(path.read_text())))


def test_the_first_sentence_names_the_figure():
    assert first_sentence(r"Shares, 1.5\,\% of all: more. Then.") == "Shares, 1.5\u202f% of all."
    assert first_sentence("No end") == "No end"


def test_the_caption_of_a_file_ends_at_its_own_brace():
    assert caption_of_file("\\caption{a {b} \\} c}\n\\label{x}\n") == r"a {b} \} c"
    for broken in ("\\label{x}", "\\caption{a {b}"):
        with pytest.raises(ValueError, match="caption"):
            caption_of_file(broken)
