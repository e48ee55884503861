"""A JSON file that is one object around one long list, read without holding the list."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

_DECODER = json.JSONDecoder()
_CHUNK = 1 << 20
_TOKEN = 64
"""Longer than any JSON number or name that the end of what is held may cut in two."""
_SPACE = " \t\r\n"


class CutOffError(ValueError):
    """The text ends or goes wrong; what came before it has been given out."""


def members(path: Path, listed: str) -> Iterator[tuple[str, Any]]:
    """The members of the file's object in their order; the list called `listed` entry by entry.

    Memory holds one member or one entry at a time.

    Args:
        path: a JSON file, UTF-8.
        listed: name of the long list.

    Raises:
        CutOffError: the file ends early, or is no JSON object.
        OSError: it cannot be read.
    """
    with path.open(encoding="utf-8", errors="replace") as file:
        text = _Text(file)
        text.expect("{")
        while text.next_mark() != "}":
            name = text.value()
            text.expect(":")
            if name == listed and text.next_mark() == "[":
                for entry in _entries(text):
                    yield listed, entry
            else:
                yield str(name), text.value()
            text.skip_comma()


def _entries(text: _Text) -> Iterator[Any]:
    text.expect("[")
    while text.next_mark() != "]":
        yield text.value()
        text.skip_comma()
    text.expect("]")


class _Text:
    """The part of a file that is being read, and the place reached in it."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._held = ""
        self._at = 0

    def next_mark(self) -> str:
        """The next character that is no space, left where it is."""
        while True:
            while self._at < len(self._held) and self._held[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._held):
                return self._held[self._at]
            if not self._read_on():
                raise CutOffError("the file ends before its JSON does")

    def expect(self, mark: str) -> None:
        found = self.next_mark()
        if found != mark:
            raise CutOffError(f"found {found!r}, expected {mark!r}")
        self._at += 1

    def skip_comma(self) -> None:
        if self.next_mark() == ",":
            self._at += 1

    def value(self) -> Any:
        """The JSON value that stands here."""
        self.next_mark()
        while True:
            try:
                found, end = _DECODER.raw_decode(self._held, self._at)
            except json.JSONDecodeError as error:
                if self._is_wrong(error):
                    raise CutOffError(f"a value is no JSON: {error.msg}") from error
                if not self._read_on():
                    raise CutOffError("the file ends inside a value") from error
                continue
            except RecursionError as error:
                raise CutOffError("JSON nested too deeply") from error
            if end < len(self._held) or not self._read_on():
                self._at = end
                return found

    def _is_wrong(self, error: json.JSONDecodeError) -> bool:
        """Whether more text cannot mend it: the value does not just go on beyond what is held."""
        return not error.msg.startswith("Unterminated") and error.pos < len(self._held) - _TOKEN

    def _read_on(self) -> bool:
        """Hold more, twice as much each time: a long value is decoded a few times only."""
        rest = self._held[self._at :]
        more = self._file.read(max(_CHUNK, len(rest)))
        self._held, self._at = rest + more, 0
        return bool(more)
