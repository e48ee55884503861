"""The prompt that the policy read: messages under a chat template, ids alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from foreign_rows import Letters, foreign, imported, rows_of

from thr_probe.errors import DataError
from thr_probe.problems.problem import prompt_id
from thr_probe.traces import read_run, validate_run

PLAIN, CHAT = Letters(), Letters(has_template=True)
MESSAGES = [{"role": "system", "content": "Add."}, {"role": "user", "content": "1+1?"}]
TEMPLATED = "<x>[system] Add.[user] 1+1?[policy]"


def ids(text: str) -> list[int]:
    return [ord(letter) for letter in text]


def asked(**values: Any) -> dict[str, Any]:
    prompt = {
        "prompt_text": "system: Add.\n\nuser: 1+1?",
        "question": "1+1?",
        "prompt_messages": MESSAGES,
    }
    return prompt | values


def only_problem(folder: Path) -> dict[str, Any]:
    (row,) = read_run(folder / "run").problems().to_dict("records")
    return {str(name): value for name, value in row.items()}


def test_messages_become_what_the_policy_read(tmp_path: Path) -> None:
    rows = [foreign("2", **asked()), foreign("2", **asked())]
    report = imported(tmp_path, rows, words=CHAT)
    problem = only_problem(tmp_path)
    assert (problem["prompt_text"], problem["question"]) == (TEMPLATED, "1+1?")
    # the special token that the template spells is one id, and no beginning is put before it
    assert problem["prompt_token_ids"].tolist() == [2, *ids(TEMPLATED.removeprefix("<x>"))]
    assert problem["prompt_id"] == prompt_id("1+1?", TEMPLATED)
    assert {row["prompt_id"] for row in rows_of(tmp_path / "run")} == {problem["prompt_id"]}
    assert report.counts["prompts_with_template"] == 1
    assert report.counts["prompts_without_template"] == 0
    assert report.completions == 2
    assert validate_run(tmp_path / "run") == []


def test_the_template_is_applied_once_per_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[object] = []
    apply = Letters.chat_prompt

    def counted(self: Letters, messages: Any) -> str | None:
        calls.append(messages)
        return apply(self, messages)

    monkeypatch.setattr(Letters, "chat_prompt", counted)
    imported(tmp_path, [foreign(group, **asked()) for group in "2323"], words=CHAT)
    assert calls == [MESSAGES, MESSAGES]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, None),
        ({"words": PLAIN}, [1, *ids("system: Add.\n\nuser: 1+1?")]),
        ({"words": CHAT, "chat_template": False}, [1, *ids("system: Add.\n\nuser: 1+1?")]),
    ],
)
def test_without_a_template_messages_stay_and_are_counted(
    tmp_path: Path, options: dict[str, Any], expected: list[int] | None
) -> None:
    rows = [foreign("2", **asked()), foreign("2", **asked()), foreign("3")]
    report = imported(tmp_path, rows, **options)
    problems = read_run(tmp_path / "run").problems()
    assert problems["prompt_text"].tolist() == ["system: Add.\n\nuser: 1+1?", "say 3"]
    assert problems["prompt_id"][0] == prompt_id("1+1?", "system: Add.\n\nuser: 1+1?")
    if expected is not None:
        assert problems["prompt_token_ids"][0].tolist() == expected
    assert report.counts["prompts_without_template"] == 1
    assert report.counts["prompts_with_template"] == 0


def test_ids_of_the_file_count_more_than_the_template(tmp_path: Path) -> None:
    given = [2, *ids("[user] 1+1?")]
    report = imported(tmp_path, [foreign("2", **asked(prompt_token_ids=given))], words=CHAT)
    problem = only_problem(tmp_path)
    assert problem["prompt_token_ids"].tolist() == given
    assert problem["prompt_text"] == "<x>[user] 1+1?"
    assert problem["prompt_id"] == prompt_id("1+1?", "<x>[user] 1+1?")
    assert report.counts["prompts_with_template"] == 0
    assert report.counts["prompts_without_template"] == 0


def test_ids_of_the_file_are_kept_without_a_tokenizer(tmp_path: Path) -> None:
    report = imported(tmp_path, [foreign("2", **asked(prompt_token_ids=[7, 8]))])
    problem = only_problem(tmp_path)
    assert problem["prompt_token_ids"].tolist() == [7, 8]
    assert problem["prompt_text"] == "system: Add.\n\nuser: 1+1?"
    assert report.counts["prompts_without_template"] == 0


def test_messages_that_the_template_refuses_are_refused(tmp_path: Path) -> None:
    wrong = asked(prompt_messages=[{"role": "tool", "content": "2"}])
    report = imported(tmp_path, [foreign("2", **wrong), foreign("3")], words=CHAT)
    assert [(each["reason"], each["rows"]) for each in report.refused] == [
        ("no tools (--no-chat-template leaves them as they are)", 1)
    ]
    assert report.completions == 1


def test_rows_of_another_prompt_are_refused_as_before(tmp_path: Path) -> None:
    other = asked(prompt_text="user: 2+2?", prompt_messages=MESSAGES[:1])
    report = imported(tmp_path, [foreign("2", **asked()), foreign("2", **other)], words=CHAT)
    assert [each["reason"] for each in report.refused] == [
        "another prompt than the first row of its group"
    ]


def bare(group: str, **values: Any) -> Any:
    given = {"text": "", "prompt_text": "", "prompt_token_ids": [1, *ids("2+2?")]}
    return foreign(group, **(given | values))


def test_ids_alone_give_the_texts(tmp_path: Path) -> None:
    rows = [bare("a", token_ids=[*ids(said), 0]) for said in ("4", "it is 5", "")]
    report = imported(tmp_path, rows, words=PLAIN)
    problem = only_problem(tmp_path)
    assert (problem["prompt_text"], problem["question"]) == ("<s>2+2?", "<s>2+2?")
    assert problem["prompt_token_ids"].tolist() == [1, *ids("2+2?")]
    assert problem["prompt_id"] == prompt_id("<s>2+2?", "<s>2+2?")
    found = rows_of(tmp_path / "run")
    assert [row["text"] for row in found] == ["4", "it is 5", ""]
    assert [row["token_ids"] for row in found] == [[*ids(said), 0] for said in ("4", "it is 5", "")]
    assert {row["ids_source"] for row in found} == {"sampled"}
    assert report.counts["texts_from_ids"] == 3
    assert report.counts["ids_of_other_text"] == 0


def test_the_question_is_found_in_a_prompt_of_ids(tmp_path: Path) -> None:
    prompt = "<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n"
    imported(tmp_path, [bare("a", token_ids=[52], prompt_token_ids=ids(prompt))], words=PLAIN)
    problem = only_problem(tmp_path)
    assert (problem["prompt_text"], problem["question"]) == (prompt, "2+2?")


def test_ids_alone_need_a_tokenizer(tmp_path: Path) -> None:
    report = imported(tmp_path, [bare("a", token_ids=[52]), foreign("b")])
    assert [each["reason"] for each in report.refused] == [
        "only token ids, no text: give --tokenizer"
    ]
    with pytest.raises(DataError, match="only token ids, no text: give --tokenizer"):
        imported(tmp_path, [bare("a", token_ids=[52])], dry_run=True)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"token_ids": [52, 128]}, "token ids beyond the 128 of letters"),
        ({"prompt_token_ids": [500]}, "token ids beyond the 128 of letters"),
        ({"prompt_token_ids": None}, "only token ids, and none of the prompt"),
    ],
)
def test_ids_alone_that_give_no_text_are_refused(
    tmp_path: Path, values: dict[str, Any], reason: str
) -> None:
    rows = [bare("a", **({"token_ids": [52]} | values)), foreign("b")]
    report = imported(tmp_path, rows, words=PLAIN)
    assert [each["reason"] for each in report.refused] == [reason]
    assert report.counts["texts_from_ids"] == 0


def test_an_empty_completion_of_a_known_prompt_is_no_row_of_ids_alone(tmp_path: Path) -> None:
    report = imported(tmp_path, [foreign("a", text="", token_ids=[0])])
    assert (report.completions, report.counts["texts_from_ids"]) == (1, 0)
