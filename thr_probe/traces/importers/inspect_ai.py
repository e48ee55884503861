"""inspect: the logs of the UK AI Security Institute's Inspect, .eval and .json.

The fields are those of inspect_ai 0.3.285: `log/_log.py` (`EvalSample`, `EvalSpec`),
`log/_recorders/eval.py` (names in the archive), `model/_model_output.py` (`ModelOutput`),
`scorer/_metric.py` (`Score`). inspect_ai itself is not needed, nor is anything for the zstd that
its archives are packed with.

- A sample's epochs are its group; the epoch is the rollout. A sample with the uuid of one that was
  read before is left out: a retried run copies the samples that it keeps.
- The prompt is the conversation before the policy's answer, after the solvers changed it; the
  question is the sample's input.
- The completion is the message of `output.choices`; blocks of reasoning come first, between
  <think> and </think>, as inspect renders them itself: it does not keep the policy's own marks.
- Samples with several turns or tool calls are refused: no single prompt was continued.
- The label is the score that `reward_column` names ("scorer", or "scorer/key" where the value is a
  dictionary), else the first. C, I, P and N count 1, 0, 0.5 and 0.
- Logprobs stand beside token texts, not ids, so they are dropped, except where a vLLM server was
  asked to write tokens as "token_id:ID".
- A run that was cancelled or still goes on has no header: its finished samples are read, and one
  refused row says so. An archive or a JSON file that was cut off is read up to the cut.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thr_probe.errors import DataError
from thr_probe.traces.importers import archive, nested
from thr_probe.traces.importers.chat import (
    emitted,
    is_messages,
    messages_of,
    plain,
    prompt_of,
    question_of,
)
from thr_probe.traces.importers.files import Record, files_in
from thr_probe.traces.importers.foreign import (
    ForeignCompletion,
    Importer,
    ImportOptions,
    Refused,
    Rows,
)
from thr_probe.traces.importers.reasons import UNEXPECTED, reason_of

_SAMPLE = re.compile(r"samples/[^/]+\.json")
_CHUNKED = re.compile(r"samples/[^/]+/sample\.json")
_FIELDS = ("id", "epoch", "input", "target", "output")
_GRADES = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0}
_FINISHED = {"stop": "stop", "max_tokens": "length", "model_length": "length"}
_TOKEN_ID = "token_id:"
_HINT = "give a log of inspect as it was written: LOG.eval or LOG.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Log:
    """What the header says."""

    key: str
    """Names the task of this run; a retry keeps it."""
    dataset: str | None
    model: str | None


def find(path: Path) -> list[Path]:
    """The .eval archives, and the .json files that start as inspect's logs do."""
    found = files_in(path, ".eval", ".json")
    return [file for file in found if _starts_as_log(file)]


def read(paths: Sequence[Path], options: ImportOptions) -> Rows:
    """Stream the completions, one sample in memory at a time.

    Raises:
        DataError: a file that is no log of inspect.
    """
    seen: set[str] = set()
    for path in paths:
        for record in _json_log(path) if path.suffix == ".json" else _archived_log(path):
            if isinstance(record, Refused):
                yield record
                continue
            sample, log = record
            uuid = str(sample.values.get("uuid") or (log.key, sample.where))
            if uuid in seen:
                yield Refused(where=sample.where, reason="a sample that another log holds too")
                continue
            seen.add(uuid)
            yield from _rows(sample, log, options.reward_column)


_Samples = Iterator[tuple[Record, _Log] | Refused]


