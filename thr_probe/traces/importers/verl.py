"""verl: the generations that its trainers dump as JSON lines, one file per step.

Written to `trainer.rollout_data_dir` and `trainer.validation_data_dir` as STEP.jsonl. Read at:
verl-project/verl, verl/trainer/ppo/ray_trainer.py at 0094eb2 (`_write_generations`,
`_log_rollout_data`, `_validate`) and verl/trainer/ppo/v1/trainer_base.py at 04141f8 (`uid`).

- `input` and `output` were decoded without special tokens, so nobody can tell whether a completion
  ended by itself, and of a chat template only the words are left. Where these are ChatML's, Gemma's
  or Llama 3's, the special tokens are put back, for the policy read them; other prompts stay as the
  file has them, which is right for policies without a chat template only.
- A group is the rows of one `uid` where the file has it, else of one `input` in the step. The v1
  trainer's uid is UID_SESSION_OUTPUT: the session is the rollout, and later outputs of a session
  (agent loops with several) are refused.
- `score` is the reward. Whether it is right says `acc`, where the reward function gave it; with
  `reward_column` only the named field counts.
- `gts` may be text, a number or a list; the second entry of a list is the second accepted form.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from thr_probe.traces.importers.files import (
    Record,
    completions_of_lines,
    files_in,
    first_object,
)
from thr_probe.traces.importers.foreign import (
    ForeignCompletion,
    Importer,
    ImportOptions,
    Rows,
)
from thr_probe.traces.importers.templated import question_in, with_marks

_FIELDS = ("input", "output", "score")
_SESSION = re.compile(r"(.+)_(\d+)_(\d+)")
_TRUTHS = {"True": True, "False": False}
_HINT = "verl writes these files to trainer.rollout_data_dir and trainer.validation_data_dir"


def find(path: Path) -> list[Path]:
    """STEP.jsonl in the order of the steps; a file of any name that starts as verl's do.

    A damaged STEP.jsonl is among them, so that reading it says so.
    """
    found = files_in(path, ".jsonl")
    if not path.is_file():
        found = [file for file in found if file.stem.isdecimal()]
    found.sort(key=lambda file: (file.parent, _step_of(file) or 0))
    return [file for file in found if _fits(file)]


def read(paths: Sequence[Path], options: ImportOptions) -> Rows:
    """Stream the completions.

    Raises:
        DataError: a file whose first line is no generation of verl, or lacks `reward_column`.
    """
    for path in paths:
        yield from _file(path, options.reward_column)


def _fits(path: Path) -> bool:
    first = first_object(path)
    return path.stem.isdecimal() if first is None else set(_FIELDS) <= set(first)


def _file(path: Path, wanted: str | None) -> Rows:
    fields = (*_FIELDS, wanted) if wanted else _FIELDS
    return completions_of_lines(
        path, fields, lambda record: _completion(record, path, wanted), hint=_HINT
    )


def _completion(record: Record, path: Path, wanted: str | None) -> ForeignCompletion:
    values = record.values
    prompt, text = _text(values, "input"), _text(values, "output")
    reward = _reward(values, wanted or "score")
    answers = _answers(values.get("gts"))
    uid, rollout = _place(values.get("uid"))
    source, found = values.get("data_source"), values.get("pred")
    correct = None if wanted else _truth(values.get("acc"))
    return ForeignCompletion(
        where=record.where,
        group=f"{path.parent.name}\0{prompt if uid is None else uid}",
        text=text,
        prompt_text=with_marks(prompt) or prompt,
        question=question_in(prompt),
        answer=answers[0],
        answer_alt=answers[1],
        step=_step(values, path),
        rollout=rollout,
        reward=reward,
        correct=correct,
        extracted=found if isinstance(found, str) else None,
        verifier=f"verl:{wanted or ('score' if correct is None else 'acc')}",
        dataset=source if isinstance(source, str) else None,
    )


def _text(values: Mapping[str, Any], name: str) -> str:
    value = values[name]
    if not isinstance(value, str):
        raise ValueError(f"{name} is a JSON {type(value).__name__}, expected text")
    return value


def _reward(values: Mapping[str, Any], name: str) -> float:
    value = values[name]
    value = _TRUTHS.get(value, value) if isinstance(value, str) else value
    if not isinstance(value, int | float):
        raise ValueError(f"{name} is a JSON {type(value).__name__}, expected a number")
    return float(value)


def _truth(value: object) -> bool | None:
    """True and False, 1 and 0, and their text: verl writes what JSON does not know as text."""
    if isinstance(value, str):
        return _TRUTHS.get(value)
    return bool(value) if isinstance(value, int | float) and value in (0, 1) else None


def _place(uid: object) -> tuple[str | None, int | None]:
    """The group's uid and the rollout in it, where the file has them."""
    if not isinstance(uid, str):
        return None, None
    session = _SESSION.fullmatch(uid)
    if session is None:
        return uid, None
    if int(session[3]) > 0:
        raise ValueError("a later output of a session: only the first has the group's prompt")
    return session[1], int(session[2])


def _step(values: Mapping[str, Any], path: Path) -> int | None:
    """The row's; null is no step. Of rows without, the one that names the file."""
    step = values.get("step")
    if isinstance(step, int) and not isinstance(step, bool):
        return step
    return None if step is None and "step" in values else _step_of(path)


def _step_of(path: Path) -> int | None:
    return int(path.stem) if path.stem.isdecimal() else None


def _answers(gold: object) -> tuple[str | None, str | None]:
    """The gold answer and a second form of it, from text, a number, or a list of these."""
    if isinstance(gold, str) and gold.startswith('["'):  # a list that went through JSON twice
        try:
            gold = json.loads(gold)
        except ValueError:
            return str(gold), None
    if isinstance(gold, list):
        answers = [_answer(entry) for entry in gold]
        return next(iter(answers), None), next(iter(answers[1:]), None)
    return _answer(gold), None


def _answer(gold: object) -> str | None:
    if gold is None or isinstance(gold, str):
        return gold
    return json.dumps(gold, ensure_ascii=False)


IMPORTER = Importer(
    name="verl",
    meaning="STEP.jsonl of verl's rollout_data_dir or validation_data_dir",
    find=find,
    read=read,
)
