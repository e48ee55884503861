"""Any table of completions: .parquet, .jsonl, .jsonl.gz or .csv, its columns named by `--map`.

A row is one completion, or all completions of a prompt: then the completion and what goes with it
are lists of one length. Completions with the same `prompt` are a group; it is the prompt's text too
where no `prompt_text` is named and the question, if there is one, occurs in it. Otherwise it is an
id, and the question is what the policy continued.
"""

from __future__ import annotations

import difflib
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from thr_probe.errors import DataError, UsageError
from thr_probe.traces.importers.chat import (
    emitted,
    is_messages,
    messages_of,
    prompt_of,
    question_of,
)
from thr_probe.traces.importers.files import (
    Record,
    csv_columns,
    csv_rows,
    files_in,
    json_lines,
    parquet_columns,
    parquet_rows,
)
from thr_probe.traces.importers.foreign import (
    ForeignCompletion,
    Importer,
    ImportOptions,
    Refused,
    Rows,
)

LINES_TO_AN_OBJECT = 1000
"""Lines that may be damaged before the first object of a .jsonl file."""
ENDINGS = (".parquet", ".jsonl", ".jsonl.gz", ".csv")


class Field(NamedTuple):
    """What a column may hold."""

    kind: str
    """text, number, whole, truth or list."""
    meaning: str
    """In a few words."""
    names: tuple[str, ...]
    """Columns taken for it without `--map`, the first that is there."""


FIELDS: Mapping[str, Field] = {
    "prompt": Field(
        "text",
        "what groups completions: the prompt's text, or an id where the question stands alone",
        ("prompt_id", "question_id", "problem_id", "uid", "prompt"),
    ),
    "prompt_text": Field(
        "text", "what the policy continued, template applied", ("prompt_text", "input")
    ),
    "question": Field("text", "the question alone", ("question", "problem")),
    "answer": Field(
        "text", "the gold answer", ("answer", "gold", "ground_truth", "target", "reference")
    ),
    "completion": Field(
        "text",
        "the completion, or a list of them",
        (
            *("completion", "completions", "response", "responses", "output", "outputs"),
            *("generation", "generations"),
        ),
    ),
    "correct": Field("truth", "whether it is right", ("correct", "is_correct", "acc")),
    "reward": Field("number", "its reward", ("reward", "rewards", "score", "scores")),
    "step": Field("whole", "step of training", ("step", "global_step")),
    "rollout": Field(
        "whole", "its number within its group", ("rollout", "rollout_id", "sample_index")
    ),
    "token_ids": Field("list", "ids of its tokens", ("token_ids", "completion_ids", "output_ids")),
    "prompt_token_ids": Field(
        "list", "ids of the prompt's tokens", ("prompt_token_ids", "prompt_ids")
    ),
    "logprobs": Field(
        "list", "log-probability of each token, in nats", ("logprobs", "sampler_logprobs")
    ),
    "finish_reason": Field("text", "stop, length or abort", ("finish_reason",)),
    "dataset": Field("text", "problem set", ("dataset", "data_source")),
    "level": Field("text", "difficulty or kind", ("level", "difficulty")),
    "seed": Field("whole", "seed it was drawn with", ("seed",)),
    "model": Field("text", "the policy's name", ("model", "model_name")),
    "extracted": Field("text", "the answer found in it", ("extracted", "predicted", "prediction")),
}
"""The fields of `--map FIELD=COLUMN`."""

_SHARED = (
    *("prompt", "prompt_text", "question", "answer", "prompt_token_ids", "step"),
    *("dataset", "level", "model"),
)


class _BadCellError(Exception):
    """A cell that does not hold what its column should."""


def find(path: Path) -> list[Path]:
    """Every table in a folder, or the file itself."""
    return files_in(path, *ENDINGS)


def read(files: Sequence[Path], options: ImportOptions) -> Rows:
    """Stream the completions of tables.

    Raises:
        UsageError: `--map` names a field or a column that does not exist.
        DataError: a file that cannot be read, or without a column that is needed.
    """
    _check_fields(options.columns)
    for path in files:
        columns = _columns(path)
        if not columns:
            yield from _unreadable(path)
            continue
        chosen = choose_columns(path, columns, options.columns)
        for record in _records(path, list(chosen.values())):
            if isinstance(record, Refused):
                yield record
                continue
            try:
                yield from _completions(record, chosen)
            except _BadCellError as error:
                yield Refused(where=record.where, reason=str(error))


