from __future__ import annotations

import json
import random
from collections import defaultdict
from pathlib import Path

import pytest

from thr_probe.errors import DataError
from thr_probe.traces.importers.foreign import ForeignCompletion, ImportOptions, Refused
from thr_probe.traces.importers.verl import IMPORTER

FIXTURES = Path(__file__).parent / "fixtures" / "verl"


def read(path, **options):
    return list(IMPORTER.read(IMPORTER.find(path), ImportOptions(**options)))


def row(**changes):
    return {"input": "P", "output": "C", "gts": "4", "score": 1.0, "step": 3, **changes}


def written(folder, *rows, name="3.jsonl"):
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    return path


def groups(rows):
    found = defaultdict(list)
    for each in rows:
        found[each.step, each.group].append(each.text)
    return list(found.values())


def test_a_training_dump_is_read():
    rows = read(FIXTURES / "rollout")
    first = rows[0]
    assert len(rows) == 8
    assert first == ForeignCompletion(
        where=f"{FIXTURES}/rollout/5.jsonl, line 1",
        group=first.group,
        text=" work back: 247 less 40 is 207. so 207 / 9 = 23. let me check: 9 times 23 = 207, "
        "+ 40 is 249, correct. the answer is \\boxed{23}",
        prompt_text="<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
        "Find the number: 9 times it plus 40 is 247.<|im_end|>\n<|im_start|>assistant\n",
        question="Find the number: 9 times it plus 40 is 247.",
        answer="23",
        step=5,
        reward=1.0,
        correct=True,
        extracted="23",
        verifier="verl:acc",
    )
    assert [each.reward for each in rows] == [1, -1, -1, -1, -1, -1, -1, -1]
    assert [each.correct for each in rows] == [True] + [False] * 7
    assert [len(group) for group in groups(rows)] == [4, 4]


def test_a_validation_dump_of_the_v1_trainer_is_read():
    rows = read(FIXTURES / "validation")
    assert [each.rollout for each in rows] == [0, 1, 2, 3] * 2
    assert [len(group) for group in groups(rows)] == [4, 4]
    assert {(each.answer, each.answer_alt) for each in rows} == {
        ("23", "23.0"),
        ("1530", "1530.0"),
    }
    assert {each.correct for each in rows} == {None}
    assert [each.reward for each in rows] == [1.0] + [0.0] * 7


def test_files_come_in_the_order_of_their_steps(tmp_path):
    for step in (10, 9, 100):
        written(tmp_path, row(step=step), name=f"{step}.jsonl")
    written(tmp_path, row(), name="notes.jsonl")
    assert [path.name for path in IMPORTER.find(tmp_path)] == ["9.jsonl", "10.jsonl", "100.jsonl"]
    assert IMPORTER.find(tmp_path / "notes.jsonl") == [tmp_path / "notes.jsonl"]


def test_a_file_of_another_program_is_not_taken(tmp_path):
    assert IMPORTER.find(written(tmp_path, {"input": "P", "output": "C"})) == []
    (tmp_path / "some.jsonl").write_bytes(b"\xff\x00")
    assert IMPORTER.find(tmp_path / "some.jsonl") == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "the file is empty"), (b'{"input": "P"', "not JSON, the file seems cut off")],
)
def test_a_damaged_file_of_a_step_is_refused_not_passed_over(tmp_path, content, reason):
    written(tmp_path, row())
    (tmp_path / "4.jsonl").write_bytes(content)
    rows = read(tmp_path)
    assert [isinstance(each, Refused) for each in rows] == [False, True]
    assert rows[1].reason == reason
    assert "4.jsonl" in rows[1].where


@pytest.mark.parametrize("with_uid", [True, False])
def test_groups_are_those_of_the_tool_however_the_rows_lie(tmp_path, with_uid):
    draw = random.Random(5)
    rows = [
        row(
            input=f"P{prompt}",
            output=f"{prompt}:{rollout}",
            **({"uid": f"u{prompt}_{rollout}_0"} if with_uid else {}),
        )
        for prompt in range(12)
        for rollout in range(1 + prompt % 5)
    ]
    draw.shuffle(rows)
    found = groups(read(written(tmp_path, *rows)))
    assert sorted(map(sorted, found)) == sorted(
        [f"{prompt}:{rollout}" for rollout in range(1 + prompt % 5)] for prompt in range(12)
    )


