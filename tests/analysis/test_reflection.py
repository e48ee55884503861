"""Reflection words, against a plain count on real texts and answers by eye on small runs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from thr_probe.analysis.reflection import REFLECTION_WORDS, reflection_ratio
from thr_probe.analysis.word_counts import count_words, read_words, unique_words
from thr_probe.core.stats import question_weights
from thr_probe.errors import DataError, UsageError
from thr_probe.traces import read_run

# Table 14, typed a second time, row by row
ROWS = (
    "actually although alternating but",
    "correct despite error fix",
    "however incorrect instead mistake",
    "nevertheless nonetheless note realize",
    "realized rethink reconsider still",
    "thinking think though wait",
    "whereas otherwise wrong yet",
    "unless",
)
TABLE_14 = [word for row in ROWS for word in row.split()]


def completion(
    text: str, num_tokens: int | None = 10, *, correct: bool = True
) -> dict[str, object]:
    ids = None if num_tokens is None else [1] * num_tokens
    return {"text": text, "correct": correct, "token_ids": ids}


def text_run(
    make_run: Callable[..., Path], path: Path, frame: pd.DataFrame, **options: object
) -> Path:
    """A text-only run of the rows of a rollout file."""
    groups = [
        {
            "prompt_id": name,
            "completions": [
                {"text": text, "correct": label, "token_ids": None}
                for text, label in zip(part["completion"], part["correct"], strict=True)
            ],
        }
        for name, part in frame.groupby("question_id", sort=False)
    ]
    return make_run(path, groups, scored=False, groups_per_part=7, **options)


def test_the_list_is_the_29_words_of_the_paper() -> None:
    assert sorted(REFLECTION_WORDS) == sorted(TABLE_14)
    assert len(set(REFLECTION_WORDS)) == 29


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("But wait: I think so.", 3),
        ("WAIT, wait! Wait?", 3),
        ("rebut, awaits, button, unthinkable, noted", 0),
        ("incorrect is not correct", 2),  # "correct" inside "incorrect" is no second match
        ("I realize; he realized, realizes", 2),
        ("wait-but-think", 3),
        ("wait_for(error2, fix)", 1),
        ("", 0),
        ("**Wait**\n\\text{but}", 2),
    ],
)
def test_whole_words_count_once_in_any_case(
    tmp_path: Path, make_run: Callable[..., Path], text: str, expected: int
) -> None:
    path = make_run(tmp_path / "run", [{"completions": [completion(text)]}])
    analysis = reflection_ratio(read_run(path))
    assert analysis.facts["num_matches"] == expected
    assert_allclose(analysis.value("reflection_ratio").value, expected / 10)
    assert analysis.value("reflecting_completions").value == float(expected > 0)


def test_a_small_run_gives_the_ratios_counted_by_eye(
    tmp_path: Path, make_run: Callable[..., Path]
) -> None:
    groups = [
        {
            "completions": [
                completion("Wait, but no.", 8),
                completion("So it is 4.", 4),
                completion("However, wait. Wait!", 28, correct=False),
            ]
        },
        {"completions": [completion("It is wrong, yet fine.", 20, correct=False)]},
    ]
    analysis = reflection_ratio(read_run(make_run(tmp_path / "run", groups, groups_per_part=1)))
    assert analysis.value("reflection_ratio").value == 7 / 60
    assert analysis.value("reflection_ratio", "correct").value == 2 / 12
    assert analysis.value("reflection_ratio", "incorrect").value == 5 / 48
    assert analysis.value("reflecting_completions").value == 3 / 4
    assert analysis.value("reflecting_completions", "correct").value == 1 / 2
    assert analysis.value("matches_per_completion", "incorrect").value == 5 / 2
    assert set(analysis.summary.query("quantity == 'reflection_ratio'")["unit"]) == {
        "matches per token"
    }
    num_questions = analysis.summary.set_index(["quantity", "split"])["num_questions"]
    assert num_questions["reflection_ratio"].to_dict() == {"all": 2, "correct": 1, "incorrect": 2}
    words = analysis.curves["words"].set_index(["word", "split"])
    assert words["count"]["wait"].to_dict() == {"all": 3, "correct": 1, "incorrect": 2}
    assert words["value"]["wait", "incorrect"] == 2 / 48
    assert words["value"]["yet", "correct"] == 0
    assert analysis.curves["words"]["word"].iloc[0] == "wait"
    assert len(words) == 29 * 3
    assert len(analysis.facts["words_never_met"]) == 29 - 5
    # the words' rates add up to the ratio
    assert_allclose(words["value"].xs("all", level="split").sum(), 7 / 60, rtol=1e-14)


def test_the_intervals_are_those_of_a_plain_loop_over_resampled_questions(
    tmp_path: Path, make_run: Callable[..., Path]
) -> None:
    counts = [(1, 10, 3), (0, 30, 0), (4, 20, 2), (2, 5, 0)]
    groups = [
        {
            "completions": [
                completion("wait " * matches, length),
                completion("but " * wrong, 7, correct=False),
            ]
        }
        for matches, length, wrong in counts
    ]
    analysis = reflection_ratio(read_run(make_run(tmp_path / "run", groups)), seed=5)
    for split, matches, tokens in (
        ("correct", [row[0] for row in counts], [row[1] for row in counts]),
        ("incorrect", [row[2] for row in counts], [7] * 4),
        ("all", [row[0] + row[2] for row in counts], [row[1] + 7 for row in counts]),
    ):
        draws = []
        for weights in question_weights(4, seed=5):
            drawn = [q for q, times in enumerate(weights) for _ in range(times)]
            draws.append(sum(matches[q] for q in drawn) / sum(tokens[q] for q in drawn))
        found = analysis.value("reflection_ratio", split)
        assert_allclose([found.low, found.high], np.quantile(draws, [0.025, 0.975]), rtol=1e-12)


@pytest.mark.parametrize(
    ("file", "per_question"),
    [
        ("math500_r1distill_llama8b_x80", 12),
        ("mgsm_en_s1_x17", 3),
        ("gsm8k_rlvr_checkpoints_x8", 64),
    ],
)
def test_real_texts_equal_a_plain_count(
    test_data: Path, tmp_path: Path, make_run: Callable[..., Path], file: str, per_question: int
) -> None:
    frame = pd.read_parquet(
        test_data / "rollouts" / f"{file}.parquet",
        columns=["question_id", "completion", "correct"],
    )
    frame = frame.groupby("question_id", sort=False).head(per_question)
    pattern = re.compile(r"\b(" + "|".join(TABLE_14) + r")\b", re.IGNORECASE)
    plain = [Counter(m.lower() for m in pattern.findall(text)) for text in frame["completion"]]
    totals = np.array([counter.total() for counter in plain])
    lengths = frame["completion"].str.split().str.len().to_numpy()
    labels = frame["correct"].to_numpy()

    analysis = reflection_ratio(read_run(text_run(make_run, tmp_path / "run", frame)))

    assert analysis.facts["num_matches"] == totals.sum() > 500
    assert analysis.facts["num_text_words"] == lengths.sum()
    counted = analysis.curves["words"].query("split == 'all'").set_index("word")["count"]
    assert counted.to_dict() == {word: sum(c[word] for c in plain) for word in TABLE_14}
    for split, chosen in (("all", labels | ~labels), ("correct", labels), ("incorrect", ~labels)):
        expected = 1000 * totals[chosen].sum() / lengths[chosen].sum()
        assert_allclose(analysis.value("reflection_ratio", split).value, expected, rtol=1e-12)
        share = analysis.value("reflecting_completions", split).value
        assert_allclose(share, np.mean(totals[chosen] > 0), rtol=1e-12)
    assert analysis.summary["unit"].iloc[0] == "matches per 1,000 words"
    assert "per 1,000 words" in analysis.caption


def test_one_completion_without_ids_turns_the_whole_run_to_words(
    tmp_path: Path, make_run: Callable[..., Path]
) -> None:
    groups = [{"completions": [completion("wait a bit"), completion("no, but yes", None)]}]
    analysis = reflection_ratio(read_run(make_run(tmp_path / "run", groups)))
    assert analysis.facts["num_completions_without_ids"] == 1
    assert analysis.value("reflection_ratio").value == 1000 * 2 / 6
    assert analysis.curves["splits"]["unit"].unique().tolist() == ["matches per 1,000 words"]


def test_tokens_are_counted_by_their_decoded_text(
    tmp_path: Path, make_run: Callable[..., Path]
) -> None:
    tokens = {1: " Wait", 2: "but", 3: "ter", 4: " re", 5: "think", 6: "ĠHowever", 7: "<eos>"}
    ids = [1, 2, 3, 4, 5, 6, 1, 7]
    groups = [{"completions": [{"token_ids": ids, "correct": True}]}]
    run = read_run(make_run(tmp_path / "run", groups, tokens=tokens))
    by_token = reflection_ratio(run, unit="token")
    # Wait, but (of butter), think (of rethink), However, Wait
    assert by_token.value("reflection_ratio").value == 5 / 8
    counted = by_token.curves["words"].query("split == 'all' and count > 0")
    assert counted.set_index("word")["count"].to_dict() == {
        "wait": 2,
        "but": 1,
        "think": 1,
        "however": 1,
    }
    # the text reads " Waitbutter rethinkĠHowever Wait<eos>"
    assert reflection_ratio(run).value("reflection_ratio").value == 1 / 8


def test_tokens_cannot_be_counted_without_ids(
    tmp_path: Path, make_run: Callable[..., Path]
) -> None:
    path = make_run(tmp_path / "run", [{"completions": [completion("wait", None)]}])
    with pytest.raises(DataError, match="no token ids"):
        reflection_ratio(read_run(path), unit="token")
    group = {"completions": [completion("wait")]}
    bare = make_run(tmp_path / "bare", [group])
    assert not (bare / "tokens.parquet").exists()
    with pytest.raises(DataError, match=r"tokens\.parquet is missing from .*bare, although"):
        reflection_ratio(read_run(bare), unit="token")
    with pytest.raises(UsageError, match="unknown unit"):
        reflection_ratio(read_run(path), unit="word")


def test_a_word_list_is_read_from_a_file(tmp_path: Path, make_run: Callable[..., Path]) -> None:
    file = tmp_path / "words.txt"
    file.write_text("# mine\n\nHold   on\nhold\n Let me check \nhold on\nétonnant\n", "utf-8")
    words = read_words(file)
    assert words == ("hold on", "hold", "let me check", "étonnant")
    text = "Hold on, hold. Let me\ncheck: ÉTONNANT! hold on hold"
    run = read_run(make_run(tmp_path / "run", [{"completions": [completion(text)]}]))
    counted = reflection_ratio(run, words=words).curves["words"].query("split == 'all'")
    assert counted.set_index("word")["count"].to_dict() == {
        "hold on": 2,
        "hold": 2,
        "let me check": 1,
        "étonnant": 1,
    }


def test_word_lists_that_are_no_lists_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read as a word list"):
        read_words(tmp_path / "absent.txt")
    with pytest.raises(DataError, match="No such file") as caught:
        read_words(tmp_path / "absent.txt")
    assert caught.value.hint == "name a text file that holds one word a line"
    for encoding, text, reason in (
        ("utf-16", "wait\n", "byte 0 is 0xff"),
        ("utf-16-le", "wait\n", "NUL characters"),
        ("latin-1", "wait\n\xe9tonnant\n", "byte 5 is 0xe9"),
    ):
        (tmp_path / encoding).write_bytes(text.encode(encoding))
        with pytest.raises(DataError, match="not UTF-8") as caught:
            read_words(tmp_path / encoding)
        assert f"{tmp_path / encoding} cannot be read" in caught.value.message
        assert reason in caught.value.message
        assert caught.value.hint == "save it as UTF-8, one word a line"
    for name, content in (("empty", b"\n# only this\n"), ("binary", b"\xff\xfe\x00wait")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError):
            read_words(tmp_path / name)
    with pytest.raises(UsageError, match="at least one word"):
        unique_words([])
    with pytest.raises(UsageError, match="no empty one"):
        unique_words(["wait", "  "])


def test_regular_expression_characters_in_a_list_stand_for_themselves(
    tmp_path: Path, make_run: Callable[..., Path]
) -> None:
    run = read_run(make_run(tmp_path / "run", [{"completions": [completion("what?! c++ or c")]}]))
    counts = count_words(run, ["what?!", "c++", "c", "."])
    assert_array_equal(counts[[0, 1, 2, 3]].to_numpy(), [[1, 1, 1, 0]])


def test_a_split_without_completions_is_undefined_and_not_zero(
    tmp_path: Path, make_run: Callable[..., Path]
) -> None:
    groups = [{"completions": [completion("wait")]}, {"completions": [completion("so")]}]
    analysis = reflection_ratio(read_run(make_run(tmp_path / "run", groups)))
    incorrect = analysis.value("reflection_ratio", "incorrect")
    assert_array_equal([incorrect.value, incorrect.low, incorrect.high], [np.nan] * 3)
    assert "undefined over incorrect" in analysis.caption


def test_a_run_without_completions_says_so(tmp_path: Path, make_run: Callable[..., Path]) -> None:
    analysis = reflection_ratio(read_run(make_run(tmp_path / "run", [], complete=False)))
    assert analysis.empty_reason == "The run has no completions yet."


def test_tokens_cannot_be_counted_where_the_column_of_ids_is_absent(
    tmp_path: Path, make_run: Callable[..., Path]
) -> None:
    groups = [{"completions": [{"correct": True, "token_ids": None, "thr": [1.0]}]}]
    run = read_run(make_run(tmp_path / "run", groups, tokens={1: "wait"}))
    with pytest.raises(DataError, match="has no token ids"):
        reflection_ratio(run, unit="token")
