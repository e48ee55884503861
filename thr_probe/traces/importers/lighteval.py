"""lighteval: the details of an evaluation, one Parquet file per task (`--save-details`).

Written to OUTPUT_DIR/details/MODEL/DATE/details_TASK_DATE.parquet. Read at: lighteval 0.13.0,
lighteval/logging/info_loggers.py (`Detail`), lighteval/tasks/requests.py (`Doc`),
lighteval/models/model_output.py (`ModelResponse`), lighteval/models/transformers/
transformers_model.py (padding), lighteval/tasks/prompt_manager.py (prompts as text). Files of
versions before 0.11 have other columns and are not recognised.

- One row per document, `model_response.text` holds its completions: the group.
- The gold answer is `doc.choices[doc.gold_index]`, a second index the second accepted form.
- A metric belongs to the document. With one completion it is that completion's reward, and where
  several metrics are 0 or 1 `reward_column` has to name the one that counts. With several
  completions it says nothing about each of them: they are graded against the gold answer.
- The prompt is `model_response.input`; the transformers engine leaves it empty, then it is put
  together as lighteval does without a chat template. Its ids are kept, left padding stripped.
- The transformers engine also pads completions, with the end-of-sequence token: a repeated last id
  is cut back to one. Where the text itself ends in a repetition, or stop sequences cut the text
  but not the ids, the ids are left out.
- Tasks that compare likelihoods sample nothing; their rows are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thr_probe.errors import DataError, UsageError
from thr_probe.traces.importers.chat import is_messages, messages_of, prompt_of
from thr_probe.traces.importers.files import Record, files_in, parquet_columns, parquet_rows
from thr_probe.traces.importers.foreign import (
    ForeignCompletion,
    Importer,
    ImportOptions,
    Refused,
    Rows,
)

_COLUMNS = ("doc", "metric", "model_response")
_NAME = re.compile(r"details_(.+)_(\d{4}-\d\d-\d\dT[^_]*)")
LONGEST_TOKEN = 128
"""Characters that one token's text has at most: no vocabulary in use has longer ones but spaces."""
_HINT = "lighteval writes details_TASK_DATE.parquet with --save-details"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    path: Path
    task: str
    model: str | None
    wanted: str | None
    """The metric that counts, where the user named one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Label:
    """What the metric says of a completion."""

    reward: float | None = None
    correct: bool | None = None
    verifier: str | None = None


def find(path: Path) -> list[Path]:
    """The details files, in the order of their names; damaged ones too, so that reading says so."""
    found = files_in(path, ".parquet")
    if not path.is_file():
        found = [file for file in found if _NAME.fullmatch(file.stem)]
    return [file for file in found if _fits(file)]


def read(paths: Sequence[Path], options: ImportOptions) -> Rows:
    """Stream the completions.

    Raises:
        DataError: a file that is damaged, lacks a column, or lacks the metric `reward_column`.
        UsageError: several metrics of single completions, and no `reward_column`.
    """
    for path in paths:
        yield from _file(_source(path, options.reward_column))


def _fits(path: Path) -> bool:
    columns = parquet_columns(path)
    return set(_COLUMNS) <= set(columns) or (not columns and bool(_NAME.fullmatch(path.stem)))


def _source(path: Path, wanted: str | None) -> _Source:
    named = _NAME.fullmatch(path.stem)
    dated = named is not None and path.parent.name == named[2]
    return _Source(
        path=path,
        task=named[1] if named else path.stem,
        model=path.parent.parent.name if dated else None,
        wanted=wanted,
    )


def _file(source: _Source) -> Rows:
    for record in parquet_rows(source.path, _COLUMNS):
        missing = [name for name in _COLUMNS if not isinstance(record.values.get(name), Mapping)]
        if missing:
            raise DataError(
                f"{record.where}: column {missing[0]} is missing or no structure, found "
                f"{', '.join(record.values)}",
                _HINT,
            )
        try:
            yield from _completions(record, source)
        except ValueError as error:
            if isinstance(error, DataError):
                raise
            yield Refused(where=record.where, reason=str(error))


def _completions(record: Record, source: _Source) -> Iterator[ForeignCompletion]:
    doc, said = record.values["doc"], record.values["model_response"]
    texts = said.get("text")
    if not texts:
        raise ValueError("likelihoods were compared, nothing was sampled (multiple choice)")
    label = _label(record, source, len(texts))
    answers = _answers(doc)
    key = f"{source.path.parent.name}/{source.path.name}:{doc.get('id')}"
    ids = _all_ids(doc, said)
    for index, text in enumerate(texts):
        yield ForeignCompletion(
            where=record.where if len(texts) == 1 else f"{record.where}, completion {index + 1}",
            group=key,
            text=text or "",
            prompt_text=_prompt(doc, said),
            prompt_messages=_messages(said),
            question=_question(doc),
            answer=answers[0],
            answer_alt=answers[1],
            reward=label.reward,
            correct=label.correct,
            verifier=label.verifier,
            finish_reason=_finished(said, ids, index),
            prompt_token_ids=_prompt_ids(said),
            token_ids=ids[index],
            dataset=source.task,
            model=source.model,
        )


def _label(record: Record, source: _Source, num_completions: int) -> _Label:
    metrics = {
        name: value
        for name, value in record.values["metric"].items()
        if isinstance(value, int | float)
    }
    found = ", ".join(metrics) or "none"
    if source.wanted is not None and source.wanted not in metrics:
        raise DataError(
            f"{record.where}: the column metric has no {source.wanted}, found {found}",
            "name one of these with --reward-column",
        )
    if num_completions > 1 or not metrics:
        return _Label()
    if source.wanted is None and len(metrics) > 1:
        raise UsageError(
            f"{record.where}: several metrics: {found}", "say with --reward-column which one counts"
        )
    name = source.wanted or next(iter(metrics))
    value = metrics[name]
    return _Label(
        reward=float(value),
        correct=bool(value) if value in (0, 1) else None,
        verifier=f"lighteval:{name}",
    )


def _answers(doc: Mapping[str, Any]) -> tuple[str | None, str | None]:
    choices, gold = doc.get("choices") or [], doc.get("gold_index")
    indices = gold if isinstance(gold, list) else [gold]
    answers = [
        str(choices[index]).strip()
        for index in indices
        if isinstance(index, int) and 0 <= index < len(choices)
    ]
    return next(iter(answers), None), next(iter(answers[1:]), None)


def _question(doc: Mapping[str, Any]) -> str:
    query = str(doc.get("original_query") or doc.get("query") or "")
    instruction = doc.get("instruction")
    return query.removeprefix(instruction).strip() if instruction else query


def _prompt(doc: Mapping[str, Any], said: Mapping[str, Any]) -> str:
    given = said.get("input")
    if isinstance(given, str):
        return given
    if given and is_messages(given):
        return prompt_of(given)
    instruction = doc.get("instruction")
    shots = doc.get("fewshot_samples") or []
    parts = [instruction] if instruction else []
    parts += [f"{_query(shot)} {(_answers(shot)[0] or '')}" for shot in shots]
    return "\n\n".join([*parts, _query(doc)])


def _messages(said: Mapping[str, Any]) -> list[dict[str, str]] | None:
    given = said.get("input")
    return messages_of(given) if given and is_messages(given) else None


def _query(doc: Mapping[str, Any]) -> str:
    query, instruction = str(doc.get("query") or ""), doc.get("instruction")
    if instruction and query.startswith(instruction):
        return query.removeprefix(instruction).strip()
    return query


def _prompt_ids(said: Mapping[str, Any]) -> Sequence[int] | None:
    ids = said.get("input_tokens") or []
    padding = said.get("padded_tokens_count") or 0
    return ids[padding:] if 0 <= padding < len(ids) else None


def _all_ids(doc: Mapping[str, Any], said: Mapping[str, Any]) -> list[Sequence[int] | None]:
    """Of each completion; None where they are not certainly those of its text."""
    texts, ids = said["text"], said.get("output_tokens") or []
    if doc.get("stop_sequences") or len(ids) != len(texts):
        return [None] * len(texts)
    if said.get("input") is not None:
        return list(ids)
    return [_unpadded(own, text or "") for own, text in zip(ids, texts, strict=True)]


def _finished(
    said: Mapping[str, Any], ids: Sequence[Sequence[int] | None], index: int
) -> str | None:
    """Padding follows an end-of-sequence token; of other completions the file does not say."""
    kept = ids[index]
    return "stop" if kept is not None and len(kept) < len(said["output_tokens"][index]) else None


def _unpadded(ids: Sequence[int], text: str) -> Sequence[int] | None:
    """The ids with a repeated last one cut back to one; None where the text ends repeating too.

    >>> _unpadded([7, 8, 1, 1, 1], "7 8")
    [7, 8, 1]
    >>> _unpadded([7, 5, 5], "7 five five") is None
    True
    """
    length = len(ids)
    while length > 1 and ids[length - 2] == ids[-1]:
        length -= 1
    repeats = len(ids) - length + 1
    if repeats > 1 and _ends_repeating(text, repeats):
        return None
    return ids[:length]


def _ends_repeating(text: str, times: int) -> bool:
    longest = min(LONGEST_TOKEN, len(text) // times)
    return any(text.endswith(text[-size:] * times) for size in range(1, longest + 1))


IMPORTER = Importer(
    name="lighteval",
    meaning="details_TASK_DATE.parquet of lighteval (--save-details)",
    find=find,
    read=read,
)
