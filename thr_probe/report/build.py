"""`thr-probe report`: every analysis of some runs, written to files and bound into one page."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from thr_probe.analysis.result import counted
from thr_probe.analysis.training_runs import run_names
from thr_probe.errors import DataError, UsageError
from thr_probe.gallery import READS_SCORES, Outcome, analyze_all
from thr_probe.report.comparison import compare_runs
from thr_probe.report.filled import FilledTable, filled
from thr_probe.report.latex import LatexItem, write_latex
from thr_probe.report.page import (
    Fragment,
    Missing,
    Numbering,
    Part,
    entries_of,
    page,
    record_text,
    statements_of,
    title_of,
)
from thr_probe.report.summary import findings
from thr_probe.report.tables import paper_tables
from thr_probe.report.tables.latex import table_latex
from thr_probe.report.tokens.viewer import MAX_TOKENS, viewer_fragment
from thr_probe.report.written import Written, read_written
from thr_probe.traces import Run, read_run
from thr_probe.traces.atomic import write_result
from thr_probe.traces.layout import CONFIG_NAME
from thr_probe.traces.manifest import MANIFEST_NAME, read_json_object

RUNS = "runs"
"""Begins the ids of what is said of several runs together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportOptions:
    """Options of `thr-probe report`."""

    seed: int = 0
    """Of the resampling."""
    venue: str = "neurips"
    """Decides the width of the figures."""
    groups: str = "mixed"
    """Which groups the analyses of scores read."""
    score_id: str | None = None
    """The score set, where there are several."""
    max_tokens: int = MAX_TOKENS
    """Completion tokens in the viewer."""
    command: str = ""
    """The command line, shown in the page and kept in the JSON files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """What became of a report."""

    path: Path
    """The page."""
    files: tuple[Path, ...]
    """Files for LaTeX."""
    outcomes: tuple[tuple[Outcome, ...], ...]
    """The analyses of each run; none of one that could not be read."""
    notes: tuple[str, ...]
    """What could not be computed, `run: analysis: reason`."""
    unreadable: tuple[str, ...]
    """Runs that could not be read, with the reason."""
    failed: tuple[str, ...]
    """Analyses that should have been computed and were not, `run: analysis`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Analysed:
    """A run with its analyses."""

    name: str
    path: Path
    slug: str
    run: Run | None
    error: str
    outcomes: tuple[Outcome, ...] = ()
    written: tuple[Written, ...] = ()


def write_report(
    paths: Sequence[Path],
    out: Path,
    options: ReportOptions,
    *,
    latex: Path | None = None,
    keep: Path | None = None,
) -> Reported:
    """Analyse runs, write the page, and where asked for the files for LaTeX.

    The analyses are always computed anew, into `keep` or a folder that is removed afterwards; the
    page and the LaTeX files are made of the files there.

    Args:
        paths: run directories.
        out: the HTML file, replaced where it is there.
        options: of the analyses and the page.
        latex: a folder for figures, tables and captions.
        keep: a folder for the files of the analyses.

    Raises:
        UsageError: no run, one given twice, or an option that does not exist.
        DataError: a single run that cannot be read, or files that cannot be written.
    """
    if len({path.resolve() for path in paths}) < len(paths) or not paths:
        raise UsageError("give one run or several different ones")
    if keep is not None and keep.exists() and not keep.is_dir():
        raise DataError(f"{keep} is a file, and a folder is needed", "choose another with --keep")
    if out.is_dir():
        raise DataError(f"{out} is a folder, and a file is needed", "choose another with -o")
    with _folder(keep) as folder:
        analysed = [
            _analyse(path, name, folder, options, place=place if len(paths) > 1 else 0)
            for place, (path, name) in enumerate(zip(paths, run_names(paths), strict=True), 1)
        ]
        readable = [each.path for each in analysed if each.run]
        if len(readable) > 1:
            analysed = [_compared(readable, folder, options), *analysed]
        tables = paper_tables(readable, paper="all")
        text = _page(analysed, [filled(table) for table in tables], options)
        files: tuple[Path, ...] = ()
        if latex is not None:
            extra = {f"paper-{table.name}": table_latex(table) for table in tables}
            files = write_latex(latex, _latex_items(analysed), tables=extra)
    write_result(out, text.encode())
    return Reported(
        path=out,
        files=files,
        outcomes=tuple(each.outcomes for each in analysed if each.slug != RUNS),
        notes=tuple(
            f"{each.name}: {one.name}: {one.note}"
            for each in analysed
            for one in each.outcomes
            if one.note
        ),
        unreadable=tuple(f"{each.path}: {each.error}" for each in analysed if each.error),
        failed=tuple(
            f"{each.name}: {one.name}"
            for each in analysed
            for one in each.outcomes
            if one.failed and each.slug != RUNS
        ),
    )


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        yield keep
        return
    with tempfile.TemporaryDirectory(prefix="thr-probe-") as folder:
        yield Path(folder)