def columns_used(path: Path, wanted: Mapping[str, str]) -> dict[str, str]:
    """Field -> column of a file, as `read` takes them; empty where it has none that can be read.

    Raises:
        UsageError, DataError: as `read`.
    """
    _check_fields(wanted)
    columns = _columns(path)
    return choose_columns(path, columns, wanted) if columns else {}


def choose_columns(path: Path, columns: Sequence[str], wanted: Mapping[str, str]) -> dict[str, str]:
    """Field -> column: as mapped, else by an obvious name.

    Raises:
        UsageError: a mapped column that the file does not have.
        DataError: no column of completions, or none of prompts or questions.
    """
    chosen = {}
    for name, column in wanted.items():
        if column not in columns:
            close = difflib.get_close_matches(column, columns, n=1)
            raise UsageError(
                f"--map {name}={column}: {path} has no column {column!r}; it has "
                f"{', '.join(columns) or 'none that can be read'}",
                f"did you mean {name}={close[0]}?" if close else None,
            )
        chosen[name] = column
    free = [column for column in columns if column not in wanted.values()]
    for name, declared in FIELDS.items():
        obvious = next((each for each in declared.names if each in free), None)
        if name not in chosen and obvious is not None:
            chosen[name] = obvious
    needed = {"completion": "completions"}
    if not {"prompt", "prompt_text", "question"} & chosen.keys():
        needed["question"] = "prompts or questions"
    for name, meaning in needed.items():
        if name not in chosen:
            raise DataError(
                f"{path}: which column holds the {meaning}? It has "
                f"{', '.join(columns) or 'none that can be read'}",
                f"say it with --map {name}=COLUMN",
            )
    return chosen


def _check_fields(wanted: Mapping[str, str]) -> None:
    for name in wanted:
        if name not in FIELDS:
            close = difflib.get_close_matches(name, FIELDS, n=1)
            raise UsageError(
                f"--map {name}=...: there is no field {name!r}",
                f"did you mean {close[0]}?" if close else f"known: {', '.join(FIELDS)}",
            )


def _columns(path: Path) -> list[str]:
    if path.name.endswith(".parquet"):
        return parquet_columns(path)
    if path.name.endswith(".csv"):
        return csv_columns(path)
    first = itertools.islice(json_lines(path), LINES_TO_AN_OBJECT)
    return next((list(row.values) for row in first if isinstance(row, Record)), [])


def _unreadable(path: Path) -> Iterator[Refused]:
    """What is wrong with a file that has no columns; raises it where it is no single rows."""
    if path.stat().st_size == 0:
        yield Refused(where=str(path), reason="the file is empty")
    else:
        yield from (row for row in _records(path, []) if isinstance(row, Refused))


def _records(path: Path, columns: Sequence[str]) -> Iterator[Record | Refused]:
    if path.name.endswith(".parquet"):
        return parquet_rows(path, columns)
    return csv_rows(path) if path.name.endswith(".csv") else json_lines(path)


def _completions(record: Record, chosen: Mapping[str, str]) -> Iterator[ForeignCompletion]:
    cells = {name: record.values.get(column) for name, column in chosen.items()}
    own = {name: cell for name, cell in cells.items() if name not in _SHARED}
    shared = {name: _value(name, cells[name]) for name in _SHARED if name in cells}
    prompts = (cells.get(name) for name in ("prompt_text", "prompt", "question"))
    messages = next((cell for cell in prompts if cell), None)
    messages = messages if _is_chat(messages) else None
    for values in _unfolded(own):
        yield _completion(record.where, {**shared, **values}, messages)


