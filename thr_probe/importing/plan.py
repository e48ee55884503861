"""In which order groups are written, in which parts, and under which prompt_id."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from thr_probe.importing.reading import Group
from thr_probe.importing.spool import Spool
from thr_probe.problems.problem import Problem, prompt_id

GROUPS_PER_PART = 64
LEAST_BYTES = 1 << 20
LEAST_ROWS = 4096
"""Smaller parts hold more groups: a run of a thousand files is slow to open."""
MOST_BYTES = 16 << 20
"""Of texts and lists; larger ones hold fewer: a part is in memory at once, a few times over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedGroup:
    """A group and its name in the run."""

    group: Group
    """Its counts."""
    prompt_id: str
    """Unique within its step."""
    is_copy: bool
    """Whether another group of the step has the same prompt."""


def plan_groups(groups: Sequence[Group], spool: Spool) -> list[PlannedGroup]:
    """The groups by step, then by first appearance, each with a prompt_id.

    The first group of a prompt in a step has the plain prompt_id, the k-th later one that of the
    prompt text with NUL and k behind it, so that groups are never merged. One prompt_id stands for
    one gold answer: a group with another answer takes the next k.
    """
    answers: dict[str, bytes] = {}
    taken: set[tuple[int | None, str]] = set()
    planned = []
    for group in sorted(groups, key=_order):
        chosen, copy = group.base_id, 0
        while (group.step, chosen) in taken or answers.get(chosen, group.answer) != group.answer:
            copy += 1
            chosen = _copy_id(spool, group, copy)
        taken.add((group.step, chosen))
        answers[chosen] = group.answer
        planned.append(PlannedGroup(group=group, prompt_id=chosen, is_copy=copy > 0))
    return planned


def plan_parts(planned: Sequence[PlannedGroup]) -> list[Sequence[PlannedGroup]]:
    """Cut the groups into parts; the same groups give the same parts."""
    parts, start, size, rows = [], 0, 0, 0
    for end, each in enumerate(planned):
        is_large = size >= LEAST_BYTES or rows >= LEAST_ROWS
        is_full = size + each.group.num_bytes > MOST_BYTES
        if end > start and (is_full or (is_large and end - start >= GROUPS_PER_PART)):
            parts.append(planned[start:end])
            start, size, rows = end, 0, 0
        size += each.group.num_bytes
        rows += each.group.num_rows
    return [*parts, planned[start:]] if planned else []


def planned_problems(
    planned: Sequence[PlannedGroup], spool: Spool, dataset: str
) -> Iterator[tuple[Problem, Sequence[int] | None]]:
    """Every problem once, with the ids of its prompt where the files have them.

    Args:
        planned: all groups.
        spool: has their prompts.
        dataset: name of the problem set where a row names none.
    """
    told: set[str] = set()
    for each in planned:
        if each.prompt_id in told:
            continue
        told.add(each.prompt_id)
        prompt = spool.prompt(each.group.place)
        problem = Problem(
            prompt_id=each.prompt_id,
            dataset=prompt.dataset or dataset,
            level=prompt.level,
            question=prompt.question,
            prompt_text=prompt.prompt_text,
            answer=prompt.answer or "",
            answer_alt=prompt.answer_alt or None,
        )
        yield problem, prompt.token_ids


def _order(group: Group) -> tuple[int, int]:
    return (-1 if group.step is None else group.step, group.place)


def _copy_id(spool: Spool, group: Group, copy: int) -> str:
    prompt = spool.prompt(group.place)
    return prompt_id(prompt.question, f"{prompt.prompt_text}\0{copy}")
