"""Whole words and pieces of text, counted in the bytes of many texts at once.

Letters of shapes: R texts, W listed words, N bytes, C candidates.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Int, Shaped, UInt8, UInt64

_LONGEST = 16
_PLAIN = re.compile(rf"[a-z0-9_]{{1,{_LONGEST - 1}}}")
# what ends a word: white space, a byte of a character beyond ASCII, any other ASCII
_SPACE, _FOREIGN, _OTHER = 0x20, 0x01, 0x02


def _classes() -> bytes:
    table = bytearray([_OTHER] * 0x80 + [_FOREIGN] * 0x80)
    for code in range(0x80):
        character = chr(code)
        if character.isspace():
            table[code] = _SPACE
        elif character.isalnum() or character == "_":
            table[code] = ord(character.lower())
    return bytes(table)


_CLASSES = _classes()
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_HIGHEST = np.uint64(0x8080808080808080)
_TO_HIGHEST = np.uint64(0x0101010101010101 * (0x80 - _SPACE - 1))


class PlainWords:
    """A list of words that can be looked up by their bytes.

    Args:
        words: such that `is_plain` says yes, each once.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.size = len(words)
        listed = sorted((_key(word), index) for index, word in enumerate(words))
        self.index_W = np.array([index for _, index in listed])
        keys = np.array([key for key, _ in listed], dtype=np.uint64)
        self.mixed_W, self.first_W, self.second_W = np.ascontiguousarray(keys.T)
        self.lengths_of_start = np.zeros(1 << 16, dtype=np.uint16)
        for word in words:
            ends = (_SPACE, _FOREIGN, _OTHER) if len(word) == 1 else (ord(word[1]),)
            for second in ends:
                self.lengths_of_start[ord(word[0]) | second << 8] |= 1 << len(word)

    def find(
        self, first_C: UInt64[np.ndarray, " C"], second_C: UInt64[np.ndarray, " C"]
    ) -> tuple[Int[np.ndarray, " found"], Int[np.ndarray, " found"]]:
        """Which of the words, given by their bytes, are in the list, and where in it."""
        mixed_C = first_C * _FACTOR + second_C
        at_C = np.minimum(np.searchsorted(self.mixed_W, mixed_C), self.size - 1)
        found = np.flatnonzero(self.mixed_W[at_C] == mixed_C)
        at = at_C[found]
        same = (self.first_W[at] == first_C[found]) & (self.second_W[at] == second_C[found])
        return found[same], self.index_W[at[same]]


