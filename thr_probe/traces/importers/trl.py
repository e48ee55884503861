"""TRL: the completions that its GRPO trainer logs as Parquet (`log_completions=True`).

Written to OUTPUT_DIR/completions/completions_STEP.parquet at every logging step. Read at: trl
1.16.0, trl/trainer/grpo_trainer.py (`log`, `_generate_and_score_completions`,
`_log_completion_extra`).

- The columns are step, prompt, completion, one per reward function, then those that reward
  functions added with `log_extra`, and advantage. Weights of several rewards are not in the file,
  so `reward_column` has to name the one that counts.
- Prompts and completions are text or message lists. The trainer puts message lists through the
  policy's chat template and logs them without it: the policy's tokenizer applies it again.
  Completions with tool calls or several messages are refused.
- A group is a run of rows with the same prompt: the trainer repeats each prompt num_generations
  times in a row.
- The trainer logs its last generation batch again where it logs more often than it generates; a
  file that repeats the one before it is passed over, with one refused row that says so. Evaluation
  writes to the file of its step, over what training wrote.
- Special tokens are stripped, ids are not written: nobody can tell why a completion ended.
- The gold answer and the extracted one come from columns that a reward function added, if it did.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from thr_probe.errors import DataError, UsageError
from thr_probe.traces.importers.chat import (
    emitted,
    is_messages,
    messages_of,
    prompt_of,
    question_of,
)
from thr_probe.traces.importers.files import ROWS_AT_ONCE, Record, files_in, parquet_rows
from thr_probe.traces.importers.files import parquet_columns as columns_of
from thr_probe.traces.importers.foreign import (
    ForeignCompletion,
    Importer,
    ImportOptions,
    Refused,
    Rows,
)
from thr_probe.traces.importers.templated import question_in

_FIELDS = ("step", "prompt", "completion")
_NAME = re.compile(r"completions_\d+")
_ANSWERS = ("answer", "gold_answer", "golden_answer", "ground_truth", "solution", "target")
_EXTRACTED = ("extracted_answer", "extracted", "prediction")
_HINT = "TRL's trainer writes these files to OUTPUT_DIR/completions with log_completions=True"


@dataclass(slots=True, kw_only=True)
class _File:
    """One file as it is read."""

    path: Path
    reward: str | None
    """Column of the reward that counts; None: the file has none."""
    answer: str | None
    extracted: str | None
    prompt: Any = None
    """That of the row before."""
    num_runs: int = field(default=0)
    """Runs of rows with the same prompt so far."""

    def run_of(self, prompt: object) -> int:
        """Which run of rows this prompt belongs to."""
        if self.num_runs == 0 or prompt != self.prompt:
            self.num_runs += 1
            self.prompt = prompt
        return self.num_runs


def find(path: Path) -> list[Path]:
    """completions_STEP.parquet in the order of the steps; a file of any name with the columns.

    A damaged one is among them: left out in silence it would be missed by nobody.
    """
    found = files_in(path, ".parquet")
    if not path.is_file():
        found = [file for file in found if _NAME.fullmatch(file.stem)]
    found.sort(key=lambda file: (file.parent, len(file.name), file.name))
    return [file for file in found if _fits(file)]


def read(paths: Sequence[Path], options: ImportOptions) -> Rows:
    """Stream the completions.

    Raises:
        DataError: a file that is damaged or lacks a column.
        UsageError: several rewards, and no `reward_column`.
    """
    before: bytes | None = None
    for path in paths:
        content = _digest(path)
        if content is not None and content == before:
            yield Refused(
                where=str(path), reason="the whole file repeats the one before it, no new rollouts"
            )
            continue
        before = content
        yield from _file(path, options.reward_column)


def _fits(path: Path) -> bool:
    columns = columns_of(path)
    return set(_FIELDS) <= set(columns) or (not columns and bool(_NAME.fullmatch(path.stem)))


def _file(path: Path, wanted: str | None) -> Rows:
    names = _schema(path).names
    missing = [name for name in _FIELDS if name not in names]
    if missing:
        found = ", ".join(names)
        raise DataError(f"{path}: column {missing[0]} is missing, found {found}", _HINT)
    file = _File(
        path=path,
        reward=_reward_column(path, wanted),
        answer=next((name for name in _ANSWERS if name in names), None),
        extracted=next((name for name in _EXTRACTED if name in names), None),
    )
    columns = [*_FIELDS, file.reward, file.answer, file.extracted]
    for record in parquet_rows(path, [name for name in columns if name]):
        run = file.run_of(record.values["prompt"])
        try:
            yield _completion(record, file, run)
        except ValueError as error:
            yield Refused(where=record.where, reason=str(error))


def _completion(record: Record, file: _File, run: int) -> ForeignCompletion:
    values = record.values
    prompt = _messages(values["prompt"])
    step = values["step"]
    return ForeignCompletion(
        where=record.where,
        group=f"{file.path.parent}\0{run}",
        text=_said(values["completion"]),
        prompt_text=prompt_of(prompt),
        prompt_messages=messages_of(prompt),
        question=question_in(prompt) if isinstance(prompt, str) else question_of(prompt),
        answer=_as_text(values, file.answer),
        step=None if step is None else int(step),
        reward=_reward(values, file.reward),
        extracted=_as_text(values, file.extracted),
        verifier=file.reward and f"trl:{file.reward}",
    )


def _reward_column(path: Path, wanted: str | None) -> str | None:
    schema = _schema(path)
    if wanted is not None and wanted in schema.names:
        return wanted
    rewards = [
        entry.name
        for entry in schema
        if pa.types.is_floating(entry.type) and entry.name not in (*_FIELDS, "advantage")
    ]
    found = ", ".join(rewards) or "none"
    if wanted is not None:
        raise DataError(
            f"{path}: column {wanted} is missing; columns that could be a reward: {found}",
            "name one of these with --reward-column",
        )
    if len(rewards) > 1:
        raise UsageError(
            f"{path} has several rewards: {found}; their weights are not in the file",
            "say with --reward-column which one counts",
        )
    return rewards[0] if rewards else None


def _reward(values: Mapping[str, Any], column: str | None) -> float | None:
    if column is None:
        return None
    value = values[column]
    if not isinstance(value, int | float) or math.isnan(value):
        raise ValueError(f"{column} is empty: the reward function gave nothing")
    return float(value)


def _as_text(values: Mapping[str, Any], column: str | None) -> str | None:
    value = values[column] if column else None
    return None if value is None else str(value)


def _messages(value: object) -> Any:
    """Text, or a list of messages; messages that were saved as JSON text are parsed."""
    if isinstance(value, str) and value.startswith('[{"'):
        try:
            parsed = json.loads(value)
        except ValueError:
            return value
        return parsed if is_messages(parsed) else value
    if isinstance(value, str) or (value and is_messages(value)):
        return value
    raise ValueError(f"the prompt or completion is a {type(value).__name__}, expected text")


def _said(value: object) -> str:
    said = _messages(value)
    if isinstance(said, str):
        return said
    if len(said) != 1:
        raise ValueError(f"a completion of {len(said)} messages: only one turn was sampled at once")
    return emitted(said[0])


def _schema(path: Path) -> pa.Schema:
    try:
        return pq.read_schema(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"{path} cannot be read as Parquet, it is damaged or cut off: {error}",
            "copy it again from where it was written",
        ) from error


def _digest(path: Path) -> bytes | None:
    """Of everything but the step; None where the file cannot be read."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        with pq.ParquetFile(path) as file:
            columns = [name for name in file.schema_arrow.names if name != "step"]
            for batch in file.iter_batches(batch_size=ROWS_AT_ONCE, columns=columns):
                digest.update(batch.serialize())
    except (OSError, pa.ArrowException):
        return None
    return digest.digest()


IMPORTER = Importer(
    name="trl",
    meaning="completions_STEP.parquet of TRL's GRPO trainer (log_completions=True)",
    find=find,
    read=read,
)
