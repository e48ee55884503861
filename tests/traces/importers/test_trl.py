from __future__ import annotations

import shutil
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from thr_probe.errors import DataError, UsageError
from thr_probe.traces.importers.foreign import ImportOptions, Refused
from thr_probe.traces.importers.trl import IMPORTER

FIXTURES = Path(__file__).parent / "fixtures" / "trl"


def read(path, **options):
    return list(IMPORTER.read(IMPORTER.find(path), ImportOptions(**options)))


def written(folder, columns, step=1):
    path = folder / f"completions_{step:05d}.parquet"
    length = len(columns["prompt"])
    table = {"step": [step] * length, **columns}
    pq.write_table(pa.table(table), path)
    return path


def two(**columns):
    return {"prompt": ["P", "P"], "completion": ["a", "b"], "right": [1.0, 0.0], **columns}


def test_completions_of_text_prompts_are_read():
    rows = read(FIXTURES / "plain")
    assert len(rows) == 32
    first = rows[0]
    assert first.where == f"{FIXTURES}/plain/completions_00001.parquet, row 1"
    assert first.prompt_text == "Question: Find the number: 9 times it plus 40 is 247.\nAnswer:"
    assert first.text.startswith(" work back: 247 less 40 is 207.")
    assert (first.step, first.reward, first.verifier) == (1, 1.0, "trl:verified")
    assert (first.question, first.answer, first.correct, first.finish_reason) == (None,) * 4
    assert [each.step for each in rows] == [1] * 16 + [2] * 16


def test_completions_of_message_lists_are_read_with_what_reward_functions_added():
    rows = read(FIXTURES / "chat", reward_column="verified")
    first = rows[0]
    assert first.question == "Question: Find the number: 9 times it plus 40 is 247.\nAnswer:"
    assert first.prompt_messages == [{"role": "user", "content": first.question}]
    assert {each.prompt_messages is None for each in read(FIXTURES / "plain")} == {True}
    assert (first.answer, first.extracted, first.reward) == ("23", "23", 1.0)
    assert [each.text for each in rows] == [each.text for each in read(FIXTURES / "plain")]


@pytest.mark.parametrize(("folder", "rewards"), [("plain", ["verified"]), ("chat", ["short"])])
def test_groups_give_the_advantages_that_the_trainer_logged(folder, rewards):
    rows = read(FIXTURES / folder, reward_column=rewards[0])
    logged = pa.concat_tables(
        pq.read_table(path) for path in sorted((FIXTURES / folder).glob("*.parquet"))
    )
    total = logged["verified"].to_numpy() + (logged["short"].to_numpy() if folder == "chat" else 0)
    members = defaultdict(list)
    for index, each in enumerate(rows):
        members[each.step, each.group].append(index)
    assert [len(group) for group in members.values()] == [4] * 8
    expected = np.zeros(len(rows))
    for group in members.values():
        own = total[group]
        expected[group] = (own - own.mean()) / (own.std(ddof=1) + 1e-4)
    np.testing.assert_allclose(expected, logged["advantage"].to_numpy(), atol=1e-4)


def test_several_rewards_need_a_choice():
    message = r"completions_00001\.parquet has several rewards: verified, short"
    with pytest.raises(UsageError, match=message):
        read(FIXTURES / "chat")


def test_an_unknown_reward_lists_those_that_are_there():
    message = r"column correct is missing; columns that could be a reward: verified, short"
    with pytest.raises(DataError, match=message):
        read(FIXTURES / "chat", reward_column="correct")


def test_a_chosen_reward_counts():
    rows = read(FIXTURES / "chat", reward_column="short")
    assert rows[0].reward == pytest.approx(1 / 31)


def test_a_prompt_that_comes_again_later_is_another_group(tmp_path):
    prompts = ["P", "P", "Q", "P"]
    columns = {"prompt": prompts, "completion": list("abcd"), "right": [1.0, 0.0, 1.0, 0.0]}
    rows = read(written(tmp_path, columns))
    assert [rows.index(next(r for r in rows if r.group == each.group)) for each in rows] == [
        0,
        0,
        2,
        3,
    ]


