"""One question of a run with its completions, piece by piece, for the terminal and for Figure 1."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from thr_probe.errors import DataError, UsageError
from thr_probe.report.tokens.pieces import Piece, display_pieces
from thr_probe.traces import Run

BY = ("thr", "thr-tau", "entropy", "logprob", "advantage")
"""What tokens can be coloured by."""
_COLUMNS = ("step", "prompt_id", "rollout_id", "correct", "extracted", "token_ids")
_SCORES = ("advantage", "tau", "thr", "entropy", "logprob")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownCompletion:
    """One completion with its numbers."""

    rollout_id: int
    """Within its group."""
    step: int | None
    """Of training; None outside."""
    correct: bool
    """The verifier's verdict."""
    extracted: str | None
    """The answer that the verifier found."""
    advantage: float
    """Of the completion, GRPO."""
    tau: float
    """Threshold of the group; NaN where no completion is correct."""
    token_ids: tuple[int, ...]
    """The tokens."""
    pieces: tuple[Piece, ...]
    """The same as text: whole characters."""
    thr_N: Float[np.ndarray, " N"]
    """NaN where no completion is correct."""
    entropy_N: Float[np.ndarray, " N"]
    """Nats."""
    logprob_N: Float[np.ndarray, " N"]
    """Nats."""

    @property
    def dominant(self) -> Bool[np.ndarray, " N"]:
        """1[|THR| > tau], in the precision of the trace."""
        mask_N: np.ndarray = np.abs(self.thr_N) > self.tau
        return mask_N

    def weights(self, p: float) -> Float[np.ndarray, " N"]:
        """1[|THR| > tau] (1 + sign(THR) p), Equation 5 without the advantage."""
        return np.where(self.dominant, 1 + np.sign(self.thr_N) * p, 0.0)

    def values(self, by: str, p: float) -> Float[np.ndarray, " N"]:
        """What the tokens are coloured by."""
        if by == "thr-tau":
            return np.full_like(self.thr_N, np.nan) if self.tau == 0 else self.thr_N / self.tau
        found = {"thr": self.thr_N, "entropy": self.entropy_N, "logprob": self.logprob_N}
        return found[by] if by in found else self.weights(p) * self.advantage


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownQuestion:
    """A question and the completions of one of its groups."""

    prompt_id: str
    """Of the question."""
    question: str
    """Its text."""
    answer: str
    """The gold."""
    score_id: str
    """Where the numbers are from."""
    completions: tuple[ShownCompletion, ...]
    """In the order of the trace."""
    num_other_steps: int
    """Further steps of training that asked the same question: the newest is shown."""


def shown_question(
    run: Run, prompt: str, rollout: int | None = None, *, score_id: str | None = None
) -> ShownQuestion:
    """Read one question's completions with their scores.

    Args:
        run: a run with scores and token ids.
        prompt: a prompt_id, how it begins, or its place among the questions
            of the run that have completions, from 0.
        rollout: only that completion of the group.
        score_id: which scores; the only ones by default.

    Raises:
        UsageError: no such question or rollout; the closest ones are named.
        DataError: the run has no scores, no token ids, or no completions of the question.
    """
    problems, tokens = run.problems(), run.tokens()
    known = [str(each) for each in problems["prompt_id"]]
    prompt_id = prompt if prompt in known else resolve_question(_answered(run, known), prompt)
    resolved = run.resolve_score_id(score_id)
    if tokens is None:
        raise DataError(
            f"{run.path}: the texts of its tokens were not stored",
            "import the run with the policy's tokenizer, or collect it with thr-probe",
        )
    rows = _rows(run, prompt_id, resolved)
    steps = sorted({-1 if row["step"] is None else row["step"] for row in rows})
    newest = [row for row in rows if (-1 if row["step"] is None else row["step"]) == steps[-1]]
    token_bytes = dict(zip(tokens["token_id"].tolist(), tokens["bytes"], strict=True))
    problem = problems.iloc[known.index(prompt_id)]
    return ShownQuestion(
        prompt_id=prompt_id,
        question=str(problem["question"]),
        answer=str(problem["answer"]),
        score_id=resolved,
        completions=tuple(_completion(row, token_bytes) for row in _chosen(newest, rollout)),
        num_other_steps=len(steps) - 1,
    )


def _answered(run: Run, known: Sequence[str]) -> list[str]:
    """Those problems that have completions: a run under way does not have them all yet."""
    there = set(run.groups()["prompt_id"].to_pylist())
    return [prompt_id for prompt_id in known if prompt_id in there]


