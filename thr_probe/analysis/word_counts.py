"""Counting the words of a list in completions: whole words in the text, or single tokens."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Bool, Int

from thr_probe.analysis.token_types import TOKENS_FILE, has_token_ids, strip_markers
from thr_probe.analysis.word_search import (
    PlainWords,
    Texts,
    count_pieces,
    count_plain_words,
    is_plain,
    read_texts,
)
from thr_probe.errors import DataError, UsageError
from thr_probe.traces.lists import list_values
from thr_probe.traces.reader import Run

MATCHING = {
    "match": "whole words in the decoded text, any case, each match counted once",
    "token": "tokens that are a word of the list, stripped and in lower case",
}
"""The units of counting, and what each counts."""

_TOTALS = ("completions", "reflecting", "matches", "tokens", "text_words", "without_ids")

Counter = Callable[[pa.Table, Texts], Int[np.ndarray, "R W"]]
"""Counts every word (axis W) in every completion (axis R) of a table."""


def read_words(path: str | Path) -> tuple[str, ...]:
    """A word list: one word or phrase a line; empty lines and lines that start with # are skipped.

    Raises:
        DataError: the file cannot be read, or holds no word.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise _not_utf8(path, f"byte {error.start} is {error.object[error.start]:#04x}") from error
    except OSError as error:
        raise DataError(
            f"{path} cannot be read as a word list: {error.strerror or error}",
            "name a text file that holds one word a line",
        ) from error
    if "\0" in text:  # UTF-16 without a mark reads as UTF-8, and its words would match nowhere
        raise _not_utf8(path, "it holds NUL characters")
    lines = text.splitlines()
    words = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not words:
        raise DataError(f"{path} holds no word", "write one word a line")
    return unique_words(words)


def _not_utf8(path: str | Path, reason: str) -> DataError:
    return DataError(
        f"{path} cannot be read as a word list: it is not UTF-8 text ({reason})",
        "save it as UTF-8, one word a line",
    )


def unique_words(words: Sequence[str]) -> tuple[str, ...]:
    """The words in lower case, single spaces inside phrases, each once, in their order.

    >>> unique_words(["Wait", "hold  on", "wait"])
    ('wait', 'hold on')
    """
    unique = tuple(dict.fromkeys(" ".join(word.lower().split()) for word in words))
    if not unique or "" in unique:
        raise UsageError("a word list needs at least one word, and no empty one")
    return unique


def word_pattern(words: Sequence[str]) -> re.Pattern[str]:
    """Matches any of the (lower-case) words as a whole word of a lower-case text.

    Where one listed phrase begins another, the longer one is matched.

    >>> word_pattern(["think", "wait", "wait a bit"]).findall("wait a bit, rethink, i think")
    ['wait a bit', 'think']
    """
    ordered = sorted(words, key=len, reverse=True)
    pieces = [r"\s+".join(re.escape(piece) for piece in word.split()) for word in ordered]
    return re.compile(rf"(?<!\w)(?:{'|'.join(pieces)})(?!\w)")


def count_words(run: Run, words: Sequence[str], *, unit: str = "match") -> pd.DataFrame:
    """Counts per question and label, streamed over all completions of a run.

    Args:
        run: the trace; text, token ids and labels are read.
        words: as `unique_words` gives them.
        unit: one of `MATCHING`.

    Returns:
        Index (prompt_id, correct); columns completions, reflecting (those with a match), matches,
        tokens, text_words (pieces of text between white space, counted only where a completion of
        the run lacks token ids), without_ids, and 0, 1 ... for the matches of each word.
    """
    has_ids = any("token_ids" in part.columns for part in run.rollout_parts)
    columns = ["prompt_id", "correct", "text", *(["token_ids"] if has_ids else [])]
    count = _token_counter(run, words) if unit == "token" else _text_counter(words)
    counts = _stream(run, columns, count, len(words), with_pieces=not has_ids)
    if has_ids and len(counts) and counts["without_ids"].any():  # some lack them: once more
        counts = _stream(run, columns, count, len(words), with_pieces=True)
    return counts


def _stream(
    run: Run, columns: Sequence[str], count: Counter, num_words: int, *, with_pieces: bool
) -> pd.DataFrame:
    keys, totals = [], []
    for table in run.iter_completions(columns):
        if not table.num_rows:
            continue
        texts = read_texts(table["text"])
        pieces_R = _pieces(table, texts) if with_pieces else np.zeros(table.num_rows, np.int64)
        found = _by_question(table, _counts(table, pieces_R, count(table, texts)))
        keys.append(found[0])
        totals.append(found[1])
    if not keys:
        return pd.DataFrame()
    frame = pd.DataFrame(np.concatenate(totals), columns=[*_TOTALS, *range(num_words)])
    index = pa.concat_tables(keys).to_pandas()
    counts: pd.DataFrame = frame.groupby([index["prompt_id"], index["correct"]], sort=False).sum()
    return counts


