"""Problems as a policy reads them: in its template, in its tokens, short enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from thr_probe.errors import DataError, UsageError
from thr_probe.policy import AnyPolicy
from thr_probe.problems import Problem, ProblemSet
from thr_probe.sampling import Prompt

LONGEST_COMPLETION = 3072
"""Tokens of the longest completion where neither the user nor the model's context says less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizedProblem:
    """A problem and its prompt as the policy reads it."""

    problem: Problem
    """Question, gold, prompt text."""
    token_ids: list[int]
    """The prompt."""

    @property
    def prompt(self) -> Prompt:
        """As a sampler takes it."""
        return Prompt(prompt_id=self.problem.prompt_id, token_ids=self.token_ids)


def default_template(model: str) -> str:
    """The template where none was asked for: the lab's policy reads its own."""
    return "lab" if model == "lab" else "qwen-boxed"


def tokenized(
    problem_set: ProblemSet,
    policy: AnyPolicy,
    *,
    max_prompt_tokens: int,
    max_new_tokens: int | None,
) -> tuple[list[TokenizedProblem], int]:
    """The problems whose prompts are short enough, and how many are not.

    Args:
        problem_set: the problems.
        policy: whose tokens and whose context count.
        max_prompt_tokens: longest prompt.
        max_new_tokens: room to leave for the completion; None: one token.

    Raises:
        UsageError: completions so long that no prompt fits into the model's context.
        DataError: no problem is left.
    """
    every = [
        TokenizedProblem(problem=problem, token_ids=policy.encode_prompt(problem.prompt_text))
        for problem in problem_set.problems
    ]
    room = (policy.max_length or LONGEST_COMPLETION * 2) - (max_new_tokens or 1)
    limit = min(max_prompt_tokens, room)
    if room < 1:
        raise UsageError(
            f"--max-new-tokens {max_new_tokens} leaves no room for a prompt: "
            f"{policy.name} takes {policy.max_length} tokens, completion included"
        )
    kept = [task for task in every if len(task.token_ids) <= limit]
    if not kept:
        raise DataError(
            f"{problem_set.name}: no problem of {len(every)} has a prompt of at most {limit} "
            "tokens",
            "raise --max-prompt-tokens, lower --max-new-tokens, or take a longer-context policy",
        )
    return kept, len(every) - len(kept)


def longest_completion(
    tasks: Sequence[TokenizedProblem], policy: AnyPolicy, max_new_tokens: int | None
) -> int:
    """Tokens of the longest completion: as asked for, else what the model's context leaves."""
    limit = max_new_tokens or LONGEST_COMPLETION
    if policy.max_length is None:
        return limit
    return min(limit, policy.max_length - max(len(task.token_ids) for task in tasks))


def longest_sequence(policy: AnyPolicy, max_prompt_tokens: int, max_new_tokens: int | None) -> int:
    """Tokens of the longest prompt and completion together that the options allow."""
    longest = max_prompt_tokens + (max_new_tokens or LONGEST_COMPLETION)
    return longest if policy.max_length is None else min(longest, policy.max_length)


def problem_row(task: TokenizedProblem) -> dict[str, object]:
    """The row of the problems table."""
    problem = task.problem
    return {
        "prompt_id": problem.prompt_id,
        "dataset": problem.dataset,
        "level": problem.level,
        "question": problem.question,
        "prompt_text": problem.prompt_text,
        "prompt_token_ids": task.token_ids,
        "answer": problem.answer,
        "answer_alt": problem.answer_alt,
    }
