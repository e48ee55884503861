"""From foreign files to a run: read, group, grade, write; resumable.

Everything in the run follows from the files and the options, part for part, so an import that was
killed and resumed equals one that was not.
"""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from thr_probe.errors import DataError, UsageError
from thr_probe.importing.formats import Source
from thr_probe.importing.plan import PlannedGroup, plan_groups, plan_parts, planned_problems
from thr_probe.importing.reading import Reader, Reading
from thr_probe.importing.refusals import first_words
from thr_probe.importing.report import (
    ImportReport,
    Tally,
    common_size,
    make_report,
    read_report,
    write_report,
)
from thr_probe.importing.settings import ImportSettings, changed_settings
from thr_probe.importing.spool import Spool
from thr_probe.importing.words import Words
from thr_probe.importing.writing import PartMaker, verifier_name, write_rows
from thr_probe.problems import Verifier, load_verifier
from thr_probe.problems.problem import problems_digest
from thr_probe.progress import SILENT, Advance, Monitor
from thr_probe.traces import (
    Manifest,
    RunStatus,
    check_room,
    completed_parts,
    create_run,
    finish_run,
    read_config,
    read_manifest,
)
from thr_probe.traces.layout import CONFIG_NAME
from thr_probe.traces.manifest import MANIFEST_NAME
from thr_probe.traces.token_table import write_occurring_tokens
from thr_probe.versions import library_versions

SEVERAL = "several"


@dataclass(slots=True, kw_only=True)
class _Job:
    """An import under way."""

    source: Source
    run_path: Path
    settings: ImportSettings
    words: Words | None
    spool: Spool
    monitor: Monitor
    files: list[dict[str, Any]]
    argv: tuple[str, ...]
    reading: Reading = field(default_factory=Reading)
    planned: list[PlannedGroup] = field(default_factory=list)

    @property
    def config(self) -> dict[str, object]:
        """As config.toml keeps it."""
        return {"format": self.source.importer.name, **self.settings.saved(), "files": self.files}


def import_rollouts(  # noqa: PLR0913  how a run is started, as collect has it
    source: Source,
    run_path: Path,
    settings: ImportSettings,
    *,
    words: Words | None = None,
    resume: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
    argv: Sequence[str] = (),
    monitor: Monitor = SILENT,
) -> ImportReport | None:
    """Make a run of files that another program wrote.

    Args:
        source: the files and their format.
        run_path: the run directory to make, or to continue with `resume`.
        settings: the user's.
        words: the policy's tokenizer; None: ids are kept as they are, and absent where the files
            have none.
        resume: continue an interrupted import; a complete one is left as it is.
        overwrite: replace a run that stands there, once the files have been read.
        dry_run: do all but write; completions are graded too.
        argv: the command line, for the manifest.
        monitor: told of every finished part, and asked between parts whether to stop.

    Returns:
        What was found; None when stopped early.

    Raises:
        UsageError: a run that stands there already, other options or files than those of the run
            to resume, rewards whose meaning the user has to say.
        DataError: files that cannot be read, nothing in them that can be used, a tokenizer that is
            not that of the ids.
    """
    if resume and overwrite:
        raise UsageError("--resume continues a run, --overwrite replaces it: choose one")
    resuming = resume and not dry_run and (run_path / MANIFEST_NAME).exists()
    if not (resuming or dry_run):
        check_room(run_path, overwrite=overwrite)
    with _spool(run_path, dry_run=dry_run) as spool:
        job = _Job(
            source=source,
            run_path=run_path,
            settings=settings,
            words=words,
            spool=spool,
            monitor=monitor,
            files=_file_records(source.files),
            argv=tuple(argv),
        )
        if resuming:
            _check_same(job)
            if read_manifest(run_path).status is RunStatus.COMPLETE:
                return read_report(run_path)
        _read(job)
        if job.reading.stopped:
            return None
        return _write(job, resuming=resuming, overwrite=overwrite, dry_run=dry_run)


