"""slime: the rollouts that it saves with torch (`--save-debug-rollout-data PATH_{rollout_id}.pt`).

One .pt file per rollout step: {rollout_id, metadata, samples}, a sample being `Sample.to_dict()`.
Read at: THUDM/slime, slime/utils/types.py at 0d234f3 (`Sample`), slime/ray/rollout.py
(`_save_debug_rollout_data`; later slime/observability/rollout_data_utils.py).

- A .pt file is a pickle: opening one can run whatever program was put into it. It is opened only
  with `trust`, and even then with torch's restricted reader, which builds plain data and tensors
  and refuses everything else; there is no way around it here. `find` looks at bytes only.
- torch.load builds a whole file at once: memory grows with the largest file, not with their number.
- `tokens` is prompt and completion, the last `response_length` of them the completion, with one of
  `rollout_log_probs` each.
- A group is the samples of one `group_index`; where there is none, as in evaluation, of one prompt.
- The step is `rollout_id`; evaluation has "eval_" in the file's name, so is its problem set called.
  Of a folder with training, the files of evaluation are left out.
  `label` is the gold answer. A `reward` of several parts needs `reward_column`.
- A sample with tokens that `loss_mask` leaves out between sampled ones has several turns: refused.
"""

from __future__ import annotations

import importlib
import math
import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from thr_probe.errors import DataError, UsageError
from thr_probe.traces.importers.chat import is_messages, messages_of, prompt_of, question_of
from thr_probe.traces.importers.files import files_in
from thr_probe.traces.importers.foreign import (
    ForeignCompletion,
    Importer,
    ImportOptions,
    Refused,
    Rows,
)
from thr_probe.traces.importers.templated import question_in

_FIELDS = ("prompt", "response", "tokens", "response_length", "reward")
_FINISHED = {"completed": "stop", "truncated": "length", "aborted": "abort"}
_FIRST_BYTES = 4096
_HINT = "slime writes these files with --save-debug-rollout-data PATH_{rollout_id}.pt"


def find(path: Path) -> list[Path]:
    """The .pt files that torch saved with a rollout_id in them, told by their first bytes.

    Of a folder with training, its files alone.
    """
    found = _dumps(path)
    return [file for file in found if not _is_evaluation(file)] or found


def left_out(path: Path) -> list[Path]:
    """Evaluation, in a folder with training."""
    found = _dumps(path)
    evaluation = [file for file in found if _is_evaluation(file)]
    return evaluation if len(evaluation) < len(found) else []


def read(paths: Sequence[Path], options: ImportOptions) -> Rows:
    """Yield the completions, one file in memory at a time.

    Raises:
        UsageError: `trust` is not given; a reward of several parts, and no `reward_column`.
        DataError: a file that is damaged, holds more than data, or is no dump of slime.
    """
    if paths and not options.trust:
        raise UsageError(
            f"{paths[0]} is a pickle of torch (.pt), not mere data: opening one can run any "
            "program that somebody put into it",
            "give --trust if you know where it comes from; it is then read with torch's "
            "restricted reader (weights_only)",
        )
    for path in paths:
        yield from _file(path, options)


def _file(path: Path, options: ImportOptions) -> Rows:
    dump = _loaded(path)
    for number, sample in enumerate(dump["samples"], start=1):
        where = f"{path}, sample {number}"
        try:
            _check_keys(sample)
        except ValueError as error:
            if number == 1:
                raise DataError(f"{where}: {error}", _HINT) from error
            yield Refused(where=where, reason=str(error))
            continue
        try:
            yield _completion(sample, where, path, dump, options)
        except ValueError as error:
            if isinstance(error, DataError):
                raise
            yield Refused(where=where, reason=str(error))


def _dumps(path: Path) -> list[Path]:
    found = [file for file in files_in(path, ".pt") if _is_dump(file)]
    return sorted(found, key=lambda file: (file.parent, _numbers(file), file.name))


def _is_evaluation(path: Path) -> bool:
    return re.search(r"eval_\d+", path.stem) is not None


