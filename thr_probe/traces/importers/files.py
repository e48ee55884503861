"""Foreign files as streams of plain records: JSON lines and Parquet, whatever their size."""

from __future__ import annotations

import codecs
import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from thr_probe.errors import DataError
from thr_probe.traces.importers.foreign import ForeignCompletion, Refused, Rows

MAX_CSV_FIELD = 1 << 30
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
            _refuse_wide_text(path, file)
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield _parsed(f"{path}, line {number}", line)
    except (OSError, EOFError, zlib.error) as error:
        if isinstance(error, FileNotFoundError) or number == 0:
            raise DataError(f"{path} cannot be read: {error}") from error
        yield Refused(where=f"{path}, after line {number}", reason=f"the file ends: {error}")


def csv_rows(path: Path) -> Iterator[Record | Refused]:
    """The rows of a .csv file by the names of its first line; every value is text.

    A row of another length than the header comes as `Refused`, and so does the rest of a file whose
    quotes are not closed.

    Raises:
        DataError: the file cannot be read, or is not UTF-8.
    """
    csv.field_size_limit(MAX_CSV_FIELD)  # the default refuses texts over 128 KiB
    number = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            for number, row in enumerate(reader, start=1):
                where = f"{path}, row {number}"
                if len(row) == len(header):
                    yield Record(where=where, values=dict(zip(header, row, strict=True)))
                elif row:
                    yield Refused(where=where, reason="another number of fields than the header")
    except csv.Error as error:
        yield Refused(where=f"{path}, after row {number}", reason=f"no CSV from here on: {error}")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 after row {number}: {error.reason}", "save the file as UTF-8"
        ) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def csv_columns(path: Path) -> list[str]:
    """The names in the first line of a .csv file; none where it cannot be read."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return next(csv.reader(file), [])
    except (OSError, UnicodeDecodeError, csv.Error):
        return []


def completions_of_lines(
    path: Path,
    fields: Sequence[str],
    completion: Callable[[Record], ForeignCompletion],
    *,
    hint: str,
) -> Rows:
    """The completions of a .jsonl file with one per line.

    Args:
        path: the file.
        fields: what every line has.
        completion: makes one of a line, or raises ValueError with the reason why not.
        hint: which files the format has.

    Raises:
        DataError: the first line lacks a field, so the file is of another format.
    """
    checked = False
    if path.stat().st_size == 0:
        yield Refused(where=str(path), reason="the file is empty")
    for record in json_lines(path):
        if isinstance(record, Refused):
            yield record
            continue
        missing = [name for name in fields if name not in record.values]
        if missing and not checked:
            found = ", ".join(record.values)
            raise DataError(f"{record.where}: field {missing[0]} is missing, found {found}", hint)
        checked = True
        if missing:
            yield Refused(where=record.where, reason=f"field {missing[0]} is missing")
            continue
        try:
            yield completion(record)
        except ValueError as error:
            yield Refused(where=record.where, reason=str(error))


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
                for row in range(batch.num_rows):  # one at a time: rows may hold lists of lists
                    number += 1
                    values = batch.slice(row, 1).to_pylist()[0]
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


def _opened(path: Path) -> BufferedIOBase:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def _refuse_wide_text(path: Path, file: BufferedIOBase) -> None:
    # each of its lines would be refused, with a reason that tells nothing
    mark = file.read(2)
    file.seek(0)
    if mark in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        raise DataError(f"{path} is UTF-16", "save the file as UTF-8")


def _parsed(where: str, line: bytes) -> Record | Refused:
    try:
        values = json.loads(line)
    except UnicodeDecodeError:
        return Refused(where=where, reason="not UTF-8")
    except ValueError:
        ends = "" if line.endswith(b"\n") else ", the file seems cut off"
        return Refused(where=where, reason=f"not JSON{ends}")
    except RecursionError:
        return Refused(where=where, reason="JSON nested too deeply")
    if not isinstance(values, dict):
        return Refused(where=where, reason=f"a JSON {type(values).__name__}, expected an object")
    return Record(where=where, values=values)
