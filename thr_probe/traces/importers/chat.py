"""Chat messages of foreign files as text: what was asked, what the policy emitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

THINKING = "<think>{}</think>"
"""How reasoning is put before the answer where a program keeps it apart: it does not say which
marks the policy used."""


def text_of(content: object) -> str:
    """A message's content as text; blocks of reasoning between the marks of `THINKING`.

    Args:
        content: a string, or a list of blocks as OpenAI's and inspect's messages have them.

    Raises:
        ValueError: an image, a tool call or anything else that is no text, with its type.
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        raise ValueError(f"a message whose content is a JSON {type(content).__name__}, not text")
    return "".join(_block_text(block) for block in content)


def emitted(message: Mapping[str, Any]) -> str:
    """What the policy emitted as this message: its reasoning, where it is kept, then its answer.

    Raises:
        ValueError: the message calls tools or holds what is no text.
    """
    if message.get("tool_calls"):
        raise ValueError("the completion calls tools, its text alone is not what was sampled")
    answer = text_of(message.get("content"))
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    return THINKING.format(reasoning) + answer if isinstance(reasoning, str) else answer


def prompt_of(messages: str | Sequence[Mapping[str, Any]]) -> str:
    """The prompt as text, where no tokenizer applies the chat template, which is not in such files.

    A string or a lone user message stays as it stands; several messages each follow their role.

    Raises:
        ValueError: a message that is no text.
    """
    if isinstance(messages, str):
        return messages
    if len(messages) == 1 and messages[0].get("role") == "user":
        return text_of(messages[0].get("content"))
    return "\n\n".join(f"{message.get('role')}: {emitted(message)}" for message in messages)


def messages_of(messages: str | Sequence[Mapping[str, Any]]) -> list[dict[str, str]] | None:
    """Role and text of each message, for a chat template; None where the prompt is text.

    Raises:
        ValueError: a message that is no text.
    """
    if isinstance(messages, str):
        return None
    return [{"role": str(message.get("role")), "content": emitted(message)} for message in messages]


def question_of(messages: str | Sequence[Mapping[str, Any]]) -> str | None:
    """The last message of the user; None where there is none."""
    if isinstance(messages, str):
        return messages
    asked = [message for message in messages if message.get("role") == "user"]
    return text_of(asked[-1].get("content")) if asked else None


def plain(value: object) -> str | None:
    """A text, number or truth value as text; None where there is none.

    Raises:
        ValueError: a list or an object.
    """
    if value is None or value == "":
        return None
    if isinstance(value, str | int | float):
        return str(value)
    raise ValueError(f"a JSON {type(value).__name__} where one text is expected")


def is_messages(value: object) -> bool:
    """Whether this is a list of messages."""
    return isinstance(value, list) and all(isinstance(entry, Mapping) for entry in value)


def _block_text(block: object) -> str:
    if isinstance(block, str):
        return block
    kind = block.get("type") if isinstance(block, Mapping) else type(block).__name__
    if isinstance(block, Mapping) and kind == "text" and isinstance(block.get("text"), str):
        return str(block["text"])
    if isinstance(block, Mapping) and kind == "reasoning" and not block.get("redacted"):
        return THINKING.format(block.get("reasoning", ""))
    if kind == "reasoning":
        raise ValueError("the reasoning is redacted, so the completion is not all there")
    raise ValueError(f"a message with content of type {kind}, expected text")
