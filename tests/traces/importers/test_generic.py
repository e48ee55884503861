"""Any table: its columns by name or by --map, a row per completion or per prompt."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from thr_probe.errors import DataError, UsageError
from thr_probe.traces.importers.foreign import ForeignCompletion, ImportOptions, Refused
from thr_probe.traces.importers.generic import FIELDS, IMPORTER

ROW = {"question": "1+1?", "answer": "2", "completion": "so 2", "correct": True}


def written(folder: Path, rows: Sequence[Mapping[str, Any]], name: str = "rows.jsonl") -> Path:
    path = folder / name
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path: Path, **columns: str) -> list[ForeignCompletion | Refused]:
    return list(IMPORTER.read([path], ImportOptions(columns=columns)))


def completions(path: Path, **columns: str) -> list[ForeignCompletion]:
    found = read(path, **columns)
    assert not [row for row in found if isinstance(row, Refused)]
    return [row for row in found if isinstance(row, ForeignCompletion)]


def reasons(path: Path, **columns: str) -> list[str]:
    return [row.reason for row in read(path, **columns) if isinstance(row, Refused)]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet"])
def test_obvious_columns_need_no_map(tmp_path: Path, name: str) -> None:
    full = {
        "prompt_id": 7,
        "prompt_text": "Q: 1+1?",
        **ROW,
        "reward": 1.0,
        "step": 3,
        "rollout": 2,
        "token_ids": [4, 5],
        "prompt_token_ids": [1, 2],
        "logprobs": [-0.5, -1.0],
        "finish_reason": "stop",
        "dataset": "sums",
        "level": "easy",
        "seed": 9,
        "model": "org/policy",
        "extracted": "2",
        "other": "passed over",
    }
    path = written(tmp_path, [full], name)
    assert completions(path) == [
        ForeignCompletion(
            where=f"{path}, {'row' if name.endswith('parquet') else 'line'} 1",
            group="7",
            text="so 2",
            prompt_text="Q: 1+1?",
            question="1+1?",
            answer="2",
            step=3,
            rollout=2,
            reward=1.0,
            correct=True,
            extracted="2",
            finish_reason="stop",
            prompt_token_ids=[1, 2],
            token_ids=[4, 5],
            sampler_logprobs=[-0.5, -1.0],
            dataset="sums",
            level="easy",
            seed=9,
            model="org/policy",
        )
    ]


def test_map_names_any_column_and_goes_before_obvious_ones(tmp_path: Path) -> None:
    row = {"q": "1+1?", "gold": "2", "answer": "my answer", "said": "so 2", "ok": 1}
    path = written(tmp_path, [row])
    found = completions(path, question="q", answer="gold", completion="said", correct="ok")[0]
    assert (found.question, found.answer, found.text, found.correct) == ("1+1?", "2", "so 2", True)
    assert found.group == "1+1?"


@pytest.mark.parametrize(
    ("row", "group", "prompt_text"),
    [
        ({"prompt": "Q: 1+1? A:", "question": "1+1?"}, "Q: 1+1? A:", "Q: 1+1? A:"),
        ({"prompt": "Q: 1+1? A:"}, "Q: 1+1? A:", "Q: 1+1? A:"),
        ({"prompt_id": 12, "question": "1+1?"}, "12", "1+1?"),
        ({"prompt_id": 12.0, "question": "1+1?"}, "12.0", "1+1?"),
        ({"uid": "x", "prompt_text": "Q", "question": "1+1?"}, "x", "Q"),
        ({"prompt": [{"role": "user", "content": "1+1?"}]}, "1+1?", "1+1?"),
        (
            {"prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]},
            "system: s\n\nuser: u",
            "system: s\n\nuser: u",
        ),
    ],
)
def test_the_prompt_is_a_text_or_an_id(
    tmp_path: Path, row: dict[str, Any], group: str, prompt_text: str
) -> None:
    found = completions(written(tmp_path, [{**row, "completion": "c", "correct": True}]))[0]
    assert (found.group, found.prompt_text) == (group, prompt_text)


def test_messages_are_read_as_the_formats_of_programs_read_them(tmp_path: Path) -> None:
    prompt = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1+1?"}]
    said = [{"role": "assistant", "content": [{"type": "text", "text": "2"}]}]
    row = {"prompt": prompt, "completion": said, "correct": True}
    listed = {"prompt": prompt, "completions": [said, said], "rewards": [1, 0]}
    for given, count in ((row, 1), (listed, 2)):
        found = completions(written(tmp_path, [given]))
        assert len(found) == count
        assert {each.text for each in found} == {"2"}
        assert {each.question for each in found} == {"1+1?"}
        assert found[0].prompt_text == "system: Be brief.\n\nuser: 1+1?"
        assert found[0].prompt_messages == prompt


def test_a_row_may_hold_all_completions_of_a_prompt(tmp_path: Path) -> None:
    row = {
        "prompt": "p",
        "answer": 4,
        "completions": ["a", "b"],
        "rewards": [1, 0],
        "token_ids": [[1, 2], [3]],
        "logprobs": [[-1.0, -2.0], None],
        "finish_reason": ["stop", "length"],
        "seed": 5,
        "prompt_token_ids": [8, 9],
    }
    for name in ("rows.jsonl", "rows.parquet"):
        first, second = completions(written(tmp_path, [row], name))
        assert (first.text, first.reward, first.token_ids) == ("a", 1.0, [1, 2])
        assert (second.text, second.reward, second.token_ids) == ("b", 0.0, [3])
        assert (first.sampler_logprobs, second.sampler_logprobs) == ([-1.0, -2.0], None)
        assert (first.finish_reason, second.finish_reason) == ("stop", "length")
        assert {each.answer for each in (first, second)} == {"4"}
        assert {each.seed for each in (first, second)} == {5}
        assert first.prompt_token_ids == second.prompt_token_ids == [8, 9]
        assert first.rollout is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"completion": None}, "no completion"),
        ({"completion": {"a": 1}}, "completion is a dict, expected text"),
        ({"completion": True}, "completion is a bool, expected text"),
        (
            {"completion": [{"role": "assistant", "content": "2"}] * 2},
            "a completion of several messages: the policy emitted one at a time",
        ),
        (
            {"completion": [{"role": "assistant", "content": [{"type": "image"}]}]},
            "completion: a message with content of type image, expected text",
        ),
        ({"question": None}, "no prompt and no question"),
        ({"correct": "maybe"}, "correct is a text that is not true or false, 1 or 0"),
        ({"correct": 0.5}, "correct is a float, expected true or false, 1 or 0"),
        ({"reward": "high"}, "reward is a text that is not a number"),
        ({"reward": [1.0]}, "reward is a list, expected a number"),
        ({"step": 1.5}, "step is a float, expected a whole number"),
        ({"token_ids": 3}, "token_ids is a int, expected a list of numbers"),
        ({"completion": ["a", "b"], "reward": [1]}, "reward and completion are lists of different"),
        ({"completion": ["a"], "token_ids": [1, 2]}, "token_ids is no list of lists"),
    ],
)
def test_a_cell_of_another_kind_refuses_its_row(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    path = written(tmp_path, [ROW, {**ROW, **change}, ROW])
    columns = {name: name for name in change}
    first = {name: ROW.get(name) for name in {**ROW, **change}}
    path = written(tmp_path, [first, {**ROW, **change}, ROW])
    assert [each.partition(reason)[1] for each in reasons(path, **columns)] == [reason]
    assert len(read(path, **columns)) == 3


def test_labels_may_be_written_in_several_ways(tmp_path: Path) -> None:
    said = [True, False, 1, 0, 1.0, "true", "False", "0", " 1 ", None]
    path = written(tmp_path, [{**ROW, "correct": each} for each in said])
    assert [each.correct for each in completions(path)] == [
        *(True, False, True, False, True, True, False, False, True),
        None,
    ]


def test_csv_may_hold_quotes_commas_and_line_breaks(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(
        "\ufeffquestion,answer,completion,reward,token_ids\n"
        '"1+1, ""really""?",2,"one\n\ntwo",1.0,"[1, 2]"\n'
        ",,,,\n"
        "q,2,,0,\n"
        "q,2\n"
    )
    found = read(path)
    assert isinstance(found[0], ForeignCompletion)
    assert (found[0].question, found[0].text) == ('1+1, "really"?', "one\n\ntwo")
    assert (found[0].reward, found[0].token_ids) == (1.0, [1, 2])
    assert isinstance(found[2], ForeignCompletion)
    assert (found[2].text, found[2].token_ids) == ("", None)
    assert reasons(path) == [
        "no prompt and no question",
        "another number of fields than the header",
    ]


def test_a_csv_whose_quotes_do_not_close_is_read_up_to_there(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('question,completion\nq,c\nq,"never closed\n')
    assert len(read(path)) == 2
    assert [each.partition(":")[0] for each in reasons(path)] == ["no CSV from here on"]


def test_compressed_lines_are_read_up_to_where_they_are_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    whole = gzip.compress("".join(json.dumps({**ROW, "n": n}) + "\n" for n in range(5000)).encode())
    path.write_bytes(whole)
    assert len(completions(path)) == 5000
    path.write_bytes(whole[: len(whole) // 2])
    found = read(path)
    assert 100 < len(found) < 5000
    assert isinstance(found[-1], Refused)
    assert "the file ends" in found[-1].reason


def test_damaged_lines_are_refused_and_the_others_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    line = json.dumps(ROW).encode()
    path.write_bytes(b"\n".join([b"{", line, b"[1]", b'{"a": "\xff"}', b"", line, line[:20]]))
    assert reasons(path) == [
        "not JSON",
        "a JSON list, expected an object",
        "not UTF-8",
        "not JSON, the file seems cut off",
    ]
    assert len(read(path)) == 6


def test_wide_characters_are_told_apart_from_damage(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(ROW), encoding="utf-16")
    with pytest.raises(DataError, match="is UTF-16"):
        read(path)


@pytest.mark.parametrize(
    ("name", "message"),
    [("x.parquet", "cannot be read as Parquet"), ("x.csv", "is not UTF-8"), ("x.jsonl.gz", "gzip")],
)
def test_binary_garbage_is_an_error(tmp_path: Path, name: str, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(bytes(range(255, 0, -1)) * 40)
    with pytest.raises(DataError, match=message):
        read(path)


def test_an_empty_file_is_told(tmp_path: Path) -> None:
    for name in ("x.parquet", "x.csv", "x.jsonl"):
        (tmp_path / name).touch()
        assert reasons(tmp_path / name) == ["the file is empty"]


def test_names_that_do_not_exist_are_errors_that_list_what_does(tmp_path: Path) -> None:
    path = written(tmp_path, [ROW])
    with pytest.raises(
        UsageError, match="has no column 'complete'; it has question, answer"
    ) as bad:
        read(path, completion="complete")
    assert bad.value.hint == "did you mean completion=completion?"
    with pytest.raises(UsageError, match="there is no field 'anwser'") as bad:
        read(path, anwser="answer")
    assert bad.value.hint == "did you mean answer?"
    with pytest.raises(DataError, match=r"which column holds the completions\? It has a, b"):
        read(written(tmp_path, [{"a": 1, "b": 2}]))
    with pytest.raises(DataError, match="which column holds the prompts or questions"):
        read(written(tmp_path, [{"completion": "c"}]))


def test_a_folder_gives_its_tables_in_order_and_nothing_else(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.parquet", "sub dir/c.csv", "readme.txt", "d.jsonl.gz", "e.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "broken.jsonl").symlink_to(tmp_path / "nowhere")
    found = [str(path.relative_to(tmp_path)) for path in IMPORTER.find(tmp_path)]
    assert found == ["a.parquet", "b.jsonl", "d.jsonl.gz", "sub dir/c.csv"]


def test_no_two_fields_share_an_obvious_name() -> None:
    names = [name for declared in FIELDS.values() for name in declared.names]
    assert len(names) == len(set(names))
