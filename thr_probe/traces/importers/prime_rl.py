"""prime-rl: rollouts and token exports of Prime Intellect's trainer.

Read at its source (PrimeIntellect-ai/prime-rl): `orchestrator/orchestrator.py` and
`orchestrator/utils.py` (`save_rollouts`, `compress_rollouts`), `orchestrator/types.py`
(`Episode.to_record`), `trainer/rl/token_export.py` (schema versions 1 and 2).

- `rollouts/step_N/train_rollouts.jsonl` and, later, `rollouts/step_N/train/all/traces.jsonl[.gz]`
  hold rollouts as verifiers writes them: all that arrived in the step. `effective`, the part of
  them that was trained on, is read where `all` is not there. Of a folder, evaluations are left out.
- `token_exports/step_N/rank_R.jsonl` (`enable_token_export`) holds what the trainer packed: token
  ids, the sampler's logprobs in full, rewards; no text, no question and no group. Sequences with
  the same prompt ids in a step are a group; texts come from the tokenizer. They are read where a
  folder holds no rollouts, or where they are given themselves.
- The .bin files beside them are messages between its processes (msgpack): not read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from thr_probe.errors import DataError
from thr_probe.traces.importers.chat import plain
from thr_probe.traces.importers.files import Record, files_in, first_object, json_lines
from thr_probe.traces.importers.foreign import (
    ForeignCompletion,
    Importer,
    ImportOptions,
    Refused,
    Rows,
)
from thr_probe.traces.importers.reasons import UNEXPECTED, reason_of
from thr_probe.traces.importers.verifiers import (
    STEP,
    Origin,
    after_prompt,
    is_rollout,
    rollouts,
)

_EXPORTED = ("token_ids", "loss_mask", "inference_logprobs")
_ROLLOUTS = ("train_rollouts.jsonl", "traces.jsonl", "traces.jsonl.gz")


def find(path: Path) -> list[Path]:
    """Rollouts of the steps in their order, or the token exports where there are none."""
    files = sorted(
        (file for file in files_in(path, ".jsonl", ".jsonl.gz") if _step(file) is not None),
        key=lambda file: (_step(file), str(file)),
    )
    kept = [file for file in files if file.name in _ROLLOUTS and _is_kept(file, path)]
    found = [file for file in kept if is_rollout(first_object(file) or {})]
    return found or [file for file in files if _is_export(first_object(file) or {})]


def left_out(path: Path) -> list[Path]:
    """Evaluations in a folder."""
    if path.is_file():
        return []
    files = (file for file in files_in(path, *_ROLLOUTS) if _step(file) is not None)
    return [file for file in files if "eval" in file.relative_to(path).parts]


def read(paths: Sequence[Path], options: ImportOptions) -> Rows:
    """Stream the completions.

    Raises:
        DataError: a file whose first line is neither a rollout nor an exported sequence.
    """
    seen: set[str] = set()
    for path in paths:
        if _is_export(first_object(path) or {}):
            yield from _exports(path, options.reward_column)
        else:
            origin = Origin(step=_step(path), key=f"{_step(path)}:")
            yield from rollouts(path, origin, options.reward_column, seen)


def _step(path: Path) -> int | None:
    steps = [match for part in path.parts[:-1] if (match := STEP.fullmatch(part))]
    return int(steps[-1].group(1)) if steps else None


def _is_kept(file: Path, root: Path) -> bool:
    """Not an evaluation's, nor trained rollouts that stand among all of them too."""
    if file == root or not root.is_dir():
        return True
    parts = file.relative_to(root).parts
    if "eval" in parts:
        return False
    whole = file.parent.parent / "all"
    return file.parent.name != "effective" or not any((whole / name).exists() for name in _ROLLOUTS)


def _is_export(values: Mapping[str, Any]) -> bool:
    return set(_EXPORTED) <= set(values)


def _exports(path: Path, wanted: str | None) -> Rows:
    if wanted not in (None, "rewards"):
        raise DataError(
            f"{path}: token exports hold one reward, not {wanted}", "leave the reward's name out"
        )
    if not (path.parent / "STABLE").exists():
        yield Refused(where=str(path), reason="the step is still being written, it is read so far")
    for record in json_lines(path):
        if isinstance(record, Refused):
            yield record
            continue
        missing = [name for name in _EXPORTED if name not in record.values]
        if missing:
            yield Refused(where=record.where, reason=f"field {missing[0]} is missing")
            continue
        yield from _sequence(record, path)


def _sequence(record: Record, path: Path) -> Iterator[ForeignCompletion | Refused]:
    try:
        yield _exported(record, path)
    except UNEXPECTED as error:
        yield Refused(where=record.where, reason=reason_of(error))


def _exported(record: Record, path: Path) -> ForeignCompletion:
    values = record.values
    ids = values["token_ids"]
    start = after_prompt(ids, values["loss_mask"])
    logprobs = values["inference_logprobs"][start:]
    reward = (values.get("rewards") or [None] * len(ids))[start]
    environment = plain(values.get("env_name"))
    prompt = hashlib.sha256(repr(ids[:start]).encode()).hexdigest()[:16]
    step = values.get("export_step", values.get("step", _step(path)))
    if isinstance(step, bool) or not isinstance(step, int):
        raise ValueError(f"the step is {step}")
    return ForeignCompletion(
        where=record.where,
        group=f"{step}:{values.get('run_id') or ''}:{environment or ''}:{prompt}",
        text="",
        prompt_text="",
        step=step,
        reward=None if reward is None else float(reward),
        prompt_token_ids=ids[:start],
        token_ids=ids[start:],
        # what was not finite is exported as null
        sampler_logprobs=None if None in logprobs else logprobs,
        dataset=environment,
    )


IMPORTER = Importer(
    name="prime-rl",
    meaning="rollouts/step_N or token_exports/step_N of prime-rl",
    find=find,
    read=read,
    left_out=left_out,
)
