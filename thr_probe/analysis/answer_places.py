"""Where the answer stands in a completion: the tokens that hold its last occurrence.

Letters of shapes: R completions, N tokens, V token types.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Int

from thr_probe.analysis.stream import Batch


class AnswerFinder:
    """Finds the first token of the last occurrence of each completion's extracted answer.

    It is looked for in the bytes of the tokens, so that text and tokens need not agree. An answer
    that begins or ends with a letter or digit must not continue there: the 6 of 56 is no 6.

    Args:
        tokens: of the run, columns `token_id` (ascending) and `bytes`.
    """

    def __init__(self, tokens: pd.DataFrame) -> None:
        pieces = tokens["bytes"].tolist()
        self._ids_V = tokens["token_id"].to_numpy()
        self._size_V = np.array([len(piece) for piece in pieces], dtype=np.int64)
        self._start_V = np.cumsum(self._size_V) - self._size_V
        self._content = np.frombuffer(b"".join(pieces), dtype=np.uint8)

    def places(self, batch: Batch) -> Int[np.ndarray, " R"]:
        """The token's index in its completion, -1 where there is no answer or it is not found.

        Args:
            batch: with the tokens' `token_ids` and the completions' `extracted`.
        """
        place_R = np.full(len(batch.lengths), -1, dtype=np.int64)
        id_N = batch.tokens["token_ids"]
        if len(id_N) != batch.offsets[-1] or not len(self._ids_V):
            return place_R  # ids are absent for some of these completions
        type_N = np.minimum(np.searchsorted(self._ids_V, id_N), len(self._ids_V) - 1)
        size_N = np.where(self._ids_V[type_N] == id_N, self._size_V[type_N], 0)
        text, end_N = self._text(type_N, size_N), np.cumsum(size_N)
        bounds = np.concatenate([[0], end_N])[batch.offsets].tolist()
        for row, answer in enumerate(batch.completions["extracted"]):
            if not isinstance(answer, str) or not answer.strip():
                continue
            low, high = bounds[row], bounds[row + 1]
            found = last_whole(text[low:high], answer.strip().encode())
            if found >= 0:
                token = int(np.searchsorted(end_N, low + found, side="right"))
                place_R[row] = token - batch.offsets[row]
        return place_R

    def _text(self, type_N: Int[np.ndarray, " N"], size_N: Int[np.ndarray, " N"]) -> bytes:
        """The bytes of all tokens, end to end."""
        shift_N = self._start_V[type_N] - (np.cumsum(size_N) - size_N)
        content: bytes = self._content[
            np.arange(size_N.sum()) + np.repeat(shift_N, size_N)
        ].tobytes()
        return content


def last_whole(text: bytes, answer: bytes) -> int:
    """Where the last occurrence begins that is not part of a longer word or number, or -1.

    >>> last_whole(b"6 or 56", b"6"), last_whole(b"{7}", b"7"), last_whole(b"x", b"y")
    (0, 1, -1)
    """
    end = len(text)
    while (place := text.rfind(answer, 0, end)) >= 0:
        after = place + len(answer)
        neighbours: Sequence[bytes] = (
            text[max(place - 1, 0) : place] + answer[:1] if place else b"",
            answer[-1:] + text[after : after + 1] if after < len(text) else b"",
        )
        if not any(pair.isalnum() for pair in neighbours):
            return place
        end = after - 1
    return -1
