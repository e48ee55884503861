"""Completions on their way from foreign files, where a group lies scattered, to the run's parts.

They wait in a temporary SQLite file: memory holds the groups' keys and counts, never completions.
"""

from __future__ import annotations

import contextlib
import sqlite3
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from thr_probe.errors import DataError

_TABLES = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA cache_size = -32768;
CREATE TABLE prompts (place INTEGER PRIMARY KEY, question TEXT, prompt_text TEXT, answer TEXT,
    answer_alt TEXT, token_ids BLOB, dataset TEXT, level TEXT);
CREATE TABLE completions (place INTEGER, rollout INTEGER, text TEXT, token_ids BLOB, logprobs BLOB,
    reward REAL, correct INTEGER, extracted TEXT, verifier TEXT, finish_reason TEXT, seed INTEGER);
CREATE UNIQUE INDEX in_order ON completions (place, rollout);
"""
_COMPLETION = "text, token_ids, logprobs, reward, correct, extracted, verifier, finish_reason, seed"


@dataclass(slots=True, kw_only=True)
class SpooledPrompt:
    """What the completions of a group share."""

    question: str
    """The question alone."""
    prompt_text: str
    """What the policy continued."""
    answer: str | None
    """The gold answer."""
    answer_alt: str | None
    """A second accepted form of it."""
    token_ids: Sequence[int] | None
    """Of the prompt."""
    dataset: str | None
    """Problem set."""
    level: str | None
    """Difficulty or kind."""

    @property
    def accepted_answers(self) -> tuple[str, ...]:
        """Every gold a completion may match."""
        return tuple(each for each in (self.answer, self.answer_alt) if each)


@dataclass(slots=True, kw_only=True)
class Spooled:
    """A completion that was checked; None where the files do not say."""

    text: str
    """The completion."""
    token_ids: Sequence[int] | None
    """The sampled ids."""
    logprobs: Sequence[float] | None
    """One per id, in nats."""
    reward: float | None
    """Of the source; None: to be graded."""
    correct: bool | None
    """Of the source; None: to be graded."""
    extracted: str | None
    """The answer that the source found."""
    verifier: str | None
    """What judged for the source."""
    finish_reason: str | None
    """stop, length or abort."""
    seed: int | None
    """That it was drawn with."""


class Spool:
    """A temporary file of completions by group; removed when the block ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None

    def __enter__(self) -> Spool:
        self._remove()  # of a killed process
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(self._path, isolation_level=None)
            self._connection.executescript(_TABLES)
            self._connection.execute("BEGIN")
        except (OSError, sqlite3.Error) as error:
            self._close()
            raise self._error(error) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()

    def add_prompt(self, place: int, prompt: SpooledPrompt) -> None:
        """Store what group number `place` shares."""
        texts = (prompt.question, prompt.prompt_text, prompt.answer, prompt.answer_alt)
        rest = (_packed("i", prompt.token_ids), prompt.dataset, prompt.level)
        query = "INSERT INTO prompts VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        self._execute(query, (place, *texts, *rest))

    def add(self, place: int, rollout: int, row: Spooled) -> bool:
        """Store a completion; False where the group has one of that number."""
        lists = (_packed("i", row.token_ids), _packed("f", row.logprobs))
        judged = (row.reward, row.correct, row.extracted, row.verifier)
        values = (place, rollout, row.text, *lists, *judged, row.finish_reason, row.seed)
        marks = ", ".join("?" * len(values))
        cursor = self._execute(f"INSERT OR IGNORE INTO completions VALUES ({marks})", values)
        return cursor.rowcount == 1

    def prompt(self, place: int) -> SpooledPrompt:
        """What a group shares."""
        cursor = self._execute("SELECT * FROM prompts WHERE place = ?", (place,))
        _, question, prompt_text, answer, answer_alt, ids, dataset, level = cursor.fetchone()
        return SpooledPrompt(
            question=question,
            prompt_text=prompt_text,
            answer=answer,
            answer_alt=answer_alt,
            token_ids=_unpacked("i", ids),
            dataset=dataset,
            level=level,
        )

    def completions(self, place: int) -> Iterator[Spooled]:
        """The completions of a group, by rollout."""
        query = f"SELECT {_COMPLETION} FROM completions WHERE place = ? ORDER BY rollout"
        for text, ids, logprobs, reward, correct, *others in self._execute(query, (place,)):
            extracted, verifier, finish_reason, seed = others
            yield Spooled(
                text=text,
                token_ids=_unpacked("i", ids),
                logprobs=_unpacked("f", logprobs),
                reward=reward,
                correct=None if correct is None else bool(correct),
                extracted=extracted,
                verifier=verifier,
                finish_reason=finish_reason,
                seed=seed,
            )

    def _execute(self, query: str, values: Sequence[object]) -> sqlite3.Cursor:
        if self._connection is None:
            raise AssertionError("a spool is used inside its block")
        try:
            return self._connection.execute(query, values)
        except sqlite3.Error as error:
            raise self._error(error) from error

    def _error(self, error: Exception) -> DataError:
        return DataError(
            f"could not write the temporary file {self._path}: {error}",
            "it takes about as much room as the files' texts: free some space, or choose another "
            "disk with -o",
        )

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._remove()

    def _remove(self) -> None:
        for ending in ("", "-journal"):
            with contextlib.suppress(OSError):
                self._path.with_name(self._path.name + ending).unlink()


def _packed(code: str, values: Sequence[int] | Sequence[float] | None) -> bytes | None:
    return None if values is None else array(code, values).tobytes()


def _unpacked(code: str, data: bytes | None) -> Any:
    if data is None:
        return None
    values: Any = array(code)
    values.frombytes(data)
    return values
