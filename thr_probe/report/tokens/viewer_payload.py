"""The numbers of the token viewer as text that a page can carry: packed, gzipped, base64.

One element holds the index (JSON), one each group's numbers, so that a group is unpacked when it is
looked at. A group is a row of planes of one byte a token, which gzip shrinks better than whole
numbers; `PLANES` tells how many each column has.
"""

from __future__ import annotations

import base64
import gzip
import json
import math

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from thr_probe.analysis.token_classes import read_scheme
from thr_probe.errors import DataError
from thr_probe.report.tokens.pieces import display_pieces, printable
from thr_probe.report.tokens.viewer_data import ViewedGroup, ViewerData
from thr_probe.traces import Run

INDEX = "tv-index"
"""Id of the element with the index."""

PLANES = {"rank": 3, "thr": 4, "entropy": 3, "logprob": 3}
PLANES |= dict.fromkeys(("thr_self", "thr_within", "thr_error"), 3)
"""Bytes of each token in each column, in the order of the file: `rank` is the place of the token
in the index's vocabulary (unsigned), `thr` a float32, the others a decimal number of
`SIGNIFICANT` digits: digits (int16), then places behind the point (int8). Little-endian, and the
lowest byte's plane first."""

TAU_FACTORS = 10.0 ** (np.arange(-100, 101) / 50)
"""The factors of tau that the viewer's slider has."""

SIGNIFICANT = {"thr_error": 2}
"""Digits of a decimal number that are kept; 4 where not told."""
_MOST_PLACES = {"entropy": 5, "logprob": 5}


def payload(run: Run, data: ViewerData) -> dict[str, str]:
    """The elements of the page: id and base64 text.

    Raises:
        DataError: tokens.parquet lacks an id that occurs.
    """
    vocabulary = _Vocabulary(data)
    packed = {INDEX: _packed(json.dumps(_index(run, data, vocabulary), allow_nan=False).encode())}
    for number, group in enumerate(data.groups):
        packed[f"tv-group-{number}"] = _packed(group_bytes(group, vocabulary.ranks(group)))
    return packed


def group_bytes(group: ViewedGroup, rank_N: Int[np.ndarray, " N"]) -> bytes:
    """The planes of a group, one after the other."""
    planes = [_planes(rank_N.astype("<u4"))[: PLANES["rank"] * len(rank_N)]]
    for name in PLANES:
        if name == "thr" and name in group.columns:
            planes.append(_planes(short_thr(group.columns[name], group.tau).astype("<f4")))
        elif name in group.columns:
            digits_N, places_N = decimals(
                group.columns[name],
                significant=SIGNIFICANT.get(name, 4),
                most_places=_MOST_PLACES.get(name),
            )
            planes += [_planes(digits_N.astype("<i2")), _planes(places_N)]
    return np.concatenate(planes).tobytes()


def short_thr(thr_N: Float[np.ndarray, " N"], tau: float | None) -> Float[np.ndarray, " N"]:
    """THR with as many of its last bits 0 as change nothing that the viewer tells.

    That is four significant digits of THR and of THR / tau, and whether |THR| > c tau for any c of
    `TAU_FACTORS`. Of the gzipped bytes of THR a third is saved.

    Args:
        thr_N: float32.
        tau: the threshold; None where it is undefined.
    """
    bits_N = thr_N.astype("<f4").view("<u4")
    short_N = thr_N.astype("<f4")
    for dropped in range(1, 15):
        half, kept = np.uint32(1 << (dropped - 1)), np.uint32(2**32 - 2**dropped)
        rounded_N = ((bits_N + half) & kept).view("<f4")
        short_N = np.where(_told_alike(thr_N, rounded_N, tau), rounded_N, short_N)
    return short_N


def _told_alike(
    left_N: Float[np.ndarray, " N"], right_N: Float[np.ndarray, " N"], tau: float | None
) -> Bool[np.ndarray, " N"]:
    same_N = _same_digits(left_N, right_N)
    if tau is None or not math.isfinite(tau) or tau <= 0:
        return same_N
    ratios = [value_N.astype(np.float64) / tau for value_N in (left_N, right_N)]
    limits = TAU_FACTORS * tau
    passed = [
        np.searchsorted(limits, np.abs(value_N).astype(np.float64)) for value_N in (left_N, right_N)
    ]
    same_N &= _same_digits(*ratios) & (passed[0] == passed[1])
    return same_N


def _same_digits(
    left_N: Float[np.ndarray, " N"], right_N: Float[np.ndarray, " N"]
) -> Bool[np.ndarray, " N"]:
    pairs = zip(decimals(left_N, significant=4), decimals(right_N, significant=4), strict=True)
    same_N: np.ndarray = np.all([left == right for left, right in pairs], axis=0)
    return same_N


