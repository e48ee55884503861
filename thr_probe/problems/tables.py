"""Rows out of Parquet, JSONL, CSV or the hub; whatever is wrong is told with file and row."""

from __future__ import annotations

import csv
import importlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from thr_probe.errors import DataError, PrerequisiteError

MAX_CSV_FIELD = 1 << 26


@dataclass(frozen=True, slots=True, kw_only=True)
class RowTable:
    """The rows of one source."""

    source: str
    """Path or hub id, for messages."""
    name: str
    """Short name: the file's stem, or the last part of the hub id."""
    columns: tuple[str, ...]
    """Every column found."""
    rows: tuple[Mapping[str, Any], ...]
    """One mapping per row; a column that a row lacks reads as None."""


def read_table(source: str) -> RowTable:
    """All rows of a .parquet, .jsonl or .csv file, or of a hub data set."""
    path = Path(source).expanduser()
    if path.is_dir():
        raise DataError(
            f"{source} is a folder, not a file of problems",
            hint=f"name one of the files in it: {_listing(path)}",
        )
    if path.is_file():
        return _read_file(source, path)
    if looks_like_path(source):
        raise DataError(f"{source} does not exist", hint=_nearby(path))
    return _read_hub(source)


def looks_like_path(source: str) -> bool:
    """Whether a name that is no file must have been meant as one rather than as a hub id.

    >>> [looks_like_path(name) for name in ("./x", "data/x.parquet", "a/b/c/d", "org/name:test")]
    [True, True, True, False]
    """
    bare = source.partition(":")[0]
    return (
        source.startswith((".", "/", "~"))
        or "\\" in source
        or Path(source).suffix in {*READERS, ".json", ".txt", ".tsv", ".arrow", ".gz", ".zip"}
        or bare.count("/") > 2  # a hub id is org/name or org/name/config
    )


def _read_file(source: str, path: Path) -> RowTable:
    reader = READERS.get(path.suffix)
    if reader is None:
        raise DataError(
            f"{source}: problems are not read from {path.suffix or 'files without an ending'}",
            hint=f"use {', '.join(READERS)}",
        )
    try:
        columns, rows = reader(source, path)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{source} cannot be read: {_first_bad_bytes(path)}", hint="save the file as UTF-8"
        ) from error
    except OSError as error:
        raise DataError(
            f"{source} cannot be read: {error.strerror or error}",
            hint="check the file and its permissions",
        ) from error
    if not rows:
        raise DataError(f"{source} has no rows", hint="give a file with at least one problem")
    return RowTable(source=source, name=path.stem, columns=tuple(columns), rows=tuple(rows))


def _first_bad_bytes(path: Path) -> str:
    """Where a text file ceases to be UTF-8; the error of a stream counts within a chunk only."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return f"line {number} is not UTF-8 (byte {line[error.start]:#04x})"
    return "it is not UTF-8"


def _read_parquet(source: str, path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    try:
        table = pq.read_table(path)
        return list(table.column_names), table.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{source} is not a readable Parquet file: {str(error).splitlines()[0]}",
            hint="it may be cut short or of another format; fetch or write it again",
        ) from error


def _read_jsonl(source: str, path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    columns: dict[str, None] = {}
    rows = []
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            row = _json_object(f"{source}, line {number}", line)
            columns.update(dict.fromkeys(row))
            rows.append(row)
    return list(columns), rows


def _json_object(where: str, line: str) -> dict[str, Any]:
    hint = 'every line is one object, such as {"question": "...", "answer": "..."}'
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not JSON: {error}", hint=hint) from error
    if not isinstance(row, dict):
        raise DataError(f"{where} holds {_kind(row)}, not an object", hint=hint)
    return row


def _read_csv(source: str, path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    csv.field_size_limit(MAX_CSV_FIELD)  # the default refuses questions over 128 KiB
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.reader(lines, strict=True)
        try:
            header = next(reader, [])
            rows = [_csv_row(source, number, header, row) for number, row in enumerate(reader, 1)]
        except csv.Error as error:
            raise DataError(
                f"{source}, line {reader.line_num}: {error}",
                hint='close every quote, and double each quote inside a field: "a ""b"" c"',
            ) from error
    return header, [row for row in rows if row]


def _csv_row(source: str, number: int, header: list[str], row: list[str]) -> dict[str, Any]:
    if row and len(row) != len(header):
        raise DataError(
            f"{source}, row {number} has {len(row)} fields, the header has {len(header)}",
            hint='quote fields that hold a comma: "like, this"',
        )
    return dict(zip(header, row, strict=False))


READERS: dict[str, Callable[[str, Path], tuple[list[str], list[dict[str, Any]]]]] = {
    ".parquet": _read_parquet,
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
}


def _read_hub(source: str) -> RowTable:
    """A hub data set `org/name[/config][:split]`; the test split unless told otherwise."""
    try:
        hub = importlib.import_module("datasets")
    except ImportError as error:
        raise PrerequisiteError(
            f"{source!r} is no file, and reading it from the hub needs the package `datasets`",
            hint='pip install "thr_probe[hub]", or name a .parquet, .jsonl or .csv file',
        ) from error
    name, _, split = source.partition(":")
    parts = name.split("/")
    repo, config = ("/".join(parts[:2]), parts[2]) if len(parts) == 3 else (name, None)
    try:
        loaded = hub.load_dataset(repo, name=config, split=split or None)
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(
            f"{source!r} is no file and was not loaded from the hub: {error}",
            hint="the form is org/name[/config][:split]",
        ) from error
    chosen = loaded if split else _choose_split(source, loaded)
    return RowTable(
        source=source, name=parts[-1], columns=tuple(chosen.column_names), rows=tuple(chosen)
    )


def _choose_split(source: str, splits: Mapping[str, Any]) -> Any:
    if "test" in splits:
        return splits["test"]
    if len(splits) == 1:
        return next(iter(splits.values()))
    raise DataError(
        f"{source!r} has no split named test, but {', '.join(splits)}",
        hint=f"choose one: {source}:{next(iter(splits), 'SPLIT')}",
    )


def _listing(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir() if path.suffix in READERS)
    return ", ".join(names[:8]) or "(none of them holds problems)"


def _nearby(path: Path) -> str:
    if path.parent.is_dir():
        return f"files there: {_listing(path.parent)}"
    return f"the folder {path.parent} does not exist either"


def _kind(value: object) -> str:
    names = {list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
