"""Token types: the words that tokens stand for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Int, Shaped

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

    def of(self, id_N: Int[np.ndarray, " N"]) -> Int[np.ndarray, " N"]:
        """The type of every token; an id that tokens.parquet does not list is an error."""
        # the last entry answers for every id beyond the table
        type_N: np.ndarray = self.of_id_V.take(id_N.astype(np.int64), mode="clip")
        if len(type_N) and type_N.min() == _UNLISTED:
            raise DataError(
                f"tokens.parquet: token id {int(id_N[type_N == _UNLISTED][0])} is missing, "
                "but it occurs in the rollouts",
                "restore the file, or collect the run again",
            )
        return type_N


def token_types(tokens: pd.DataFrame, *, merge_case: bool = False) -> TokenTypes:
    """The types of the ids in tokens.parquet.

    Args:
        tokens: token_id and text.
        merge_case: whether words that differ in case only are one type.
    """
    ids = tokens["token_id"].to_numpy()
    words = [token_type(text, merge_case=merge_case) for text in tokens["text"]]
    index, words_T = pd.factorize(np.asarray(words, dtype=object))
    # as small as the types allow, so that a large vocabulary stays in the processor's cache
    dtype = np.min_scalar_type(min(-len(words_T), _UNLISTED))
    of_id_V = np.full(int(ids.max(initial=0)) + 2, _UNLISTED, dtype=dtype)
    of_id_V[ids] = index
    return TokenTypes(words_T, of_id_V)