def _by_question(
    table: pa.Table, value_RC: Int[np.ndarray, "R C"]
) -> tuple[pa.Table, Int[np.ndarray, "K C"]]:
    """Question and label of some rows, in order of appearance, and their sums."""
    question_R = table["prompt_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    code_R = 2 * question_R.astype(np.int64) + table["correct"].to_numpy()
    _, first, local_R = np.unique(code_R, return_index=True, return_inverse=True)
    order = np.argsort(first)
    total_KC = np.zeros((len(first), value_RC.shape[1]), dtype=np.int64)
    np.add.at(total_KC, local_R, value_RC)
    return table.select(["prompt_id", "correct"]).take(pa.array(first[order])), total_KC[order]


def _counts(
    table: pa.Table, pieces_R: Int[np.ndarray, " R"], matches_RW: Int[np.ndarray, "R W"]
) -> Int[np.ndarray, "R C"]:
    """What is added up of each completion: `_TOTALS`, then the matches of each word."""
    total_R = matches_RW.sum(axis=1)
    lengths_R, has_ids_R = _lengths(table)
    one_R = np.ones(table.num_rows, dtype=np.int64)
    totals = (one_R, total_R > 0, total_R, lengths_R, pieces_R, ~has_ids_R)
    return np.column_stack([*totals, matches_RW]).astype(np.int64)


def _pieces(table: pa.Table, texts: Texts) -> Int[np.ndarray, " R"]:
    """Pieces of each text between white space."""
    pieces_R, doubtful_R = count_pieces(texts)
    for row in np.flatnonzero(doubtful_R):
        pieces_R[row] = len(table["text"][row].as_py().split())
    return pieces_R


def _lengths(table: pa.Table) -> tuple[Int[np.ndarray, " R"], Bool[np.ndarray, " R"]]:
    if "token_ids" not in table.column_names:
        return np.zeros(table.num_rows, dtype=np.int64), np.zeros(table.num_rows, dtype=bool)
    _, offsets = list_values(table["token_ids"])
    return np.diff(offsets), np.asarray(table["token_ids"].is_valid())


def _text_counter(words: Sequence[str]) -> Counter:
    place = {word: index for index, word in enumerate(words)}
    pattern = word_pattern(words)
    plain = PlainWords(words) if is_plain(words) else None

    def count(table: pa.Table, texts: Texts) -> Int[np.ndarray, "R W"]:
        if plain is not None:
            matches_RW, doubtful_R = count_plain_words(texts, plain)
        else:
            matches_RW = np.zeros((table.num_rows, len(words)), dtype=np.int64)
            doubtful_R = np.ones(table.num_rows, dtype=bool)
        for row in np.flatnonzero(doubtful_R):
            matches_RW[row] = 0
            for match in pattern.findall(table["text"][row].as_py().lower()):
                matches_RW[row, place[" ".join(match.split())]] += 1
        return matches_RW

    return count


def _token_counter(run: Run, words: Sequence[str]) -> Counter:
    tokens, has_ids = run.tokens(), has_token_ids(run)
    if tokens is None or not has_ids:
        lack = (
            f"{TOKENS_FILE} is missing from {run.path}, although its completions have token ids"
            if has_ids
            else f"{run.path} has no token ids"
        )
        raise DataError(
            f"{lack}, so single tokens cannot be counted",
            "count matches in the text instead (--unit match)",
        )
    place = {word: index for index, word in enumerate(words)}
    # one more entry than ids, so that an id beyond the table (never decoded) matches no word
    place_of_id_V = np.full(int(tokens["token_id"].max()) + 2, -1)
    for token_id, text in zip(tokens["token_id"], tokens["text"], strict=True):
        place_of_id_V[token_id] = place.get(strip_markers(text).lower(), -1)

    def count(table: pa.Table, _texts: Texts) -> Int[np.ndarray, "R W"]:
        id_N, offsets = list_values(table["token_ids"])
        row_N = np.repeat(np.arange(table.num_rows), np.diff(offsets))
        place_N = place_of_id_V[np.minimum(id_N, len(place_of_id_V) - 1)]
        cell_N = (row_N * len(words) + place_N)[place_N >= 0]
        counted = np.bincount(cell_N, minlength=table.num_rows * len(words))
        return counted.reshape(table.num_rows, len(words))

    return count
