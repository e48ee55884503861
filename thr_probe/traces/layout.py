"""Where the files of a run stand, and the one way to open a Parquet file of a trace.

A table is named "problems", "tokens", "rollouts" or "scores/<score_id>"; rollouts and scores are
folders of numbered parts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from thr_probe.errors import DataError, UsageError
from thr_probe.traces.manifest import check_version
from thr_probe.traces.schema import COMPLETION_COLUMNS, TABLE_KEY, TABLES, VERSION_KEY

CONFIG_NAME = "config.toml"
SCORE_INFO_NAME = "score.json"
ROLLOUTS = "rollouts"
SCORES = "scores"

_PART = re.compile(r"part-(\d{5,})\.parquet")
_SCORE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class TableFile:
    """A Parquet file of a trace whose footer was checked against the schema."""

    path: Path
    """The file."""
    num_rows: int
    """Rows of the file."""
    group_rows: tuple[int, ...]
    """Rows of each of its row groups."""
    columns: frozenset[str]
    """Columns that it has, undeclared ones included."""
    footer: pq.FileMetaData = field(repr=False, compare=False)
    """Kept, because a run has many small parts and parsing it takes as long as reading a column."""


def declared_table(table: str) -> str:
    """The name under which `schema.TABLES` declares a table: "scores" for "scores/default"."""
    kind, slash, score_id = table.partition("/")
    if kind not in TABLES or (kind == SCORES) != bool(slash):
        raise UsageError(
            f"unknown table {table!r}", "known are problems, tokens, rollouts and scores/<score_id>"
        )
    if kind == SCORES and not _SCORE_ID.fullmatch(score_id):
        raise UsageError(
            f"score id {score_id!r} cannot be a folder name",
            "use letters, digits, dots, dashes and underscores, a letter or digit first",
        )
    return kind


def part_path(run_path: Path, table: str, part_index: int) -> Path:
    """The file of one part of rollouts or of a score set."""
    if declared_table(table) not in (ROLLOUTS, SCORES) or part_index < 0:
        raise UsageError(f"table {table!r} has no part {part_index}")
    return run_path / table / f"part-{part_index:05d}.parquet"


def part_indices(run_path: Path, table: str) -> list[int]:
    """The numbers of the parts that are there, ascending."""
    matches = (_PART.fullmatch(path.name) for path in (run_path / table).glob("part-*.parquet"))
    return sorted(int(match.group(1)) for match in matches if match)


def score_ids(run_path: Path) -> tuple[str, ...]:
    """The score sets of a run, sorted by name."""
    folder = run_path / SCORES
    if not folder.is_dir():
        return ()
    return tuple(
        sorted(
            entry.name
            for entry in folder.iterdir()
            if entry.is_dir() and _SCORE_ID.fullmatch(entry.name)
        )
    )


def inspect_table(path: Path, table: str) -> TableFile:
    """Check a file's footer: ours, a known schema version, the right table, columns and types."""
    kind = declared_table(table)
    try:
        with pa.OSFile(str(path)) as source, pq.ParquetFile(source) as file:
            metadata, schema = file.metadata, file.schema_arrow
    except (OSError, pa.ArrowException) as error:
        raise unreadable(path, error) from error
    _check_origin(path, kind, metadata.metadata or {})
    _check_columns(path, kind, schema)
    rows = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
    return TableFile(
        path=path,
        num_rows=metadata.num_rows,
        group_rows=tuple(rows),
        columns=frozenset(schema.names),
        footer=metadata,
    )


def read_columns(
    part: TableFile, columns: Sequence[str], groups: Sequence[int] | None = None
) -> pa.Table:
    """Read some columns of a file that was inspected; all its row groups by default.

    An optional column that this file lacks comes as nulls: another part of the table has it.
    """
    wanted = list(dict.fromkeys(columns))
    stored = [name for name in wanted if name in part.columns]
    chosen = list(range(len(part.group_rows)) if groups is None else groups)
    try:
        with (
            pa.OSFile(str(part.path)) as source,
            pq.ParquetFile(
                source, metadata=part.footer, page_checksum_verification=True, pre_buffer=False
            ) as file,
        ):
            table = file.read_row_groups(chosen, columns=stored)
    except (OSError, pa.ArrowException) as error:
        raise unreadable(part.path, error) from error
    for name in wanted:
        if name not in part.columns:
            nulls = pa.nulls(table.num_rows, COMPLETION_COLUMNS[name].type)
            table = table.append_column(name, nulls)
    # parts of other programs may differ in what is declared null: tables must fit together
    plain = pa.schema([pa.field(name, table[name].type) for name in wanted])
    return pa.Table.from_arrays([table[name] for name in wanted], schema=plain)


def unreadable(path: Path, error: Exception) -> DataError:
    """The error to raise when a Parquet file cannot be opened or decoded."""
    if isinstance(error, FileNotFoundError):
        return DataError(f"{path} is missing", "restore it, or make the run again")
    return DataError(
        f"{path} cannot be read as Parquet, it is damaged or cut off: {error}",
        "delete this file and run the command that wrote it again with --resume",
    )


def _check_origin(path: Path, kind: str, metadata: dict[bytes, bytes]) -> None:
    if VERSION_KEY not in metadata:
        raise DataError(
            f"{path} is Parquet but was not written by thr_probe: "
            f"its metadata has no {VERSION_KEY.decode()}",
            "take it out of the run directory; other tools' rollouts have to be imported",
        )
    version = metadata[VERSION_KEY].decode(errors="replace")
    check_version(path, int(version) if version.isdigit() else version)
    found = metadata.get(TABLE_KEY, b"").decode(errors="replace")
    if found != kind:
        raise DataError(
            f"{path}: found table {found!r}, expected {kind!r}",
            "the file stands in the wrong folder: move it back",
        )


def _check_columns(path: Path, kind: str, schema: pa.Schema) -> None:
    for column in TABLES[kind].values():
        if column.name in schema.names:
            found = schema.field(column.name).type
            if found != column.type:
                raise DataError(
                    f"{path}: column {column.name}: found type {found}, expected {column.type}",
                    "the file was changed after thr_probe wrote it: restore it from a copy",
                )
        elif column.required:
            raise DataError(
                f"{path}: column {column.name} is missing (found: {', '.join(schema.names)})",
                "the file was changed after thr_probe wrote it: restore it from a copy",
            )
