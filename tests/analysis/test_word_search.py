"""Words found in bytes against the regular expression, on texts that try its corners."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest

from thr_probe.analysis.reflection import REFLECTION_WORDS
from thr_probe.analysis.word_counts import word_pattern
from thr_probe.analysis.word_search import (
    PlainWords,
    count_pieces,
    count_plain_words,
    is_plain,
    read_texts,
)

WORDS = (*REFLECTION_WORDS, "k", "i", "no", "x_1", "fifteen_letters", "not_with_16")
PIECES = (
    *WORDS, "WAIT", "Realize", "realizes", "unless1", "fifteen_letterss", " ", "  ", "\n", "\t",
    "\x1c", "\x85", "\xa0", "\u2009", "\u3000", ",", "-", "'", "≤", "é", "²", "İ", "\u212a", "𝑥",
    "thin", "\0",
)  # fmt: skip


@pytest.fixture(scope="module")
def texts() -> list[str]:
    draw = random.Random(0)
    made = ["".join(draw.choices(PIECES, k=draw.randrange(12))) for _ in range(4000)]
    return ["", "wait", *made, "", "but"]


def test_plain_words_are_counted_as_by_the_pattern(texts: list[str]) -> None:
    assert is_plain(WORDS)
    found_RW, doubtful_R = count_plain_words(
        read_texts(pa.chunked_array([texts[:7], texts[7:]])), PlainWords(WORDS)
    )
    pattern = word_pattern(WORDS)
    for row, text in enumerate(texts):
        if not doubtful_R[row]:
            matches = pattern.findall(text.lower())
            assert found_RW[row].tolist() == [matches.count(word) for word in WORDS], repr(text)
    beyond_ascii = np.array([not text.isascii() for text in texts])
    assert not doubtful_R[~beyond_ascii].any()
    assert 0 < doubtful_R.sum() < beyond_ascii.sum()


def test_pieces_are_those_of_split(texts: list[str]) -> None:
    number_R, doubtful_R = count_pieces(read_texts(pa.chunked_array([texts])))
    for row, text in enumerate(texts):
        assert doubtful_R[row] or number_R[row] == len(text.split()), repr(text)
    assert not doubtful_R.all()


@pytest.mark.parametrize("word", ["hold on", "don't", "naïve", "sixteen_letters_", ""])
def test_words_that_bytes_cannot_tell_are_not_plain(word: str) -> None:
    assert not is_plain(["wait", word])
