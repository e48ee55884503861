"""Verifiers: a completion and a gold become a reward, a verdict, and how it was reached."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Protocol, runtime_checkable

from thr_probe.errors import UsageError
from thr_probe.problems.equivalence import UndecidedError, same_answer
from thr_probe.problems.extract import answer_parts, extract_answer, gold_text
from thr_probe.problems.normalise import MAX_ANSWER
from thr_probe.problems.pool import Ending, Outcome, WorkerPool

Gold = str | tuple[str, ...]
"""One gold, or several of which any is right."""

ALGEBRA = "thr_probe.problems.algebra:judge"
MEMORY_BYTES = 2 << 30
"""What one comparison may take; an answer that wants more is an error, not the machine's end."""
# the commonest constructions: the grammar's tables are built as it meets them
_WARM_UP = ((r"\frac{a}{b}+\sqrt{2}x^{2}-3", r"(x-1)(y+2)"), (r"x+2y=1", r"y=-\frac{1}{2}x+5"))


class VerifyStatus(StrEnum):
    """How a verdict came about."""

    OK = "ok"
    """Compared."""
    TIMEOUT = "timeout"
    """The comparison took longer than its limit: not correct."""
    PARSE_FAIL = "parse_fail"
    """No answer in the completion, or one that is not readable: not correct."""
    ERROR = "error"
    """The comparing process ended, out of memory for instance: not correct."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a verifier says of one completion."""

    reward: float
    """The verifier's number, 0 or 1 for the built-in one."""
    correct: bool
    """Whether the completion counts as right."""
    extracted: str | None
    """The answer found in it; None without one, and for plug-ins."""
    status: VerifyStatus
    """How the verdict came about."""


@runtime_checkable
class Verifier(Protocol):
    """Judges completions; a context manager that stops its processes at the end."""

    name: str

    def verify(self, completions: Sequence[str], answers: Sequence[Gold]) -> list[Verdict]:
        """One verdict per completion, in order."""
        ...

    def close(self) -> None:
        """Stop what runs."""
        ...

    def __enter__(self) -> Verifier:
        """The verifier itself."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close."""
        ...


class _PoolVerifier:
    """What both verifiers share: a name, a pool, and its end."""

    def __init__(self, name: str, pool: WorkerPool) -> None:
        self.name = name
        self._pool = pool

    def close(self) -> None:
        """Stop the worker processes."""
        self._pool.close()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class MathVerifier(_PoolVerifier):
    """Our extraction and exact comparison first, math-verify in worker processes for the rest."""

    def __init__(self, *, num_workers: int = 2, limit_s: float = 5.0) -> None:
        pool = WorkerPool(
            ALGEBRA,
            num_workers=num_workers,
            limit_s=limit_s,
            memory_bytes=MEMORY_BYTES,
            warm_up=_WARM_UP,
            quiet=True,
        )
        super().__init__("math", pool)

    def __enter__(self) -> MathVerifier:
        return self

    def verify(self, completions: Sequence[str], answers: Sequence[Gold]) -> list[Verdict]:
        """Reward 1 where the extracted answer equals a gold; an empty gold or answer never does."""
        extracted = [extract_answer(completion) for completion in completions]
        pairs = [
            list(_candidate_pairs(completion, answer, found))
            for completion, answer, found in zip(completions, answers, extracted, strict=True)
        ]
        judged = self._judge({pair for row in pairs for pair in row})
        return [
            _verdict(found, [judged[pair] for pair in row])
            for found, row in zip(extracted, pairs, strict=True)
        ]

    def _judge(self, pairs: set[tuple[str, str]]) -> dict[tuple[str, str], _Judgement]:
        """Every distinct pair once: here where that is quick, in the workers where not."""
        judged: dict[tuple[str, str], _Judgement] = {}
        open_pairs = []
        for pair in sorted(pairs):
            try:
                judged[pair] = (same_answer(*pair), _quick_status(*pair))
            except UndecidedError:
                open_pairs.append(pair)
        for pair, outcome in zip(open_pairs, self._pool.map(open_pairs), strict=True):
            judged[pair] = _algebra_judgement(outcome)
        return judged


_Judgement = tuple[bool, VerifyStatus]


def _candidate_pairs(completion: str, answer: Gold, found: str | None) -> Iterable[tuple[str, str]]:
    """(gold, answer) pairs of which any may agree.

    A gold of several parts may be given in several boxes, a gold of one part only in the last.
    """
    if found is None:
        return
    for gold in (answer,) if isinstance(answer, str) else answer:
        text = gold_text(gold)
        if not text:
            continue
        yield text, found
        if "boxed" in completion and any(mark in text for mark in (",", ";", "and", "or", "\\pm")):
            parts = answer_parts(completion)
            if len(parts) > 1:
                yield text, ", ".join(parts)


