"""Pass@K of runs, against enumeration in exact arithmetic on real outcomes and by eye on small."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from thr_probe.analysis.passk import count_correct, ks_up_to, pass_at_k_curve, pass_at_k_table
from thr_probe.core.stats import question_weights
from thr_probe.errors import UsageError
from thr_probe.traces import read_run


def group(labels: str, **columns: object) -> dict[str, object]:
    """A group by its labels: "100" is one correct completion of three."""
    return {"completions": [{"correct": label == "1"} for label in labels], **columns}


def exact_mean(counts: pd.DataFrame, k: int) -> float:
    """The mean over questions in exact rational arithmetic."""
    values = [
        1 - Fraction(math.comb(n - c, k), math.comb(n, k))
        for n, c in zip(counts["n"].tolist(), counts["c"].tolist(), strict=True)
    ]
    return float(sum(values) / len(values))


def test_the_curve_of_a_small_run_is_what_counting_by_hand_gives(
    tmp_path: Path, make_run: Callable[..., Path]
) -> None:
    path = make_run(tmp_path / "run", [group("1000"), group("1100"), group("0000"), group("1111")])
    analysis = pass_at_k_curve(read_run(path))
    curve = analysis.curves["curve"]
    assert curve["split"].tolist() == ["all"] * 3
    assert curve["k"].tolist() == [1, 2, 4]
    # k = 2: pairs with a correct one are 3 of 6, 5 of 6, none, all
    assert_allclose(curve["value"], [7 / 16, (3 / 6 + 5 / 6 + 0 + 1) / 4, 3 / 4], rtol=1e-14)
    assert curve["num_questions"].tolist() == [4] * 3
    assert_allclose(analysis.value("pass_at_2").value, 7 / 12, rtol=1e-14)
    assert analysis.value("never_solved").value == 0.25
    assert analysis.value("mixed").value == 0.5
    assert analysis.value("always_solved").value == 0.25
    assert analysis.facts["num_correct"] == 7
    assert "4 questions, $n = 4$" in analysis.caption


def test_the_interval_is_that_of_a_plain_loop_over_resampled_questions(
    tmp_path: Path, make_run: Callable[..., Path]
) -> None:
    labels = ["1000", "1100", "0000", "1111", "1000"]
    path = make_run(tmp_path / "run", [group(text) for text in labels])
    found = pass_at_k_curve(read_run(path), seed=3).value("pass_at_2")
    per_question = [np.mean(["1" in pair for pair in combinations(text, 2)]) for text in labels]
    draws = []
    for row in question_weights(5, seed=3):
        drawn = [
            value for value, times in zip(per_question, row, strict=True) for _ in range(times)
        ]
        draws.append(sum(drawn) / 5)
    assert_allclose([found.low, found.high], np.quantile(draws, [0.025, 0.975]), rtol=1e-12)


@pytest.mark.parametrize(
    ("file", "by"),
    [
        ("math500_r1distill_outcomes_x320_notext", None),
        ("math500_r1distill_outcomes_x320_notext", "config"),
        ("gsm8k_rlvr_checkpoints_x8", None),
        ("gsm8k_rlvr_checkpoints_x8", "config"),
        ("game24_gpt4_x100", "config"),
        ("mgsm_en_s1_x17", None),
    ],
)
def test_real_outcomes_equal_exact_enumeration(test_data: Path, file: str, by: str | None) -> None:
    rows = pd.read_parquet(
        test_data / "rollouts" / f"{file}.parquet", columns=["question_id", "correct", "config"]
    )
    for _, part in rows.groupby(by) if by else [("", rows)]:
        counts = part.groupby("question_id")["correct"].agg(n="size", c="sum").reset_index()
        counts = counts.rename(columns={"question_id": "prompt_id"})
        ks = ks_up_to(int(counts["n"].min()))
        table = pass_at_k_table(counts, ks)
        expected = [exact_mean(counts, k) for k in ks]
        assert_allclose(table["value"], expected, rtol=0, atol=1e-12)
        assert_array_equal(np.diff(table["value"]) >= 0, True)


def test_a_run_of_real_outcomes_equals_counting_every_subset(
    test_data: Path, tmp_path: Path, make_run: Callable[..., Path]
) -> None:
    rows = pd.read_parquet(
        test_data / "rollouts" / "gsm8k_rlvr_checkpoints_x8.parquet",
        columns=["question_id", "correct", "config"],
    )
    rows = rows[rows["config"] == "sft max1024"]
    labels = {name: part["correct"].tolist() for name, part in rows.groupby("question_id")}
    path = make_run(
        tmp_path / "run",
        [
            {"prompt_id": name, "completions": [{"correct": label} for label in part]}
            for name, part in labels.items()
        ],
        groups_per_part=4,
        scored=False,
    )
    curve = pass_at_k_curve(read_run(path), ks=range(1, 9)).curves["curve"]
    for k, value in zip(curve["k"], curve["value"], strict=True):
        means = [np.mean([any(s) for s in combinations(part, k)]) for part in labels.values()]
        assert_allclose(value, np.mean(means), rtol=0, atol=1e-12)


def test_outcomes_of_training_equal_enumeration_at_their_first_and_last_epoch(
    test_data: Path,
) -> None:
    rows = pd.read_parquet(test_data / "rollouts" / "oneshot_rlvr_acc_history_notext.parquet")
    for epoch in (0, -1):
        correct = [round(float(history[epoch]) * 8) for history in rows["acc"]]
        counts = pd.DataFrame({"prompt_id": rows["question_id"], "n": 8, "c": correct})
        table = pass_at_k_table(counts, [1, 2, 4, 8])
        expected = [exact_mean(counts, k) for k in (1, 2, 4, 8)]
        assert_allclose(table["value"], expected, rtol=0, atol=1e-12)
        assert_allclose(table["value"][0], np.mean([h[epoch] for h in rows["acc"]]), atol=1e-12)


def test_each_split_is_resampled_once(
    tmp_path: Path, make_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def counted_weights(num_questions: int, **options: int) -> np.ndarray:
        sizes.append(num_questions)
        return question_weights(num_questions, **options)

    monkeypatch.setattr("thr_probe.analysis.passk.question_weights", counted_weights)
    groups = [group("10", dataset=name) for name in ("amc", "amc", "aime")]
    pass_at_k_curve(read_run(make_run(tmp_path / "run", groups)))
    assert sizes == [3, 1, 2]


def test_k_beyond_n_is_refused_naming_n(tmp_path: Path, make_run: Callable[..., Path]) -> None:
    run = read_run(make_run(tmp_path / "run", [group("1000"), group("110"), group("0000")]))
    with pytest.raises(UsageError, match=r"Pass@4 .* but n = 3 for 1 group of 3") as refused:
        pass_at_k_curve(run, ks=[1, 4])
    assert refused.value.exit_code == 2
    assert "up to 3" in str(refused.value.hint)
    for ks in ([], [0], [-1, 2]):
        with pytest.raises(UsageError, match="at least 1"):
            pass_at_k_curve(run, ks=ks)
    with pytest.raises(UsageError, match="unknown split"):
        pass_at_k_curve(run, by="difficulty")


def test_unequal_groups_end_the_curve_at_the_smallest_and_say_so(
    tmp_path: Path, make_run: Callable[..., Path]
) -> None:
    path = make_run(tmp_path / "run", [group("10000000"), group("110"), group("0000")])
    analysis = pass_at_k_curve(read_run(path))
    assert analysis.curves["curve"]["k"].tolist() == [1, 2, 3]
    counts = pd.DataFrame({"n": [8, 3, 4], "c": [1, 2, 0]})
    expected = [exact_mean(counts, k) for k in (1, 2, 3)]
    assert_allclose(analysis.curves["curve"]["value"], expected, rtol=1e-13)
    assert (analysis.facts["smallest_n"], analysis.facts["largest_n"]) == (3, 8)
    assert "ends at the smallest group, k = 3" in analysis.caption


def test_groups_are_counted_across_parts_and_steps_of_one_question_resampled_together(
    tmp_path: Path, make_run: Callable[..., Path]
) -> None:
    groups = [
        group("10", prompt_id="a", step=0),
        group("00", prompt_id="b", step=0),
        group("11", prompt_id="a", step=1),
    ]
    run = read_run(make_run(tmp_path / "run", groups, groups_per_part=1))
    counts = count_correct(run).sort_values(["prompt_id", "step"])
    assert counts[["prompt_id", "step", "n", "c"]].to_numpy().tolist() == [
        ["a", 0, 2, 1],
        ["a", 1, 2, 2],
        ["b", 0, 2, 0],
    ]
    found = pass_at_k_curve(run, ks=[1]).value("pass_at_1")
    assert_allclose(found.value, (0.5 + 1 + 0) / 3)
    # a resample holds question a as a whole or not at all: 0, 3/4 of 2 or all of a
    assert (found.low, found.high) == (0.0, 0.75)


def test_several_steps_of_training_are_said_to_be_several_policies(
    tmp_path: Path, make_run: Callable[..., Path]
) -> None:
    trained = [group("10", prompt_id="a", step=0), group("11", prompt_id="b", step=1)]
    found = pass_at_k_curve(read_run(make_run(tmp_path / "trained", trained)))
    (warning,) = found.facts["warnings"]
    assert "of 2 steps of training, so of as many policies" in warning
    assert warning in found.caption
    one_step = [group("10", prompt_id="a", step=3), group("11", prompt_id="b", step=3)]
    found = pass_at_k_curve(read_run(make_run(tmp_path / "one", one_step)))
    assert found.facts["warnings"] == []
    assert "policies" not in found.caption


def test_datasets_and_levels_have_their_own_curves(
    tmp_path: Path, make_run: Callable[..., Path]
) -> None:
    groups = [
        group("10", dataset="amc", level="easy"),
        group("11", dataset="amc", level=None),
        group("00", dataset="aime", level="hard_1"),
    ]
    run = read_run(make_run(tmp_path / "run", groups))
    curve = pass_at_k_curve(run).curves["curve"]
    first = curve[curve["k"] == 1].set_index("split")["value"].to_dict()
    assert first == {"all": 0.5, "dataset aime": 0.0, "dataset amc": 0.75}
    by_level = pass_at_k_curve(run, by="level")
    first = by_level.curves["curve"].query("k == 1").set_index("split")["value"].to_dict()
    assert first == {"all": 0.5, "level (none)": 1.0, "level easy": 0.5, "level hard_1": 0.0}
    assert r"level hard\_1" in by_level.caption
    assert pass_at_k_curve(run, by="none").curves["curve"]["split"].unique().tolist() == ["all"]


def test_a_run_without_any_correct_completion_has_a_curve_at_zero_and_says_what_it_cannot_say(
    tmp_path: Path, make_run: Callable[..., Path]
) -> None:
    path = make_run(tmp_path / "run", [group("0000"), group("0000")])
    analysis = pass_at_k_curve(read_run(path))
    assert analysis.empty_reason is None
    assert_array_equal(analysis.curves["curve"][["value", "low", "high"]], 0.0)
    assert "No completion is correct" in analysis.caption


def test_a_run_without_completions_says_so(tmp_path: Path, make_run: Callable[..., Path]) -> None:
    run = read_run(make_run(tmp_path / "run", [], complete=False))
    analysis = pass_at_k_curve(run)
    assert analysis.empty_reason == "This run holds no completions."
    assert analysis.summary.empty
