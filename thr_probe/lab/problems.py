"""The lab's problems in short English, drawn from a seed, in three disjoint splits."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from thr_probe.errors import UsageError
from thr_probe.lab.mix import LAB_MIX, Mix
from thr_probe.lab.tasks import KIND_BLOCK, SHARE_BOUNDS, Kind, Task, draw_task

DEFAULT_NUM = 500

ADD_WORDS = ("add {}", "plus {}", "increase it by {}")
SUBTRACT_WORDS = ("subtract {}", "minus {}", "take away {}")
MULTIPLY_WORDS = ("multiply by {}", "times {}")
STEP_WORDS = {"+": ADD_WORDS, "-": SUBTRACT_WORDS, "*": MULTIPLY_WORDS}
CHAIN_FRAMES = (
    "Start with {start}, {steps}. What do you get?",
    "Take {start}. Then {steps}. What is the result?",
    "A number is {start} at first. Now {steps}. What is it now?",
    "Begin at {start}, {steps}. Where do you end?",
)
PRODUCT_FRAMES = (
    "What is {a} times {b}?",
    "Find {a} * {b}.",
    "A hall has {a} rows of {b} seats. How many seats?",
    "Each of {a} boxes holds {b} pens. How many pens?",
)
MORE_FRAMES = (
    "What is {a} times {b}, plus {c}?",
    "Find {a} * {b} + {c}.",
    "A hall has {a} rows of {b} seats and {c} more seats. How many seats?",
    "Each of {a} boxes holds {b} pens, and {c} more lie there. How many pens?",
)
FEWER_FRAMES = (
    "What is {a} times {b}, minus {c}?",
    "Find {a} * {b} - {c}.",
    "A hall has {a} rows of {b} seats, but {c} are taken. How many seats are free?",
    "Each of {a} boxes holds {b} pens, but {c} are gone. How many pens are left?",
)
LINEAR_FRAMES = (
    "Find x: {m} * x + {b} = {c}.",
    "Find the number: {m} times it plus {b} is {c}.",
    "I think of a number, multiply by {m} and add {b}. I get {c}. Which number?",
    "Some boxes hold {m} pens each. With {b} more there are {c} pens. How many boxes?",
)
SQUARE_FRAMES = (
    "Find x: x * (x + {k}) = {c}.",
    "Find the number: it times the number {k} larger is {c}.",
    "A hall has {c} seats, and each row has {k} more seats than there are rows. How many rows?",
)
SERIES_FRAMES = (
    "Add up {n} numbers: the first is {a}, and each is {d} more than the one before.",
    "A hall has {n} rows. The first has {a} seats, each next one {d} more. How many seats?",
    "Mia saves {a} coins, then each week {d} more than before. How many after {n} weeks?",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabProblem:
    """One question of the lab with its gold answer."""

    kind: str
    """chain, product, equation or series."""
    level: str
    """Difficulty within the kind, "1" and up."""
    question: str
    """The question in English."""
    answer: str
    """The gold answer, a positive integer in decimal digits."""


def chain_question(task: Task, rng: random.Random) -> str:
    """The operations of a chain as one sentence."""
    steps = [
        rng.choice(STEP_WORDS[operation]).format(number)
        for operation, number in zip(task.operations, task.numbers[1:], strict=True)
    ]
    joined = ", ".join(steps[:-1]) + ", then " + steps[-1]
    return rng.choice(CHAIN_FRAMES).format(start=task.numbers[0], steps=joined)


def question_text(task: Task, rng: random.Random) -> str:
    """One of several wordings of a task."""
    numbers = task.numbers
    if task.kind is Kind.CHAIN:
        return chain_question(task, rng)
    if task.kind is Kind.SERIES:
        return rng.choice(SERIES_FRAMES).format(n=numbers[0], a=numbers[1], d=numbers[2])
    if task.kind is Kind.EQUATION and task.level == 3:
        return rng.choice(SQUARE_FRAMES).format(k=numbers[0], c=numbers[1])
    if task.kind is Kind.EQUATION:
        return rng.choice(LINEAR_FRAMES).format(m=numbers[0], b=numbers[1], c=numbers[2])
    if task.level < 3:
        return rng.choice(PRODUCT_FRAMES).format(a=numbers[0], b=numbers[1])
    frames = MORE_FRAMES if task.operations[1] == "+" else FEWER_FRAMES
    return rng.choice(frames).format(a=numbers[0], b=numbers[1], c=numbers[2])


def worded_tasks(split: str, seed: int, mix: Mix = LAB_MIX) -> Iterator[tuple[Task, str]]:
    """Endless (task, question) pairs of one split; each block of ten holds the same kinds."""
    if split not in SHARE_BOUNDS:
        raise UsageError(f"unknown lab split {split!r}", hint=f"one of {', '.join(SHARE_BOUNDS)}")
    rng = random.Random(f"{split}/{seed}")  # a string seeds through SHA-512: the same everywhere
    while True:
        block = list(KIND_BLOCK)
        rng.shuffle(block)
        for kind in block:
            task = draw_task(rng, kind, split, mix)
            yield task, question_text(task, rng)


def lab_problems(split: str, num: int | None = None, *, seed: int = 0) -> list[LabProblem]:
    """The first `num` (default 500) distinct problems of a split; a shorter list is a prefix."""
    wanted = DEFAULT_NUM if num is None else num
    if wanted < 0:
        raise UsageError(f"num must not be negative, got {num}")
    problems: list[LabProblem] = []
    seen: set[str] = set()
    for task, question in worded_tasks(split, seed):
        if len(problems) >= wanted:
            break
        if task.canonical in seen:
            continue
        seen.add(task.canonical)
        problems.append(
            LabProblem(
                kind=task.kind.value,
                level=str(task.level),
                question=question,
                answer=str(task.answer),
            )
        )
    return problems


def prompt_text(question: str) -> str:
    """The prompt form the lab's policy was trained on."""
    return f"Question: {question}\nAnswer:"