def _is_dump(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            start = file.read(_FIRST_BYTES)
    except OSError:
        return False
    # torch's archives begin with the pickle, not packed; a file that was cut off begins so too
    return start.startswith(b"PK") and b"/data.pkl" in start and b"rollout_id" in start


def _numbers(path: Path) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", path.stem)]


def _loaded(path: Path) -> Mapping[str, Any]:
    torch: Any = importlib.import_module("torch")  # formats are listed without loading it
    try:
        dump = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        reason = str(error).partition("\n")[0]
        raise DataError(
            f"{path} holds more than plain data and tensors, so it is not opened: {reason}",
            "save it again without such objects: torch.load it where you trust it, keep the "
            "samples' prompt, tokens, response, reward and the like, torch.save them",
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(
            f"{path} cannot be read, it is damaged or cut off: {reason}",
            "copy it again from where it was written",
        ) from error
    if not isinstance(dump, Mapping) or not isinstance(dump.get("samples"), list):
        found = ", ".join(map(str, dump)) if isinstance(dump, Mapping) else type(dump).__name__
        raise DataError(f"{path}: key samples is missing or no list, found {found}", _HINT)
    return dump


def _check_keys(sample: object) -> None:
    if not isinstance(sample, Mapping):
        raise ValueError(f"a {type(sample).__name__}, expected a dictionary")
    missing = [name for name in _FIELDS if name not in sample]
    if missing:
        raise ValueError(f"key {missing[0]} is missing, found {', '.join(map(str, sample))}")


def _completion(
    sample: Mapping[str, Any],
    where: str,
    path: Path,
    dump: Mapping[str, Any],
    options: ImportOptions,
) -> ForeignCompletion:
    status = sample.get("status")
    if status == "pending":
        raise ValueError("the status is pending: nothing was sampled yet")
    prompt = sample["prompt"]
    if not isinstance(prompt, str) and not is_messages(prompt):
        raise ValueError(f"prompt is a {type(prompt).__name__}, expected text or messages")
    prompt_text = prompt_of(prompt)
    tokens, length = _listed(sample["tokens"]), sample["response_length"]
    if not isinstance(length, int) or not 0 <= length <= len(tokens):
        raise ValueError(f"response_length is {length!r}, of {len(tokens)} tokens")
    _check_one_turn(sample.get("loss_mask"))
    split = len(tokens) - length
    group, label, step = sample.get("group_index"), sample.get("label"), dump.get("rollout_id")
    logprobs = sample.get("rollout_log_probs")
    return ForeignCompletion(
        where=where,
        group=f"{path.parent}\0{path.stem}\0{prompt_text if group is None else group}",
        text=str(sample["response"]),
        prompt_text=prompt_text,
        prompt_messages=messages_of(prompt),
        question=question_in(prompt) if isinstance(prompt, str) else question_of(prompt),
        answer=None if label is None else str(label),
        step=step if isinstance(step, int) else None,
        reward=_reward(sample["reward"], where, options.reward_column),
        verifier="slime" if options.reward_column is None else f"slime:{options.reward_column}",
        finish_reason=_FINISHED.get(str(status)),
        prompt_token_ids=tokens[:split],
        token_ids=tokens[split:],
        sampler_logprobs=None if logprobs is None else _listed(logprobs),
        dataset="eval" if _is_evaluation(path) else None,
    )


def _listed(values: object) -> list[Any]:
    """A list; some versions keep tensors."""
    listed = values.tolist() if hasattr(values, "tolist") else values
    if not isinstance(listed, list):
        raise ValueError(f"a list of numbers was expected, found a {type(values).__name__}")
    return listed


def _check_one_turn(mask: object) -> None:
    listed = [] if mask is None else _listed(mask)
    if not any(listed):  # a sample that training leaves out as a whole
        return
    end = len(listed) - listed[::-1].index(1)
    if not all(listed[:end]):
        raise ValueError("several turns: tokens that were not sampled stand in the completion")


def _reward(reward: object, where: str, wanted: str | None) -> float | None:
    if isinstance(reward, Mapping):
        names = ", ".join(map(str, reward)) or "none"
        if wanted is None and len(reward) != 1:
            raise UsageError(
                f"{where}: the reward has several parts: {names}",
                "say with --reward-column which one counts (slime's --reward-key)",
            )
        if wanted is not None and wanted not in reward:
            raise DataError(
                f"{where}: the reward has no part {wanted}, found {names}",
                "name one of these with --reward-column",
            )
        reward = reward[wanted] if wanted is not None else next(iter(reward.values()))
    if reward is None:
        return None
    if not isinstance(reward, int | float) or math.isnan(reward):
        raise ValueError(f"reward is {reward!r}, expected a number")
    return float(reward)


IMPORTER = Importer(
    name="slime",
    meaning=".pt files of slime's --save-debug-rollout-data",
    find=find,
    read=read,
    left_out=left_out,
)