def test_a_batch_that_is_logged_twice_is_read_once(tmp_path):
    for step in (1, 2, 3):
        written(tmp_path, two(right=[1.0, 0.0 if step < 3 else 1.0]), step=step)
    rows = read(tmp_path)
    assert [isinstance(each, Refused) for each in rows] == [False, False, True, False, False]
    assert rows[2].where == str(tmp_path / "completions_00002.parquet")
    assert rows[2].reason == "the whole file repeats the one before it, no new rollouts"


def test_files_come_in_the_order_of_their_steps(tmp_path):
    for step in (99999, 2, 100000):
        written(tmp_path, two(), step=step)
    shutil.copyfile(tmp_path / "completions_00002.parquet", tmp_path / "table.parquet")
    assert [path.name for path in IMPORTER.find(tmp_path)] == [
        "completions_00002.parquet",
        "completions_99999.parquet",
        "completions_100000.parquet",
    ]
    assert IMPORTER.find(tmp_path / "table.parquet") == [tmp_path / "table.parquet"]


def test_other_parquet_files_are_not_taken(tmp_path):
    pq.write_table(pa.table({"prompt": ["P"]}), tmp_path / "completions_1.parquet")
    (tmp_path / "completions_last.parquet").write_bytes(b"PAR1")
    assert IMPORTER.find(tmp_path) == []


def test_a_missing_column_names_file_column_and_what_is_there(tmp_path):
    path = tmp_path / "completions_1.parquet"
    pq.write_table(pa.table({"step": [1], "prompt": ["P"]}), path)
    message = r"completions_1\.parquet: column completion is missing, found step, prompt"
    with pytest.raises(DataError, match=message):
        list(IMPORTER.read([path], ImportOptions()))


def test_a_file_that_was_cut_off_is_named(tmp_path):
    written(tmp_path, two())
    path = written(tmp_path, two(), step=2)
    path.write_bytes(path.read_bytes()[:-30])
    assert IMPORTER.find(tmp_path)[1] == path
    with pytest.raises(DataError, match=r"completions_00002\.parquet cannot be read as Parquet"):
        read(tmp_path)


def test_bad_rows_are_refused_and_the_rest_is_read(tmp_path):
    said = [
        [{"role": "assistant", "content": "a"}],
        [{"role": "assistant", "content": "a"}, {"role": "tool", "content": "b"}],
        [],
        None,
        [{"role": "assistant", "content": "e"}],
    ]
    prompts = [[{"role": "user", "content": "P"}]] * 5
    columns = {"prompt": prompts, "completion": said, "right": [1.0, 1.0, 1.0, 1.0, None]}
    rows = read(written(tmp_path, columns))
    assert rows[0].text == "a"
    assert [each.reason for each in rows[1:]] == [
        "a completion of 2 messages: only one turn was sampled at once",
        "the prompt or completion is a list, expected text",
        "the prompt or completion is a NoneType, expected text",
        "right is empty: the reward function gave nothing",
    ]


def test_messages_saved_as_json_text_are_parsed(tmp_path):
    prompt = '[{"role": "user", "content": "P?"}]'
    rows = read(written(tmp_path, two(prompt=[prompt, '[{"role": '])))
    assert (rows[0].prompt_text, rows[0].question) == ("P?", "P?")
    assert rows[1].prompt_text == '[{"role": '


def test_a_templated_prompt_keeps_its_template_and_gives_its_question(tmp_path):
    prompt = "<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n"
    only = read(written(tmp_path, two(prompt=[prompt] * 2)))[0]
    assert (only.prompt_text, only.question) == (prompt, "1+1?")


def test_files_without_rewards_come_without_a_label(tmp_path):
    columns = {"prompt": ["P"], "completion": ["a"], "solution": ["4"]}
    only = read(written(tmp_path, columns))[0]
    assert (only.reward, only.correct, only.answer, only.verifier) == (None, None, "4", None)
