"""Foreign files as streams of plain records: JSON lines and Parquet, whatever their size."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from thr_probe.errors import DataError
from thr_probe.traces.importers.foreign import Refused

ROWS_AT_ONCE = 64
"""Rows of a Parquet file that become Python objects at once: completions are long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One JSON object or one Parquet row."""

    where: str
    """File and line or row, counted from 1."""
    values: Mapping[str, Any]
    """By key or column."""


def json_lines(path: Path) -> Iterator[Record | Refused]:
    """The objects of a .jsonl or .jsonl.gz file, line by line; empty lines are passed over.

    A line that is no JSON object, the last one of a file cut off for instance, comes as `Refused`.

    Raises:
        DataError: the file cannot be read.
    """
    number = 0
    try:
        with _opened(path) as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield _parsed(f"{path}, line {number}", line)
    except (OSError, EOFError) as error:
        if isinstance(error, FileNotFoundError) or number == 0:
            raise DataError(f"{path} cannot be read: {error}") from error
        yield Refused(where=f"{path}, after line {number}", reason=f"the file ends: {error}")


def first_object(path: Path) -> Mapping[str, Any] | None:
    """The first JSON object of a .jsonl file, to tell its format; None where there is none."""
    try:
        record = next(json_lines(path), None)
    except DataError:
        return None
    return record.values if isinstance(record, Record) else None


def parquet_rows(path: Path, columns: Sequence[str] | None = None) -> Iterator[Record]:
    """The rows of a Parquet file as Python objects.

    Args:
        path: the file.
        columns: those wanted that the file has; all by default.

    Raises:
        DataError: the file is damaged or no Parquet.
    """
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            present = file.schema_arrow.names
            wanted = present if columns is None else [name for name in columns if name in present]
            for batch in file.iter_batches(batch_size=ROWS_AT_ONCE, columns=wanted):
                for values in batch.to_pylist():
                    number += 1
                    yield Record(where=f"{path}, row {number}", values=values)
    except (OSError, pa.ArrowException) as error:
        after = f" after row {number}" if number else ""
        raise DataError(
            f"{path} cannot be read as Parquet{after}, it is damaged or cut off: {error}",
            "copy it again from where it was written",
        ) from error


def parquet_columns(path: Path) -> list[str]:
    """The columns of a Parquet file, to tell its format; none where it cannot be read."""
    try:
        return list(pq.read_schema(path).names)
    except (OSError, pa.ArrowException):
        return []


def files_in(path: Path, *endings: str) -> list[Path]:
    """A file itself, or the files with these endings in a folder and its subfolders, sorted."""
    if path.is_file():
        return [path] if path.name.endswith(endings) else []
    found = (entry for entry in path.rglob("*") if entry.name.endswith(endings))
    return sorted(entry for entry in found if entry.is_file())


def _opened(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")


def _parsed(where: str, line: bytes) -> Record | Refused:
    try:
        values = json.loads(line)
    except ValueError:
        ends = "" if line.endswith(b"\n") else ", the file seems cut off"
        return Refused(where=where, reason=f"not JSON{ends}")
    except RecursionError:
        return Refused(where=where, reason="JSON nested too deeply")
    if not isinstance(values, dict):
        return Refused(where=where, reason=f"a JSON {type(values).__name__}, expected an object")
    return Record(where=where, values=values)