def _starts_as_log(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            start = file.read(4096)
    except OSError:
        return False
    if path.suffix == ".eval":
        return start.startswith(b"PK\x03\x04")
    return re.match(rb'\s*\{\s*"version"\s*:\s*\d+\s*,\s*"status"\s*:', start) is not None


def _archived_log(path: Path) -> _Samples:
    try:
        opened = path.open("rb")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    with opened as file:
        listed, is_whole = archive.entries(file)
        named = {entry.name: entry for entry in listed}
        header = _header(path, file, named)
        log = _log(path, header.get("eval"))
        where = str(path)
        if not is_whole:
            yield Refused(where=where, reason="the archive is cut off, it is read up to the cut")
        elif "header.json" not in named:
            yield Refused(where=where, reason="the run did not end, its finished samples are read")
        elif header.get("status") != "success":
            reason = f"the run ended as {header.get('status')}, its finished samples are read"
            yield Refused(where=where, reason=reason)
        for entry in listed:
            where = f"{path}, {entry.name}"
            if _CHUNKED.fullmatch(entry.name):
                yield Refused(where=where, reason="a sample of many turns, kept in chunks")
            elif _SAMPLE.fullmatch(entry.name):
                sample = _sample(where, file, entry)
                yield sample if isinstance(sample, Refused) else (sample, log)


def _sample(where: str, file: io.BufferedIOBase, entry: archive.Entry) -> Record | Refused:
    try:
        values = json.loads(archive.content(file, entry))
    except (ValueError, RecursionError) as error:
        return Refused(where=where, reason=f"the sample cannot be read: {error}")
    if not isinstance(values, dict):
        return Refused(where=where, reason="the sample is no JSON object")
    return Record(where=where, values=values)


def _header(
    path: Path, file: io.BufferedIOBase, named: Mapping[str, archive.Entry]
) -> dict[str, Any]:
    entry = named.get("header.json") or named.get("_journal/start.json")
    if entry is None:
        raise DataError(
            f"{path}: the archive holds neither header.json nor _journal/start.json, found "
            f"{', '.join(list(named)[:5]) or 'nothing'}",
            _HINT,
        )
    try:
        header = json.loads(archive.content(file, entry))
    except ValueError as error:
        raise DataError(f"{path}, {entry.name} cannot be read: {error}", _HINT) from error
    return header if isinstance(header, dict) else {}


def _json_log(path: Path) -> _Samples:
    given = 0
    try:
        for one in _json_samples(path):
            yield one
            given += 1
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    except nested.CutOffError as error:
        if not given:
            raise DataError(f"{path} holds no whole sample: {error}", _HINT) from error
        yield Refused(where=f"{path}, after sample {given}", reason=f"cut off: {error}")


def _json_samples(path: Path) -> _Samples:
    log: _Log | None = None
    number = 0
    for name, value in nested.members(path, "samples"):
        if name == "eval":
            log = _log(path, value)
        elif name == "status" and value != "success":
            reason = f"the run ended as {value}, its finished samples are read"
            yield Refused(where=str(path), reason=reason)
        elif name == "samples":
            number += 1
            yield _listed_sample(path, number, value, log)
    if log is None:
        raise DataError(f"{path}: field eval is missing, expected a log of inspect", _HINT)


def _listed_sample(
    path: Path, number: int, value: object, log: _Log | None
) -> tuple[Record, _Log] | Refused:
    where = f"{path}, sample {number}"
    if log is None or not isinstance(value, dict):
        return Refused(where=where, reason="no sample of a log: eval comes first, then objects")
    return Record(where=where, values=value), log


def _log(path: Path, spec: object) -> _Log:
    if not isinstance(spec, Mapping) or "task" not in spec:
        raise DataError(f"{path}: field eval.task is missing, expected a log of inspect", _HINT)
    dataset = spec.get("dataset")
    name = dataset.get("name") if isinstance(dataset, Mapping) else None
    model = spec.get("model")
    return _Log(
        key=str(spec.get("task_id") or spec.get("run_id") or path.name),
        dataset=str(name or spec["task"]),
        model=model if isinstance(model, str) else None,
    )


def _rows(sample: Record, log: _Log, wanted: str | None) -> Rows:
    missing = [name for name in _FIELDS if name not in sample.values]
    if missing:
        yield Refused(where=sample.where, reason=f"field {missing[0]} is missing")
        return
    if sample.values.get("error"):
        yield Refused(where=sample.where, reason="the sample ended with an error")
        return
    try:
        yield from _completions(sample, log, wanted)
    except UNEXPECTED as error:
        yield Refused(where=sample.where, reason=reason_of(error))


def _completions(sample: Record, log: _Log, wanted: str | None) -> Iterator[ForeignCompletion]:
    values = sample.values
    choices = values["output"].get("choices") or []
    if not choices:
        raise ValueError("the output has no completion")
    prompt = _prompt(values)
    verifier, reward, extracted = _score(values.get("scores") or {}, wanted)
    answers = values["target"] if isinstance(values["target"], list) else [values["target"]]
    for index, choice in enumerate(choices):
        ids, logprobs = _sampled(choice.get("logprobs"))
        yield ForeignCompletion(
            where=sample.where if len(choices) == 1 else f"{sample.where}, choice {index + 1}",
            group=f"{log.key}:{values['id']}",
            text=emitted(choice["message"]),
            prompt_text=prompt_of(prompt),
            prompt_messages=messages_of(prompt),
            question=question_of(values["input"]),
            answer=plain(next(iter(answers), None)),
            answer_alt=plain(next(iter(answers[1:]), None)),
            rollout=int(values["epoch"]) - 1 if len(choices) == 1 else None,
            # the score is the first choice's
            reward=reward if index == 0 else None,
            correct=bool(reward) if index == 0 and reward in (0.0, 1.0) else None,
            extracted=extracted if index == 0 else None,
            verifier=verifier if index == 0 else None,
            finish_reason=_finish(choice),
            token_ids=ids,
            sampler_logprobs=logprobs,
            dataset=log.dataset,
            model=plain(values["output"].get("model")) or log.model,
        )


def _prompt(values: Mapping[str, Any]) -> str | list[Mapping[str, Any]]:
    """The conversation that the policy continued."""
    messages = values.get("messages")
    if not messages:
        asked: str | list[Mapping[str, Any]] = values["input"]
        return asked
    if not is_messages(messages):
        raise ValueError("messages is no list of messages")
    given = [index for index, one in enumerate(messages) if one.get("role") == "assistant"]
    turns = [index for index in given if messages[index].get("source") == "generate"]
    if len(turns) > 1:
        raise ValueError("several turns: no single prompt was continued")
    end = (turns or given or [len(messages)])[-1]
    return list(messages[:end])


def _finish(choice: Mapping[str, Any]) -> str | None:
    stop = choice.get("stop_reason")
    return "abort" if stop == "content_filter" else _FINISHED.get(str(stop))


def _score(
    scores: Mapping[str, Any], wanted: str | None
) -> tuple[str | None, float | None, str | None]:
    """The scorer that counts, its reward, and the answer that it found."""
    scorer, _, key = (wanted or "").partition("/")
    if wanted and scorer not in scores:
        raise ValueError(f"no score {scorer}, found {', '.join(scores) or 'none'}")
    name = scorer or next(iter(scores), None)
    if name is None:
        return None, None, None
    score = scores[name]
    value = score.get("value")
    if key:
        value = value.get(key) if isinstance(value, Mapping) else None
    answer = score.get("answer")
    return wanted or name, _reward(value), answer if isinstance(answer, str) else None


def _reward(value: object) -> float | None:
    if isinstance(value, str):
        return _GRADES.get(value)
    return float(value) if isinstance(value, bool | int | float) else None


def _sampled(logprobs: object) -> tuple[list[int] | None, list[float] | None]:
    """Token ids and logprobs, where tokens are written as their ids."""
    content = logprobs.get("content") if isinstance(logprobs, Mapping) else None
    if not content or not all(str(one.get("token")).startswith(_TOKEN_ID) for one in content):
        return None, None
    ids = [int(str(one["token"]).removeprefix(_TOKEN_ID)) for one in content]
    return ids, [float(one["logprob"]) for one in content]


IMPORTER = Importer(
    name="inspect",
    meaning="logs of Inspect (inspect_ai): .eval archives and .json",
    find=find,
    read=read,
)
