"""What importing needs of a tokenizer; the policy's own fulfils it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, runtime_checkable


@runtime_checkable
class Words(Protocol):
    """A policy's tokenizer, without its weights."""

    name: str
    """As the user called it."""

    @property
    def digest(self) -> str:
        """sha256 of its state."""
        ...

    @property
    def size(self) -> int:
        """One more than the largest id."""
        ...

    @property
    def eos_id(self) -> int:
        """Id of the end-of-sequence token."""
        ...

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids that stand for no text, endings among them."""
        ...

    def encode_prompt(self, text: str) -> list[int]:
        """Ids of a prompt."""
        ...

    def chat_prompt(self, messages: Sequence[Mapping[str, str]]) -> str | None:
        """Messages under the chat template, up to where the policy begins; None without one.

        Raises:
            DataError: messages that the template refuses.
        """
        ...

    def encode_completions(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of completions, nothing added."""
        ...

    def decode(self, ids: Iterable[int], *, skip_special_tokens: bool = True) -> str:
        """The text of ids."""
        ...

    def token_rows(self, ids: Iterable[int]) -> Sequence[tuple[int, bytes, str]]:
        """(token_id, bytes, text) of each id."""
        ...