def decimals(
    value_N: Float[np.ndarray, " N"], *, significant: int, most_places: int | None = None
) -> tuple[Int[np.ndarray, " N"], Int[np.ndarray, " N"]]:
    """Numbers rounded to some significant digits: value = digits / 10^places.

    Args:
        value_N: finite numbers.
        significant: how many digits are kept, at most 4.
        most_places: never more than these behind the point; no limit by default.

    Returns:
        digits (int16) and places (int8; negative for numbers of more digits before the point).
    """
    value_N = value_N.astype(np.float64)
    size_N = np.abs(value_N)
    with np.errstate(divide="ignore"):
        leading_N = np.where(size_N > 0, np.floor(np.log10(size_N)), 0)
    places_N = significant - 1 - leading_N
    if most_places is not None:
        places_N = np.minimum(places_N, most_places)
    digits_N = np.rint(value_N * 10.0**places_N)
    # 9.9996 has one digit more once it is rounded
    carried_N = np.abs(digits_N) >= 10**significant
    places_N = places_N - carried_N
    digits_N = np.where(carried_N, np.rint(value_N * 10.0**places_N), digits_N)
    return digits_N.astype(np.int16), places_N.astype(np.int8)


class _Vocabulary:
    """The ids that occur in the groups shown, the most frequent first."""

    def __init__(self, data: ViewerData) -> None:
        count_V = np.bincount(np.concatenate([group.token_ids_N for group in data.groups]))
        order = np.argsort(-count_V, kind="stable")
        self.ids: list[int] = order[: int((count_V > 0).sum())].tolist()
        listed = dict(zip(data.tokens["token_id"].tolist(), data.tokens["bytes"], strict=True))
        missing = [token_id for token_id in self.ids if token_id not in listed]
        if missing:
            raise DataError(
                f"tokens.parquet: token id {missing[0]} is missing, but it occurs in the rollouts",
                "restore the file, or collect the run again",
            )
        self.bytes = [listed[token_id] for token_id in self.ids]
        self.texts = [
            printable(held.decode("utf-8", errors="backslashreplace")) for held in self.bytes
        ]
        text_of = dict(zip(data.tokens["token_id"].tolist(), data.tokens["text"], strict=True))
        lexical = read_scheme("lexical")
        self.classes = [lexical.of(text_of[token_id]) for token_id in self.ids]
        self._rank_V = np.full(len(count_V), -1)
        self._rank_V[self.ids] = np.arange(len(self.ids))
        self._is_whole_V = np.array([_is_whole(held) for held in self.bytes], dtype=bool)

    def ranks(self, group: ViewedGroup) -> Int[np.ndarray, " N"]:
        """The place of each of a group's tokens in this vocabulary."""
        rank_N: np.ndarray = self._rank_V[group.token_ids_N]
        return rank_N

    def joined(self, group: ViewedGroup) -> list[tuple[int, int, str]]:
        """The pieces that take several tokens: first token, number of tokens, text."""
        rank_N = self.ranks(group)
        part_N = ~self._is_whole_V[rank_N]
        joined = []
        first = 0
        for completion in group.completions:
            stop = first + int(str(completion["length"]))
            edges = np.flatnonzero(np.diff(part_N[first:stop], prepend=False, append=False))
            for low, high in (first + edges).reshape(-1, 2).tolist():
                pieces = display_pieces([self.bytes[rank] for rank in rank_N[low:high]])
                joined += [
                    (low + piece.first, piece.num_tokens, piece.text)
                    for piece in pieces
                    if piece.num_tokens > 1
                ]
            first = stop
        return joined


def _is_whole(data: bytes) -> bool:
    """Whether a token is a piece of its own beside any other."""
    return bool(data) and "\ufffd" not in data.decode("utf-8", errors="replace")


def _planes(value_N: np.ndarray) -> UInt8[np.ndarray, " bytes"]:
    """The numbers' lowest bytes, then the next ones, and so on."""
    planes: np.ndarray = value_N.view(np.uint8).reshape(len(value_N), -1).T.reshape(-1)
    return planes


def _packed(data: bytes) -> str:
    # without a time the same run gives the same page
    return base64.b64encode(gzip.compress(data, compresslevel=9, mtime=0)).decode()


def _index(run: Run, data: ViewerData, vocabulary: _Vocabulary) -> dict[str, object]:
    return {
        "run": run.path.resolve().name,
        "model": run.manifest.model,
        "score_id": data.score_id,
        "planes": PLANES,
        "ids": vocabulary.ids,
        "texts": vocabulary.texts,
        "classes": vocabulary.classes,
        "groups": [_group_index(group, data, vocabulary) for group in data.groups],
    }


def _group_index(
    group: ViewedGroup, data: ViewerData, vocabulary: _Vocabulary
) -> dict[str, object]:
    problem = data.problems[group.prompt_id]
    named = {name: _plain(problem[name]) for name in ("dataset", "level", "question", "answer")}
    return named | {
        "id": group.prompt_id,
        "step": group.step,
        "q": _plain(group.q),
        "tau": _plain(group.tau),
        "balance": group.balance,
        "retained": group.retained,
        "columns": [name for name in PLANES if name in group.columns],
        "completions": [
            {name: _plain(value) for name, value in completion.items()}
            for completion in group.completions
        ],
        "joined": vocabulary.joined(group),
    }


def _plain(value: object) -> object:
    """A value as JSON has it: an infinite number as its name, NaN as null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else ("-Infinity" if value < 0 else "Infinity")
    return value