@contextlib.contextmanager
def _spool(run_path: Path, *, dry_run: bool) -> Iterator[Spool]:
    """Beside the run, where there is room for it; elsewhere if nothing may be written there."""
    with contextlib.ExitStack() as stack:
        if dry_run:
            path = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "spool"
        else:
            path = run_path.with_name(f".{run_path.name}.spool.tmp")
        yield stack.enter_context(Spool(path))


def _file_records(paths: Sequence[Path]) -> list[dict[str, Any]]:
    records = [_file_record(path) for path in paths]
    first: dict[str, str] = {}
    for record in records:
        path, same = record["path"], first.setdefault(record["sha256"], record["path"])
        if same != path and record["bytes"]:
            raise DataError(
                f"{same} and {path} have the same content: their completions would count twice",
                "name one of them only",
            )
    return records


def _file_record(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"path": str(path), "bytes": path.stat().st_size, "sha256": digest}
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror or error}",
            "check the file and its permissions",
        ) from error


def _check_same(job: _Job) -> None:
    """An import is resumed with the files and the options that it was started with."""
    saved = read_config(job.run_path)
    if "format" not in saved:
        raise UsageError(f"{job.run_path} is a run that was not imported", "choose another -o")
    changed = changed_settings(saved, job.config)
    digest = None if job.words is None else job.words.digest
    if not changed and read_manifest(job.run_path).tokenizer_digest != digest:
        changed = ["the tokenizer's files changed"]
    if changed:
        raise UsageError(
            f"{job.run_path / CONFIG_NAME}: the import was started with other files or options: "
            f"{'; '.join(changed)}",
            "resume with the same, or start another run with another -o",
        )


def _done(job: _Job, manifest: Manifest) -> set[int]:
    """The parts that stand there."""
    # a chat template that changed, or writes the date, gives other prompts than theirs
    if read_manifest(job.run_path).dataset_digest != manifest.dataset_digest:
        raise UsageError(
            f"{job.run_path}: the prompts are not those that the import was started with: the "
            "tokenizer's chat template changed, or writes the date",
            "start again with --overwrite",
        )
    return set(completed_parts(job.run_path, "rollouts"))


def _read(job: _Job) -> None:
    reader = Reader(spool=job.spool, settings=job.settings, words=job.words)
    rows = job.source.importer.read(job.source.files, job.settings.options)
    job.reading = reader.read(rows, job.monitor)
    if job.reading.stopped:
        return
    if not job.reading.groups:
        skipped = job.reading.counts["rows_skipped"]
        named = ", ".join(str(path) for path in job.source.files)
        raise DataError(
            f"nothing could be imported from {named}: "
            + (
                f"--steps leaves out all {skipped} rows"
                if skipped
                else f"of {job.reading.counts['rows_read']} rows "
                f"{job.reading.refusals.count} were refused: "
                f"{first_words(job.reading.refusals.rows())}"
            ),
            f"is the format {job.source.importer.name} right ({job.source.importer.meaning})?",
        )
    job.planned = plan_groups(job.reading.groups, job.spool)


def _write(job: _Job, *, resuming: bool, overwrite: bool, dry_run: bool) -> ImportReport | None:
    size = common_size(job.planned)
    manifest = _manifest(job, size)
    if not (resuming or dry_run):
        _create(job, manifest, overwrite=overwrite)
    done = _done(job, manifest) if resuming else set()
    tally = Tally(common_size=size)
    with _verifier(job) as verifier:
        maker = PartMaker(
            spool=job.spool,
            settings=job.settings,
            source=job.source.importer.name,
            words=job.words,
            verifier=verifier,
        )
        job.monitor.begin(len(job.planned))
        for index, groups in enumerate(plan_parts(job.planned)):
            if index in done:
                written = maker.read(job.run_path, index, groups)
            elif job.monitor.should_stop():
                return None
            else:
                rows, written = maker.make(groups)
                if not dry_run:
                    write_rows(job.run_path, index, rows)
            for group in written:
                tally.add(group)
            job.monitor.advance(
                Advance(
                    prompts=len(groups),
                    completions=sum(len(group.rows) for group in written),
                    correct=sum(row["correct"] for group in written for row in group.rows),
                    resumed=index in done,
                )
            )
    report = make_report(job.source.importer.name, job.files, job.reading, job.planned, tally)
    if not dry_run:
        _finish(job, manifest, report)
    return report


