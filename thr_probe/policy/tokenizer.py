"""A policy's tokenizer without its weights: for completions that were sampled elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from thr_probe.errors import DataError, PrerequisiteError
from thr_probe.policy.load import HUB_ID, LAB, model_source, read_tokenizer
from thr_probe.policy.tokens import (
    TokenRow,
    decode,
    encode_prompt,
    token_rows,
    tokenizer_digest,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyTokenizer:
    """A tokenizer as a policy uses it."""

    tokenizer: PreTrainedTokenizerBase
    """Of transformers."""
    name: str
    """What the user called it: "lab", a directory, a hub id."""
    digest: str
    """sha256 of its serialised state."""
    size: int
    """One more than the largest id."""

    @property
    def eos_id(self) -> int:
        """Id of the end-of-sequence token."""
        return cast(int, self.tokenizer.eos_token_id)

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids that stand for no text, endings among them."""
        return frozenset(self.tokenizer.all_special_ids)

    def encode_prompt(self, text: str) -> list[int]:
        """Ids of a prompt, with the tokenizer's own beginning-of-sequence token if it has one."""
        return encode_prompt(self.tokenizer, text)

    def chat_prompt(self, messages: Sequence[Mapping[str, str]]) -> str | None:
        """Messages under the chat template, up to where the policy begins; None without one.

        A last message of the assistant is not closed: the policy went on with it.

        Raises:
            DataError: messages that the template refuses.
        """
        if not self.tokenizer.chat_template:
            return None
        is_begun = bool(messages) and messages[-1]["role"] == "assistant"
        try:
            text = self.tokenizer.apply_chat_template(
                [dict(message) for message in messages],
                tokenize=False,
                add_generation_prompt=not is_begun,
                continue_final_message=is_begun,
            )
        except (TemplateError, TypeError, ValueError) as error:
            raise DataError(
                f"the chat template of {self.name} refuses the messages: {error}"
            ) from error
        return str(text)

    def encode_completions(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of completions, nothing added; special tokens that the texts spell are single ids."""
        if not texts:  # which transformers takes for a mistake
            return []
        # not verbose: completions longer than what the model was made for are no reason to warn
        encoded = self.tokenizer(list(texts), add_special_tokens=False, verbose=False)
        return [[int(token_id) for token_id in ids] for ids in encoded["input_ids"]]

    def decode(self, ids: Iterable[int], *, skip_special_tokens: bool = True) -> str:
        """The text of a completion."""
        return decode(self.tokenizer, ids, skip_special_tokens=skip_special_tokens)

    def token_rows(self, ids: Iterable[int]) -> list[TokenRow]:
        """(token_id, bytes, text) of each id."""
        return token_rows(self.tokenizer, ids)


def load_tokenizer(name: str, *, revision: str | None = None) -> PolicyTokenizer:
    """Load the tokenizer of a model; its weights are neither needed nor looked at.

    Code from model repositories is never run (`trust_remote_code` stays False).

    Args:
        name: "lab", a directory with tokenizer files, or a hub id.
        revision: branch, tag or commit on the hub.

    Raises:
        PrerequisiteError: it cannot be found or fetched.
        DataError: a directory without a usable tokenizer.
    """
    source = _source(name)
    tokenizer = read_tokenizer(source, name, revision)
    largest = max([*tokenizer.get_vocab().values(), *tokenizer.added_tokens_decoder])
    return PolicyTokenizer(
        tokenizer=tokenizer, name=name, digest=tokenizer_digest(tokenizer), size=largest + 1
    )


def _source(name: str) -> str:
    if name == LAB:
        return model_source(name)
    folder = Path(name).expanduser()
    if folder.is_file():  # tokenizer.json itself
        folder = folder.parent
    if folder.is_dir():
        return str(folder)
    if not HUB_ID.fullmatch(name):
        raise PrerequisiteError(
            f"no tokenizer directory at {folder}",
            hint='give "lab", a directory with tokenizer.json, or a hub id such as org/name',
        )
    return name
