"""The arithmetic behind the lab's problems: what is asked, before it is put into words."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from thr_probe.lab.mix import LAB_MIX, Mix

LARGEST_VALUE = 9999
SHARE_BOUNDS = {"train": (0, 80), "validation": (80, 90), "test": (90, 100)}


class Kind(StrEnum):
    """The four kinds of lab problem."""

    CHAIN = "chain"
    PRODUCT = "product"
    EQUATION = "equation"
    SERIES = "series"


# Every block of ten problems holds each kind in this share, so that every prefix is mixed.
KIND_BLOCK = (Kind.CHAIN,) * 3 + (Kind.PRODUCT,) * 2 + (Kind.EQUATION,) * 3 + (Kind.SERIES,) * 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A problem as numbers and operations, without wording."""

    kind: Kind
    """Which of the four kinds."""
    level: int
    """Difficulty within the kind, from 1."""
    numbers: tuple[int, ...]
    """The numbers of the question, in the order of the kind's docstring below."""
    operations: str = ""
    """One of "+-*" per number after the first (chain and product), else empty."""
    answer: int
    """The integer gold answer."""

    @property
    def canonical(self) -> str:
        """What decides the split: equal for questions that ask for the same computation."""
        numbers = self.numbers
        if self.kind is Kind.PRODUCT:  # the pair alone, so that a held-out product is never seen
            numbers = tuple(sorted(numbers[:2]))
        operations = self.operations if self.kind is Kind.CHAIN else ""
        level = self.level if self.kind is Kind.EQUATION else 0
        return f"{self.kind}|{level}|{operations}|{','.join(map(str, numbers))}"

    @property
    def split(self) -> str:
        """The split of the task, by a hash of its canonical form: disjoint by construction."""
        digest = hashlib.sha256(self.canonical.encode()).digest()
        bucket = int.from_bytes(digest[:8], "big") % 100
        return next(name for name, (low, high) in SHARE_BOUNDS.items() if low <= bucket < high)


def apply(value: int, operation: str, number: int) -> int:
    """One operation of a chain."""
    if operation == "+":
        return value + number
    return value - number if operation == "-" else value * number


def chain_step(rng: random.Random, value: int) -> tuple[str, int]:
    """An operation that keeps the running value at 10 or more; only values below 100 grow."""
    while True:
        operation = rng.choice("++--*") if value <= 99 else rng.choice("+-")
        number = rng.randint(2, 9) if operation == "*" else rng.randint(11, 99)
        if apply(value, operation, number) >= 10:
            return operation, number


def chain_task(rng: random.Random, mix: Mix) -> Task:
    """Start from numbers[0] and apply each operation in turn; level = number of operations."""
    level = rng.choices((2, 3, 4, 5), weights=mix.chain_levels)[0]
    value = start = rng.randint(12, 99)
    numbers, operations = [start], ""
    wide_at = rng.randrange(level) if level >= 4 and rng.random() < mix.wide_share else -1
    for index in range(level):
        operation, number = chain_step(rng, value)
        if index == wide_at and value <= 99:
            operation, number = "*", rng.randint(12, 49)
        numbers.append(number)
        operations += operation
        value = apply(value, operation, number)
    return Task(
        kind=Kind.CHAIN,
        level=level,
        numbers=tuple(numbers),
        operations=operations,
        answer=value,
    )


def product_task(rng: random.Random, mix: Mix) -> Task:
    """numbers[0] times numbers[1], at level 3 plus or minus numbers[2]."""
    level = rng.choices((1, 2, 3), weights=mix.product_levels)[0]
    left = rng.randint(12, 99)
    right = rng.randint(12, 29) if level == 1 else rng.randint(23, 99)
    if level < 3:
        return Task(
            kind=Kind.PRODUCT,
            level=level,
            numbers=(left, right),
            operations="*",
            answer=left * right,
        )
    sign, extra = rng.choice("+-"), rng.randint(21, 99)
    return Task(
        kind=Kind.PRODUCT,
        level=level,
        numbers=(left, right, extra),
        operations="*" + sign,
        answer=apply(left * right, sign, extra),
    )


def equation_task(rng: random.Random, mix: Mix) -> Task:
    """Find x, with (m, b, c) or (k, c) as numbers.

    Levels 1 and 2: m * x + b = c; level 3: x * (x + k) = c.
    """
    level = rng.choices((1, 2, 3), weights=mix.equation_levels)[0]
    if level == 3:
        unknown, distance = rng.randint(6, 49), rng.randint(1, 12)
        product = unknown * (unknown + distance)
        return Task(kind=Kind.EQUATION, level=3, numbers=(distance, product), answer=unknown)
    unknown = rng.randint(5, 25) if level == 1 else rng.randint(26, 79)
    factor, offset = rng.randint(3, 9), rng.randint(11, 99)
    return Task(
        kind=Kind.EQUATION,
        level=level,
        numbers=(factor, offset, factor * unknown + offset),
        answer=unknown,
    )


def series_task(rng: random.Random, mix: Mix) -> Task:
    """The sum of n terms from a on, each d larger, with (n, a, d) as numbers; level = n - 3."""
    terms = rng.choices((4, 5, 6, 7), weights=mix.series_terms)[0]
    first, growth = rng.randint(11, 79), rng.randint(3, 19)
    return Task(
        kind=Kind.SERIES,
        level=terms - 3,
        numbers=(terms, first, growth),
        answer=terms * first + growth * terms * (terms - 1) // 2,
    )


TASK_MAKERS: dict[Kind, Callable[[random.Random, Mix], Task]] = {
    Kind.CHAIN: chain_task,
    Kind.PRODUCT: product_task,
    Kind.EQUATION: equation_task,
    Kind.SERIES: series_task,
}


def draw_task(rng: random.Random, kind: Kind, split: str, mix: Mix = LAB_MIX) -> Task:
    """A task of one kind that belongs to one split, by rejection."""
    while True:
        task = TASK_MAKERS[kind](rng, mix)
        if task.split == split and 0 < task.answer <= LARGEST_VALUE:
            return task