def is_plain(words: Sequence[str]) -> bool:
    """Whether all words are short and of ASCII letters, digits and underscores alone."""
    if not all(_PLAIN.fullmatch(word) for word in words):
        return False
    return len({_key(word)[0] for word in words}) == len(words)


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts end to end, one space before, between and after them, each byte by its class."""

    class_N: UInt8[np.ndarray, " N"]
    """A letter in lower case, a digit, an underscore, or what ends a word."""
    start_R: Int[np.ndarray, " R"]
    """Where each text begins."""
    foreign: UInt8[np.ndarray, "2 F"]
    """Each byte of characters beyond ASCII, and the one after it."""
    foreign_row: Int[np.ndarray, " F"]
    """The text that each is in."""

    def rows(self, place: Int[np.ndarray, " C"]) -> Int[np.ndarray, " C"]:
        """The text that each place lies in."""
        return _row(self.start_R, place)


def read_texts(column: pa.ChunkedArray) -> Texts:
    """The texts of a column without nulls."""
    texts = column.combine_chunks()
    every = pa.ListArray.from_arrays(pa.array([0, len(texts)], pa.int32()), texts)
    joined = pc.binary_join(every, "\n")[0].as_buffer().to_pybytes()
    lengths = pc.binary_length(texts).to_numpy().astype(np.int64)
    start_R = 1 + np.concatenate([[0], np.cumsum(lengths + 1)[:-1]])
    class_N = np.frombuffer(b" " + joined.translate(_CLASSES) + b" " * _LONGEST, np.uint8)
    place = np.flatnonzero(class_N == _FOREIGN)
    byte_N = np.frombuffer(joined + b"\n", np.uint8)
    return Texts(
        class_N=class_N,
        start_R=start_R,
        foreign=np.stack([byte_N[place - 1], byte_N[place]]),
        foreign_row=_row(start_R, place),
    )


def _row(start_R: Int[np.ndarray, " R"], place: Int[np.ndarray, " C"]) -> Int[np.ndarray, " C"]:
    row: np.ndarray = np.searchsorted(start_R, place, side="right") - 1
    return row


def count_pieces(texts: Texts) -> tuple[Int[np.ndarray, " R"], Bool[np.ndarray, " R"]]:
    """Pieces between white space of each text, and whether other white space may divide them."""
    filled_N = texts.class_N != _SPACE
    begins_N = np.zeros(len(filled_N), dtype=np.uint8)
    np.greater(filled_N[1:], filled_N[:-1], out=begins_N[1:].view(np.bool_))
    number_R = np.add.reduceat(begins_N, texts.start_R, dtype=np.int64)
    doubtful_R = np.zeros(len(number_R), dtype=bool)
    lead, after = texts.foreign
    # U+0085 and U+00A0, then whatever may be one of those from U+1680 on
    is_space = (lead == 0xC2) & ((after == 0x85) | (after == 0xA0))
    is_space |= np.isin(lead, (0xE1, 0xE3)) | ((lead == 0xE2) & (after <= 0x81))
    doubtful_R[texts.foreign_row[is_space]] = True
    return number_R, doubtful_R


def count_plain_words(
    texts: Texts, words: PlainWords
) -> tuple[Int[np.ndarray, "R W"], Bool[np.ndarray, " R"]]:
    """How often each word occurs as a whole word of each text, in any case.

    Args:
        texts: of `read_texts`.
        words: the list.

    Returns:
        The counts, and in which texts a character beyond ASCII beside a match may make the word
        longer than it: their counts cannot be trusted.
    """
    class_N, num_texts = texts.class_N, len(texts.start_R)
    place_C, length_C = _candidates(class_N, words)
    found, word = words.find(*_bytes_of_words(class_N, place_C, length_C))
    place, row = place_C[found], texts.rows(place_C[found])
    count = np.bincount(row * words.size + word, minlength=num_texts * words.size)
    before, after = class_N[place - 1], class_N[place + length_C[found]]
    doubtful_R = np.zeros(num_texts, dtype=bool)
    doubtful_R[row[(before == _FOREIGN) | (after == _FOREIGN)]] = True
    doubtful_R[_lowered_to_ascii(texts)] = True
    return count.reshape(num_texts, words.size), doubtful_R


def _lowered_to_ascii(texts: Texts) -> Int[np.ndarray, " C"]:
    """Texts with U+0130 or U+212A, which in lower case are letters of ASCII."""
    lead, after = texts.foreign
    chosen = ((lead == 0xC4) & (after == 0xB0)) | ((lead == 0xE2) & (after == 0x84))
    rows: np.ndarray = texts.foreign_row[chosen]
    return rows


def _candidates(
    class_N: UInt8[np.ndarray, " N"], words: PlainWords
) -> tuple[Int[np.ndarray, " C"], Int[np.ndarray, " C"]]:
    """Where a word has two first bytes and the length of one of the list, and how long it is."""
    is_word_N = class_N > _SPACE
    first = np.flatnonzero(np.greater(is_word_N[1:], is_word_N[:-1])) + 1
    lengths = words.lengths_of_start.take(_windows(class_N, "<u2").take(first))
    some = np.flatnonzero(lengths)
    place = first[some]
    length = _length(_windows(class_N, "<u8"), place)
    chosen = np.flatnonzero(lengths[some] >> length & 1)
    return place[chosen], length[chosen]


def _length(
    windows: UInt64[np.ndarray, " windows"], place_C: Int[np.ndarray, " C"]
) -> Int[np.ndarray, " C"]:
    """How many bytes of words follow from each place, 0 for as many as `_LONGEST`."""
    length_C = _leading(windows[place_C])
    long = np.flatnonzero(length_C == 8)
    length_C[long] += _leading(windows[place_C[long] + 8])
    length_C[length_C == _LONGEST] = 0
    return length_C


def _leading(window_C: UInt64[np.ndarray, " C"]) -> Int[np.ndarray, " C"]:
    """How many of the eight bytes, the lowest first, are of a word before one that is not."""
    # the highest bit of each byte: set for what ends a word; classes are below 0x80, so no carry
    ends_C = ~(window_C + _TO_HIGHEST) & _HIGHEST
    below_C = (ends_C & (~ends_C + np.uint64(1))) - np.uint64(1)
    leading_C: np.ndarray = np.bitwise_count(below_C).astype(np.int64) >> 3
    return leading_C


def _windows(class_N: UInt8[np.ndarray, " N"], dtype: str) -> Shaped[np.ndarray, " windows"]:
    """The bytes from each place on as one number, the first the lowest; unaligned."""
    size = np.dtype(dtype).itemsize
    return np.ndarray(len(class_N) - size + 1, dtype=dtype, buffer=class_N.data, strides=(1,))


def _bytes_of_words(
    class_N: UInt8[np.ndarray, " N"],
    place_C: Int[np.ndarray, " C"],
    length_C: Int[np.ndarray, " C"],
) -> tuple[UInt64[np.ndarray, " C"], UInt64[np.ndarray, " C"]]:
    """The first and the second eight bytes of each word, each as one number."""
    windows = _windows(class_N, "<u8")
    masks = np.array([(1 << 8 * size) - 1 for size in range(9)], dtype=np.uint64)
    first_C = windows[place_C] & masks[np.minimum(length_C, 8)]
    return first_C, windows[place_C + 8] & masks[np.maximum(length_C - 8, 0)]


def _key(word: str) -> tuple[int, int, int]:
    """The same of one word, after the number that it is looked up by."""
    first, second = (int.from_bytes(word.encode()[at : at + 8], "little") for at in (0, 8))
    return (first * int(_FACTOR) + second) % (1 << 64), first, second
