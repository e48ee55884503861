"""NeMo-RL: the samples that its GRPO trainer logs as JSON lines, one file per step.

Written to the logger's folder as train_data_stepSTEP.jsonl and val_data_stepSTEP.jsonl. Read at:
NVIDIA-NeMo/RL, nemo_rl/algorithms/grpo.py at ddbdb1e (`grpo_train`, `validate`),
nemo_rl/algorithms/grpo_sync.py (`rewards` and `filtered_rewards`), nemo_rl/utils/logger.py
(`log_batched_dict_as_jsonl`), nemo_rl/data/llm_message_utils.py
(`batched_message_log_to_flat_message`), nemo_rl/experience/rollouts.py (the environment's message).

- Each line is a batch of one, so every value stands in a list of one.
- `content` has the texts of the messages: the prompt's with the chat template applied, the
  completion, and what the environment said to it, which is left out.
- `token_ids` is the whole sequence, padded on the right to the longest of the batch;
  `token_loss_mask` is 1 on the completion. Files of old versions lack both: text only.
  `generation_logprobs` has one value per token, 0 outside the completion.
- Samples of several turns are refused.
- With dynamic sampling `rewards` are those of other rows; then `filtered_rewards` counts.
- A group is the rows of one prompt in the file, as NeMo-RL itself groups them. Gold answers are not
  in the file, nor why a completion ended. The problem set is called train or val, as the file is.
- Of a folder with training, the val files are left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thr_probe.traces.importers.chat import is_messages, text_of
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
from thr_probe.traces.importers.templated import question_in

_FIELDS = ("content", "rewards")
_NAME = re.compile(r"(train|val)_data_step(\d+)")
_ENVIRONMENT = "Environment:"
"""How the messages of NeMo-RL's own environments begin."""
_HINT = "NeMo-RL's logger writes train_data_stepSTEP.jsonl and val_data_stepSTEP.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ids:
    """The token ids of a row, cut where the mask says so; None where the file has none."""

    prompt: Sequence[int] | None = None
    completion: Sequence[int] | None = None
    logprobs: Sequence[float] | None = None
    num_after: int | None = None
    """Tokens behind the completion: what the environment said."""


def find(path: Path) -> list[Path]:
    """The train files in the order of the steps, else the val files; one that starts as they do.

    A damaged one of their names is among them, so that reading it says so.
    """
    found = _logged(path)
    return [file for file in found if not _is_validation(file)] or found


def left_out(path: Path) -> list[Path]:
    """The val files, in a folder with training."""
    found = _logged(path)
    validation = [file for file in found if _is_validation(file)]
    return validation if len(validation) < len(found) else []


def _logged(path: Path) -> list[Path]:
    found = files_in(path, ".jsonl")
    if not path.is_file():
        found = [file for file in found if _NAME.fullmatch(file.stem)]
    found.sort(key=lambda file: (file.parent, *_named(file)))
    return [file for file in found if _fits(file)]


def read(paths: Sequence[Path], options: ImportOptions) -> Rows:
    """Stream the completions.

    Raises:
        DataError: a file whose first line is no sample of NeMo-RL, or lacks `reward_column`.
    """
    for path in paths:
        yield from _file(path, options.reward_column)


def _is_validation(path: Path) -> bool:
    return _named(path)[0] == "val"


def _fits(path: Path) -> bool:
    first = first_object(path)
    if first is None:
        return bool(_NAME.fullmatch(path.stem))
    return {*_FIELDS, "idx"} <= set(first) and isinstance(first["content"], list)


def _named(path: Path) -> tuple[str, int]:
    named = _NAME.fullmatch(path.stem)
    return (named[1], int(named[2])) if named else (path.stem, 0)


def _file(path: Path, wanted: str | None) -> Rows:
    fields = (*_FIELDS, wanted) if wanted else _FIELDS
    return completions_of_lines(
        path, fields, lambda record: _completion(record, path, wanted), hint=_HINT
    )


def _completion(record: Record, path: Path, wanted: str | None) -> ForeignCompletion:
    values = {name: _only(value) for name, value in record.values.items()}
    named = _NAME.fullmatch(path.stem)
    ids = _ids(values)
    prompt, text = _texts(values["content"], ids)
    column = wanted or ("filtered_rewards" if "filtered_rewards" in values else "rewards")
    reward = values[column]
    if not isinstance(reward, int | float):
        raise ValueError(f"{column} is a JSON {type(reward).__name__}, expected a number")
    return ForeignCompletion(
        where=record.where,
        group=f"{path}\0{prompt}",
        text=text,
        prompt_text=prompt,
        question=question_in(prompt),
        step=int(named[2]) if named else None,
        reward=float(reward),
        verifier=f"nemo-rl:{column}",
        prompt_token_ids=ids.prompt,
        token_ids=ids.completion,
        sampler_logprobs=ids.logprobs,
        dataset=named[1] if named else None,
    )


def _only(value: object) -> Any:
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _ids(values: Mapping[str, Any]) -> _Ids:
    ids, mask = values.get("token_ids"), values.get("token_loss_mask")
    if not isinstance(ids, list) or not isinstance(mask, list):
        return _Ids()
    length = values.get("input_lengths")
    if len(ids) != len(mask) or not isinstance(length, int) or length > len(ids):
        raise ValueError(
            f"{len(ids)} token_ids, {len(mask)} of token_loss_mask, input_lengths {length}: they "
            "do not fit together"
        )
    mask = mask[:length]
    if not any(mask):
        raise ValueError("token_loss_mask marks no token of a completion")
    start, end = mask.index(1), length - mask[::-1].index(1)
    if not all(mask[start:end]):
        raise ValueError("several turns: tokens of the environment stand between sampled ones")
    logprobs = values.get("generation_logprobs")
    whole = isinstance(logprobs, list) and len(logprobs) == len(ids)
    return _Ids(
        prompt=ids[:start],
        completion=ids[start:end],
        logprobs=logprobs[start:end] if isinstance(logprobs, list) and whole else None,
        num_after=length - end,
    )


def _texts(content: object, ids: _Ids) -> tuple[str, str]:
    """The prompt and the completion among the messages of a row."""
    texts: list[Any] = content if isinstance(content, list) else [content]
    if texts and is_messages(texts):
        return _of_roles(texts)
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("content holds what is no text")
    if len(texts) > 2 and (ids.num_after or (ids.num_after is None and _is_reply(texts[-1]))):
        texts = texts[:-1]
    if len(texts) < 2:
        raise ValueError("content holds one text, expected those of prompt and completion")
    if ids.completion is None and len(texts) > 2:
        raise ValueError(f"content holds {len(texts)} texts, and no mask says which was sampled")
    return "".join(texts[:-1]), str(texts[-1])


def _is_reply(text: str) -> bool:
    return text.startswith(_ENVIRONMENT)


def _of_roles(messages: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    sampled = [index for index, one in enumerate(messages) if one.get("role") == "assistant"]
    if len(sampled) != 1:
        raise ValueError(f"content holds {len(sampled)} messages of the policy, expected one")
    texts = [text_of(message.get("content")) for message in messages]
    return "".join(texts[: sampled[0]]), texts[sampled[0]]


IMPORTER = Importer(
    name="nemo-rl",
    meaning="train_data_stepSTEP.jsonl or val_data_stepSTEP.jsonl of NeMo-RL's logger",
    find=find,
    read=read,
    left_out=left_out,
)
