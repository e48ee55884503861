"""The vocabulary of the generated trace: words, pieces of words, digits, signs, LaTeX, by rank."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from thr_probe.analysis.reflection import REFLECTION_WORDS

SIZE = 20_000
_IDS = 151_936
_FREQUENT = (
    " the", " is", ",", " =", ".", " of", " and", " to", " we", " a", "1", "2", "0", "3", " in",
    "\n\n", " that", "4", "5", " +", "x", " x", "}", "{", "\\", "^", "(", ")", "frac", " -", "$",
    " $", "6", "8", "7", "9", " for", " so", " this", " are", " can", " by", " be", ":\n", " from",
    " if", " have", " with", "sqrt", "n", " n", "boxed", " let", " as", " number", " equation",
    " then", " value", " Let", " The", " So", " Therefore", " because", " since", " we're",
)  # fmt: skip
# one completion in about six holds a character beyond ASCII
_SIGNS = {300: " ≤", 500: " −", 700: "×", 900: " √"}
_ONSETS = ("b", "br", "c", "ch", "d", "f", "g", "gr", "l", "m", "n", "p", "pr", "r", "s", "st", "v")
_VOWELS = ("a", "e", "i", "o", "u", "ea", "ou")
_CODAS = ("", "n", "r", "s", "l", "t", "nd", "ng")


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """Tokens by falling frequency."""

    texts: list[str]
    """What each token decodes to."""
    ids_V: np.ndarray
    """Its id."""
    share_V: np.ndarray
    """How often it occurs up to and including its rank, as a share of all tokens."""

    def draw(self, rng: np.random.Generator, size: int) -> np.ndarray:
        """Ranks of that many tokens."""
        return np.searchsorted(self.share_V, rng.random(size))

    def joined(self, place_N: np.ndarray) -> str:
        """The text of some tokens, given by rank."""
        return "".join([self.texts[place] for place in place_N.tolist()])

    def table(self) -> pa.Table:
        """Rows of tokens.parquet."""
        return pa.table(
            {
                "token_id": pa.array(self.ids_V),
                "bytes": pa.array([text.encode() for text in self.texts], pa.binary()),
                "text": pa.array(self.texts, pa.string()),
            }
        )


def vocabulary() -> Vocabulary:
    """The same 20,000 tokens every time; frequent ones have small ids, as byte pairs have."""
    weight_V = 1 / (np.arange(SIZE) + 2.7) ** 1.05
    share_V = np.cumsum(weight_V)
    chosen = np.random.default_rng(0).choice(_IDS, SIZE, replace=False)
    return Vocabulary(
        texts=list(itertools.islice(dict.fromkeys(_texts()), SIZE)),
        ids_V=np.sort(chosen).astype(np.int32),
        share_V=share_V / share_V[-1],
    )


def _texts() -> Iterator[str]:
    """Texts by rank; from rank 60 on, every fortieth is a reflection word, in two spellings."""
    yield from _FREQUENT
    reflecting = itertools.chain(
        (f" {word}" for word in REFLECTION_WORDS), (f" {word.title()}" for word in REFLECTION_WORDS)
    )
    for number, word in enumerate(_words()):
        if number % 40 == 0:
            yield from itertools.islice(reflecting, 1)
        if number in _SIGNS:
            yield _SIGNS[number]
        yield word if number % 7 == 0 else f" {word.title() if number % 11 == 0 else word}"


def _words() -> Iterator[str]:
    """Invented words of one and of two syllables."""
    syllables = ["".join(parts) for parts in itertools.product(_ONSETS, _VOWELS, _CODAS)]
    shuffled = np.random.default_rng(1).permutation(syllables).tolist()
    yield from shuffled
    for first, second in itertools.product(shuffled, shuffled):
        yield first + second
