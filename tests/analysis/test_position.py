"""THR along completions by loops over tokens; answers found by eye and by a regular expression."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from thr_probe.analysis.answer_places import last_whole
from thr_probe.analysis.position import thr_by_position
from thr_probe.analysis.result import Analysis
from thr_probe.core.stats import question_weights
from thr_probe.traces import read_run

MakeRun = Callable[..., Path]

TOKENS = {1: "wait ", 2: "so ", 3: "5", 4: "6", 5: " is ", 6: "{", 7: "}", 8: "é56", 9: "<eos>"}


def _groups(number: int) -> list[dict[str, Any]]:
    """Random tokens, answers that may be there, be missing, or lie across tokens."""
    rng = np.random.default_rng(6)
    groups = []
    for index in range(number):
        completions = []
        for place in range(3):
            size = int(rng.integers(1, 60))
            answers = ["5", "56", "6", "{5", None, "", "nowhere", "65 is"]
            completions.append(
                {
                    "correct": place == 0 or (place == 1 and index % 3 == 0),
                    "thr": np.float32(rng.normal(size=size)).tolist(),
                    "token_ids": [*rng.integers(1, 9, size - 1).tolist(), 9],
                    "extracted": answers[int(rng.integers(len(answers)))],
                }
            )
        tau = -0.2 if index % 6 == 5 else 0.7
        groups.append({"prompt_id": f"q{index}", "tau": tau, "completions": completions})
    return groups


@pytest.fixture(scope="module")
def groups() -> list[dict[str, Any]]:
    return _groups(14)


@pytest.fixture(scope="module")
def analysis(
    tmp_path_factory: pytest.TempPathFactory, make_run: MakeRun, groups: list[dict[str, Any]]
) -> Analysis:
    path = make_run(tmp_path_factory.mktemp("p") / "run", groups, tokens=TOKENS)
    return thr_by_position(read_run(path), seed=2)


def answer_token(completion: dict[str, Any]) -> int | None:
    """The first token of the answer's last whole occurrence, by a regular expression."""
    answer = completion["extracted"]
    if not answer:
        return None
    pieces = [TOKENS[token] for token in completion["token_ids"]]
    before = r"(?<![A-Za-z0-9])" if answer[0].isalnum() else ""
    after = r"(?![A-Za-z0-9])" if answer[-1].isalnum() else ""
    places = re.finditer(f"(?={before}{re.escape(answer)}{after})", "".join(pieces))
    starts = [match.start() for match in places]
    if not starts:
        return None
    ends = np.cumsum([len(piece) for piece in pieces])
    return int(np.flatnonzero(ends > starts[-1])[0])


def tokens_of(groups: list[dict[str, Any]]) -> pd.DataFrame:
    rows = []
    for group in groups:
        for completion in group["completions"]:
            place, size = answer_token(completion), len(completion["thr"])
            for k, thr in enumerate(completion["thr"]):
                rows.append(
                    {
                        "question": group["prompt_id"],
                        "tau": group["tau"],
                        "correct": completion["correct"],
                        "magnitude": abs(thr),
                        "mean_thr": thr,
                        "dominant_share": float(abs(thr) > group["tau"]),
                        "start": k,
                        "relative": (k + 0.5) / size,
                        "end": size - 1 - k,
                        "answer": np.nan if place is None else k - place,
                        "first": (k + 0.5) * 10 < size,
                        "last": (size - k - 0.5) * 10 < size,
                    }
                )
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def tokens(groups: list[dict[str, Any]]) -> pd.DataFrame:
    return tokens_of(groups)


def chosen(tokens: pd.DataFrame, split: str) -> pd.DataFrame:
    label, _, rest = split.partition(", ")
    part = tokens[tokens["tau"] > 0] if rest else tokens
    return part if label == "all" else part[part["correct"] == (label == "correct")]


@pytest.mark.parametrize("axis", ["start", "relative", "end", "answer"])
def test_every_bin_equals_a_loop_over_its_tokens(
    analysis: Analysis, tokens: pd.DataFrame, axis: str
) -> None:
    curve = analysis.curves[axis]
    assert set(curve["split"]) == {
        label + suffix for label in ("all", "correct", "incorrect") for suffix in ("", ", tau > 0")
    }
    for split, rows in curve.groupby("split"):
        part = chosen(tokens, str(split))
        assert rows["tokens"].sum() == part[axis].notna().sum()
        for row in rows.to_dict("records"):
            inside = part[(part[axis] >= row["left"]) & (part[axis] < row["right"])]
            assert row["tokens"] == len(inside) > 0
            for measure in ("magnitude", "mean_thr", "dominant_share"):
                np.testing.assert_allclose(
                    row[measure], inside[measure].mean(), rtol=1e-9, atol=1e-12
                )


def test_bins_near_zero_hold_one_position_and_later_ones_grow(analysis: Analysis) -> None:
    rows = analysis.curves["start"]
    rows = rows[rows["split"] == "all"]
    assert rows["left"].tolist()[:11] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11]
    rows = analysis.curves["answer"]
    rows = rows[rows["split"] == "all"]
    near = rows[rows["left"].between(-4, 4)]
    assert near["left"].tolist() == list(range(-4, 5))
    np.testing.assert_array_equal(rows["left"].iloc[1:], rows["right"].iloc[:-1])


