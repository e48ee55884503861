"""One training text per task: the strategies of each kind, written with `writing`."""

from __future__ import annotations

import random
from dataclasses import dataclass

from thr_probe.lab.mix import LAB_MIX, Mix
from thr_probe.lab.tasks import Kind, Task, apply
from thr_probe.lab.writing import (
    CHECK_SHARE,
    Draft,
    accumulate,
    close,
    compute,
    multiply_small,
    write_check,
    write_product,
)

OPENINGS = ("let me see,", "ok,", "first,", "well,", "", "", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingText:
    """A completion as the policy shall learn to write it."""

    text: str
    """The completion, from its leading space to the closing brace of the box."""
    num_steps: int
    """Computed results in it."""
    num_wrong: int
    """Of these, wrong on purpose."""


def write_chain(draft: Draft, task: Task, mix: Mix) -> None:
    """One step after the other; two additions or subtractions are sometimes taken at once."""
    value, index = task.numbers[0], 0
    steps = list(zip(task.operations, task.numbers[1:], strict=True))
    while index < len(steps):
        operation, number = steps[index]
        pair = steps[index : index + 2]
        if len(pair) == 2 and all(sign != "*" for sign, _ in pair) and draft.chance(mix.leap_share):
            value = write_leap(draft, value, pair)
            index += 2
            continue
        if operation != "*":
            value = compute(draft, value, operation, number)
        elif number > 9:
            value = write_product(draft, value, number, short_share=mix.wide_short_share)
        else:
            value = multiply_small(draft, value, number)
        index += 1
    if task.operations[-1] != "*" and draft.chance(CHECK_SHARE):
        write_check(draft, value, task.operations[-1], task.numbers[-1])


def write_leap(draft: Draft, value: int, pair: list[tuple[str, int]]) -> int:
    """Two operations in one step."""
    (first, left), (second, right) = pair
    result = apply(apply(value, first, left), second, right)
    draft.say("both at once,", "in one go,", "")
    draft.say(f"{value} {first} {left} {second} {right} {draft.pick('=', 'is', 'gives')} {result}")
    draft.stop()
    draft.num_steps += 1
    return result


def write_product_task(draft: Draft, task: Task, mix: Mix) -> None:
    """The competing strategies: the short way is the likeliest and the hardest to get right."""
    value = write_product(draft, task.numbers[0], task.numbers[1], short_share=mix.short_share)
    if task.level < 3:
        return
    compute(draft, value, task.operations[1], task.numbers[2])


def guesses(rng: random.Random, unknown: int, mix: Mix = LAB_MIX) -> list[int]:
    """Guesses that close in on the unknown from where the last one missed; the last is right."""
    spread = max(2.0, 0.22 * unknown)
    tries = [max(2, round(rng.gauss(unknown, spread)))]
    while tries[-1] != unknown:
        gap = unknown - tries[-1]
        if len(tries) >= mix.max_misses or rng.random() < mix.hit_share:
            tries.append(unknown)
            continue
        step = rng.randint(1, max(1, abs(gap) + abs(gap) // 3))
        tries.append(tries[-1] + (step if gap > 0 else -step))
    return tries


def write_trial(draft: Draft, task: Task, guess: int) -> int:
    """What a guess gives, written out; returns it."""
    if task.level == 3:
        return compute_trial(
            draft,
            f"{guess} {draft.pick('times', '*')} {guess + task.numbers[0]}",
            guess * (guess + task.numbers[0]),
        )
    factor, offset = task.numbers[:2]
    product = compute_trial(
        draft, f"{factor} {draft.pick('times', '*', 'by')} {guess}", factor * guess
    )
    return compute_trial(draft, f"{draft.pick('plus', '+', 'and')} {offset}", product + offset)


def compute_trial(draft: Draft, asked: str, result: int) -> int:
    """One step of a trial."""
    draft.say(f"{asked} {draft.pick('is', '=', 'gives', 'makes')} {result},")
    draft.num_steps += 1
    return result


def write_guesses(draft: Draft, task: Task, mix: Mix) -> None:
    """Guess and check: try, compare with the target, try again."""
    target = task.numbers[-1]
    draft.say("try", "guess", "let me try", "start with")
    for guess in guesses(draft.rng, task.answer, mix):
        draft.say(f"{guess}:")
        value = write_trial(draft, task, guess)
        if value == target:
            draft.say("that fits.", "correct.", "that is it.", "which is right.", "good.")
            return
        size = "small" if value < target else "big"
        draft.say(
            f"too {size}.",
            f"but that is too {size}.",
            f"still too {size}." if guess != task.answer else "",
            f"which is {'less' if value < target else 'more'} than {target}.",
            "wrong.",
        )
        draft.say("instead try", "so try", "wait, try", "then try", "let me try", "next,")


def write_undone(draft: Draft, task: Task) -> None:
    """A linear equation taken apart backwards."""
    factor, offset, target = task.numbers
    draft.say("backwards,", "undo it:", "work back:")
    rest = compute(draft, target, "-", offset)
    draft.say(*("so", "then", "now", ""))
    draft.say(f"{rest} {draft.pick('/', 'over', 'divided by')} {factor}")
    draft.say(f"{draft.pick('is', '=', 'gives', 'makes')} {rest // factor}")
    draft.stop()
    draft.num_steps += 1
    if draft.chance(0.3):
        draft.say("let me check:", "check:", "to be sure:")
        write_trial(draft, task, task.answer)
        draft.say("correct.", "that fits.", "good.")


def write_series(draft: Draft, task: Task, mix: Mix) -> None:
    """A running sum over the listed numbers, or first plus last, times their number, halved."""
    terms, first, growth = task.numbers
    numbers = [first + growth * index for index in range(terms)]
    if draft.chance(mix.list_share):
        draft.say(*mix.list_words)
        draft.say(", ".join(map(str, numbers)))
        draft.stop()
        accumulate(draft, numbers)
        return
    draft.say("the last is", "the last one is", "it ends at")
    draft.say(f"{numbers[-1]}")
    draft.stop()
    draft.num_steps += 1
    if draft.chance(0.4):
        draft.say("in one go,", "at once,", "altogether")
        draft.say(f"{draft.pick('they make', 'the sum is')} {task.answer}.")
        draft.num_steps += 1
        return
    ends = compute(draft, first, "+", numbers[-1])
    whole = compute(draft, ends, "*", terms)
    draft.say(f"{draft.pick('half of', 'half of that,')} {whole} is {whole // 2}")
    draft.stop()
    draft.num_steps += 1


def training_text(task: Task, rng: random.Random, mix: Mix = LAB_MIX) -> TrainingText:
    """A completion for a task, from its opening to the box."""
    draft = Draft(rng)
    draft.say(*OPENINGS)
    if task.kind is Kind.CHAIN:
        write_chain(draft, task, mix)
    elif task.kind is Kind.PRODUCT:
        write_product_task(draft, task, mix)
    elif task.kind is Kind.SERIES:
        write_series(draft, task, mix)
    elif task.level < 3 and draft.chance(mix.undo_share):
        write_undone(draft, task)
    else:
        write_guesses(draft, task, mix)
    close(draft, task.answer)
    return TrainingText(text=draft.text, num_steps=draft.num_steps, num_wrong=draft.num_wrong)
