"""Texts and ids of a row as they go into the run, above all the prompt that its policy read."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import replace

from thr_probe.errors import DataError
from thr_probe.importing.refusals import RowRefusedError
from thr_probe.importing.spool import SpooledPrompt
from thr_probe.importing.words import Words
from thr_probe.traces.importers.foreign import ForeignCompletion
from thr_probe.traces.importers.templated import question_in


def whole_text(text: str) -> str:
    """The text with lone surrogates, which no file can hold, as U+FFFD.

    >>> whole_text("a" + chr(0xD83D) + "b") == "a" + chr(0xFFFD) + "b"
    True
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def given_prompt(row: ForeignCompletion) -> SpooledPrompt:
    """What a row's group shares, as the file has it."""
    prompt_text = whole_text(row.prompt_text)
    return SpooledPrompt(
        question=prompt_text if row.question is None else whole_text(row.question),
        prompt_text=prompt_text,
        answer=None if row.answer is None else whole_text(row.answer),
        answer_alt=None if row.answer_alt is None else whole_text(row.answer_alt),
        token_ids=checked_ids(row.prompt_token_ids, "prompt_token_ids"),
        dataset=row.dataset,
        level=row.level,
    )


def read_prompt(
    row: ForeignCompletion, given: SpooledPrompt, words: Words | None, *, chat_template: bool
) -> SpooledPrompt:
    """The prompt as the policy read it, as far as file and tokenizer tell; else as it is given.

    Ids of the file count most: they give the text of a prompt that the file has as messages, or
    not at all. Without ids, messages go through the tokenizer's chat template.

    Args:
        row: the first of its group.
        given: its `given_prompt`.
        words: the policy's tokenizer.
        chat_template: whether messages are to be changed at all.

    Raises:
        RowRefusedError: nothing to read the prompt from, or messages that the template refuses.
    """
    if row.has_only_ids:
        if given.token_ids is None:
            raise RowRefusedError("only token ids, and none of the prompt")
        text = decoded(given.token_ids, words, skip_special_tokens=False)
        return replace(given, question=question_in(text) or text, prompt_text=text)
    if row.prompt_messages is None or words is None or not chat_template:
        return given
    if given.token_ids is not None:
        text = decoded(given.token_ids, words, skip_special_tokens=False)
        return replace(given, prompt_text=text)
    return _templated(row.prompt_messages, given, words)


def _templated(
    messages: Sequence[Mapping[str, str]], given: SpooledPrompt, words: Words
) -> SpooledPrompt:
    try:
        text = words.chat_prompt(messages)
    except DataError as error:
        left = f"{error.message} (--no-chat-template leaves them as they are)"
        raise RowRefusedError(left) from error
    if text is None:
        return given
    text = whole_text(text)
    # the template writes the beginning of the sequence itself, so none is added
    ids = words.encode_completions([text])[0]
    if not ids:
        raise RowRefusedError("the chat template leaves nothing of the prompt")
    return replace(given, prompt_text=text, token_ids=array("i", ids))


def decoded(ids: Sequence[int], words: Words | None, *, skip_special_tokens: bool = True) -> str:
    """The text of ids.

    Raises:
        RowRefusedError: no tokenizer is given, or it does not have the ids.
    """
    if words is None:
        raise RowRefusedError("only token ids, no text: give --tokenizer")
    check_vocabulary(ids, words)
    return words.decode(ids, skip_special_tokens=skip_special_tokens)


def check_vocabulary(ids: Sequence[int], words: Words) -> None:
    """Refuse ids that the tokenizer does not have.

    Raises:
        RowRefusedError: there are some.
    """
    if max(ids) >= words.size:
        raise RowRefusedError(f"token ids beyond the {words.size} of {words.name}")


def checked_ids(values: Sequence[int] | None, name: str) -> Sequence[int] | None:
    """The ids; None where there are none.

    Raises:
        RowRefusedError: they are no ids.
    """
    if values is None or len(values) == 0:
        return None
    try:
        ids = array("i", values)
    except (TypeError, OverflowError) as error:
        raise RowRefusedError(f"{name} are not whole numbers of 32 bits") from error
    if min(ids) < 0:
        raise RowRefusedError(f"{name} hold a negative number")
    return ids
