"""Problem sets from benchmark files, own tables, verl Parquet, the hub and the lab."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from thr_probe.errors import DataError, PrerequisiteError, UsageError
from thr_probe.lab import lab_problems, prompt_text
from thr_probe.problems import load_problems


def write_jsonl(path: Path, *rows: object) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> str:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return str(path)


def message_of(source: str, error: type[Exception] = DataError, **options: Any) -> str:
    with pytest.raises(error) as caught:
        load_problems(source, **options)
    return f"{caught.value} | {getattr(caught.value, 'hint', '')}"


@pytest.mark.parametrize(
    ("name", "num", "empty", "twice"),
    [
        ("aime24", 30, 0, 0),
        ("aime25", 30, 0, 0),
        ("amc23", 40, 0, 0),
        ("math500", 500, 0, 0),
        ("minerva_math", 272, 0, 0),
        ("olympiadbench", 675, 0, 0),
        ("train_math_lvl3to5_8k", 8520, 2, 1),
    ],
)
def test_the_seven_benchmark_files_are_read_as_they_are(
    test_data: Path, name: str, num: int, empty: int, twice: int
) -> None:
    path = test_data / "benchmarks" / f"{name}.parquet"
    loaded = load_problems(str(path), template="plain")
    rows = pq.read_table(path).to_pylist()
    questions = [row["question"] for row in rows]
    assert (len(loaded.problems), loaded.num_empty_gold, loaded.num_duplicates) == (
        num,
        empty,
        twice,
    )
    assert len(rows) - sum(not row["answer"] for row in rows) - num == twice
    assert {problem.question for problem in loaded.problems} <= set(questions)
    first = loaded.problems[0]
    assert (first.question, first.answer) == (rows[0]["question"], rows[0]["answer"])
    assert (first.dataset, loaded.name, first.prompt_text) == (name, name, rows[0]["question"])
    level = rows[0]["level"]
    assert first.level == (None if level is None or level != level else str(level))


def test_a_second_gold_comes_along(test_data: Path) -> None:
    path = test_data / "benchmarks" / "minerva_math.parquet"
    rows = {row["question"]: row["answer_alt"] for row in pq.read_table(path).to_pylist()}
    problems = load_problems(str(path)).problems
    assert {problem.question: problem.answer_alt for problem in problems} == rows
    with_two = [problem for problem in problems if problem.answer_alt]
    assert len(with_two) == 84
    assert all(
        problem.accepted_answers == (problem.answer, problem.answer_alt) for problem in with_two
    )


def test_prompt_ids_and_digest_follow_the_text(tmp_path: Path) -> None:
    rows = [{"question": f"What is {n}+1?", "answer": str(n + 1)} for n in range(3)]
    loaded = load_problems(write_jsonl(tmp_path / "a.jsonl", *rows), template="abel")
    problem = loaded.problems[1]
    text = "Question:\nWhat is 1+1?\nAnswer:\nLet's think step by step.\n"
    joined = f"What is 1+1?\0{text}".encode()
    assert problem.prompt_text == text
    assert problem.prompt_id == hashlib.sha256(joined).hexdigest()[:16]
    again = load_problems(write_parquet(tmp_path / "b.parquet", rows), template="abel")
    assert again.digest == loaded.digest
    rows[2]["answer"] = "4"
    other = load_problems(write_jsonl(tmp_path / "c.jsonl", *rows), template="abel")
    assert other.digest != loaded.digest
    assert load_problems(str(tmp_path / "a.jsonl")).digest != loaded.digest


def test_csv_jsonl_and_parquet_give_the_same_problems(tmp_path: Path) -> None:
    rows = [
        {"problem": 'He said "3, or 4"?', "gold": "3, 4"},
        {"problem": "Two\nlines of $x^2$", "gold": "7"},
    ]
    csv_path = tmp_path / "p.csv"
    csv_path.write_text(
        '\ufeffproblem,gold\n"He said ""3, or 4""?","3, 4"\n"Two\nlines of $x^2$",7\n',
        encoding="utf-8",
    )
    sources = [
        str(csv_path),
        write_jsonl(tmp_path / "p.jsonl", *rows),
        write_parquet(tmp_path / "p.parquet", rows),
    ]
    sets = [load_problems(source) for source in sources]
    assert sets[0] == sets[1] == sets[2]
    assert [problem.answer for problem in sets[0].problems] == ["3, 4", "7"]


def test_columns_are_found_by_name_or_named(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "p.jsonl", {"text": "2+2?", "label": 4, "question": ""})
    loaded = load_problems(source, question_column="text", answer_column="label")
    assert (loaded.problems[0].question, loaded.problems[0].answer) == ("2+2?", "4")
    message = message_of(source, question_column="text")
    assert "no answer column" in message
    assert "text, label, question" in message
    assert "--answer-column" in message
    assert "no column 'txt'" in message_of(source, question_column="txt")


def test_numbers_as_golds_become_text(tmp_path: Path) -> None:
    rows = [{"question": f"q{n}", "answer": gold} for n, gold in enumerate([7, 7.0, 0.25, " 8 "])]
    loaded = load_problems(write_jsonl(tmp_path / "p.jsonl", *rows))
    assert [problem.answer for problem in loaded.problems] == ["7", "7", "0.25", "8"]


def test_empty_golds_and_repeated_prompts_are_left_out_and_counted(tmp_path: Path) -> None:
    golds = [("a", "1"), ("b", ""), ("c", None), ("a", "2"), ("d", "\\boxed{}"), ("e", "3")]
    rows = [{"question": question, "answer": gold} for question, gold in golds]
    loaded = load_problems(write_jsonl(tmp_path / "p.jsonl", *rows))
    kept = [(problem.question, problem.answer) for problem in loaded.problems]
    assert kept == [("a", "1"), ("e", "3")]
    assert (loaded.num_empty_gold, loaded.num_duplicates) == (3, 1)
    message = message_of(write_jsonl(tmp_path / "n.jsonl", *rows[1:3]))
    assert "none of the 2 rows has a gold" in message


def test_max_prompts_keeps_the_first_in_the_order_of_the_source(tmp_path: Path) -> None:
    rows = [{"question": f"q{n}", "answer": str(n) if n != 1 else ""} for n in range(50)]
    source = write_jsonl(tmp_path / "p.jsonl", *rows)

    def golds(num: int | None) -> list[int]:
        return [int(problem.answer) for problem in load_problems(source, max_prompts=num).problems]

    assert golds(3) == [0, 2, 3]
    assert golds(99) == golds(None) == [0, *range(2, 50)]
    assert "at least 1" in message_of(source, UsageError, max_prompts=0)


def test_the_default_template_gives_way_to_prompts_of_the_file(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "p.jsonl", {"question": "1+1?", "answer": "2"})
    assert load_problems(source, default_template="lab").problems[0].prompt_text == prompt_text(
        "1+1?"
    )
    ready = write_parquet(tmp_path / "v.parquet", verl_rows(1))
    plain, told = load_problems(ready), load_problems(ready, default_template="lab")
    assert told.problems == plain.problems


def verl_rows(num: int = 2) -> list[dict[str, Any]]:
    return [
        {
            "data_source": "simplelr_math",
            "prompt": [
                {"role": "user", "content": f"<|im_start|>user\nWhat is {n}*2?<|im_end|>\n"}
            ],
            "reward_model": {"ground_truth": str(2 * n), "style": "rule"},
            "extra_info": {"index": n, "level": "3"},
        }
        for n in range(num)
    ]


def test_verl_prompts_are_raw_text(tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "train.parquet", verl_rows())
    problem = load_problems(source).problems[1]
    assert problem.prompt_text == "<|im_start|>user\nWhat is 1*2?<|im_end|>\n"
    assert (problem.answer, problem.dataset, problem.level) == ("2", "simplelr_math", "3")
    assert "second time" in message_of(source, UsageError, template="abel")


def test_verl_messages_go_through_the_chat_template_where_asked(tmp_path: Path) -> None:
    rows = verl_rows(1)
    rows[0]["prompt"].insert(0, {"role": "system", "content": "Be brief."})
    source = write_parquet(tmp_path / "train.parquet", rows)
    assert "2 messages" in message_of(source)
    problem = load_problems(source, template="chat", tokenizer=FakeTokenizer()).problems[0]
    assert problem.prompt_text.startswith("[system]Be brief.[user]")
    assert problem.question == rows[0]["prompt"][1]["content"]


class FakeTokenizer:
    """Renders messages in a way that shows each part."""

    chat_template = "there is one"

    def apply_chat_template(
        self, messages: list[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool
    ) -> str:
        assert not tokenize
        parts = [f"[{message['role']}]{message['content']}" for message in messages]
        return "".join(parts) + ("[assistant]" if add_generation_prompt else "")


def test_wrong_verl_cells_are_named(tmp_path: Path) -> None:
    rows = verl_rows()
    rows[1]["prompt"][0]["content"] = "  "
    message = message_of(write_parquet(tmp_path / "a.parquet", rows))
    assert "row 2, column prompt[0].content" in message
    rows = verl_rows()
    rows[1]["reward_model"] = None
    assert "row 2, column reward_model" in message_of(write_parquet(tmp_path / "b.parquet", rows))


def test_the_lab_is_a_source() -> None:
    loaded = load_problems("lab", max_prompts=5)
    expected = lab_problems("test", 5)
    assert [problem.question for problem in loaded.problems] == [each.question for each in expected]
    assert [problem.answer for problem in loaded.problems] == [each.answer for each in expected]
    assert loaded.problems[0].prompt_text == prompt_text(expected[0].question)
    other = load_problems("lab:validation", max_prompts=5)
    assert {problem.prompt_id for problem in other.problems}.isdisjoint(
        problem.prompt_id for problem in loaded.problems
    )
    assert "no split 'dev'" in message_of("lab:dev", UsageError)


# -- what is wrong with a file is said with its name, row and column --


def test_a_truncated_parquet_file_is_named(tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "p.parquet", [{"question": "q", "answer": "1"}])
    path = Path(source)
    path.write_bytes(path.read_bytes()[:-20])
    assert f"{source} is not a readable Parquet file" in message_of(source)
    path.write_text("question,answer\n")
    assert "not a readable Parquet" in message_of(source)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("p.jsonl", '{"question": "a", "answer": "1"}\n{"question"\n', "line 2 is not JSON"),
        ("p.jsonl", '{"question": "a", "answer": "1"}\n[1]\n', "line 2 holds a list"),
        ("p.jsonl", "", "has no rows"),
        ("p.jsonl", "\n\n", "has no rows"),
        ("p.csv", "question,answer\na,1,2\n", "row 1 has 3 fields, the header has 2"),
        ("p.csv", "question,answer\n", "has no rows"),
        ("p.csv", 'question,answer\n"a,1\n', "line 2: unexpected end of data"),
        ("p.jsonl", '{"question": 5, "answer": "1"}', "row 1, column question: expected the"),
        ("p.jsonl", '{"question": " ", "answer": "1"}', "row 1, column question: expected the"),
        ("p.jsonl", '{"answer": "1"}', "no question column; columns found: answer"),
        ("p.jsonl", '{"question": "a", "answer": ["1"]}', "column answer: expected text or a"),
        ("p.jsonl", '{"question": "a", "answer": true}', "found bool True"),
        ("p.json", "{}", "not read from .json"),
        ("p", "", "not read from files without an ending"),
    ],
)
def test_bad_files_are_refused_by_name(tmp_path: Path, name: str, text: str, expected: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    message = message_of(str(path))
    assert expected in message
    assert str(path) in message


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(b'{"question": "\xff"}\n')
    assert f"{path} cannot be read: line 1 is not UTF-8 (byte 0xff)" in message_of(str(path))


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_the_line_of_the_first_byte_that_is_not_utf8_is_told(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"p.{ending}"
    good = "a,b\n" if ending == "csv" else '{"question": "\xe9", "answer": "1"}\n'
    # far beyond the first chunk of a decoder, within which a stream counts its bytes
    path.write_bytes(good.encode() * 9000 + 'caf\xe9,"1"\n'.encode("latin-1"))
    message = message_of(str(path))
    assert f"{path} cannot be read: line 9001 is not UTF-8 (byte 0xe9)" in message
    assert message.endswith("| save the file as UTF-8")


def test_an_unclosed_quote_of_a_csv_file_comes_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text('question,answer\n"a,1\n')
    assert "| close every quote, and double each quote inside" in message_of(str(path))


def test_a_path_that_does_not_exist_is_no_hub_name(tmp_path: Path) -> None:
    (tmp_path / "real.jsonl").write_text("")
    message = message_of(str(tmp_path / "rael.jsonl"))
    assert "does not exist" in message
    assert "real.jsonl" in message
    assert "does not exist" in message_of("no/such/place/x.parquet")
    assert "is a folder" in message_of(str(tmp_path))


# -- the hub --


def test_without_the_hub_package_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert 'pip install "thr_probe[hub]"' in message_of("some/dataset", PrerequisiteError)


class FakeSplit(list[dict[str, Any]]):
    column_names = ("question", "answer")


class FakeHub(ModuleType):
    """Stands in for the package `datasets`: two splits, one of them test."""

    def __init__(self) -> None:
        super().__init__("datasets")
        self.asked: list[tuple[str, str | None, str | None]] = []

    def load_dataset(self, repo: str, name: str | None, split: str | None) -> Any:
        self.asked.append((repo, name, split))
        if repo == "org/missing":
            raise FileNotFoundError("no such data set")
        splits = {key: FakeSplit([{"question": key, "answer": "1"}]) for key in ("train", "test")}
        if repo == "org/odd":
            splits["dev"] = splits.pop("test")
        return splits[split] if split else splits


def test_hub_names_carry_a_config_and_a_split(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = FakeHub()
    monkeypatch.setitem(sys.modules, "datasets", hub)
    assert load_problems("org/data").problems[0].question == "test"
    assert load_problems("org/data/main:train").problems[0].question == "train"
    assert hub.asked == [("org/data", None, None), ("org/data", "main", "train")]
    assert "no split named test, but train, dev" in message_of("org/odd")
    assert "was not loaded from the hub: no such data set" in message_of("org/missing")