def _quick_status(gold: str, found: str) -> VerifyStatus:
    too_long = len(found) > MAX_ANSWER and found.strip() != gold.strip()
    return VerifyStatus.PARSE_FAIL if too_long else VerifyStatus.OK


def _algebra_judgement(outcome: Outcome) -> _Judgement:
    if outcome.ending is Ending.OK:
        status = VerifyStatus.PARSE_FAIL if outcome.value == "unparsed" else VerifyStatus.OK
        return outcome.value == "equal", status
    return False, VerifyStatus.TIMEOUT if outcome.ending is Ending.TIMEOUT else VerifyStatus.ERROR


def _verdict(found: str | None, judged: list[_Judgement]) -> Verdict:
    correct = any(equal for equal, _ in judged)
    statuses = {status for _, status in judged}
    if correct:
        status = VerifyStatus.OK
    elif not judged:
        status = VerifyStatus.PARSE_FAIL
    else:
        worst = (VerifyStatus.TIMEOUT, VerifyStatus.ERROR, VerifyStatus.OK)
        status = next((each for each in worst if each in statuses), VerifyStatus.PARSE_FAIL)
    return Verdict(reward=float(correct), correct=correct, extracted=found, status=status)


class PluginVerifier(_PoolVerifier):
    """A user's function(completion, answer) -> float or bool, in worker processes under a limit."""

    def __init__(
        self,
        function: str,
        *,
        correct_above: float | None = None,
        num_workers: int = 2,
        limit_s: float = 5.0,
    ) -> None:
        pool = WorkerPool(function, num_workers=num_workers, limit_s=limit_s)
        super().__init__(function, pool)
        self.correct_above = correct_above
        self._pool.start()

    def __enter__(self) -> PluginVerifier:
        return self

    def verify(self, completions: Sequence[str], answers: Sequence[Gold]) -> list[Verdict]:
        """The function's rewards; correct where they lie above `correct_above`, or are 1."""
        golds = [answer if isinstance(answer, str) else answer[0] for answer in answers]
        outcomes = self._pool.map(list(zip(completions, golds, strict=True)))
        return [self._verdict(index, outcome) for index, outcome in enumerate(outcomes)]

    def _verdict(self, index: int, outcome: Outcome) -> Verdict:
        if outcome.ending is Ending.RAISED:
            raise UsageError(
                f"the verifier {self.name!r} raised on completion {index}: {outcome.value}",
                hint="repair the function: a completion it cannot judge gets its lowest reward",
            )
        if outcome.ending is not Ending.OK:
            timed_out = outcome.ending is Ending.TIMEOUT
            status = VerifyStatus.TIMEOUT if timed_out else VerifyStatus.ERROR
            return Verdict(reward=0.0, correct=False, extracted=None, status=status)
        reward = self._reward(outcome.value)
        above = 0.5 if self.correct_above is None else self.correct_above
        return Verdict(
            reward=reward, correct=reward > above, extracted=None, status=VerifyStatus.OK
        )

    def _reward(self, value: float | str) -> float:
        if isinstance(value, str) or not math.isfinite(value):
            raise UsageError(f"the verifier {self.name!r} returned {value!r}, not a finite number")
        if self.correct_above is None and value not in (0.0, 1.0):
            raise UsageError(
                f"the verifier {self.name!r} returned {value}, which is neither 0 nor 1",
                hint="say from where on a completion is correct: --correct-above VALUE",
            )
        return value


def load_verifier(
    spec: str,
    *,
    correct_above: float | None = None,
    num_workers: int = 2,
    limit_s: float = 5.0,
) -> Verifier:
    """The verifier a name means: "math", or a plug-in "module:function" from here or the path."""
    if spec == "math":
        if correct_above is not None:
            raise UsageError(
                "--correct-above does not apply to the verifier 'math': its rewards are 0 and 1"
            )
        return MathVerifier(num_workers=num_workers, limit_s=limit_s)
    module, colon, function = spec.partition(":")
    if not (module and colon and function):
        raise UsageError(
            f"unknown verifier {spec!r}", hint="use math, or module:function for one of your own"
        )
    return PluginVerifier(
        spec, correct_above=correct_above, num_workers=num_workers, limit_s=limit_s
    )
