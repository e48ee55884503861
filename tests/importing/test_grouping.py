"""Rows far apart become groups: their order, their names, and what is not a group."""

from __future__ import annotations

import itertools
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from foreign_rows import foreign, groups_of, imported, rows_of
from hypothesis import given, settings
from hypothesis import strategies as st

from thr_probe.errors import DataError
from thr_probe.importing import plan
from thr_probe.problems.problem import prompt_id
from thr_probe.traces import read_run, validate_run
from thr_probe.traces.importers.foreign import ForeignCompletion


def test_completions_of_a_prompt_are_brought_together_in_the_order_of_appearance(
    tmp_path: Path,
) -> None:
    names = ["b", "a", "c"]
    rows = [foreign(name, text=f"{name}{turn}") for turn in range(4) for name in names]
    report = imported(tmp_path, rows)
    assert (report.groups, report.completions, report.problems) == (3, 12, 3)
    assert groups_of(tmp_path / "run") == {
        (None, f"say {name}"): [f"{name}{turn}" for turn in range(4)] for name in names
    }
    found = rows_of(tmp_path / "run")
    assert [row["rollout_id"] for row in found] == [0, 1, 2, 3] * 3
    assert list(dict.fromkeys(row["prompt_id"] for row in found)) == [
        prompt_id(f"say {name}", f"say {name}") for name in names
    ]
    assert validate_run(tmp_path / "run") == []


def test_groups_come_by_step_and_a_prompt_of_several_steps_is_one_problem(tmp_path: Path) -> None:
    rows = [foreign("a", step=2), foreign("b", step=1), foreign("a", step=1), foreign("b", step=2)]
    report = imported(tmp_path, rows)
    assert [(step, text) for step, text in groups_of(tmp_path / "run")] == [
        (1, "say b"),
        (1, "say a"),
        (2, "say a"),
        (2, "say b"),
    ]
    assert (report.groups, report.problems, report.steps, report.num_steps) == (4, 2, [1, 2], 2)
    assert len(read_run(tmp_path / "run").problems()) == 2


def test_two_groups_of_one_prompt_in_one_step_stay_apart_and_are_counted(tmp_path: Path) -> None:
    same = {"prompt_text": "say it", "answer": "1"}
    rows = [foreign(name, step=step, **same) for step in (0, 1) for name in "xyx"]
    report = imported(tmp_path, rows)
    first = prompt_id("say it", "say it")
    second = prompt_id("say it", "say it\0" + "1")
    assert [row["prompt_id"] for row in rows_of(tmp_path / "run")] == [first, first, second] * 2
    assert report.counts["repeated_prompts"] == 2
    assert (report.groups, report.problems) == (4, 2)
    assert validate_run(tmp_path / "run") == []


def test_one_prompt_with_two_gold_answers_is_two_problems(tmp_path: Path) -> None:
    rows = [foreign("x", prompt_text="p", answer="1", step=0)]
    rows += [foreign("x", prompt_text="p", answer="2", step=1)]
    imported(tmp_path, rows)
    problems = read_run(tmp_path / "run").problems()
    assert problems["answer"].tolist() == ["1", "2"]
    assert problems["prompt_id"].is_unique


def test_numbers_of_the_source_order_the_rollouts_and_are_counted_from_zero(tmp_path: Path) -> None:
    rows = [foreign("a", rollout=number, text=str(number)) for number in (7, 2, 4)]
    imported(tmp_path, rows)
    found = rows_of(tmp_path / "run")
    assert [(row["rollout_id"], row["text"]) for row in found] == [(0, "2"), (1, "4"), (2, "7")]


