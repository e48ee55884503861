"""lm-eval: the per-sample logs of EleutherAI's lm-evaluation-harness.

Read from `samples_TASK_DATE.jsonl`, which `lm_eval --log_samples --output_path DIR` writes. The
fields are those of lm_eval 0.4.13: `evaluator.py` (`example`) and
`loggers/evaluation_tracker.py` (`save_results_samples`, which turns the arguments into
`gen_args_0.arg_0` and the target into a string).

- One line per document and filter. The completions stand in each of them, so one filter of a file
  is read: the one that `reward_column` names (as "filter", "metric" or "metric,filter"), else the
  first.
- `resps` holds the `repeats` completions of the document: the group.
- A metric belongs to the document. With one completion it is that completion's label; with several
  it says nothing about each of them, so they come without reward and are graded against the
  target.
- Completions are cut at the task's stop texts, and the files do not say why they ended.
- Tasks that compare likelihoods (multiple choice) sample nothing; their rows are refused.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thr_probe.errors import DataError
from thr_probe.traces.importers.chat import is_messages, messages_of, prompt_of, question_of
from thr_probe.traces.importers.files import Record, files_in, first_object, json_lines
from thr_probe.traces.importers.foreign import (
    ForeignCompletion,
    Importer,
    ImportOptions,
    Refused,
    Rows,
)
from thr_probe.traces.importers.reasons import UNEXPECTED, reason_of
from thr_probe.traces.importers.templated import question_in

_FIELDS = ("doc_id", "doc", "target", "arguments", "resps", "filtered_resps")
_NO_METRIC = {*_FIELDS, "filter", "metrics", "doc_hash", "prompt_hash", "target_hash"}
_INVALID = "[invalid]"
"""What lm-eval's filters put where they find no answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    path: Path
    task: str
    model: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    prompt_text: str
    messages: list[dict[str, str]] | None
    question: str | None


def find(path: Path) -> list[Path]:
    """The samples files, in the order of their names."""
    found = files_in(path, ".jsonl")
    named = found if path.is_file() else [file for file in found if _is_named(file)]
    return [file for file in named if set(_FIELDS) <= set(first_object(file) or ())]


def read(paths: Sequence[Path], options: ImportOptions) -> Rows:
    """Stream the completions.

    Raises:
        DataError: a file whose first line is no sample of lm-eval.
    """
    for path in paths:
        yield from _file(path, options.reward_column)


def _is_named(path: Path) -> bool:
    return path.name.startswith("samples_")


def _file(path: Path, wanted: str | None) -> Rows:
    source = _Source(path=path, task=_task(path), model=_model(path))
    chosen: str | None = None
    seen: dict[str, list[str]] = {}
    for record in json_lines(path):
        if isinstance(record, Refused):
            yield record
            continue
        missing = [name for name in _FIELDS if name not in record.values]
        if missing and not seen:
            raise _not_lm_eval(record, missing[0])
        if missing:
            yield Refused(where=record.where, reason=f"field {missing[0]} is missing")
            continue
        name = str(record.values.get("filter", "none"))
        if name not in seen:
            seen[name] = _metrics(record.values)
            chosen = chosen or (name if _is_wanted(name, seen[name], wanted) else None)
        if name == chosen:
            yield from _checked_rows(record, source, wanted)
    if seen and chosen is None:
        found = ", ".join(f"{metric},{name}" for name in seen for metric in seen[name])
        yield Refused(
            where=str(path), reason=f"no metric or filter {wanted}, found {found or 'none'}"
        )


def _checked_rows(record: Record, source: _Source, wanted: str | None) -> Rows:
    try:
        yield from _rows(record, source, wanted)
    except UNEXPECTED as error:
        yield Refused(where=record.where, reason=reason_of(error))


def _rows(record: Record, source: _Source, wanted: str | None) -> Rows:
    values = record.values
    prompt = _prompt(values["arguments"])
    if prompt is None:
        yield Refused(
            where=record.where,
            reason="a likelihood was computed, nothing was sampled (multiple choice or perplexity)",
        )
        return
    texts = _responses(values["resps"])
    if not texts:
        yield Refused(where=record.where, reason="resps holds no completion of one request")
        return
    asked = _Asked(
        prompt_text=prompt_of(prompt),
        messages=messages_of(prompt),
        question=_question(values["doc"], prompt),
    )
    yield from _completions(record, source, asked=asked, texts=texts, wanted=wanted)


