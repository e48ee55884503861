"""Token types: the words that tokens stand for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int, Shaped

from thr_probe.errors import DataError
from thr_probe.traces.reader import Run

TOKENS_FILE = "tokens.parquet"
_SPACE_MARKERS = "Ġ▁"
_UNLISTED = -2


def has_token_ids(run: Run) -> bool:
    """Whether any completion has token ids, whether or not their texts are known."""
    if not any("token_ids" in part.columns for part in run.rollout_parts):
        return False
    return any(
        table["token_ids"].null_count < table.num_rows
        for table in run.iter_completions(["token_ids"])
    )


def strip_markers(text: str) -> str:
    """A token's text without white space around it and without leading-space markers."""
    return text.strip().lstrip(_SPACE_MARKERS).strip()


def token_type(text: str, *, merge_case: bool = False) -> str | None:
    """The word a token stands for: its text without leading-space markers; None without a letter.

    >>> token_type(" Therefore"), token_type("Ġso"), token_type("=2"), token_type("x²")
    ('Therefore', 'so', None, 'x²')
    """
    word = strip_markers(text)
    if not any(character.isalpha() for character in word):
        return None
    return word.lower() if merge_case else word


@dataclass(frozen=True, slots=True)
class TokenTypes:
    """The token types of a run, each the index of its word."""

    words_T: Shaped[np.ndarray, " T"]
    """The words, each once."""
    of_id_V: Int[np.ndarray, " V"]
    """Type of every token id: -1 for a token without a letter, -2 for an id that is not listed."""

    @property
    def num_ids(self) -> int:
        """One more than the largest id that is listed."""
        return len(self.of_id_V)

    def counted(self, id_N: Int[np.ndarray, " N"]) -> Int[np.ndarray, " V"]:
        """How often each id occurs; one that tokens.parquet does not list is an error."""
        outside_N = (id_N < 0) | (id_N >= self.num_ids)
        if outside_N.any():
            raise _not_listed(id_N[outside_N])
        count_V = np.bincount(id_N, minlength=self.num_ids)
        missing = np.flatnonzero(count_V * (self.of_id_V == _UNLISTED))
        if len(missing):
            raise _not_listed(missing)
        return count_V

    def sums(self, value_V: Shaped[np.ndarray, " V"]) -> Float[np.ndarray, " T"]:
        """The sum over the ids of each type."""
        total: np.ndarray = np.bincount(
            self.of_id_V - _UNLISTED, value_V, minlength=len(self.words_T) - _UNLISTED
        )
        return total[-_UNLISTED:]

    def places(self, chosen: Int[np.ndarray, " chosen"]) -> Int[np.ndarray, " V"]:
        """For every id the place of its type among the chosen ones, -1 where it is not there."""
        # of the last entries the types -1 and -2 are read
        place_T = np.full(len(self.words_T) - _UNLISTED, -1)
        place_T[chosen] = np.arange(len(chosen))
        place_V: np.ndarray = place_T[self.of_id_V]
        return place_V


def _not_listed(id_N: Int[np.ndarray, " N"]) -> DataError:
    return DataError(
        f"tokens.parquet: token id {int(id_N[0])} is missing, but it occurs in the rollouts",
        "restore the file, or collect the run again",
    )


def token_types(tokens: pd.DataFrame, *, merge_case: bool = False) -> TokenTypes:
    """The types of the ids in tokens.parquet.

    Args:
        tokens: token_id and text.
        merge_case: whether words that differ in case only are one type.
    """
    ids = tokens["token_id"].to_numpy()
    words = [token_type(text, merge_case=merge_case) for text in tokens["text"]]
    index, words_T = pd.factorize(np.asarray(words, dtype=object))
    of_id_V = np.full(int(ids.max(initial=0)) + 1, _UNLISTED)
    of_id_V[ids] = index
    return TokenTypes(words_T, of_id_V)
