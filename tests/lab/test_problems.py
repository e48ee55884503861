"""The lab's problems: seeded, disjoint, and right by a second route that reads the question."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter

import pytest

from thr_probe.errors import UsageError
from thr_probe.lab import LabProblem, lab_problems, prompt_text
from thr_probe.lab.problems import worded_tasks

SPLITS = ("train", "validation", "test")


def numbers_in(question: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", question)]


def chain_gold(question: str) -> int:
    total, *_ = numbers_in(question)
    clauses = re.split(r"[,.?] ?", question)[1:]
    for clause in clauses:
        if not numbers_in(clause):
            continue
        (number,) = numbers_in(clause)
        if re.search(r"multiply|times", clause):
            total = sum(total for _ in range(number))
        elif re.search(r"subtract|minus|take away", clause):
            total -= number
        else:
            assert re.search(r"add|plus|increase", clause)
            total += number
    return total


def product_gold(question: str) -> int:
    first, second, *rest = numbers_in(question)
    extra = rest[0] if rest else 0
    if re.search(r"minus| - |taken|gone", question):
        extra = -extra
    return sum([first] * second) + extra


def equation_gold(question: str) -> int:
    numbers = numbers_in(question)
    if len(numbers) == 2:
        # "it times the number 4 larger is 221", "x * (x + 4) = 221"; the hall names 221 first
        distance, product = sorted(numbers)
        return next(x for x in range(1, 1000) if x * (x + distance) == product)
    factor, offset, result = numbers
    return next(x for x in range(1, 1000) if factor * x + offset == result)


def series_gold(question: str) -> int:
    numbers = numbers_in(question)
    if question.startswith("Mia"):
        first, growth, terms = numbers
    else:
        terms, first, growth = numbers
    return sum(range(first, first + growth * terms, growth))


GOLD = {
    "chain": chain_gold,
    "product": product_gold,
    "equation": equation_gold,
    "series": series_gold,
}


@pytest.mark.parametrize("split", SPLITS)
def test_the_gold_answer_follows_from_the_question_alone(split: str) -> None:
    for problem in lab_problems(split, 600, seed=3):
        assert int(problem.answer) == GOLD[problem.kind](problem.question), problem


def test_equal_seeds_give_equal_problems_and_other_seeds_others() -> None:
    assert lab_problems("test", 50, seed=1) == lab_problems("test", 50, seed=1)
    assert lab_problems("test", 50, seed=1) != lab_problems("test", 50, seed=2)


def test_the_first_problems_are_these() -> None:
    assert lab_problems("test", 2) == [
        LabProblem(
            kind="equation",
            level="2",
            question="Find x: 3 * x + 16 = 184.",
            answer="56",
        ),
        LabProblem(
            kind="chain",
            level="3",
            question="Begin at 48, plus 20, increase it by 23, then add 93. Where do you end?",
            answer="184",
        ),
    ]


def test_a_shorter_list_is_a_prefix_of_a_longer_one() -> None:
    assert lab_problems("test", 60) == lab_problems("test", 200)[:60]
    assert len(lab_problems("validation")) == 500
    assert lab_problems("train", 0) == []


def asked(problem: LabProblem) -> tuple[object, ...]:
    """What a question asks for, without its wording."""
    numbers = numbers_in(problem.question)
    if problem.kind == "product":
        return ("product", *sorted(numbers[:2]))
    if problem.kind == "chain":
        words = re.findall(
            r"add|plus|increase|subtract|minus|take away|multiply|times", problem.question
        )
        signs = [
            "*" if w in ("multiply", "times") else "+" if w in ("add", "plus", "increase") else "-"
            for w in words
        ]
        return ("chain", *signs, *numbers)
    if problem.kind == "series" and problem.question.startswith("Mia"):
        numbers = [numbers[2], *numbers[:2]]
    return (problem.kind, *(sorted(numbers) if len(numbers) == 2 else numbers))


def test_no_problem_is_in_two_splits_whatever_the_seed() -> None:
    kept = {
        split: {asked(p) for seed in (0, 1) for p in lab_problems(split, 800, seed=seed)}
        for split in SPLITS
    }
    assert not kept["train"] & kept["validation"]
    assert not kept["train"] & kept["test"]
    assert not kept["validation"] & kept["test"]


def test_problems_of_a_list_are_distinct() -> None:
    problems = lab_problems("test", 500)
    # a level-1 and a level-3 product may share their pair, never the whole question
    assert len({(asked(p), p.answer) for p in problems}) == len(problems)


@pytest.mark.parametrize("num", [10, 20, 60, 200])
def test_every_prefix_mixes_the_four_kinds(num: int) -> None:
    counts = Counter(problem.kind for problem in lab_problems("test", num))
    assert set(counts) == {"chain", "product", "equation", "series"}
    assert max(counts.values()) <= 0.4 * num
    assert min(counts.values()) >= 0.15 * num


def test_levels_reach_from_two_to_five_operations() -> None:
    levels = Counter(p.level for p in lab_problems("train", 1000) if p.kind == "chain")
    assert set(levels) == {"2", "3", "4", "5"}


def test_wordings_of_one_kind_vary() -> None:
    shapes = {(p.kind, re.sub(r"\d+", "#", p.question)) for p in lab_problems("train", 1000)}
    by_kind = Counter(kind for kind, _ in shapes)
    assert by_kind["series"] == 3
    assert by_kind["product"] == 12
    assert by_kind["equation"] == 7
    assert by_kind["chain"] > 100


def test_an_unknown_split_or_a_negative_number_is_refused_with_a_sentence() -> None:
    with pytest.raises(UsageError, match="unknown lab split 'dev'"):
        lab_problems("dev", 1)
    with pytest.raises(UsageError, match="num must not be negative"):
        lab_problems("test", -1)


def test_the_split_of_a_task_is_the_one_that_was_asked_for() -> None:
    stream = worded_tasks("validation", 5)
    assert {next(stream)[0].split for _ in range(100)} == {"validation"}


def test_the_prompt_form_ends_where_the_completion_begins() -> None:
    assert (
        prompt_text("Find x: 3 * x + 16 = 184.") == "Question: Find x: 3 * x + 16 = 184.\nAnswer:"
    )


def test_the_lab_needs_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, thr_probe.lab as lab; lab.lab_problems('test', 60); lab.policy_directory();"
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'tokenizers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
