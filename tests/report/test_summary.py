"""Sentences of the summary: their numbers, and words that follow the intervals."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from thr_probe.core.stats import Interval
from thr_probe.report.page import TITLES
from thr_probe.report.summary import findings
from thr_probe.report.wording import apart, beside
from thr_probe.report.written import Written


def written(name: str, rows: dict[Any, tuple[float | None, ...]], **facts: Any) -> Written:
    """An analysis with a summary given as quantity (or quantity and split): value, low, high."""
    keys = [key if isinstance(key, tuple) else (key, "all") for key in rows]
    summary = [
        {"quantity": quantity, "split": split, "value": value, "low": low, "high": high}
        for (quantity, split), (value, low, high) in zip(keys, rows.values(), strict=True)
    ]
    return Written(
        name=name,
        folder=Path(),
        tables=(),
        facts=facts,
        summary=tuple(summary),
        command="",
        caption="",
        empty_reason=None,
    )


def told(analysis: Written) -> str:
    text = " ".join(finding.text for finding in findings({analysis.name: analysis}))
    return " ".join(text.split())  # thin and hard spaces as plain ones


OVERLAP = {
    "more than chance": ((0.8, 0.7, 0.9), (0.3, 0.2, 0.4)),
    "less than chance": ((0.1, 0.05, 0.15), (0.3, 0.2, 0.4)),
    "cannot be told from chance": ((0.5, 0.35, 0.6), (0.3, 0.2, 0.4)),
    "without an interval": ((0.8, None, None), (0.3, None, None)),
}


@pytest.mark.parametrize("words", OVERLAP)
def test_overlap_is_held_against_chance_as_the_intervals_allow(words):
    mean, chance = OVERLAP[words]
    text = told(written("overlap", {"mean_overlap": mean, "mean_chance": chance}))
    assert words in text
    assert sum(other in text for other in OVERLAP) == 1
    assert f"{100 * mean[0]:.1f} %" in text


def test_overlap_reads_the_split_that_is_drawn():
    rows = {
        ("mean_overlap", "all"): (0.9, 0.8, 1.0),
        ("mean_chance", "all"): (0.5, 0.4, 0.6),
        ("mean_overlap", "all, tau > 0"): (0.7, 0.6, 0.75),
        ("mean_chance", "all, tau > 0"): (0.2, 0.1, 0.3),
    }
    text = told(written("overlap", rows, drawn_split="all, tau > 0"))
    assert "70.0 % [60.0, 75.0]" in text
    assert "20.0 % [10.0, 30.0]" in text
    assert "90.0" not in text


SIGN = {
    "more of them push towards exploitation": (0.6, 0.55, 0.65),
    "more of them push towards exploration": (0.4, 0.35, 0.45),
    "cannot be told from an even split": (0.52, 0.48, 0.55),
}


@pytest.mark.parametrize("words", SIGN)
def test_the_sign_of_dominant_tokens_is_held_against_an_even_split(words):
    text = told(written("density", {"positive_share_of_dominant": SIGN[words]}))
    assert words in text
    assert sum(other in text for other in SIGN) == 1


def test_concentration_and_dominant_share_have_their_numbers():
    rows = {
        "top_1_mass": (0.1, 0.09, 0.11),
        "top_5_mass": (0.4, 0.38, 0.42),
        "top_20_mass": (0.9, 0.88, 0.92),
        "gini": (0.8359, 0.8254, 0.845),
        "dominant_share": (0.46, 0.368, 0.564),
        ("dominant_share", "all, tau > 0"): (0.301, 0.279, 0.323),
    }
    text = told(written("density", rows, num_groups_tau_nonpositive=9))
    assert "largest |THR| hold 40.0 % [38.0, 42.0] of the summed |THR|" in text
    assert "Gini coefficient 0.836 [0.825, 0.845]" in text
    assert "46.0 % [36.8, 56.4] of the tokens are dominant (|THR| > τ)" in text
    assert "9 groups with τ ≤ 0 count every token as dominant" in text
    assert "without them it is 30.1 % [27.9, 32.3]" in text


REFLECTION = {
    "more in correct ones": ((0.02, 0.015, 0.025), (0.01, 0.008, 0.012)),
    "fewer in correct ones": ((0.01, 0.008, 0.012), (0.02, 0.015, 0.025)),
    "the two cannot be told apart": ((0.01, 0.005, 0.018), (0.02, 0.015, 0.025)),
}


@pytest.mark.parametrize("words", REFLECTION)
def test_reflection_words_are_compared_between_outcomes(words):
    correct, incorrect = REFLECTION[words]
    rows = {
        ("reflection_ratio", "all"): (0.0123, 0.01, 0.015),
        ("reflection_ratio", "correct"): correct,
        ("reflection_ratio", "incorrect"): incorrect,
    }
    text = told(written("reflection", rows))
    assert text.startswith("1.23 % [1.00, 1.50] of the generated tokens are reflection words;")
    assert words in text


def test_reflection_words_of_a_run_without_token_ids_are_per_1000_words():
    splits = {
        "all": (12.3, 10.0, 15.0),
        "correct": (5.0, 4.0, 6.0),
        "incorrect": (20.0, 18.0, 25.0),
    }
    rows = {("reflection_ratio", split): interval for split, interval in splits.items()}
    text = told(written("reflection", rows, num_text_words=4000))
    assert text == (
        "Completions hold 12.3 [10.0, 15.0] reflection words per 1,000 words of text; "
        "5.00 [4.00, 6.00] in correct and 20.0 [18.0, 25.0] in incorrect completions: "
        "fewer in correct ones."
    )


def test_pass_at_k_tells_first_and_last_k():
    rows = {
        "pass_at_1": (0.4, 0.3, 0.5),
        "pass_at_8": (0.8, 0.7, 0.9),
        "never_solved": (0.1, 0.0, 0.2),
    }
    assert told(written("passk", rows, ks=[1, 2, 8])) == (
        "Pass@1 is 40.0 % [30.0, 50.0], and Pass@8 is 80.0 % [70.0, 90.0]; "
        "10.0 % [0.0, 20.0] of the groups hold no correct completion."
    )


BALANCE = {
    "exploitation outweighs exploration": (0.3, 0.2, 0.4),
    "exploration outweighs exploitation": (-0.3, -0.4, -0.2),
    "neither can be told to outweigh the other": (0.1, -0.1, 0.3),
}


@pytest.mark.parametrize("words", BALANCE)
def test_the_balance_is_held_against_zero(words):
    text = told(written("balance", {"balance": BALANCE[words]}))
    assert words in text
    assert f"{BALANCE[words][0]:.3f}".replace("-", "−") in text


@pytest.mark.parametrize(
    ("partial", "words"),
    [
        ((0.1, 0.05, 0.15), "entropy goes with |THR| beyond them"),
        ((-0.1, -0.15, -0.05), "beyond them it goes against |THR|"),
        ((0.1, -0.05, 0.15), "beyond them no relation can be told"),
    ],
)
def test_entropy_is_judged_beyond_the_probability(partial, words):
    rows = {"spearman_entropy": (0.88, 0.87, 0.89), "partial_entropy": partial}
    text = told(written("entropy", rows))
    assert "rank correlation of 0.880 [0.870, 0.890]" in text
    assert words in text


def test_position_split_advantage_and_retention_have_their_numbers():
    rows = {
        "magnitude_first_tenth": (2.01, 1.64, 2.45),
        "magnitude_last_tenth": (0.0842, 0.053, 0.119),
    }
    text = told(written("position", rows))
    assert "2.01 [1.64, 2.45] in the first tenth" in text
    assert text.endswith("0.0842 [0.0530, 0.1190] in the last: larger early.")
    rows = {"cross_token_share": (0.81, 0.79, 0.83), "self_share": (0.19, 0.17, 0.21)}
    text = told(written("split", rows))
    assert "81.0 % [79.0, 83.0] is between different tokens and 19.0 % [17.0, 21.0]" in text
    rows = {("influence_captured", "all, tau > 0"): (0.99, 0.98, 1.0)}
    assert "groups of positive τ hold 99.0 % [98.0, 100.0]" in told(written("advantage", rows))
    rows = {
        "retained_q10": (0.2, 0.1, 0.3),
        "retained_median": (0.4, 0.3, 0.5),
        "retained_q90": (0.9, 0.8, 1.0),
    }
    text = told(written("retention", rows))
    assert "has the median 40.0 % [30.0, 50.0]" in text
    assert "90.0 % [80.0, 100.0] or more" in text


def test_bad_data_come_first_and_are_warnings(tmp_path):
    (tmp_path / "health-checks.csv").write_text(
        "check,unit,value,verdict,rule\n"
        'truncated,share of completions,0.31,bad,"ok up to 5 %, look up to 20 %, else bad"\n'
        "aborted,share of completions,0.0,ok,ok up to 0 %\n"
    )
    health = replace(written("health", {}), folder=tmp_path)
    balance = written("balance", {"balance": (0.3, 0.2, 0.4)})
    first, second = findings({"balance": balance, "health": health})
    assert first.is_warning
    assert " ".join(first.text.split()) == (
        "Bad data: truncated, 31.0 % of completions (ok up to 5 %, look up to 20 %, else bad)."
    )
    assert (second.analysis, second.is_warning) == ("balance", False)


def test_a_comparison_tells_its_gains_and_warnings():
    compare = written("compare", {}, gains=["Of 6 questions, b solves 2."], warnings=["few data"])
    assert [(one.text, one.is_warning) for one in findings({"compare": compare})] == [
        ("Few data.", True),
        ("Of 6 questions, b solves 2.", False),
    ]


def test_there_is_no_sentence_without_data():
    nothing = {("mean_overlap", "all"): (None, None, None), ("mean_chance", "all"): (0.2, 0.1, 0.3)}
    assert told(written("overlap", nothing)) == ""
    for name in set(TITLES) - {"health"}:
        assert told(written(name, {})) == ""
    assert findings({}) == []


def test_intervals_that_touch_are_not_apart():
    one = Interval(value=0.5, low=0.4, high=0.6)
    touching = Interval(value=0.7, low=0.6, high=0.8)
    none = Interval(value=0.9, low=math.nan, high=math.nan)
    assert apart(one, touching) == ""
    assert apart(one, none) == ""
    assert beside(one, 0.6) == ""
    assert beside(one, 0.61) == "below"
    assert beside(none, 0.1) == ""
