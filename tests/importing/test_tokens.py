"""Token ids: the sampler's, checked; or those of the text; or none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from foreign_rows import Letters, foreign, imported, rows_of

from thr_probe.errors import DataError
from thr_probe.traces import read_run, validate_run

LETTERS = Letters()


def ids(text: str) -> list[int]:
    return [ord(letter) for letter in text]


def test_without_ids_and_tokenizer_the_ids_are_absent(tmp_path: Path) -> None:
    report = imported(tmp_path, [foreign("a")])
    run = read_run(tmp_path / "run")
    assert "token_ids" not in run.rollout_parts[0].columns
    assert "prompt_token_ids" not in run.problems()
    assert run.tokens() is None
    assert run.manifest.tokenizer_digest is None
    assert report.counts["ids_absent"] == 1
    assert rows_of(tmp_path / "run")[0]["ids_source"] == "absent"


def test_a_tokenizer_gives_ids_to_prompt_and_text(tmp_path: Path) -> None:
    report = imported(
        tmp_path, [foreign("a", text="ab", finish_reason="length")], words=LETTERS, model_name="m"
    )
    run = read_run(tmp_path / "run")
    row = rows_of(tmp_path / "run")[0]
    assert (row["token_ids"], row["ids_source"]) == (ids("ab"), "retokenized")
    assert run.problems()["prompt_token_ids"][0].tolist() == [1, *ids("say a")]
    tokens = run.tokens()
    assert tokens is not None
    assert tokens["text"].tolist() == ["a", "b"]
    assert (run.manifest.tokenizer_digest, run.manifest.model) == ("digest of letters", "m")
    assert report.counts["ids_retokenized"] == 1
    assert validate_run(tmp_path / "run") == []


@pytest.mark.parametrize(
    ("text", "finish_reason", "expected"),
    [
        ("ab", "stop", [*ids("ab"), 0]),
        ("ab</s>", "stop", [*ids("ab"), 0]),
        ("ab<x>", "stop", [*ids("ab"), 2]),
        ("ab", "length", ids("ab")),
        ("ab", "abort", ids("ab")),
        ("ab", None, ids("ab")),
        ("", "stop", [0]),
        ("", None, [0]),
    ],
)
def test_the_end_is_a_token_where_the_completion_is_known_to_have_ended(
    tmp_path: Path, text: str, finish_reason: str | None, expected: list[int]
) -> None:
    report = imported(
        tmp_path, [foreign("a", text=text, finish_reason=finish_reason)], words=LETTERS
    )
    row = rows_of(tmp_path / "run")[0]
    assert row["token_ids"] == expected
    assert row["finish_reason"] == (finish_reason or "unknown")
    assert report.counts["finish_unknown"] == (finish_reason is None)


def test_ids_of_the_source_are_kept_as_they_are(tmp_path: Path) -> None:
    given = [*ids("it is"), 2, 0]
    row = foreign("a", text="it is", token_ids=given, prompt_token_ids=[9, 8])
    imported(tmp_path, [row], words=LETTERS)
    found = rows_of(tmp_path / "run")[0]
    assert (found["token_ids"], found["ids_source"]) == (given, "sampled")
    assert read_run(tmp_path / "run").problems()["prompt_token_ids"][0].tolist() == [9, 8]


def test_some_completions_may_have_ids_and_others_not(tmp_path: Path) -> None:
    rows = [foreign("a", token_ids=[5]), foreign("a", text="b")]
    report = imported(tmp_path, rows)
    assert [row["token_ids"] for row in rows_of(tmp_path / "run")] == [[5], None]
    assert (report.counts["ids_sampled"], report.counts["ids_absent"]) == (1, 1)


def test_ids_of_another_text_are_counted(tmp_path: Path) -> None:
    rows = [foreign("a", text=text, token_ids=ids("a b")) for text in ("a b", " ab\n", "ac")]
    report = imported(tmp_path, rows, words=LETTERS)
    assert report.counts["ids_of_other_text"] == 1
    assert report.completions == 3


def test_ids_beyond_the_vocabulary_are_refused(tmp_path: Path) -> None:
    rows = [foreign("a", text="a", token_ids=[*ids("a"), place * 128]) for place in (0, 1)]
    report = imported(tmp_path, [*rows, rows[0]], words=LETTERS)
    assert [each["reason"] for each in report.refused] == ["token ids beyond the 128 of letters"]
    assert report.completions == 2


@pytest.mark.parametrize("wrong", [ids("no"), [5000]])
def test_a_tokenizer_of_another_model_is_an_error(tmp_path: Path, wrong: list[int]) -> None:
    rows = [foreign("a", text="yes", token_ids=wrong) for _ in range(3)]
    with pytest.raises(DataError, match="letters is not the tokenizer of these") as caught:
        imported(tmp_path, rows, words=LETTERS)
    assert "of 3 completions it reads 3 differently" in caught.value.message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ([2**40], "token_ids are not whole numbers of 32 bits"),
        ([-100], "token_ids hold a negative number"),
    ],
)
def test_ids_that_are_none_are_refused(tmp_path: Path, given: list[object], reason: str) -> None:
    report = imported(tmp_path, [foreign("a", token_ids=given), foreign("a")])
    assert [each["reason"] for each in report.refused] == [reason]


def test_logprobs_are_kept_where_there_is_one_per_token(tmp_path: Path) -> None:
    rows = [
        foreign("a", token_ids=[1, 2], sampler_logprobs=[-0.5, -1.5]),
        foreign("a", token_ids=[1, 2], sampler_logprobs=[-0.5]),
        foreign("a", token_ids=[1, 2], sampler_logprobs=[-0.5, float("-inf")]),
        foreign("a", sampler_logprobs=[-0.5]),
        foreign("a", token_ids=[1, 2], sampler_logprobs=[0.6, 0.3]),  # probabilities
        foreign("a", token_ids=[1, 2], sampler_logprobs=[1e-6, 0.0]),
    ]
    report = imported(tmp_path, rows)
    found = [row["sampler_logprobs"] for row in rows_of(tmp_path / "run")]
    np.testing.assert_allclose(found[0], [-0.5, -1.5])
    assert found[1:5] == [None, None, None, None]
    np.testing.assert_allclose(found[5], [1e-6, 0.0])
    assert report.counts["logprobs_of_other_length"] == 2
    assert report.counts["logprobs_impossible"] == 2


def test_lone_surrogates_become_replacement_characters(tmp_path: Path) -> None:
    broken = "a" + chr(0xD83D) + "b"
    report = imported(tmp_path, [foreign("a", text=broken, prompt_text=broken, answer=broken)])
    assert rows_of(tmp_path / "run")[0]["text"] == "a\ufffdb"
    assert report.counts["broken_text"] == 1


def test_a_text_with_nul_characters_comes_back_whole(tmp_path: Path) -> None:
    imported(tmp_path, [foreign("a", text="a\0b\0")])
    assert rows_of(tmp_path / "run")[0]["text"] == "a\0b\0"


def test_a_completion_of_a_megabyte_is_taken_whole(tmp_path: Path) -> None:
    text = "wait, " * 200_000
    imported(tmp_path, [foreign("a", text=text)], words=LETTERS)
    row = rows_of(tmp_path / "run")[0]
    assert row["text"] == text
    assert len(row["token_ids"]) == len(text)
