"""The report as one HTML file: what was written by the analyses, laid out for reading."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from thr_probe import __version__
from thr_probe.report.captions_html import caption_html, first_sentence
from thr_probe.report.csv_view import TableView, csv_view
from thr_probe.report.filled import FilledTable
from thr_probe.report.inline_svg import inline_svg
from thr_probe.report.summary import Finding
from thr_probe.report.written import Written

TITLES: Mapping[str, str] = {
    "health": "Data health",
    "density": "How THR is distributed",
    "overlap": "Dominant tokens and entropy",
    "wordcloud": "Which words carry THR",
    "reflection": "Reflection words",
    "retention": "Tokens retained by the threshold",
    "passk": "Pass@K",
    "balance": "Exploitation and exploration",
    "split": "Influence of a token on itself",
    "entropy": "THR and entropy",
    "position": "THR along the completion",
    "classes": "Classes of tokens",
    "advantage": "THR and the advantage",
    "tau": "The threshold",
    "drift": "THR along training steps",
    "gwhes": "Group-weighted hidden embedding score",
    "mismatch": "Sampler and policy",
    "compare": "Differences to the first run",
    "passk-runs": "Pass@K of the runs",
    "curves": "Training curves",
    "timing": "Time per step",
}
"""Headings; an analysis without one goes by its name."""

FIRST = ("health",)
"""Analyses that come before the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """An analysis that could not be computed, or has nothing to show."""

    title: str
    """Its heading."""
    note: str
    """Why."""
    hint: str
    """What would make it possible; may be empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One analysis of the page."""

    anchor: str
    """Its id in the page."""
    title: str
    """Its heading."""
    number: int
    """Of its figure."""
    drawing: Markup
    """The SVG."""
    caption: Markup
    """The caption."""
    tables: tuple[TableView, ...]
    """Its CSV files, the summary first."""
    facts: tuple[tuple[str, str], ...]
    """Name and value."""
    command: str
    """What made it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A finding and where its figure is."""

    text: str
    """One sentence or two."""
    anchor: str
    """Id of the analysis behind it."""
    source: str
    """What to call that."""
    is_warning: bool
    """Whether it says that the data are not sound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What the page shows of one run, or of several runs together."""

    slug: str
    """Begins the ids of its entries; empty in a report of one run."""
    heading: str
    """Of its section."""
    error: str
    """Why the run could not be read; empty otherwise."""
    lead: str
    """What it is, in a sentence."""
    statements: tuple[Statement, ...]
    """Its summary."""
    entries: tuple[Entry, ...]
    """Its analyses."""
    missing: tuple[Missing, ...]
    """Analyses that could not be computed."""
    records: tuple[tuple[str, str], ...]
    """File name and text of what it was made with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fragment:
    """A part of the page that is made elsewhere, with its own style and script."""

    anchor: str
    """Its id in the page."""
    title: str
    """Its heading."""
    html: Markup
    """Its content."""
    css: str = ""
    """Its style sheet."""
    js: str = ""
    """Its script."""
    interactive: bool = False
    """Whether it is nothing on paper."""


class Numbering:
    """Figures are counted through the whole page."""

    def __init__(self) -> None:
        self._last = 0

    def next(self) -> int:
        """The next number."""
        self._last += 1
        return self._last


def title_of(name: str) -> str:
    """The heading of an analysis."""
    return TITLES.get(name, name.replace("_", " ").capitalize())


def entries_of(written: Sequence[Written], slug: str, numbering: Numbering) -> tuple[Entry, ...]:
    """Analyses with something to show as entries of the page, data health first.

    Args:
        written: the analyses, in their order.
        slug: begins their ids; may be empty.
        numbering: of the figures.
    """
    shown = [one for one in written if not one.empty_reason]
    ordered = sorted(shown, key=lambda one: one.name not in FIRST)
    return tuple(_entry(one, anchor_of(slug, one.name), numbering) for one in ordered)


def anchor_of(slug: str, name: str) -> str:
    """The id of an analysis in the page."""
    return f"{slug}-{name}" if slug else name


def _entry(written: Written, anchor: str, numbering: Numbering) -> Entry:
    number = numbering.next()
    label = f"Figure {number}. {first_sentence(written.caption)}"
    return Entry(
        anchor=anchor,
        title=title_of(written.name),
        number=number,
        drawing=inline_svg(written.text("svg"), prefix=f"f{number}", label=label),
        caption=caption_html(written.caption),
        tables=tuple(
            view for name in written.tables if (view := csv_view(written.folder / name)).num_rows
        ),
        facts=tuple(fact_rows(written.facts)),
        command=written.command,
    )


def fact_rows(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Facts as name and text; a fact that is empty or undefined is a dash."""
    for name, value in facts.items():
        yield name.replace("_", " "), _fact(value)


def _fact(value: object) -> str:
    if value is None or value in ("", [], {}):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list):
        return ", ".join(map(_fact, value))
    if isinstance(value, dict):
        return "; ".join(f"{name}: {_fact(item)}" for name, item in value.items())
    return str(value)


def statements_of(
    told: Iterable[Finding], entries: Iterable[Entry], slug: str
) -> tuple[Statement, ...]:
    """Findings with the figures behind them, warnings first.

    Args:
        told: the findings.
        entries: of the same run.
        slug: begins the ids of the entries; may be empty.
    """
    numbers = {entry.anchor: entry.number for entry in entries}
    statements = []
    for finding in sorted(told, key=lambda one: not one.is_warning):
        anchor = anchor_of(slug, finding.analysis)
        source = f"Figure {numbers[anchor]}"
        statements.append(
            Statement(
                text=finding.text, anchor=anchor, source=source, is_warning=finding.is_warning
            )
        )
    return tuple(statements)


def page(
    title: str,
    parts: Sequence[Part],
    tables: Sequence[FilledTable],
    fragments: Sequence[Fragment],
    *,
    command: str,
) -> str:
    """The whole document; the same input gives the same text.

    Args:
        title: of the document.
        parts: the runs, and what compares them.
        tables: the paper's.
        fragments: what comes after them.
        command: as it was typed.
    """
    styles = [_static("report.css"), *(part.css for part in fragments if part.css)]
    scripts = [part.js for part in fragments if part.js]
    environment = Environment(
        loader=PackageLoader("thr_probe.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("report.html.j2").render(
        title=title,
        parts=parts,
        tables=tables,
        fragments=fragments,
        command=command,
        version=__version__,
        styles=[Markup(style) for style in styles],
        scripts=[Markup(script) for script in scripts],
        policy=content_security_policy(styles, scripts),
    )


def content_security_policy(styles: Sequence[str], scripts: Sequence[str]) -> str:
    """A policy that lets nothing be loaded and only these styles and scripts take effect.

    Args:
        styles: the contents of the style elements.
        scripts: the contents of the script elements.
    """
    rules = {
        "default-src": "'none'",
        "style-src": " ".join(map(_hash, styles)) or "'none'",
        "script-src": " ".join(map(_hash, scripts)) or "'none'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def _static(name: str) -> str:
    return (resources.files("thr_probe.report") / "static" / name).read_text(encoding="utf-8")


def record_text(value: Mapping[str, Any]) -> str:
    """A record as JSON for reading."""
    return json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True)
