"""Tokens as text that can be shown: characters whole, nothing hidden, nothing that acts."""

from __future__ import annotations

import codecs
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

_GLYPHS = {" ": "·", "\n": "⏎", "\t": "⇥", "\u00a0": "⍽"}
_DECODER = codecs.getincrementaldecoder("utf-8")
_INVALID = "backslashreplace"
# marks that turn the reading direction, and the two separators that end a line
_ACTING = {*"\u061c\u200e\u200f\u2028\u2029", *map(chr, [*range(0x202A, 0x202F)])} | {
    *map(chr, range(0x2066, 0x206A))
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """The fewest tokens in a row whose bytes are whole characters."""

    text: str
    """What they stand for; `printable`, so line breaks and tabs are the only control characters."""
    first: int
    """Index of the first of its tokens."""
    num_tokens: int
    """How many tokens it is made of; more than one where a character spans tokens."""


def display_pieces(token_bytes: Sequence[bytes]) -> list[Piece]:
    r"""Cuts a completion into pieces of whole characters; every token is in exactly one.

    Bytes that no neighbour completes are shown as \xNN and do not pull in further tokens.

    Args:
        token_bytes: the bytes of each token, in order.

    >>> [(piece.text, piece.num_tokens) for piece in display_pieces([b"a", b"\xe2\x82", b"\xac"])]
    [('a', 1), ('€', 2)]
    >>> [piece.text for piece in display_pieces([b"\xe2\x82", b"b"])]
    ['\\xe2\\x82', 'b']
    """
    pieces: list[Piece] = []
    first, held, tail = 0, b"", b""
    for index, given in enumerate(token_bytes):
        if tail and not _continues(tail, given):
            pieces.append(_piece(held, first, index))
            first, held = index, b""
        held += given
        tail = _unfinished(held)
        if not tail:
            pieces.append(_piece(held, first, index + 1))
            first, held = index + 1, b""
    if tail:
        pieces.append(_piece(held, first, len(token_bytes)))
    return pieces


def printable(text: str) -> str:
    r"""Control characters and marks that turn the reading direction, written as escapes.

    Line breaks and tabs stay.

    >>> printable("a\x1b[1m\n")
    'a\\x1b[1m\n'
    """
    if text.isprintable():
        return text
    return "".join(_escaped(character) if _acts(character) else character for character in text)


def visible(text: str, *, keep_breaks: bool = False) -> str:
    r"""White space as glyphs: · for a space, ⏎ for a line break, ⇥ for a tab, ⍽ for a hard space.

    Args:
        text: any text.
        keep_breaks: whether the line still breaks after ⏎.

    >>> visible("so what?\n")
    'so·what?⏎'
    """
    for blank, glyph in _GLYPHS.items():
        text = text.replace(blank, glyph)
    return text.replace("⏎", "⏎\n") if keep_breaks else text


def _acts(character: str) -> bool:
    if character in "\n\t":
        return False
    return unicodedata.category(character) == "Cc" or character in _ACTING


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _piece(held: bytes, first: int, stop: int) -> Piece:
    text = printable(held.decode("utf-8", errors=_INVALID))
    return Piece(text=text, first=first, num_tokens=stop - first)


def _unfinished(data: bytes) -> bytes:
    """The last bytes, where they begin a character and more could complete it."""
    decoder = _DECODER(_INVALID)
    decoder.decode(data)
    return decoder.getstate()[0]


def _continues(tail: bytes, given: bytes) -> bool:
    """Whether the next bytes carry on the character begun; else an escape comes out first."""
    return not _DECODER(_INVALID).decode(tail + given).startswith("\\")