@contextlib.contextmanager
def _verifier(job: _Job) -> Iterator[Verifier | None]:
    """The verifier, where anything is to be judged."""
    settings = job.settings
    if not (settings.regrade or job.reading.counts["to_grade"]):
        yield None
        return
    # the threshold is that of the files' rewards; those of our own verifier are 0 and 1
    above = settings.correct_above if settings.verifier != "math" else None
    with load_verifier(settings.verifier, correct_above=above) as verifier:
        yield verifier


def _create(job: _Job, manifest: Manifest, *, overwrite: bool) -> None:
    create_run(
        job.run_path,
        manifest=manifest,
        config=job.config,
        problems=_problem_rows(job),
        overwrite=overwrite,
    )


def _problem_rows(job: _Job) -> Iterator[dict[str, object]]:
    for problem, stored in planned_problems(job.planned, job.spool, _dataset(job)):
        ids = stored
        if stored is None and job.words is not None:
            ids = job.words.encode_prompt(problem.prompt_text)
        yield {
            "prompt_id": problem.prompt_id,
            "dataset": job.settings.dataset_name or problem.dataset,
            "level": problem.level,
            "question": problem.question,
            "prompt_text": problem.prompt_text,
            "prompt_token_ids": ids,
            "answer": problem.answer,
            "answer_alt": problem.answer_alt,
        }


def _dataset(job: _Job) -> str:
    """The problem set's name, else that in the files, else the first file's own."""
    named = [name for name in job.reading.datasets if name]
    if job.settings.dataset_name is not None:
        return job.settings.dataset_name
    if named:
        return named[0] if len(named) == 1 else SEVERAL
    return job.source.files[0].name.partition(".")[0]


def _model(job: _Job) -> str | None:
    named = [name for name in job.reading.models if name]
    if job.settings.model_name is not None:
        return job.settings.model_name
    return None if not named else named[0] if len(named) == 1 else SEVERAL


def _manifest(job: _Job, size: int) -> Manifest:
    problems = planned_problems(job.planned, job.spool, "")
    return Manifest(
        model=_model(job),
        tokenizer_digest=None if job.words is None else job.words.digest,
        dataset=_dataset(job),
        dataset_digest=problems_digest(problem for problem, _ in problems),
        sampler=f"imported:{job.source.importer.name}",
        verifier=_verifier_of(job),
        seed=None,
        argv=job.argv,
        num_prompts=len({each.prompt_id for each in job.planned}),
        group_size=size,
        counts={
            "rows_read": job.reading.counts["rows_read"],
            "rows_refused": job.reading.refusals.count,
            "rows_skipped": job.reading.counts["rows_skipped"],
            "groups": len(job.planned),
        },
        versions=library_versions(),
    )


def _verifier_of(job: _Job) -> str:
    """The one that judged all completions, or the format's name."""
    graded = job.reading.counts["to_grade"]
    total = sum(job.reading.datasets.values())
    if graded == total or (job.settings.regrade and not job.reading.counts["without_answer"]):
        return job.settings.verifier
    named = list(job.reading.verifiers)
    if len(named) == 1 and not graded and not job.settings.regrade:
        return verifier_name(named[0], job.source.importer.name)
    return SEVERAL


def _finish(job: _Job, manifest: Manifest, report: ImportReport) -> None:
    """The files that need every part; the manifest is complete last."""
    words = job.words
    if words is not None:
        write_occurring_tokens(job.run_path, words.token_rows)
    write_report(job.run_path, report)
    noticed = {name: count for name, count in report.counts.items() if count}
    finish_run(job.run_path, replace(manifest, counts=manifest.counts | noticed))