def _analyse(
    path: Path, name: str, folder: Path, options: ReportOptions, *, place: int
) -> _Analysed:
    slug = _slug(place, name) if place else ""
    try:
        run = read_run(path)
    except DataError as error:
        if not place:
            raise
        message = error.message + (f" ({error.hint})" if error.hint else "")
        return _Analysed(name=name, path=path, slug=slug, run=None, error=message)
    outcomes = analyze_all(
        run,
        folder / slug,
        seed=options.seed,
        venue=options.venue,
        command=options.command,
        groups=options.groups,
        score_id=options.score_id,
    )
    read = (read_written(outcome, folder / slug) for outcome in outcomes)
    return _Analysed(
        name=name,
        path=path,
        slug=slug,
        run=run,
        error="",
        outcomes=tuple(outcomes),
        written=tuple(one for one in read if one),
    )


def _compared(paths: Sequence[Path], folder: Path, options: ReportOptions) -> _Analysed:
    slug = RUNS
    outcomes = compare_runs(
        paths,
        folder / slug,
        seed=options.seed,
        score_id=options.score_id,
        venue=options.venue,
        command=options.command,
    )
    read = (read_written(outcome, folder / slug) for outcome in outcomes)
    return _Analysed(
        name="comparison",
        path=folder,
        slug=slug,
        run=None,
        error="",
        outcomes=tuple(outcomes),
        written=tuple(one for one in read if one),
    )


def _slug(place: int, name: str) -> str:
    """A run as a part of ids and file names."""
    kept = re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-.")
    return f"run-{place}-{kept}"


def _page(
    analysed: Sequence[_Analysed], tables: Sequence[FilledTable], options: ReportOptions
) -> str:
    numbering = Numbering()
    parts = [_part(each, numbering, options) for each in analysed]
    names = ", ".join(each.name for each in analysed if each.slug != RUNS)
    fragments = list(_viewer(analysed, options))
    return page(f"THR report: {names}", parts, tables, fragments, command=options.command)


def _viewer(analysed: Sequence[_Analysed], options: ReportOptions) -> Iterator[Fragment]:
    """The tokens of the first run that can be read; a run without tokens to show is told so."""
    first = next((each for each in analysed if each.run), None)
    if first is None or first.run is None:
        return
    title = "Tokens" + (f" of run {first.name}" if len(analysed) > 1 else "")
    try:
        viewer = viewer_fragment(
            first.run, score_id=options.score_id, max_tokens=options.max_tokens
        )
    except DataError as error:
        text = f"{error.message}." + (f" To have it: {error.hint}." if error.hint else "")
        told = Markup('<p class="notice">{}</p>').format(text)
        yield Fragment(anchor="tokens", title=title, html=told)
        return
    yield Fragment(
        anchor="tokens",
        title=title,
        html=viewer.html + viewer.payload_html,
        css=viewer.css,
        js=viewer.js,
        interactive=True,
    )


def _part(analysed: _Analysed, numbering: Numbering, options: ReportOptions) -> Part:
    run = analysed.run
    entries = entries_of(analysed.written, analysed.slug, numbering)
    told = findings({one.name: one for one in analysed.written})
    return Part(
        slug=analysed.slug,
        heading=_heading(analysed),
        error=analysed.error,
        lead=_lead(run) if run else "",
        statements=statements_of(told, entries, analysed.slug),
        entries=entries,
        missing=tuple(_missing(analysed.outcomes, run)),
        records=tuple(_records(run, options)) if run else (),
    )


def _heading(analysed: _Analysed) -> str:
    if not analysed.slug:
        return "Analyses"
    return "Comparison" if analysed.slug == RUNS else f"Run {analysed.name}"


def _missing(outcomes: Sequence[Outcome], run: Run | None) -> Iterator[Missing]:
    for one in outcomes:
        if one.note:
            hint = one.hint
            if not hint and run and not run.score_ids and one.name in READS_SCORES:
                hint = run.how_to_score()
            note = one.note.rstrip(".") + "."
            yield Missing(title=title_of(one.name), note=note, hint=hint)


def _lead(run: Run) -> str:
    manifest = run.manifest
    known = [
        text
        for text in (
            counted(manifest.num_prompts or 0, "problem") if manifest.num_prompts else "",
            counted(run.num_completions, "completion"),
            f"policy {manifest.model}" if manifest.model else "",
            f"dataset {manifest.dataset}" if manifest.dataset else "",
        )
        if text
    ]
    text = f"{run.path}: {', '.join(known)}."
    if not run.is_complete:
        text += " The run is not complete: everything here is of the part that is there."
    return text


def _records(run: Run, options: ReportOptions) -> Iterator[tuple[str, str]]:
    """The files that say what a run was made with, as they are on the disk."""
    yield MANIFEST_NAME, record_text(read_json_object(run.path / MANIFEST_NAME))
    yield CONFIG_NAME, (run.path / CONFIG_NAME).read_text(encoding="utf-8")
    if run.score_parts:
        score_id = run.resolve_score_id(options.score_id)
        try:
            yield f"scores/{score_id}/score.json", record_text(run.score_info(score_id))
        except DataError as error:
            yield f"scores/{score_id}/score.json", error.message


def _latex_items(analysed: Sequence[_Analysed]) -> list[LatexItem]:
    return [
        LatexItem(
            stem=f"{each.slug}-{one.name}" if each.slug else one.name,
            title=title_of(one.name) + (f", run {each.name}" if each.slug else ""),
            written=one,
        )
        for each in analysed
        for one in each.written
    ]
