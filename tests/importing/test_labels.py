"""Right or wrong: the source's word, a reward above a threshold, or our verifier's verdict."""

from __future__ import annotations

from pathlib import Path

import pytest
from foreign_rows import foreign, imported, rows_of

from thr_probe.errors import DataError, UsageError
from thr_probe.traces import read_run


def labels_of(folder: Path) -> list[tuple[float, bool, str, str]]:
    """reward, correct, verifier, verify_status of every row."""
    names = ("reward", "correct", "verifier", "verify_status")
    return [tuple(row[name] for name in names) for row in rows_of(folder / "run")]


def test_the_label_and_the_reward_of_the_source_are_kept(tmp_path: Path) -> None:
    rows = [
        foreign("a", correct=True, reward=0.3, verifier="rule:math"),
        foreign("a", correct=False, reward=None),
    ]
    imported(tmp_path, rows)
    assert labels_of(tmp_path) == [(0.3, True, "rule/math", "ok"), (0.0, False, "fake", "ok")]


@pytest.mark.parametrize(
    ("rewards", "labels"),
    [
        ([0.0, 1.0], [False, True]),
        ([-1.0, 1.0], [False, True]),
        ([0.0, 0.0], [False, False]),
    ],
)
def test_plain_rewards_are_labels(tmp_path: Path, rewards: list[float], labels: list[bool]) -> None:
    imported(tmp_path, [foreign("a", correct=None, reward=reward) for reward in rewards])
    assert [row["correct"] for row in rows_of(tmp_path / "run")] == labels
    assert [row["reward"] for row in rows_of(tmp_path / "run")] == rewards


@pytest.mark.parametrize("rewards", [[0.0, 1.1], [-1.0, 0.0, 1.0], [-1.0, 0.0], [0.5], [2.0]])
def test_the_meaning_of_other_rewards_is_asked_for_and_never_guessed(
    tmp_path: Path, rewards: list[float]
) -> None:
    rows = [foreign("a", correct=None, reward=reward) for reward in rewards]
    with pytest.raises(UsageError) as caught:
        imported(tmp_path, rows)
    assert "--correct-above" in (caught.value.hint or "")
    assert not (tmp_path / "run").exists()


def test_a_threshold_gives_any_reward_a_meaning(tmp_path: Path) -> None:
    rows = [foreign("a", correct=None, reward=reward) for reward in (0.1, 0.5, 0.6, 1.1)]
    imported(tmp_path, rows, correct_above=0.5)
    assert [row["correct"] for row in rows_of(tmp_path / "run")] == [False, False, True, True]


def test_what_has_no_label_is_graded_against_the_answer(tmp_path: Path) -> None:
    rows = [
        foreign("7", correct=None, text="so \\boxed{7}"),
        foreign("7", correct=None, text="so \\boxed{8}"),
        foreign("7", correct=None, text=""),
        foreign("7", correct=False, text="so \\boxed{7}"),
    ]
    report = imported(tmp_path, rows)
    assert labels_of(tmp_path) == [
        (1.0, True, "math", "ok"),
        (0.0, False, "math", "ok"),
        (0.0, False, "math", "parse_fail"),
        (0.0, False, "fake", "ok"),
    ]
    assert [row["extracted"] for row in rows_of(tmp_path / "run")] == ["7", "8", None, None]
    assert (report.counts["graded"], report.counts["verify_parse_fail"]) == (3, 1)
    assert report.regraded == {}
    assert read_run(tmp_path / "run").manifest.verifier == "several"


def test_a_second_gold_answer_is_accepted_too(tmp_path: Path) -> None:
    rows = [foreign("7", correct=None, answer_alt="8", text=f"\\boxed{{{n}}}") for n in (7, 8, 9)]
    imported(tmp_path, rows)
    assert [row["correct"] for row in rows_of(tmp_path / "run")] == [True, True, False]


def test_without_label_and_answer_a_row_is_refused(tmp_path: Path) -> None:
    rows = [foreign("a", correct=None, answer=None), foreign("b")]
    report = imported(tmp_path, rows)
    assert [each["reason"] for each in report.refused] == [
        "neither a label nor a reward nor a gold answer"
    ]


def test_a_missing_answer_is_empty_and_counted(tmp_path: Path) -> None:
    report = imported(tmp_path, [foreign("a", answer=None)])
    assert report.counts["without_answer"] == 1
    assert read_run(tmp_path / "run").problems()["answer"].tolist() == [""]


@pytest.mark.parametrize("reward", [float("nan"), float("inf")])
def test_a_reward_that_is_no_number_is_refused(tmp_path: Path, reward: float) -> None:
    report = imported(tmp_path, [foreign("a", reward=reward), foreign("a")])
    assert [each["reason"] for each in report.refused] == [f"the reward is {reward}"]


def test_regrading_replaces_labels_and_tells_how_often_the_source_agrees(tmp_path: Path) -> None:
    rows = [
        foreign("7", correct=True, text="\\boxed{7}"),
        foreign("7", correct=False, text="\\boxed{7}"),
        foreign("7", correct=True, text="\\boxed{8}"),
        foreign("7", correct=None, text="\\boxed{7}"),
        foreign("b", correct=True, answer=None),
    ]
    report = imported(tmp_path, rows, regrade=True)
    assert report.regraded == {"compared": 3, "same": 1, "source_right": 1, "source_wrong": 1}
    assert [row[1] for row in labels_of(tmp_path)] == [True, True, False, True, True]
    assert [row[2] for row in labels_of(tmp_path)] == ["math"] * 4 + ["fake"]


def test_regrading_needs_no_meaning_of_shaped_rewards(tmp_path: Path) -> None:
    rows = [foreign("7", correct=None, reward=1.1, text=f"\\boxed{{{n}}}") for n in (7, 8)]
    report = imported(tmp_path, rows, regrade=True)
    assert [row["reward"] for row in rows_of(tmp_path / "run")] == [1.0, 0.0]
    assert report.regraded == {}
    assert read_run(tmp_path / "run").manifest.verifier == "math"


def test_where_every_row_is_refused_the_reason_is_told(tmp_path: Path) -> None:
    rows = [foreign("a", correct=None, answer=None)] * 2
    with pytest.raises(DataError) as caught:
        imported(tmp_path, rows)
    assert "of 2 rows 2 were refused: neither a label" in caught.value.message
    assert "rows of a test" in (caught.value.hint or "")
    assert not (tmp_path / "run").exists()
