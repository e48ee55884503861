"""Writes the texts the lab's policy learns from: short varied reasoning that ends in a box.

Strategies and guesses are real choices of the text; results are right. Only slips (noticed at once)
and first guesses at a product (noticed by their last digit) are wrong on purpose, and counted.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from thr_probe.lab.tasks import apply

SLIP_SHARE = 0.015
CHECK_SHARE = 0.15
OPERATION_WORDS = {
    "+": ("+", "plus", "and"),
    "-": ("-", "minus", "less"),
    "*": ("*", "times", "by"),
}
RESULT_WORDS = ("is", "=", "gives", "makes")
LINKS = ("so", "then", "now", "next", "and", "")
STOPS = (".", ".", ",", ";")
NOTICES = (
    "wait, that is wrong,",
    "no, actually",
    "but that is a mistake,",
    "wait, let me fix that,",
    "however, that looks wrong,",
)
CLOSINGS = (
    "so the answer is",
    "the answer is",
    "that makes",
    "the result is",
    "so we get",
    "altogether",
    "in the end",
)
UNDO = {"+": "-", "-": "+"}


@dataclass(slots=True)
class Draft:
    """A text being written, with the counts that the noise share is measured by."""

    rng: random.Random
    """Where every choice comes from."""
    pieces: list[str] = field(default_factory=list)
    """Clauses so far, each with its own punctuation."""
    num_steps: int = 0
    """Computed results written."""
    num_wrong: int = 0
    """Of these, wrong on purpose."""

    def pick(self, *options: str) -> str:
        """One of several wordings."""
        return self.rng.choice(options)

    def chance(self, share: float) -> bool:
        """True in this share of calls."""
        return self.rng.random() < share

    def say(self, *options: str) -> None:
        """Append one of several clauses; an empty one leaves no trace."""
        clause = self.rng.choice(options)
        if clause:
            self.pieces.append(clause)

    def stop(self) -> None:
        """End the last clause with one of several marks."""
        self.pieces[-1] += self.rng.choice(STOPS)

    @property
    def text(self) -> str:
        """The clauses in order, with a leading space, as they follow the prompt."""
        return " " + " ".join(self.pieces)


def expression(draft: Draft, left: int, operation: str, right: int) -> str:
    """A computation in words or signs, without its result."""
    if operation in "+*" and draft.chance(0.25):
        left, right = right, left
    return f"{left} {draft.pick(*OPERATION_WORDS[operation])} {right}"


def slipped(rng: random.Random, value: int) -> int:
    """A near miss of a result: one of its last two digits is off."""
    return value + rng.choice((-10, -2, -1, 1, 2, 10)) if value > 12 else value + rng.choice((1, 2))


def compute(draft: Draft, left: int, operation: str, right: int) -> int:
    """One step with its result, sometimes after a slip that is noticed; returns the result."""
    result = apply(left, operation, right)
    if draft.pieces and draft.pieces[-1][-2:-1].isdigit():
        draft.say(*LINKS)
    asked = expression(draft, left, operation, right)
    if draft.chance(SLIP_SHARE):
        draft.say(f"{asked} {draft.pick(*RESULT_WORDS)} {slipped(draft.rng, result)}.")
        draft.num_steps += 1
        draft.num_wrong += 1
        draft.say(*NOTICES)
    draft.say(f"{asked} {draft.pick(*RESULT_WORDS)} {result}")
    draft.stop()
    draft.num_steps += 1
    return result


def accumulate(draft: Draft, numbers: list[int]) -> int:
    """A running sum over several numbers."""
    total = compute(draft, numbers[0], "+", numbers[1])
    for number in numbers[2:]:
        total += number
        draft.say(f"{draft.pick('plus', '+', 'and')} {number} {draft.pick(*RESULT_WORDS)} {total}")
        draft.stop()
        draft.num_steps += 1
    return total


def multiply_small(draft: Draft, left: int, digit: int) -> int:
    """A two-digit number times a digit: at once, or tens and ones apart in either order."""
    tens, ones = left - left % 10, left % 10
    if not ones or not tens or draft.chance(0.4):
        return compute(draft, left, "*", digit)
    parts = [tens, ones] if draft.chance(0.65) else [ones, tens]
    products = [compute(draft, part, "*", digit) for part in parts]
    draft.say(f"{draft.pick('together', 'in sum', 'that makes')} {sum(products)}")
    draft.stop()
    draft.num_steps += 1
    return sum(products)


def product_at_once(draft: Draft, left: int, right: int) -> bool:
    """The short way: all in one step, perhaps checked by the last digit; False if given up."""
    draft.say("in one go,", "directly,", "at once,", "")
    right_answer = left * right
    guess = right_answer
    if draft.chance(0.2):
        guess += draft.rng.choice((-11, -9, -4, -2, -1, 1, 2, 4, 9, 11))
    draft.say(f"{expression(draft, left, '*', right)} {draft.pick(*RESULT_WORDS)} {guess}.")
    draft.num_steps += 1
    draft.num_wrong += guess != right_answer
    if guess == right_answer and not draft.chance(0.35):
        return True
    ones = (left % 10) * (right % 10)
    draft.say("let me check the last digit:", "check the last digit:", "wait, the last digit:")
    draft.say(
        f"{left % 10} {draft.pick('times', '*')} {right % 10} {draft.pick('is', '=')} {ones},"
    )
    draft.num_steps += 1
    if guess % 10 == ones % 10:
        draft.say("correct.", "so that fits.", "fine.", "good.")
        return True
    draft.say("so that is wrong,", "but that does not fit,", "that is a mistake,")
    draft.say("instead", "let me rethink,", "another way:")
    return False


def product_in_parts(draft: Draft, left: int, right: int) -> None:
    """One factor split into tens and ones, two products, one sum."""
    draft.say("in parts,", "split it,", "step by step,", "")
    tens, ones = right - right % 10, right % 10
    if not ones or not tens:
        compute(draft, left, "*", right)
        return
    order = [tens, ones] if draft.chance(0.7) else [ones, tens]
    products = [compute(draft, left, "*", part) for part in order]
    compute(draft, products[0], "+", products[1])


def product_in_grid(draft: Draft, left: int, right: int) -> None:
    """Both factors split: up to four easy products, then a running sum."""
    draft.say("in four parts,", "piece by piece,", "all parts:")
    lefts = [part for part in (left - left % 10, left % 10) if part]
    rights = [part for part in (right - right % 10, right % 10) if part]
    products = [compute(draft, a, "*", b) for a in lefts for b in rights]
    if len(products) > 1:
        accumulate(draft, products)


def product_rounded(draft: Draft, left: int, right: int) -> None:
    """A factor that ends in 7, 8 or 9 is rounded up and the rest taken away."""
    above = 10 - right % 10
    draft.say(f"round {right} up to {right + above},", f"note {right} is near {right + above},")
    wide = compute(draft, left, "*", right + above)
    rest = left if above == 1 else compute(draft, left, "*", above)
    compute(draft, wide, "-", rest)


def write_product(draft: Draft, left: int, right: int, *, short_share: float) -> int:
    """A product of two two-digit numbers by one of four strategies; returns it."""
    if draft.chance(0.25):
        left, right = right, left
    if draft.chance(short_share) and product_at_once(draft, left, right):
        return left * right
    if right % 10 in (7, 8, 9) and draft.chance(0.3):
        product_rounded(draft, left, right)
    elif draft.chance(0.6):
        product_in_parts(draft, left, right)
    else:
        product_in_grid(draft, left, right)
    return left * right


def write_check(draft: Draft, value: int, operation: str, number: int) -> None:
    """A last step undone to check it."""
    before = apply(value, UNDO[operation], number)
    draft.say("let me check:", "check:", "to be sure:", "wait, check:")
    draft.say(f"{value} {draft.pick(*OPERATION_WORDS[UNDO[operation]])} {number}")
    draft.say(f"{draft.pick('is', '=')} {before},")
    draft.say("correct.", "that fits.", "good.", "fine.")
    draft.num_steps += 1


def close(draft: Draft, answer: int) -> None:
    """The last clause: the boxed answer."""
    draft.say(*CLOSINGS)
    draft.say(f"\\boxed{{{answer}}}")
