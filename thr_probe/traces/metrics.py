"""The journal of a training run, `metrics.jsonl`: one JSON object per line, appended and synced.

A line is of kind "step" (one rollout batch) or "eval" (one validation set). A process that is
killed leaves at most its last line torn, which has no line end and is dropped by everything here.
A step that was done again after a resume is written again: the later record counts.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd

from thr_probe.errors import DataError
from thr_probe.traces.atomic import write_atomically, write_error

METRICS_NAME = "metrics.jsonl"
STEP, EVAL = "step", "eval"

_KEYS = {STEP: ["step"], EVAL: ["step", "dataset"]}
_TEXTS = ("kind", "dataset")  # all else in a record is a number, a truth value or null
_RESTORE = "restore the file from a copy of the run"


def append_metrics(run_path: Path, record: Mapping[str, object]) -> None:
    """Adds one record with `kind` and `step`; it is on the disk when this returns.

    Numbers of numpy and torch are written as Python's. JSON knows no infinity and no NaN: they are
    written as null, and read as missing.

    Raises:
        DataError: the file cannot be written.
    """
    path = run_path / METRICS_NAME
    line = json.dumps(plain_record(record), ensure_ascii=False, allow_nan=False)
    try:
        with path.open("r+b" if path.exists() else "w+b") as file:
            file.seek(0, os.SEEK_END)
            file.truncate(_end_of_whole_lines(file))
            file.seek(0, os.SEEK_END)
            file.write(line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise write_error(path, error) from error


def read_metrics(run_path: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The records of the steps and of the evaluations, in the order of their steps.

    Returns:
        Two tables, without `kind`; a value that a record lacks is NaN. A run that has only begun
        gives tables without rows.

    Raises:
        DataError: no such file, or a line that is not a record.
    """
    path = run_path / METRICS_NAME
    if not path.is_file():
        missing = "it has no " + METRICS_NAME if run_path.is_dir() else "there is no such folder"
        raise DataError(
            f"{run_path} is not a training run: {missing}",
            "give the folder that thr-probe train wrote",
        )
    records = [record for _, record in _records(path)]
    return _table(records, STEP), _table(records, EVAL)


def truncate_metrics(run_path: Path, num_steps: int) -> None:
    """Keeps the first steps and the evaluations until then, as a run resumed there needs it.

    Args:
        run_path: the run; one without metrics is left as it is.
        num_steps: steps to keep: 0, 1 ... num_steps - 1, and evaluations after at most so many.
    """
    path = run_path / METRICS_NAME
    if not path.is_file():
        return
    kept = b"".join(line for line, record in _records(path) if _is_until(record, num_steps))
    if kept == path.read_bytes():
        return

    def write(file: BinaryIO) -> None:
        file.write(kept)

    write_atomically(path, write)


def _is_until(record: Mapping[str, Any], num_steps: int) -> bool:
    step = int(record["step"])
    return step < num_steps if record["kind"] == STEP else step <= num_steps


def plain_record(record: Mapping[str, object]) -> dict[str, object]:
    """The record in Python's own numbers, None for those that JSON does not know."""
    return {name: _plain(value) for name, value in record.items()}


def _plain(value: object) -> object:
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _end_of_whole_lines(file: BinaryIO) -> int:
    """Where the last whole line ends: before a torn one, which nothing may be glued to."""
    end = file.tell()
    block = 1 << 16
    while end > 0:
        start = max(0, end - block)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def _records(path: Path) -> Iterable[tuple[bytes, dict[str, Any]]]:
    """Each whole line with the record in it."""
    *lines, _torn = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        yield line + b"\n", _checked(path, number, line)


def _checked(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise DataError(f"{path}, line {number}: not JSON: {error}", _RESTORE) from error
    if not isinstance(record, dict) or record.get("kind") not in list(_KEYS):
        raise DataError(
            f"{path}, line {number}: found {line[:60].decode(errors='replace')!r}, expected a "
            "record of kind step or eval",
            _RESTORE,
        )
    for name in _KEYS[record["kind"]]:
        wanted = str if name == "dataset" else int
        if type(record.get(name)) is not wanted:
            raise DataError(
                f"{path}, line {number}: {name}: found {record.get(name)!r}, expected "
                f"{'text' if wanted is str else 'a whole number'}",
                _RESTORE,
            )
    for name, value in record.items():
        is_text = name in _TEXTS and isinstance(value, str)
        if not is_text and value is not None and not isinstance(value, int | float):
            raise DataError(
                f"{path}, line {number}: {name}: found {value!r}, expected a number", _RESTORE
            )
    return record


def _table(records: Iterable[Mapping[str, Any]], kind: str) -> pd.DataFrame:
    rows = [record for record in records if record["kind"] == kind]
    names = list(dict.fromkeys(name for row in rows for name in row if name != "kind"))
    table = pd.DataFrame(
        {name: [_cell(name, row.get(name)) for row in rows] for name in names or _KEYS[kind]}
    )
    table = table.drop_duplicates(_KEYS[kind], keep="last")
    return table.sort_values("step", kind="stable", ignore_index=True).astype({"step": "int64"})


def _cell(name: str, value: Any) -> Any:
    if value is None:
        return math.nan
    return value if name == "step" or isinstance(value, str) else float(value)
