"""The parts of THR: by eye, by loops over tokens, against the split computed from hidden states."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from thr_probe.analysis.result import Analysis
from thr_probe.analysis.split import PARTS, influence_shares
from thr_probe.core.group import TokenGroup
from thr_probe.core.head import Head
from thr_probe.core.stats import question_weights
from thr_probe.core.thr import influence_split, token_hidden_reward
from thr_probe.errors import DataError
from thr_probe.traces import read_run

MakeRun = Callable[..., Path]


def _groups(number: int) -> list[dict[str, Any]]:
    """Groups whose THR and its parts come from random hidden states."""
    generator = torch.Generator().manual_seed(4)
    head = Head(torch.randn(11, 5, generator=generator))
    groups = []
    for index in range(number):
        correct_G = torch.tensor([True, False, index % 2 == 0, True])
        lengths = torch.randint(2, 9, (4,), generator=generator)
        rollout_N = torch.repeat_interleave(torch.arange(4), lengths)
        size = len(rollout_N)
        group = TokenGroup(
            torch.randn(size, 5, generator=generator),
            torch.randint(0, 11, (size,), generator=generator),
            rollout_N,
            correct_G,
        )
        thr_N = token_hidden_reward(group, head).thr_N
        parts = influence_split(group, head)
        completions = []
        for rollout in range(4):
            rows = rollout_N == rollout
            values = {"thr": thr_N, "thr_self": parts.self_N, "thr_within": parts.within_N}
            lists = {name: value_N[rows].tolist() for name, value_N in values.items()}
            completions.append({"correct": bool(correct_G[rollout]), **lists})
        tau = -0.1 if index % 5 == 4 else 0.8
        groups.append({"prompt_id": f"q{index}", "tau": tau, "completions": completions})
    return groups


@pytest.fixture(scope="module")
def groups() -> list[dict[str, Any]]:
    return _groups(12)


@pytest.fixture(scope="module")
def analysis(
    tmp_path_factory: pytest.TempPathFactory, make_run: MakeRun, groups: list[dict[str, Any]]
) -> Analysis:
    return influence_shares(read_run(make_run(tmp_path_factory.mktemp("s") / "run", groups)))


def parts_of_tokens(group: dict[str, Any], split: str) -> Iterator[tuple[float, list[float]]]:
    """THR and its four parts for every token of a split, one by one."""
    label, _, tokens = split.partition(", ")
    for completion in group["completions"]:
        correct = completion["correct"]
        if label not in {"all", "correct" if correct else "incorrect"}:
            continue
        lists = (completion[name] for name in ("thr", "thr_self", "thr_within"))
        for thr, own_token, within in zip(*lists, strict=True):
            dominant = abs(thr) > group["tau"]
            if tokens and dominant != (tokens == "dominant"):
                continue
            if correct:
                yield thr, [own_token, within - own_token, thr - within, 0.0]
            else:
                yield thr, [0.0, 0.0, 0.0, thr]


def test_three_tokens_have_the_parts_written_down(tmp_path: Path, make_run: MakeRun) -> None:
    completions = [
        # parts 2, -1, 3 of 4 and 1, 0, -3 of -2
        {"correct": True, "thr": [4.0, -2.0], "thr_self": [2.0, 1.0], "thr_within": [1.0, 1.0]},
        {"correct": False, "thr": [-10.0], "thr_self": [0.0], "thr_within": [0.0]},
    ]
    run = read_run(make_run(tmp_path / "run", [{"tau": 3.0, "completions": completions}]))
    analysis = influence_shares(run)
    shares = [analysis.value(f"{part}_share").value for part in PARTS]
    assert shares == [3 / 20, 1 / 20, 6 / 20, 10 / 20]
    # signs of THR: +, -: self 2 - 1, own -1, other 3 + 3
    aligned = [analysis.value(f"{part}_aligned", "correct").value for part in PARTS]
    assert aligned == [1 / 6, -1 / 6, 6 / 6, 0]
    net = [analysis.value(f"{part}_net", "correct").value for part in PARTS[:3]]
    assert net == [3 / 2, -1 / 2, 0]
    assert analysis.value("opposed_mass", "correct").value == 2 / 6
    assert analysis.value("self_share", "correct, dominant").value == 2 / 6
    assert analysis.value("cross_token_share", "correct").value == 7 / 10
    assert analysis.value("cross_completion_share").value == 16 / 20
    assert analysis.value("incorrect_share", "incorrect").value == 1


def test_a_signed_sum_below_zero_has_no_shares_and_no_place_in_the_caption(
    tmp_path: Path, make_run: MakeRun
) -> None:
    completions = [
        {"correct": True, "thr": [1.0, -2.0], "thr_self": [2.0, 1.0], "thr_within": [1.0, 1.0]},
        {"correct": False, "thr": [-1.0], "thr_self": [0.0], "thr_within": [0.0]},
    ]
    run = read_run(make_run(tmp_path / "run", [{"tau": 0.5, "completions": completions}]))
    analysis = influence_shares(run)
    assert not analysis.summary["quantity"].str.endswith("_net").any()
    assert "although the token's own part is never negative. (b)" in analysis.caption
    assert "undefined" not in analysis.caption


@pytest.mark.parametrize(
    "split", ["all", "correct", "incorrect", "all, dominant", "correct, not dominant"]
)
def test_shares_equal_a_loop_over_every_token(
    analysis: Analysis, groups: list[dict[str, Any]], split: str
) -> None:
    absolute, aligned, mass = np.zeros(4), np.zeros(4), 0.0
    for group in groups:
        for thr, parts in parts_of_tokens(group, split):
            absolute += np.abs(parts)
            aligned += np.sign(thr) * np.array(parts)
            mass += abs(thr)
    share = [analysis.value(f"{part}_share", split).value for part in PARTS]
    np.testing.assert_allclose(share, absolute / absolute.sum(), rtol=1e-6, atol=1e-12)
    parts = [analysis.value(f"{part}_aligned", split).value for part in PARTS]
    np.testing.assert_allclose(parts, aligned / mass, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(sum(parts), 1, rtol=1e-6)


def test_self_is_never_negative_and_incorrect_ones_have_no_parts(
    groups: list[dict[str, Any]],
) -> None:
    for group in groups:
        for completion in group["completions"]:
            own = np.array([completion["thr_self"], completion["thr_within"]])
            assert (own[0] >= 0).all()
            assert completion["correct"] or not own.any()


def test_intervals_equal_a_loop_over_resampled_questions(
    analysis: Analysis, groups: list[dict[str, Any]]
) -> None:
    sums = np.array(
        [
            np.sum([np.abs(parts) for _, parts in parts_of_tokens(group, "all")], axis=0)
            for group in groups
        ]
    )
    cross, running = [], []
    for counts in question_weights(len(groups), seed=0):
        drawn = counts @ sums
        cross.append(drawn[2:].sum() / drawn.sum())
        running.append(drawn[:2].sum() / drawn.sum())
    found = analysis.value("cross_completion_share")
    np.testing.assert_allclose(
        [found.low, found.high], np.quantile(cross, [0.025, 0.975]), rtol=1e-6
    )
    table = analysis.curves["shares"]
    (row,) = table[(table["split"] == "all") & (table["part"] == "own")].itertuples()
    np.testing.assert_allclose(
        [row.running_low, row.running_high], np.quantile(running, [0.025, 0.975]), rtol=1e-6
    )


def test_deciles_rank_the_tokens_of_correct_completions_within_their_group(
    analysis: Analysis, groups: list[dict[str, Any]]
) -> None:
    sums, mass = np.zeros((10, 4)), np.zeros(10)
    for group in groups:
        tokens = sorted(parts_of_tokens(group, "correct"), key=lambda token: abs(token[0]))
        for rank, (thr, parts) in enumerate(tokens):
            decile = rank * 10 // len(tokens)
            sums[decile] += np.abs(parts)
            mass[decile] += abs(thr)
    table = analysis.curves["deciles"].pivot_table(index="decile", columns="part")
    assert table.index.tolist() == list(range(1, 11))
    for place, part in enumerate(PARTS[:3]):
        expected = sums[:, place] / sums.sum(axis=1)
        np.testing.assert_allclose(table["share", part], expected, rtol=1e-6)
        np.testing.assert_allclose(table["mass", part], mass / mass.sum(), rtol=1e-6)
    np.testing.assert_allclose(table["running", "other_correct"], 1, rtol=1e-12)


def test_a_run_scored_without_the_split_says_how_to_get_it(
    tmp_path: Path, make_run: MakeRun
) -> None:
    path = make_run(tmp_path / "run", [{"completions": [{"correct": True}, {"correct": False}]}])
    with pytest.raises(DataError) as caught:
        influence_shares(read_run(path))
    assert "thr_self was not stored" in caught.value.message
    assert "score with --split" in (caught.value.hint or "")


def test_row_groups_do_not_change_the_numbers(
    tmp_path: Path, make_run: MakeRun, groups: list[dict[str, Any]], analysis: Analysis
) -> None:
    path = make_run(tmp_path / "run", groups, groups_per_part=5)
    other = influence_shares(read_run(path))
    pd.testing.assert_frame_equal(other.summary, analysis.summary, rtol=1e-9)
    for curve, table in analysis.curves.items():
        pd.testing.assert_frame_equal(other.curves[curve], table, rtol=1e-9, atol=1e-12)


def test_where_there_is_nothing_a_sentence_says_so(tmp_path: Path, make_run: MakeRun) -> None:
    nothing = {"thr": [0.0], "thr_self": [0.0], "thr_within": [0.0]}
    completions = [{"correct": label, **nothing} for label in (True, False)]
    path = make_run(tmp_path / "zero", [{"tau": 0.0, "completions": completions}])
    analysis = influence_shares(read_run(path))
    assert analysis.empty_reason == "Every THR of this run is 0: it has no parts."
    path = make_run(tmp_path / "none", [{"completions": [{"correct": True}]}], scored=False)
    assert (influence_shares(read_run(path)).empty_reason or "").startswith(
        "This run has no scores"
    )
