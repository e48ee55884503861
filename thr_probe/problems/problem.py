"""What a problem is, and a set of them with its digest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One question as it is put to the policy, with its gold answer."""

    prompt_id: str
    """First 16 hex digits of SHA-256 over question, NUL, prompt_text."""
    dataset: str
    """Name of the set it came from."""
    level: str | None
    """Difficulty as the set states it; None where it does not."""
    question: str
    """The question alone."""
    prompt_text: str
    """What the policy is given: the question in its template."""
    answer: str
    """The gold answer, never empty."""
    answer_alt: str | None = None
    """A second published gold of the same problem, equally right; None where there is none."""

    @property
    def accepted_answers(self) -> tuple[str, ...]:
        """Every gold a completion may match; the verifier takes it in place of one answer."""
        return (self.answer,) if self.answer_alt is None else (self.answer, self.answer_alt)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemSet:
    """Problems in the order in which they are worked on."""

    name: str
    """Name of the set."""
    problems: tuple[Problem, ...]
    """The problems, each prompt_id once."""
    digest: str
    """SHA-256 over prompt_ids and golds, in order."""
    num_empty_gold: int
    """Rows left out because their gold is empty: nothing could be right."""
    num_duplicates: int
    """Rows left out because an earlier row has the same prompt."""


def prompt_id(question: str, prompt_text: str) -> str:
    """First 16 hex digits of SHA-256 over question, NUL, prompt_text.

    >>> prompt_id("1+1?", "Question: 1+1?")
    '55997792ff66d88b'
    """
    return _sha256(f"{question}\0{prompt_text}")[:16]


def problems_digest(problems: Iterable[Problem]) -> str:
    """SHA-256 over prompt_ids and golds, in order: equal digests mean equal work."""
    lines = (
        f"{problem.prompt_id}\0{chr(0).join(problem.accepted_answers)}" for problem in problems
    )
    return _sha256("\n".join(lines))


def _sha256(text: str) -> str:
    # surrogatepass: a question with a lone surrogate is odd, not a reason to stop
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