def _completions(
    record: Record, source: _Source, *, asked: _Asked, texts: list[str], wanted: str | None
) -> Iterator[ForeignCompletion]:
    values = record.values
    metric = _metric(_metrics(values), wanted)
    rewards = _per_completion(values.get(metric or ""), len(texts))
    extracted = _per_completion(_only(values["filtered_resps"]), len(texts))
    answers = _answers(values["target"])
    for index, text in enumerate(texts):
        reward = rewards[index] if isinstance(rewards[index], int | float) else None
        yield ForeignCompletion(
            where=record.where if len(texts) == 1 else f"{record.where}, response {index + 1}",
            group=f"{source.path.parent.name}/{source.path.name}:{values['doc_id']}",
            text=text,
            prompt_text=asked.prompt_text,
            prompt_messages=asked.messages,
            question=asked.question,
            answer=answers[0],
            answer_alt=answers[1],
            reward=None if reward is None else float(reward),
            correct=bool(reward) if reward in (0, 1) else None,
            extracted=_found(extracted[index]),
            verifier=None if reward is None else f"{metric},{values.get('filter', 'none')}",
            dataset=source.task,
            model=source.model,
        )


def _is_wanted(name: str, metrics: Sequence[str], wanted: str | None) -> bool:
    if wanted is None or wanted == name or wanted in metrics:
        return True
    metric, _, of = wanted.rpartition(",")
    return of == name and metric in metrics


def _metrics(values: Mapping[str, Any]) -> list[str]:
    """Names of the row's metrics; rows of old versions do not list them."""
    listed = values.get("metrics")
    names = listed if isinstance(listed, list) and listed else values
    return [name for name in names if isinstance(name, str) and name not in _NO_METRIC]


def _metric(names: Sequence[str], wanted: str | None) -> str | None:
    of = (wanted or "").rpartition(",")[0] or wanted
    return of if of in names else next(iter(names), None)


def _prompt(arguments: object) -> str | list[Mapping[str, Any]] | None:
    """What the policy continued; None where the request is for a likelihood."""
    if isinstance(arguments, Mapping):
        listed = [tuple(one.values()) for one in arguments.values() if isinstance(one, Mapping)]
    else:  # before 0.4.3 the arguments were plain lists
        listed = [tuple(one) for one in arguments] if isinstance(arguments, list) else []
    if not listed or len(listed[0]) < 2 or isinstance(listed[0][1], str):
        return None
    prompt = listed[0][0]
    return _messages(prompt[0]) if isinstance(prompt, list) and len(prompt) == 1 else str(prompt)


def _messages(text: object) -> str | list[Mapping[str, Any]]:
    """A chat, which lm-eval keeps as JSON text in a list of its own (`JsonChatStr`)."""
    try:
        parsed = json.loads(str(text))
    except ValueError:
        return str(text)
    return parsed if is_messages(parsed) else str(text)


def _responses(resps: object) -> list[str]:
    only = _only(resps)
    texts = only if isinstance(only, list) else [only]
    return [str(text) for text in texts] if all(isinstance(text, str) for text in texts) else []


def _only(listed: object) -> object:
    return listed[0] if isinstance(listed, list) and len(listed) == 1 else None


def _per_completion(value: object, count: int) -> list[Any]:
    if isinstance(value, list):
        return value if len(value) == count else [None] * count
    return [value] if count == 1 else [None] * count


def _found(extracted: object) -> str | None:
    return extracted if isinstance(extracted, str) and extracted != _INVALID else None


def _answers(target: object) -> tuple[str | None, str | None]:
    """The target and a second accepted form: lm-eval writes a list as its Python text."""
    listed = target
    if isinstance(target, str) and target.startswith("[") and target.endswith("]"):
        try:
            listed = ast.literal_eval(target)
        except (ValueError, SyntaxError):
            listed = target
    if not isinstance(listed, list):
        return (None if target is None else str(target)), None
    texts = [str(answer) for answer in listed]
    return next(iter(texts), None), next(iter(texts[1:]), None)


def _question(doc: object, prompt: str | list[Mapping[str, Any]]) -> str | None:
    """The document's own, else the user's part of the prompt."""
    fields = doc if isinstance(doc, Mapping) else {}
    named = (fields.get(name) for name in ("question", "problem", "query", "instruction"))
    given = next((text for text in named if isinstance(text, str)), None)
    return given or (question_in(prompt) if isinstance(prompt, str) else question_of(prompt))


def _task(path: Path) -> str:
    """samples_TASK_DATE.jsonl: the date holds no underscore."""
    return path.stem.removeprefix("samples_").rpartition("_")[0] or path.stem


def _model(path: Path) -> str | None:
    """The policy's name, from the results file of the same run."""
    results = path.with_name(f"results_{path.stem.rpartition('_')[2]}.json")
    try:
        name = json.loads(results.read_text(encoding="utf-8")).get("model_name")
    except (OSError, ValueError, AttributeError):
        return None
    return str(name) if name else None


def _not_lm_eval(record: Record, field: str) -> DataError:
    return DataError(
        f"{record.where}: field {field} is missing, found {', '.join(list(record.values)[:12])}",
        "lm-eval's samples are written by lm_eval --log_samples --output_path DIR",
    )


IMPORTER = Importer(
    name="lm-eval",
    meaning="samples_TASK_DATE.jsonl of the lm-evaluation-harness (--log_samples)",
    find=find,
    read=read,
)
