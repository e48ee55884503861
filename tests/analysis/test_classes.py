"""Shares of tokens and of |THR| by class, recomputed by loops."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

from thr_probe.analysis.classes import QUANTITIES, thr_by_class
from thr_probe.analysis.token_classes import read_scheme
from thr_probe.core.stats import question_weights
from thr_probe.errors import DataError
from thr_probe.traces import read_run

TOKENS = {1: " 5", 2: " so", 3: " wait", 4: "=", 5: " the", 6: " answer", 7: "ing"}
TAU = 0.3


def groups_of(num_groups):
    rng = np.random.default_rng(9)
    groups = []
    for index in range(num_groups):
        completions = []
        for correct in (True, False, False):
            length = int(rng.integers(5, 20))
            # the last id occurs in the first question alone
            ids = rng.integers(1, 8 if index == 0 else 7, length)
            thr = np.float32(rng.normal(0.1, 0.5, length) * ids)
            completions.append({"correct": correct, "token_ids": ids.tolist(), "thr": thr.tolist()})
        completions[0]["token_ids"][0] = 7 if index == 0 else 1
        groups.append({"prompt_id": f"q{index}", "tau": TAU, "completions": completions})
    return groups


GROUPS = groups_of(9)


@pytest.fixture(scope="module")
def run(tmp_path_factory, make_run):
    path = tmp_path_factory.mktemp("classes") / "run"
    return read_run(make_run(path, GROUPS, tokens=TOKENS, groups_per_part=4))


def numbers(groups, scheme, wanted):
    """Every quantity of every class, by adding up token after token."""
    sums = defaultdict(lambda: np.zeros(4))
    for group in groups:
        for completion in group["completions"]:
            if completion["correct"] not in wanted:
                continue
            for token, thr in zip(completion["token_ids"], completion["thr"], strict=True):
                one = np.array([1, thr, abs(thr), abs(np.float32(thr)) > np.float32(TAU)])
                sums[scheme.of(TOKENS[token])] += one
                sums[None] += one
    whole = sums.pop(None)
    return {
        name: {
            "token_share": tokens / whole[0],
            "mass_share": mass / whole[2],
            "mass_ratio": (mass / tokens) / (whole[2] / whole[0]),
            "mean_thr": thr / tokens,
            "dominant_share": dominant / tokens,
            "signed_share": thr / mass,
        }
        for name, (tokens, thr, mass, dominant) in sums.items()
    }


@pytest.mark.parametrize("scheme", ["lexical", "paper"])
def test_every_number_is_that_of_a_loop_over_tokens(run, scheme):
    analysis = thr_by_class(run, scheme=scheme)
    for suffix, wanted in (("", (True, False)), (", correct", (True,)), (", incorrect", (False,))):
        expected = numbers(GROUPS, read_scheme(scheme), wanted)
        for name, values in expected.items():
            found = {each: analysis.value(each, name + suffix).value for each in QUANTITIES}
            assert found == pytest.approx(values, rel=1e-9)
        split = analysis.summary["split"]
        kept = split[split.str.endswith(suffix) & (split.str.contains(",") == bool(suffix))]
        assert set(kept.str.removesuffix(suffix)) == set(expected)


def test_intervals_are_those_of_a_loop_over_resampled_questions(run):
    analysis = thr_by_class(run, seed=2)
    scheme = read_scheme("lexical")
    draws = [
        numbers([GROUPS[i] for i in np.repeat(np.arange(9), weight)], scheme, (True, False))
        for weight in question_weights(9, seed=2)[:300]
    ]
    for quantity in QUANTITIES:
        found = analysis.value(quantity, "digits")
        bounds = np.quantile([draw["digits"][quantity] for draw in draws], [0.025, 0.975])
        size = bounds[1] - bounds[0]
        np.testing.assert_allclose([found.low, found.high], bounds, atol=0.2 * size)


def test_a_class_of_one_question_has_no_interval_and_absent_ones_are_named(run):
    analysis = thr_by_class(run)
    for quantity in QUANTITIES:
        found = analysis.value(quantity, "subwords")
        assert np.isfinite(found.value)
        assert np.isnan(found.low)
    assert set(analysis.facts["classes_absent"]) == {
        "special", "whitespace", "LaTeX", "punctuation", "other",
    }  # fmt: skip


def test_the_table_falls_in_mass_and_shares_add_up(run):
    table = thr_by_class(run).curves["classes"]
    assert table["mass_share"].is_monotonic_decreasing
    np.testing.assert_allclose(table[["token_share", "mass_share"]].sum(), 1, rtol=1e-12)
    examples = dict(zip(table["class"], table["examples"], strict=True))
    assert examples["digits"] == "' 5'"


def test_the_paper_scheme_tells_how_many_tokens_it_leaves_out(run):
    analysis = thr_by_class(run, scheme="paper")
    share = analysis.value("token_share", "unassigned").value
    tokens = [t for g in GROUPS for c in g["completions"] for t in c["token_ids"]]
    np.testing.assert_allclose(share, np.mean([token != 6 for token in tokens]))
    assert "No category of Appendix C.4 lists" in analysis.caption


def test_runs_without_ids_texts_scores_or_correct_completions_get_a_sentence(tmp_path, make_run):
    none = [{"completions": [{"correct": True, "token_ids": None}, {"token_ids": None}]}]
    cases = {
        "no token ids": make_run(tmp_path / "a", none),
        "tokens.parquet is missing": make_run(tmp_path / "b", GROUPS),
        "no scores": make_run(tmp_path / "c", GROUPS, tokens=TOKENS, scored=False),
        "Every THR of this run is 0": make_run(
            tmp_path / "z",
            [
                {
                    "tau": 0.0,
                    "completions": [{"correct": c, "thr": [0.0] * 4} for c in (True, False)],
                }
            ],
            tokens=TOKENS,
        ),
        "None of the 2 completions": make_run(
            tmp_path / "d", [{"completions": [{"correct": False}] * 2}], tokens=TOKENS
        ),
    }
    for sentence, path in cases.items():
        assert sentence in str(thr_by_class(read_run(path)).empty_reason)
    with pytest.raises(DataError, match="token id 7 is missing"):
        thr_by_class(
            read_run(
                make_run(
                    tmp_path / "e", GROUPS, tokens={1: "a", 2: "b", 3: "c", 4: "d", 5: "e", 6: "f"}
                )
            )
        )
