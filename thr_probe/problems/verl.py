"""verl-format rows: `prompt` (messages), `reward_model.ground_truth`, `data_source` ..."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from thr_probe.errors import DataError, UsageError
from thr_probe.problems.rows import Draft, found, text_value
from thr_probe.problems.tables import RowTable
from thr_probe.problems.templates import chat_text


def is_verl(table: RowTable) -> bool:
    """Whether the rows carry verl's columns: messages in `prompt`, the gold in `reward_model`."""
    first = table.rows[0]
    return isinstance(first.get("prompt"), list) and isinstance(first.get("reward_model"), Mapping)


def verl_drafts(table: RowTable, template: str | None, tokenizer: Any) -> list[Draft]:
    """The rows' problems. The prompt is prompt[0].content as raw text, as SimpleRL-Zoo uses it.

    With the template "chat" the messages go through the tokenizer's own template instead, as verl
    itself does.
    """
    if template not in (None, "chat"):
        raise UsageError(
            f"{table.source} brings its own prompts (verl format); the template {template!r} would "
            "wrap them a second time",
            hint="leave the template out for raw text, or use chat for the policy's own",
        )
    drafts = []
    for number, row in enumerate(table.rows, start=1):
        where = f"{table.source}, row {number}"
        messages = _messages(where, row.get("prompt"))
        chat = template == "chat"
        text = chat_text(messages, tokenizer) if chat else _raw_text(where, messages)
        drafts.append(_draft(where, table.name, row, messages[-1]["content"], text))
    return drafts


def _draft(where: str, name: str, row: Mapping[str, Any], question: str, text: str) -> Draft:
    reward_model = row.get("reward_model")
    if not isinstance(reward_model, Mapping):
        raise DataError(
            f"{where}, column reward_model: expected ground_truth in it, found "
            f"{found(reward_model)}"
        )
    extra = row.get("extra_info")
    level = extra.get("level") if isinstance(extra, Mapping) else None
    truth = reward_model.get("ground_truth")
    return Draft(
        dataset=text_value(f"{where}, column data_source", row.get("data_source")) or name,
        level=text_value(f"{where}, column extra_info.level", level) or None,
        question=question,
        answer=text_value(f"{where}, column reward_model.ground_truth", truth),
        answer_alt=None,
        prompt_text=text,
    )


def _messages(where: str, value: object) -> list[dict[str, str]]:
    if not isinstance(value, list) or not value:
        raise DataError(f"{where}, column prompt: expected messages, found {found(value)}")
    for index, message in enumerate(value):
        content = message.get("content") if isinstance(message, Mapping) else message
        if not isinstance(message, Mapping) or not isinstance(content, str) or not content.strip():
            raise DataError(
                f"{where}, column prompt[{index}].content: expected text, found {found(content)}"
            )
    return [dict(message) for message in value]


def _raw_text(where: str, messages: list[dict[str, str]]) -> str:
    if len(messages) > 1:
        raise DataError(
            f"{where}, column prompt: {len(messages)} messages; as raw text only prompt[0].content "
            "is used, and the others would be lost",
            hint="use the template chat, or make one message of them",
        )
    return messages[0]["content"]
