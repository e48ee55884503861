"""Checking a whole run: every file, every row, every promise of the schema."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from thr_probe.errors import DataError
from thr_probe.traces.checks import check_aligned, check_columns, check_parts
from thr_probe.traces.layout import (
    ROLLOUTS,
    SCORE_INFO_NAME,
    SCORES,
    TableFile,
    inspect_table,
    part_indices,
    part_path,
    read_columns,
    score_ids,
)
from thr_probe.traces.manifest import check_version, read_json_object, read_manifest
from thr_probe.traces.reader import read_config, read_run
from thr_probe.traces.rows import check_lengths, check_undefined, check_values
from thr_probe.traces.schema import KEY_COLUMNS, TABLES


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something in a run that breaks the contract."""

    message: str
    """File and column, what was found, what was expected."""
    hint: str | None
    """What to do about it."""


def validate_run(
    run_path: str | Path, *, told: Callable[[int, int], None] | None = None
) -> list[Finding]:
    """Read every row of a run and list what breaks the contract; empty when all is well.

    `read_run` refuses a run at the first thing wrong; this goes on and names one finding per check
    and part. Memory is that of the keys and of one part.

    Args:
        run_path: the run directory.
        told: called after each part with how many are checked and how many there are.
    """
    path = Path(run_path)
    steps = _Steps(told, path)
    findings: list[Finding] = []
    with _collect(findings):
        read_manifest(path)
    if findings:
        return findings
    with _collect(findings):
        read_run(path)
    with _collect(findings):
        read_config(path)
    problem_ids: pa.ChunkedArray | None = None
    with _collect(findings):
        problem_ids = _validate_small(path / "problems.parquet", "problems")["prompt_id"]
    if (path / "tokens.parquet").exists():
        with _collect(findings):
            _validate_small(path / "tokens.parquet", "tokens")
    rollouts = _inspected(path, ROLLOUTS, findings)
    for part in rollouts.values():
        with _collect(findings):
            _validate_rollouts(part, problem_ids)
        steps.one_more()
    for score_id in score_ids(path):
        _validate_scores(path, score_id, rollouts, findings, steps)
    return list(dict.fromkeys(findings))


class _Steps:
    """Counts the parts that are checked."""

    def __init__(self, told: Callable[[int, int], None] | None, path: Path) -> None:
        self._told, self._done = told, 0
        tables = [ROLLOUTS, *(f"{SCORES}/{score_id}" for score_id in score_ids(path))]
        self._total = sum(len(part_indices(path, table)) for table in tables)

    def one_more(self) -> None:
        self._done += 1
        if self._told is not None:
            self._told(self._done, self._total)


def _inspected(path: Path, table: str, findings: list[Finding]) -> dict[int, TableFile]:
    parts = {}
    for index in part_indices(path, table):
        with _collect(findings):
            parts[index] = inspect_table(part_path(path, table, index), table)
    return parts


def _validate_small(path: Path, table: str) -> pa.Table:
    file = inspect_table(path, table)
    content = read_columns(file, [name for name in TABLES[table] if name in file.columns])
    for name in content.column_names:
        check_values(path, TABLES[table][name], content)
    return content


def _validate_rollouts(part: TableFile, problem_ids: pa.ChunkedArray | None) -> None:
    for content in _row_groups(part, ROLLOUTS):
        check_columns(part.path, content)
        check_lengths(part.path, content)
        if problem_ids is None:
            continue
        stray = content.filter(pc.invert(pc.is_in(content["prompt_id"], problem_ids)))
        if stray.num_rows:
            raise DataError(
                f"{part.path}: column prompt_id: found {stray['prompt_id'][0].as_py()!r}, "
                "expected an id of problems.parquet",
                "the part or the problems belong to another run: restore the folder",
            )


def _validate_scores(
    path: Path,
    score_id: str,
    rollouts: dict[int, TableFile],
    findings: list[Finding],
    steps: _Steps,
) -> None:
    table = f"{SCORES}/{score_id}"
    with _collect(findings):
        info_path = path / table / SCORE_INFO_NAME
        check_version(info_path, read_json_object(info_path).get("schema_version"))
    parts = _inspected(path, table, findings)
    with _collect(findings):
        is_complete = read_manifest(path).status == "complete"
        check_parts(
            path, table, list(parts.values()), list(rollouts.values()), is_complete=is_complete
        )
    for index, part in parts.items():
        with _collect(findings):
            for content in _row_groups(part, SCORES):
                check_columns(part.path, content)
                check_lengths(part.path, content)
                check_undefined(part.path, content)
        with _collect(findings):
            if index in rollouts and rollouts[index].num_rows == part.num_rows:
                _check_beside(rollouts[index], part)
        steps.one_more()


def _check_beside(rollouts: TableFile, scores: TableFile) -> None:
    """Keys row by row, and one list of each side: within a side the lists agree already."""
    keys = read_columns(rollouts, KEY_COLUMNS)
    check_aligned(scores.path, keys, read_columns(scores, KEY_COLUMNS))
    for name in ("token_ids", "sampler_logprobs"):
        if name in rollouts.columns:
            keys = keys.append_column(name, read_columns(rollouts, [name])[name])
    lengths = read_columns(scores, ["entropy"])["entropy"]
    check_lengths(scores.path, keys.append_column("entropy", lengths))


def _row_groups(part: TableFile, table: str) -> Iterator[pa.Table]:
    columns: Sequence[str] = [name for name in TABLES[table] if name in part.columns]
    for group in range(len(part.group_rows)):
        yield read_columns(part, columns, [group])


@contextmanager
def _collect(findings: list[Finding]) -> Iterator[None]:
    try:
        yield
    except DataError as error:
        findings.append(Finding(message=error.message, hint=error.hint))
