"""Which completions count, and what is said of the others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from thr_probe.analysis.stream import CompletionStream
from thr_probe.errors import DataError, UsageError
from thr_probe.traces import read_run

MakeRun = Callable[..., Path]

GROUPS = [
    {"prompt_id": "a", "tau": 0.5, "completions": [{"correct": True}, {"correct": False}]},
    {"prompt_id": "b", "completions": [{"correct": False}, {"correct": False}]},
    {"prompt_id": "c", "tau": 0.2, "completions": [{"correct": True}, {"correct": True}]},
    {"prompt_id": "d", "tau": -0.1, "completions": [{"correct": False}, {"correct": True}]},
]


def test_mixed_groups_are_kept_and_the_others_counted_by_reason(
    tmp_path: Path, make_run: MakeRun
) -> None:
    stream = CompletionStream(read_run(make_run(tmp_path / "run", GROUPS)), ["thr"])
    (batch,) = list(stream)
    assert stream.questions == ["a", "d"]
    assert batch.group_R.tolist() == [0, 0, 1, 1]
    np.testing.assert_array_equal(batch.tau_R, np.float32([0.5, 0.5, -0.1, -0.1]))
    assert batch.lengths.tolist() == [4, 4, 4, 4]
    facts = stream.facts()
    assert facts["num_questions"] == 2
    assert facts["num_completions"] == 4
    assert facts["num_tokens"] == 16
    assert facts["num_groups_tau_nonpositive"] == 1
    assert facts["excluded_groups_no_correct"] == 1
    assert facts["excluded_completions_no_correct"] == 2
    assert facts["excluded_groups_all_correct"] == 1
    assert stream.exclusion_sentence() == (
        "Left out: 1 group without a correct completion, 1 group with only correct completions."
    )
    assert stream.empty_reason() is None


def test_has_correct_keeps_groups_that_are_all_correct(tmp_path: Path, make_run: MakeRun) -> None:
    run = read_run(make_run(tmp_path / "run", GROUPS))
    stream = CompletionStream(run, ["thr"], groups="has-correct")
    list(stream)
    assert stream.questions == ["a", "c", "d"]
    positive = CompletionStream(run, ["thr"], groups="has-correct", positive_tau=True)
    list(positive)
    assert positive.questions == ["a", "c"]
    assert positive.facts()["excluded_groups_tau_nonpositive"] == 1


def test_strata_separate_question_sign_of_tau_and_correctness(
    tmp_path: Path, make_run: MakeRun
) -> None:
    stream = CompletionStream(read_run(make_run(tmp_path / "run", GROUPS)), ["thr"])
    (batch,) = list(stream)
    strata = stream.strata
    rows = list(zip(strata.question_S, strata.tau_positive_S, strata.correct_S, strict=True))
    assert [rows[index] for index in batch.stratum_R] == [
        (0, True, True), (0, True, False), (1, False, False), (1, False, True),
    ]  # fmt: skip
    splits = strata.splits()
    assert list(splits) == [
        "all", "correct", "incorrect",
        "all, tau > 0", "correct, tau > 0", "incorrect, tau > 0",
    ]  # fmt: skip
    assert splits["all, tau > 0"].tolist() == [True, True, False, False]


def test_steps_of_training_make_groups_of_their_own_but_one_question(
    tmp_path: Path, make_run: MakeRun
) -> None:
    completions = [{"correct": True}, {"correct": False}]
    groups = [
        {"prompt_id": "a", "step": step, "tau": tau, "completions": completions}
        for step, tau in ((0, 0.5), (1, 0.25))
    ]
    stream = CompletionStream(read_run(make_run(tmp_path / "run", groups)), ["thr"])
    list(stream)
    assert stream.num_questions == 1
    assert stream.tau.tolist() == [0.5, 0.25]
    assert stream.question_of_group.tolist() == [0, 0]
    assert stream.step_of_group == [0, 1]


def test_a_second_pass_gives_the_same_indices(random_run: Path) -> None:
    stream = CompletionStream(read_run(random_run), ["thr"])
    first = [batch.stratum_R.tolist() for batch in stream]
    facts = stream.facts()
    assert [batch.stratum_R.tolist() for batch in stream] == first
    assert stream.facts() == facts


@pytest.mark.parametrize(
    ("groups", "reason"),
    [
        (GROUPS[1:2], "None of the 2 completions in 1 group is correct, and THR is defined"),
        (GROUPS[2:3], "No group is left to analyse. Left out: 1 group with only correct"),
        (GROUPS[1:3], "1 group without a correct completion, 1 group with only correct"),
        ([], "This run holds no completions."),
    ],
)
def test_a_run_without_a_group_to_keep_says_why(
    tmp_path: Path, make_run: MakeRun, groups: list[dict[str, object]], reason: str
) -> None:
    stream = CompletionStream(read_run(make_run(tmp_path / "run", groups)), ["thr"])
    assert list(stream) == []
    found = stream.empty_reason()
    assert found is not None
    assert reason in found
    assert ("--groups has-correct" in found) == (GROUPS[2] in groups)


def test_a_run_without_scores_says_so(tmp_path: Path, make_run: MakeRun) -> None:
    run = read_run(make_run(tmp_path / "run", GROUPS, scored=False))
    stream = CompletionStream(run, ["thr"])
    assert list(stream) == []
    assert "has no scores" in (stream.empty_reason() or "")


def test_an_unknown_choice_of_groups_is_refused(random_run: Path) -> None:
    with pytest.raises(UsageError, match="unknown groups 'some'; choose mixed or has-correct"):
        CompletionStream(read_run(random_run), ["thr"], groups="some")


def test_thr_without_its_threshold_is_refused(tmp_path: Path, make_run: MakeRun) -> None:
    groups = [{"tau": None, "completions": [{"correct": True}, {"correct": False}]}]
    run = read_run(make_run(tmp_path / "run", groups))
    with pytest.raises(DataError, match="column tau is null for 2 completions"):
        list(CompletionStream(run, ["thr"]))
