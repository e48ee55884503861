"""Agreement with labels that others gave: answer pairs and rollout files, where the data lies."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from thr_probe.problems import MathVerifier

MISSES = Path(__file__).with_name("misses.md")
SOURCE_FILES = (
    "gsm8k_mathcoder_L70b_x3",
    "gsm8k_openai_x4",
    "gsm8k_rlvr_checkpoints_x8",
    "math100_qwen_x8_rm",
    "aime25_longcot_6models",
)


@pytest.fixture(scope="module")
def verifier() -> Iterator[MathVerifier]:
    with MathVerifier() as verifier:
        yield verifier


def listed_misses() -> dict[int, tuple[str, str]]:
    rows = re.findall(r"^\| (\d+) \| (\w+) \| (\w+) \| \S.*\|$", MISSES.read_text(), re.MULTILINE)
    return {int(row): (label, ours) for row, label, ours in rows}


def test_labelled_answer_pairs_agree_save_for_the_listed_rows_bare_or_boxed(
    test_data: Path, verifier: MathVerifier
) -> None:
    pairs = pd.read_parquet(test_data / "rollouts" / "answer_pairs.parquet")
    pairs = pairs[pairs["expected"].notna()]
    is_text = (pairs["kind"] == "text") | pairs["pred"].str.contains("boxed")
    boxed = pairs["pred"].where(is_text, "\\boxed{" + pairs["pred"] + "}")
    verdicts = verifier.verify([*pairs["pred"], *boxed], [*pairs["gold"], *pairs["gold"]])
    correct = pd.DataFrame(
        {
            "bare": [verdict.correct for verdict in verdicts[: len(pairs)]],
            "boxed": [verdict.correct for verdict in verdicts[len(pairs) :]],
        },
        index=pairs.index,
    )
    for column in ("bare", "boxed"):
        off = pairs[correct[column] != pairs["expected"]]
        misses = {
            int(row): (str(bool(label)).lower(), str(not label).lower())
            for row, label in off["expected"].items()
        }
        assert misses == listed_misses()
        assert 1 - len(misses) / len(pairs) >= 0.95


@pytest.mark.parametrize("name", SOURCE_FILES)
def test_rollouts_labelled_by_their_source_agree_no_worse_than_math_verify(
    test_data: Path, verifier: MathVerifier, name: str
) -> None:
    rollouts = pd.read_parquet(
        test_data / "rollouts" / f"{name}.parquet",
        columns=["completion", "gold", "correct", "label_origin", "mv_completion"],
    )
    assert rollouts["label_origin"].str.startswith("source").all()
    verdicts = verifier.verify(list(rollouts["completion"]), list(rollouts["gold"]))
    ours = sum(
        verdict.correct == label
        for verdict, label in zip(verdicts, rollouts["correct"], strict=True)
    )
    bare = int((rollouts["mv_completion"] == rollouts["correct"]).sum())
    assert ours >= bare
    assert ours / len(rollouts) >= 0.995


@pytest.mark.parametrize(
    "name", ["aime24", "aime25", "amc23", "math500", "minerva_math", "olympiadbench"]
)
def test_every_published_gold_is_right_against_itself(
    test_data: Path, verifier: MathVerifier, name: str
) -> None:
    golds = list(pd.read_parquet(test_data / "benchmarks" / f"{name}.parquet")["answer"])
    boxed = [f"So the answer is $\\boxed{{{gold.strip('$')}}}$." for gold in golds]
    verdicts = verifier.verify(boxed, golds)
    assert [gold for gold, each in zip(golds, verdicts, strict=True) if not each.correct] == []


def test_the_second_published_gold_is_accepted(test_data: Path, verifier: MathVerifier) -> None:
    table = pd.read_parquet(test_data / "benchmarks" / "minerva_math.parquet")
    table = table[table["answer_alt"].notna()]
    completions = [f"\\boxed{{{answer}}}" for answer in table["answer_alt"]]
    either = list(zip(table["answer"], table["answer_alt"], strict=True))
    assert all(verdict.correct for verdict in verifier.verify(completions, either))
    alone = verifier.verify(completions, list(table["answer"]))
    differing = [
        row for row, verdict in zip(table["id"], alone, strict=True) if not verdict.correct
    ]
    assert differing == ["minerva-126"]  # there the two published values differ in a sign


def test_different_golds_of_one_set_are_told_apart(test_data: Path, verifier: MathVerifier) -> None:
    golds = sorted(set(pd.read_parquet(test_data / "benchmarks" / "math500.parquet")["answer"]))
    shifted = golds[1:] + golds[:1]
    verdicts = verifier.verify([f"\\boxed{{{other}}}" for other in shifted], golds)
    same = {
        (gold, other)
        for gold, other, verdict in zip(golds, shifted, verdicts, strict=True)
        if verdict.correct
    }
    assert same == {
        ("120", "120^\\circ"),
        ("15", "15\\mbox{ cm}^2"),
        ("30", "30^\\circ"),
        ("36", "36^\\circ"),
    }