def _unfolded(cells: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The values of each completion of a row."""
    texts = cells["completion"]
    if not isinstance(texts, list) or _is_chat(texts):
        yield {name: _value(name, cell) for name, cell in cells.items()}
        return
    for place in range(len(texts)):
        values = {}
        for name, cell in cells.items():
            per_token = FIELDS[name].kind == "list"
            if isinstance(cell, list) and not (per_token and cell and not _is_nested(cell)):
                if len(cell) != len(texts):
                    raise _BadCellError(f"{name} and completion are lists of different length")
                values[name] = _value(name, cell[place])
                continue
            if per_token and cell is not None:
                raise _BadCellError(f"{name} is no list of lists, as completion is a list")
            values[name] = _value(name, cell)
        yield values


def _completion(
    where: str, values: Mapping[str, Any], messages: Sequence[Mapping[str, Any]] | None
) -> ForeignCompletion:
    question, prompt_text = values.get("question"), values.get("prompt_text")
    if messages is not None and not question:
        question = question_of(messages)
    key = next(
        (values[name] for name in ("prompt", "prompt_text", "question") if values.get(name)), None
    )
    text = values["completion"]
    if key is None:
        raise _BadCellError("no prompt and no question")
    if text is None:
        raise _BadCellError("no completion")
    return ForeignCompletion(
        where=where,
        group=key,
        text=text,
        prompt_text=prompt_text or _prompt_text(key, question),
        prompt_messages=None if messages is None else messages_of(messages),
        question=question or None,
        answer=values.get("answer"),
        step=values.get("step"),
        rollout=values.get("rollout"),
        reward=values.get("reward"),
        correct=values.get("correct"),
        extracted=values.get("extracted"),
        finish_reason=values.get("finish_reason"),
        prompt_token_ids=values.get("prompt_token_ids"),
        token_ids=values.get("token_ids"),
        sampler_logprobs=values.get("logprobs"),
        dataset=values.get("dataset"),
        level=values.get("level"),
        seed=values.get("seed"),
        model=values.get("model"),
    )


def _prompt_text(key: str, question: str | None) -> str:
    """The prompt where no column holds its text: the key, unless that is a mere id."""
    return key if question is None or question in key else question


def _value(name: str, cell: Any) -> Any:
    if cell is None or (cell == "" and name != "completion"):
        return None
    if name == "prompt" and isinstance(cell, int | float):
        return str(cell)
    if _is_chat(cell):
        return _of_messages(name, cell)
    try:
        return _READERS[FIELDS[name].kind](cell)
    except (TypeError, ValueError) as error:
        expected = _EXPECTED[FIELDS[name].kind]
        raise _BadCellError(
            f"{name} is a {type(cell).__name__}, expected {expected}"
            if not isinstance(cell, str)
            else f"{name} is a text that is not {expected}"
        ) from error


def _of_messages(name: str, messages: Sequence[Mapping[str, Any]]) -> str | None:
    """A cell that holds messages, as the formats of programs read them."""
    if name == "completion" and len(messages) > 1:
        raise _BadCellError("a completion of several messages: the policy emitted one at a time")
    try:
        if name == "completion":
            return emitted(messages[0])
        return question_of(messages) if name == "question" else prompt_of(messages)
    except ValueError as error:
        raise _BadCellError(f"{name}: {error}") from error


def _text(cell: Any) -> str | None:
    if isinstance(cell, str):
        return cell
    if isinstance(cell, bool):
        raise TypeError
    if isinstance(cell, int | float):
        if isinstance(cell, float) and math.isnan(cell):
            return None
        return str(int(cell)) if float(cell).is_integer() and abs(cell) < 2**53 else str(cell)
    raise TypeError


def _number(cell: Any) -> float:
    if isinstance(cell, list | dict):
        raise TypeError
    return float(cell)


def _whole(cell: Any) -> int:
    number = _number(cell)
    if not number.is_integer():
        raise ValueError
    return int(cell) if isinstance(cell, int) else int(number)


def _truth(cell: Any) -> bool:
    known = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}
    try:
        return known[str(cell).strip().lower()]
    except KeyError as error:
        raise ValueError from error


def _list(cell: Any) -> list[Any]:
    values = json.loads(cell) if isinstance(cell, str) else cell
    if not isinstance(values, list):
        raise TypeError
    return values


_READERS = {"text": _text, "number": _number, "whole": _whole, "truth": _truth, "list": _list}
_EXPECTED = {
    "text": "text",
    "number": "a number",
    "whole": "a whole number",
    "truth": "true or false, 1 or 0",
    "list": "a list of numbers",
}


def _is_chat(cell: object) -> bool:
    return (
        isinstance(cell, list)
        and bool(cell)
        and is_messages(cell)
        and all("content" in each for each in cell)
    )


def _is_nested(cell: Sequence[Any]) -> bool:
    return all(each is None or isinstance(each, list) for each in cell)


IMPORTER = Importer(
    name="generic",
    meaning="any .parquet, .jsonl, .jsonl.gz or .csv; name its columns with --map",
    find=find,
    read=read,
)
