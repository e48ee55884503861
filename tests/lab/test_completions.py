"""The training texts: arithmetic that holds, noise that is counted, words that vary."""

from __future__ import annotations

import random
import re
from collections import Counter
from itertools import islice

import pytest

from thr_probe.lab import completions, writing
from thr_probe.lab.completions import TrainingText, training_text
from thr_probe.lab.measure import has_reflection
from thr_probe.lab.mix import FIRST_MIX, LAB_MIX, Mix
from thr_probe.lab.problems import worded_tasks
from thr_probe.lab.tasks import Kind, Task

NUM_TEXTS = 1500
CALCULATION = re.compile(
    r"(?<![\d+*/-] )\b(\d+) (\+|plus|and|-|minus|less|\*|times|by|/|over|divided by) (\d+) "
    r"(?:is|=|gives|makes) (\d+)"
)
SIGNS = {"plus": "+", "and": "+", "minus": "-", "less": "-", "times": "*", "by": "*"}


def drawn(
    num: int = NUM_TEXTS, seed: int = 0, mix: Mix = LAB_MIX
) -> list[tuple[Task, TrainingText]]:
    rng = random.Random(seed)
    return [
        (task, training_text(task, rng, mix))
        for task, _ in islice(worded_tasks("train", seed, mix), num)
    ]


@pytest.fixture(scope="module")
def texts() -> list[tuple[Task, TrainingText]]:
    return drawn()


def wrong_calculations(text: str) -> tuple[int, int]:
    """(calculations read in the text, of these wrong), by reading it back."""
    found = wrong = 0
    for left, sign, right, result in CALCULATION.findall(text):
        a, b, c = int(left), int(right), int(result)
        operation = SIGNS.get(sign, sign)
        holds = {"+": a + b == c, "-": a - b == c, "*": a * b == c}.get(operation, b * c == a)
        found += 1
        wrong += not holds
    return found, wrong


def test_equal_seeds_write_equal_texts() -> None:
    assert drawn(50, seed=4) == drawn(50, seed=4)
    assert drawn(50, seed=4) != drawn(50, seed=5)


def test_every_text_ends_in_one_box_with_the_gold_answer(texts) -> None:
    for task, text in texts:
        assert text.text.endswith(f"\\boxed{{{task.answer}}}")
        assert text.text.count("\\boxed{") == 1


@pytest.mark.parametrize("mix", [FIRST_MIX, LAB_MIX], ids=["first", "lab"])
def test_wrong_results_on_purpose_stay_under_five_percent_of_the_steps(mix: Mix) -> None:
    written = [text for _, text in drawn(600, seed=8, mix=mix)]
    share = sum(text.num_wrong for text in written) / sum(text.num_steps for text in written)
    assert 0 < share < 0.05


def test_the_counted_noise_is_what_reading_the_texts_back_finds(texts) -> None:
    read = [(wrong_calculations(text.text), text) for _, text in texts]
    found = sum(pair[0] for pair, _ in read)
    wrong = sum(pair[1] for pair, _ in read)
    assert found > 2 * NUM_TEXTS
    assert 0 < wrong / found < 0.05
    # a text without counted noise reads back without a wrong result
    assert [text.text for (_, bad), text in read if bad > text.num_wrong] == []


def test_without_slips_and_short_guesses_every_result_holds(monkeypatch) -> None:
    monkeypatch.setattr(writing, "SLIP_SHARE", 0.0)
    careful = Mix(short_share=0.0, wide_short_share=0.0)
    for _, text in drawn(400, seed=2, mix=careful):
        assert text.num_wrong == 0
        assert wrong_calculations(text.text)[1] == 0, text.text


def test_a_slip_is_noticed_at_once(monkeypatch) -> None:
    monkeypatch.setattr(writing, "SLIP_SHARE", 1.0)
    draft = writing.Draft(random.Random(0))
    assert writing.compute(draft, 47, "+", 38) == 85
    assert draft.num_steps == 2
    assert draft.num_wrong == 1
    assert any(notice in draft.text for notice in writing.NOTICES)
    assert wrong_calculations(draft.text) == (2, 1)


def test_guesses_close_in_and_end_at_the_number() -> None:
    rng = random.Random(7)
    for _ in range(500):
        unknown = rng.randint(5, 79)
        tries = completions.guesses(rng, unknown)
        assert tries[-1] == unknown
        assert unknown not in tries[:-1]
        assert 1 <= len(tries) <= LAB_MIX.max_misses + 1
        assert min(tries) >= 1


def test_the_short_way_is_the_likeliest_start_of_a_product() -> None:
    openings = Counter(
        next(
            (way for way, marks in WAYS.items() if any(mark in text.text for mark in marks)),
            "unnamed",
        )
        for task, text in drawn(1500, seed=1)
        if task.kind is Kind.PRODUCT
    )
    del openings["unnamed"]
    assert openings.most_common(1)[0][0] == "short"
    assert set(openings) == set(WAYS)


WAYS = {
    "short": ("in one go,", "directly,", "at once,"),
    "parts": ("in parts,", "split it,", "step by step,"),
    "grid": ("in four parts,", "piece by piece,", "all parts:"),
    "round": ("round ", "note "),
}


def test_reflection_words_occur_in_a_fair_share_of_texts(texts) -> None:
    share = sum(has_reflection(text.text) for _, text in texts) / len(texts)
    assert 0.15 < share < 0.6


def test_reflection_counts_whole_words_in_any_case() -> None:
    assert has_reflection("So. Wait, no")
    assert not has_reflection("notes, stillness, butter, thinks")