def test_the_summary_equals_the_tokens_of_each_region(
    analysis: Analysis, tokens: pd.DataFrame
) -> None:
    regions = {
        "": tokens["start"] >= 0,
        "_first_tenth": tokens["first"],
        "_last_tenth": tokens["last"],
        "_before_answer": tokens["answer"].between(-8, -1),
        "_from_answer": tokens["answer"].between(0, 7),
    }
    for region, inside in regions.items():
        for split in ("all", "incorrect", "correct, tau > 0"):
            part = chosen(tokens[inside], split)
            for measure in ("magnitude", "mean_thr", "dominant_share"):
                found = analysis.value(f"{measure}{region}", split).value
                np.testing.assert_allclose(found, part[measure].mean(), rtol=1e-9)


@pytest.mark.parametrize("size", [1, 5, 6, 9, 10, 15, 16, 31])
def test_a_completion_read_backwards_has_the_same_tenths_and_bins(
    tmp_path: Path, make_run: MakeRun, size: int
) -> None:
    thr = np.arange(1.0, size + 1).tolist()
    found = []
    for name, values in (("forwards", thr), ("backwards", thr[::-1])):
        completions = [{"correct": label, "thr": values} for label in (True, False)]
        run = read_run(make_run(tmp_path / name, [{"tau": 0.5, "completions": completions}]))
        found.append(thr_by_position(run))
    quantities = [set(analysis.summary["quantity"]) for analysis in found]
    assert quantities[0] == quantities[1]
    assert ("magnitude_first_tenth" in quantities[0]) == (size > 5)
    if size > 5:
        first, last = (
            found[index].value(f"magnitude_{name}_tenth").value
            for index, name in ((0, "first"), (1, "last"))
        )
        assert first == last


def test_bounds_equal_a_loop_over_resampled_questions(
    analysis: Analysis, tokens: pd.DataFrame
) -> None:
    names = list(dict.fromkeys(tokens["question"]))
    third = tokens[tokens["start"] == 2].groupby("question")["magnitude"].agg(["sum", "size"])
    sums = third.reindex(names).fillna(0).to_numpy()
    draws = [counts @ sums for counts in question_weights(len(names), seed=2)]
    expected = np.quantile([draw[0] / draw[1] for draw in draws], [0.025, 0.975])
    rows = analysis.curves["start"]
    (row,) = rows[(rows["split"] == "all") & (rows["left"] == 2)].itertuples()
    np.testing.assert_allclose([row.magnitude_low, row.magnitude_high], expected, rtol=1e-9)


def test_the_answers_located_are_counted(analysis: Analysis, groups: list[dict[str, Any]]) -> None:
    completions = [completion for group in groups for completion in group["completions"]]
    located = sum(answer_token(completion) is not None for completion in completions)
    extracted = sum(bool(completion["extracted"]) for completion in completions)
    assert analysis.facts["num_answers_located"] == located > 5
    assert analysis.facts["num_answers_extracted"] == extracted > located
    assert f"located in {located} of the {extracted} completions that have one" in analysis.caption


@pytest.mark.parametrize(
    ("text", "answer", "place"),
    [
        (b"5, then 56.", b"5", 0),
        (b"5 and 5", b"5", 6),
        (b"555", b"5", -1),
        (b"x{1}{1}", b"{1}", 4),
        (b"1{1}", b"{1}", 1),
        (b"", b"1", -1),
        (b"\\frac{1}{2}", b"\\frac{1}{2}", 0),
        (b"aab ab", b"ab", 4),
    ],
)
def test_the_last_whole_occurrence_is_found(text: bytes, answer: bytes, place: int) -> None:
    assert last_whole(text, answer) == place


@pytest.mark.parametrize("without", ["tokens", "ids", "answers"])
def test_without_located_answers_the_end_is_what_is_left(
    tmp_path: Path, make_run: MakeRun, without: str
) -> None:
    completions: list[dict[str, Any]] = [
        {"correct": label, "extracted": None if without == "answers" else "5", "thr": [1.0, -2.0]}
        for label in (True, False)
    ]
    if without == "ids":
        completions = [{**completion, "token_ids": None} for completion in completions]
    else:
        completions = [{**completion, "token_ids": [3, 9]} for completion in completions]
    path = make_run(
        tmp_path / "run",
        [{"tau": 1.5, "completions": completions}],
        tokens=None if without == "tokens" else TOKENS,
    )
    analysis = thr_by_position(read_run(path))
    assert set(analysis.curves) == {"start", "relative", "end"}
    assert analysis.facts["num_answers_located"] == 0
    assert "no answer being located" in analysis.caption
    assert "magnitude_from_answer" not in set(analysis.summary["quantity"])


def test_row_groups_do_not_change_the_numbers(
    tmp_path: Path, make_run: MakeRun, groups: list[dict[str, Any]], analysis: Analysis
) -> None:
    path = make_run(tmp_path / "run", groups, tokens=TOKENS, groups_per_part=3)
    other = thr_by_position(read_run(path), seed=2)
    pd.testing.assert_frame_equal(other.summary, analysis.summary, rtol=1e-9)
    for curve, table in analysis.curves.items():
        pd.testing.assert_frame_equal(other.curves[curve], table, rtol=1e-9, atol=1e-12)


def test_no_correct_completion_and_only_correct_ones(tmp_path: Path, make_run: MakeRun) -> None:
    none = make_run(tmp_path / "none", [{"completions": [{"correct": False}] * 2}])
    reason = thr_by_position(read_run(none)).empty_reason or ""
    assert reason.startswith("None of the 2 completions in 1 group")
    path = make_run(tmp_path / "all", [{"completions": [{"correct": True}] * 2}])
    analysis = thr_by_position(read_run(path), groups="has-correct")
    assert set(analysis.summary["split"]) == {"all", "correct"}