def resolve_question(known: Sequence[str], given: str) -> str:
    """The prompt_id that is meant: itself, its place from 0, or how it begins.

    >>> resolve_question(["ab1", "ab2", "cd"], "c"), resolve_question(["ab1", "ab2"], "1")
    ('cd', 'ab2')
    """
    if given in known:
        return given
    if given.isdecimal() and int(given) < len(known):
        return known[int(given)]
    if not known:
        raise DataError("the run has no questions", "collect some with thr-probe collect")
    found = [name for name in known if given and name.startswith(given)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(
            f"{len(found)} questions begin with {given!r}",
            f"such as {', '.join(found[:3])}: give more of the prompt_id",
        )
    close = difflib.get_close_matches(given, known, n=3)
    listed = ", ".join(known[:3]) + (" ..." if len(known) > 3 else "")
    raise UsageError(
        f"no question {given!r}: expected a prompt_id, how one begins, or 0 to {len(known) - 1}",
        f"did you mean {' or '.join(close)}?" if close else f"the run has {listed}",
    )


def _rows(run: Run, prompt_id: str, score_id: str) -> list[dict[str, Any]]:
    rows = []
    for table in run.iter_completions([*_COLUMNS, *_SCORES], score_id=score_id):
        if prompt_id in table["prompt_id"].unique().to_pylist():
            rows += [row for row in table.to_pylist() if row["prompt_id"] == prompt_id]
        elif rows and rows[0]["step"] is None:
            break  # outside training a question is asked once
    if not rows:
        raise DataError(
            f"{run.path}: no completions of {prompt_id} are there (yet)", "choose another question"
        )
    if any(row["token_ids"] is None for row in rows):
        raise DataError(
            f"{run.path}: the token ids of {prompt_id} were not stored",
            "import the run with the policy's tokenizer, or collect it with thr-probe",
        )
    return rows


def _chosen(rows: list[dict[str, Any]], rollout: int | None) -> list[dict[str, Any]]:
    if rollout is None:
        return rows
    found = [row for row in rows if row["rollout_id"] == rollout]
    if not found:
        ids = sorted(row["rollout_id"] for row in rows)
        raise UsageError(f"the question has no rollout {rollout}", f"it has {ids[0]} to {ids[-1]}")
    return found


def _completion(row: Mapping[str, Any], token_bytes: Mapping[int, bytes]) -> ShownCompletion:
    ids = tuple(row["token_ids"])
    thr = [np.nan] * len(ids) if row["thr"] is None else row["thr"]
    return ShownCompletion(
        rollout_id=row["rollout_id"],
        step=row["step"],
        correct=row["correct"],
        extracted=row["extracted"],
        advantage=row["advantage"],
        tau=np.nan if row["tau"] is None else row["tau"],
        token_ids=ids,
        pieces=tuple(display_pieces([token_bytes.get(token, b"\xff") for token in ids])),
        thr_N=np.array(thr, dtype=np.float32),
        entropy_N=np.array(row["entropy"], dtype=np.float32),
        logprob_N=np.array(row["logprob"], dtype=np.float32),
    )


def token_rows(question: ShownQuestion, by: str, p: float) -> list[dict[str, object]]:
    """The numbers per token, a row each.

    Args:
        question: of `shown_question`.
        by: whose values are in column `value`.
        p: of the advantage of THR(p).
    """
    rows: list[dict[str, object]] = []
    for each in question.completions:
        values_N, weights_N = each.values(by, p), each.weights(p)
        for number, piece in enumerate(each.pieces):
            for place in range(piece.first, piece.first + piece.num_tokens):
                rows.append(
                    {
                        "prompt_id": question.prompt_id,
                        "rollout_id": each.rollout_id,
                        "correct": each.correct,
                        "position": place,
                        "token_id": each.token_ids[place],
                        "piece": number,
                        "text": piece.text,
                        "thr": float(each.thr_N[place]),
                        "tau": float(each.tau),
                        "dominant": bool(each.dominant[place]),
                        "entropy": float(each.entropy_N[place]),
                        "logprob": float(each.logprob_N[place]),
                        "advantage": float(weights_N[place] * each.advantage),
                        "value": float(values_N[place]),
                    }
                )
    return rows


def check_by(by: str) -> None:
    """Refuse what tokens cannot be coloured by.

    Raises:
        UsageError: another word than those of `BY`.
    """
    if by not in BY:
        close = difflib.get_close_matches(by, BY, n=1)
        hint = f"did you mean {close[0]}?" if close else f"choose one of {', '.join(BY)}"
        raise UsageError(f"--by {by!r} does not exist", hint)
