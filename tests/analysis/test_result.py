"""The record that analyses return, and the plain text of captions and facts."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from thr_probe.analysis.result import (
    Analysis,
    counted,
    empty_analysis,
    latex_escape,
    latex_percent,
    plain_facts,
    summary_row,
    summary_table,
)
from thr_probe.core.stats import Interval


def test_value_returns_the_row_of_a_quantity_in_a_split() -> None:
    rows = [
        summary_row("a", split, "unit", Interval(value=v, low=v - 1, high=v + 1), num_questions=3)
        for split, v in (("all", 5.0), ("correct", 7.0))
    ]
    analysis = Analysis(
        name="x", summary=summary_table(rows), curves={}, facts={"n": 4}, caption=""
    )
    assert analysis.value("a") == Interval(value=5.0, low=4.0, high=6.0)
    assert analysis.value("a", "correct") == Interval(value=7.0, low=6.0, high=8.0)
    assert analysis.count("n") == 4
    with pytest.raises(KeyError, match="no quantity 'b' in split 'all'"):
        analysis.value("b")


def test_an_empty_analysis_keeps_the_columns_and_says_why() -> None:
    analysis = empty_analysis("x", "0 of 3 & none", {"n": 3})
    assert list(analysis.summary.columns) == [
        "quantity", "split", "unit", "value", "low", "high", "num_questions",
    ]  # fmt: skip
    assert len(analysis.summary) == 0
    assert analysis.empty_reason == "0 of 3 & none"
    assert analysis.caption == r"0 of 3 \& none"


def test_facts_become_plain_json_with_undefined_numbers_as_null() -> None:
    facts = {"a": np.int64(3), "b": np.array([1.5, np.nan]), "c": (True, None), "d": math.inf}
    text = json.dumps(plain_facts(facts), allow_nan=False)
    assert json.loads(text) == {"a": 3, "b": [1.5, None], "c": [True, None], "d": None}


def test_latex_text_escapes_every_special_character() -> None:
    assert latex_escape("a_b & 5% #1 {x} $y ~z ^w \\v") == (
        r"a\_b \& 5\% \#1 \{x\} \$y \textasciitilde{}z \textasciicircum{}w \textbackslash{}v"
    )


def test_shares_are_written_in_percent_with_bounds_only_where_they_exist() -> None:
    assert latex_percent(Interval(value=0.1234, low=0.1, high=0.15)) == r"12.3\,\% [10.0, 15.0]"
    assert latex_percent(Interval(value=0.5, low=math.nan, high=math.nan)) == r"50.0\,\%"


def test_counts_agree_with_their_noun() -> None:
    assert [counted(1, "question"), counted(12345, "token")] == ["1 question", "12,345 tokens"]
    assert counted(2, "analysis", "analyses") == "2 analyses"
