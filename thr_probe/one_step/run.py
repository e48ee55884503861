"""One step on each question of a run, as tables of its questions and correct completions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import pandas as pd

from thr_probe.errors import UsageError
from thr_probe.one_step.step import OneStep, Question, StepOptions, one_step
from thr_probe.policy import Policy
from thr_probe.progress import SILENT, Advance, Monitor
from thr_probe.score import check_scorable, check_tokenizer, scoring_temperature
from thr_probe.traces import Run

QUESTION_COLUMNS = (
    "prompt_id",
    "step",
    "group_size",
    "num_correct",
    "tokens",
    "gwhes",
    "change",
    "first_order",
    "unembedding",
    "gradient_norm",
)
COMPLETION_COLUMNS = (
    "prompt_id",
    "step",
    "rollout_id",
    "gwhes",
    "gwhes_per_token",
    "change",
    "unembedding",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTables:
    """The measurements of a run."""

    questions: pd.DataFrame
    """prompt_id, step, group_size, num_correct, tokens, gwhes and change (means over the correct
    completions), first_order, unembedding (what GWHES alone predicts), gradient_norm."""
    completions: pd.DataFrame
    """prompt_id, step, rollout_id, gwhes, gwhes_per_token (over the question's tokens), change,
    unembedding of every correct completion."""
    num_unmixed: int
    """Questions left out, as their completions are all right or all wrong."""
    num_left: int
    """Mixed questions that no step was taken on, for `max_questions` or an interruption."""

    def exclusion_sentence(self) -> str:
        """What was left out, as a sentence; empty for nothing."""
        parts = []
        if self.num_unmixed:
            parts.append(f"{_number(self.num_unmixed)} of one outcome, on which GRPO takes no step")
        if self.num_left:
            parts.append(f"{_number(self.num_left)} that the analysis stopped before")
        return f"Left out: {'; '.join(parts)}." if parts else ""


def _number(count: int) -> str:
    return f"{count:,} question{'' if count == 1 else 's'}"


def measure_run(
    run: Run,
    policy: Policy,
    options: StepOptions,
    *,
    max_questions: int | None = None,
    monitor: Monitor = SILENT,
) -> StepTables:
    """Take one step on each question of a run that has right and wrong completions.

    `unembedding` is -lr GWHES / tokens: to first order the share of the unembedding, hidden states
    held fixed, in the change of an SGD step on Equation 2; NaN for AdamW.

    Args:
        run: complete, with token ids.
        policy: in float32; unchanged in the end.
        options: the update; the temperature is that of pi.
        max_questions: only the first so many.
        monitor: told of every question, and asked whether to stop.

    Raises:
        DataError: a run that cannot be replayed, or another tokenizer than the run's.
        UsageError: an impossible option.
    """
    if max_questions is not None and max_questions < 1:
        raise UsageError(f"--max-questions must be at least 1, got {max_questions}")
    check_scorable(run)
    check_tokenizer(run, policy)
    groups = list(_questions(run))
    mixed = [group for group in groups if group.question.is_mixed]
    chosen = mixed[:max_questions]
    questions: list[dict[str, object]] = []
    completions: list[dict[str, object]] = []
    monitor.begin(len(chosen))
    for group in chosen:
        if monitor.should_stop():
            break
        found = one_step(policy, group.question, options)
        rows = _completion_rows(found, group, options)
        completions += rows
        questions.append(_question_row(found, group.question, rows))
        monitor.advance(_advance(group.question))
    return StepTables(
        questions=pd.DataFrame(questions, columns=list(QUESTION_COLUMNS)),
        completions=pd.DataFrame(completions, columns=list(COMPLETION_COLUMNS)),
        num_unmixed=len(groups) - len(mixed),
        num_left=len(mixed) - len(questions),
    )


def run_temperature(run: Run) -> float:
    """The temperature of the run's rollouts as pi takes it."""
    return scoring_temperature(float(run.config.get("temperature", 1.0)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """A question of the run with the keys of its rows."""

    step: int | None
    question: Question
    rollout_ids: list[int]


def _questions(run: Run) -> Iterator[_Group]:
    problems = run.problems()
    prompts = dict(zip(problems["prompt_id"], problems["prompt_token_ids"], strict=True))
    rows = (
        row
        for table in run.iter_completions(
            ["step", "prompt_id", "rollout_id", "token_ids", "correct"]
        )
        for row in table.to_pylist()
    )
    for (step, prompt_id), group in groupby(rows, key=lambda row: (row["step"], row["prompt_id"])):
        members = list(group)
        yield _Group(
            step=step,
            question=Question(
                prompt_id=prompt_id,
                prompt_ids=[int(token) for token in prompts[prompt_id]],
                completions=[row["token_ids"] for row in members],
                correct=[bool(row["correct"]) for row in members],
            ),
            rollout_ids=[row["rollout_id"] for row in members],
        )


def _completion_rows(
    found: OneStep, group: _Group, options: StepOptions
) -> list[dict[str, object]]:
    tokens = sum(map(len, group.question.completions))
    factor = -options.rate / tokens if options.optimizer == "sgd" else float("nan")
    return [
        {
            "prompt_id": group.question.prompt_id,
            "step": group.step,
            "rollout_id": group.rollout_ids[rollout],
            "gwhes": score,
            "gwhes_per_token": score / tokens,
            "change": change,
            "unembedding": factor * score,
        }
        for rollout, score, change in zip(
            found.rollout_P, found.gwhes_P, found.change_P, strict=True
        )
    ]


def _question_row(
    found: OneStep, question: Question, rows: Sequence[Mapping[str, object]]
) -> dict[str, object]:
    means = pd.DataFrame(rows)[["gwhes", "change", "unembedding"]].mean(skipna=False)
    return {
        "prompt_id": question.prompt_id,
        "step": rows[0]["step"],
        "group_size": len(question.correct),
        "num_correct": len(rows),
        "tokens": sum(map(len, question.completions)),
        "gwhes": float(means["gwhes"]),
        "change": float(means["change"]),
        "first_order": found.first_order,
        "unembedding": float(means["unembedding"]),
        "gradient_norm": found.gradient_norm,
    }


def _advance(question: Question) -> Advance:
    return Advance(
        prompts=1,
        completions=len(question.correct),
        correct=sum(map(bool, question.correct)),
        tokens=sum(map(len, question.completions)),
    )