def test_a_rollout_that_comes_twice_is_refused(tmp_path: Path) -> None:
    rows = [foreign("a", rollout=0, text="first"), foreign("a", rollout=0, text="second")]
    report = imported(tmp_path, rows)
    assert (report.rows_refused, report.counts["duplicates"]) == (1, 1)
    assert report.refused == [
        {
            "reason": "the same step, group and rollout as an earlier row",
            "rows": 1,
            "examples": ["rows, a"],
        }
    ]
    assert [row["text"] for row in rows_of(tmp_path / "run")] == ["first"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"prompt_text": "another"}, "another prompt than the first row of its group"),
        ({"answer": "9"}, "another gold answer than the first row of its group"),
        ({"prompt_token_ids": [4]}, "other prompt ids than the first row of its group"),
    ],
)
def test_a_row_that_does_not_belong_to_its_group_is_refused(
    tmp_path: Path, change: dict[str, object], reason: str
) -> None:
    first = foreign("a", prompt_token_ids=[1, 2])
    report = imported(tmp_path, [first, foreign("a", **change)])
    assert [each["reason"] for each in report.refused] == [reason]
    assert report.completions == 1


def test_uneven_groups_are_counted_against_the_size_of_most(tmp_path: Path) -> None:
    sizes = {"a": 4, "b": 4, "c": 1, "d": 6}
    rows = [foreign(name) for name, size in sizes.items() for _ in range(size)]
    report = imported(tmp_path, rows)
    assert report.group_size == {"min": 1, "median": 4, "max": 6, "common": 4}
    assert report.counts["uneven_groups"] == 2
    assert read_run(tmp_path / "run").manifest.group_size == 4


def test_groups_are_right_wrong_or_mixed(tmp_path: Path) -> None:
    labels = {"a": "11", "b": "00", "c": "01", "d": "10"}
    rows = [foreign(name, correct=label == "1") for name, text in labels.items() for label in text]
    report = imported(tmp_path, rows)
    assert {name: report.counts[name] for name in ("all_right", "all_wrong", "mixed")} == {
        "all_right": 1,
        "all_wrong": 1,
        "mixed": 2,
    }
    assert report.accuracy == 0.5


def test_a_part_holds_whole_groups_up_to_a_number_and_a_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "GROUPS_PER_PART", 3)
    monkeypatch.setattr(plan, "LEAST_BYTES", 25)
    monkeypatch.setattr(plan, "MOST_BYTES", 100)
    lengths = [5, 5, 5, 10, 10, 10, 10, 10, 90, 90, 200, 10]
    rows = [foreign(str(place), text="x" * length) for place, length in enumerate(lengths)]
    imported(tmp_path, rows)
    parts = read_run(tmp_path / "run").rollout_parts
    assert [part.num_rows for part in parts] == [4, 3, 2, 1, 1, 1]


def test_only_the_steps_and_the_first_groups_asked_for_are_taken(tmp_path: Path) -> None:
    rows = [foreign(name, step=step) for step in range(4) for name in "ab"]
    report = imported(tmp_path, rows, steps=(1, 3), max_groups=3)
    assert list(groups_of(tmp_path / "run")) == [(1, "say a"), (1, "say b"), (2, "say a")]
    assert (report.rows_read, report.rows_skipped) == (8, 5)


def test_steps_that_leave_nothing_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--steps leaves out all 1 rows"):
        imported(tmp_path, [foreign("a", step=1)], steps=(5, 6))


ROWS = tuple(
    foreign(name, step=step, rollout=rollout, text=f"{name} {step} {rollout}", where="w")
    for name, step, rollout in itertools.product("abc", (None, 0, 1), range(3))
)


@settings(max_examples=8, deadline=None)
@given(st.permutations(ROWS))
def test_any_order_of_the_rows_gives_the_same_groups(rows: list[ForeignCompletion]) -> None:
    with TemporaryDirectory() as folder:
        imported(Path(folder), rows)
        found = groups_of(Path(folder) / "run")
    assert found == {
        (step, f"say {name}"): [f"{name} {step} {rollout}" for rollout in range(3)]
        for name, step in itertools.product("abc", (None, 0, 1))
    }


def test_completions_of_another_policy_are_counted_and_told_where_they_collide(
    tmp_path: Path,
) -> None:
    rows = [
        foreign("a", rollout=0, model="early"),
        foreign("a", rollout=0, model="late"),
        foreign("a", rollout=1, model="late"),
        foreign("b", rollout=0, model="late"),
    ]
    report = imported(tmp_path, rows)
    assert report.counts["other_policy"] == 1
    assert [each["reason"] for each in report.refused] == [
        "the same step, group and rollout as an earlier row of another policy: import each "
        "policy's rows alone"
    ]