def test_a_prompt_without_a_known_template_stays_as_it_is(tmp_path):
    only = read(written(tmp_path, row(input="Question: 1+1?\nAnswer:")))[0]
    assert (only.prompt_text, only.question) == ("Question: 1+1?\nAnswer:", None)


def test_the_same_prompt_of_two_uids_makes_two_groups(tmp_path):
    rows = [row(uid=uid) for uid in ("a", "b", "a")]
    assert [len(group) for group in groups(read(written(tmp_path, *rows)))] == [2, 1]


def test_training_and_validation_of_a_step_are_not_mixed(tmp_path):
    written(tmp_path / "train", row())
    written(tmp_path / "val", row())
    assert len(groups(read(tmp_path))) == 2


def test_the_step_is_in_the_row_else_in_the_name(tmp_path):
    without = row()
    del without["step"]
    rows = read(written(tmp_path, row(), without, name="8.jsonl"))
    assert [each.step for each in rows] == [3, 8]
    assert read(written(tmp_path, without, name="some.jsonl"))[0].step is None


def test_a_row_whose_step_is_null_has_none_whatever_the_files_name(tmp_path):
    rows = read(written(tmp_path, row(step=None), row(step=0), name="8.jsonl"))
    assert [each.step for each in rows] == [None, 0]


@pytest.mark.parametrize(
    ("gts", "answers"),
    [
        ("4", ("4", None)),
        (4, ("4", None)),
        (["4", "four"], ("4", "four")),
        ([4.5], ("4.5", None)),
        ('["1/2", "0.5"]', ("1/2", "0.5")),
        ("[1, 2]", ("[1, 2]", None)),
        ('["1/2"', ('["1/2"', None)),
        ([], (None, None)),
        (None, (None, None)),
        ({"target": 9, "numbers": [4, 5]}, ('{"target": 9, "numbers": [4, 5]}', None)),
    ],
)
def test_gold_answers_of_every_kind(tmp_path, gts, answers):
    only = read(written(tmp_path, row(gts=gts)))[0]
    assert (only.answer, only.answer_alt) == answers


@pytest.mark.parametrize(
    ("acc", "correct"),
    [(True, True), (0, False), (1.0, True), ("True", True), ("no", None), (0.5, None)],
)
def test_acc_says_what_is_right(tmp_path, acc, correct):
    only = read(written(tmp_path, row(score=0.3, acc=acc)))[0]
    assert (only.reward, only.correct) == (0.3, correct)


def test_a_named_field_is_the_reward(tmp_path):
    only = read(written(tmp_path, row(acc=True, format=0.5)), reward_column="format")[0]
    assert (only.reward, only.correct, only.verifier) == (0.5, None, "verl:format")


def test_a_missing_field_names_file_field_and_what_is_there(tmp_path):
    path = written(tmp_path, row())
    message = r"3\.jsonl, line 1: field format is missing, found input, output, gts, score, step"
    with pytest.raises(DataError, match=message):
        read(path, reward_column="format")
    path.write_text('{"input": "P", "output": "C"}\n')
    with pytest.raises(DataError, match="line 1: field score is missing, found input, output"):
        list(IMPORTER.read([path], ImportOptions()))


def test_bad_rows_are_refused_and_the_rest_is_read(tmp_path):
    path = written(
        tmp_path,
        row(),
        {"input": "P"},
        row(score=None),
        row(score=[1]),
        row(output=None),
        row(uid="u_0_1"),
        row(uid=7),
    )
    path.write_text(path.read_text() + '{"input": "P", "outp')
    rows = read(path)
    assert [isinstance(each, Refused) for each in rows] == [False] + [True] * 5 + [False, True]
    assert [each.reason for each in rows if isinstance(each, Refused)] == [
        "field output is missing",
        "score is a JSON NoneType, expected a number",
        "score is a JSON list, expected a number",
        "output is a JSON NoneType, expected text",
        "a later output of a session: only the first has the group's prompt",
        "not JSON, the file seems cut off",
    ]


def test_optional_fields_are_taken_along(tmp_path):
    only = read(written(tmp_path, row(data_source="math", pred="4", uid="u")))[0]
    assert (only.dataset, only.extracted, only.rollout) == ("math", "4", None)
    assert read(written(tmp_path, row(data_source=3, pred=4)))[0].dataset is None
