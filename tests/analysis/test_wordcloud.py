"""Mean THR per token type, against pandas on a random run and answers by eye on a small one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from thr_probe.analysis.token_types import token_type
from thr_probe.analysis.wordcloud import SIGNS, WordcloudOptions, thr_wordcloud
from thr_probe.core.stats import question_weights
from thr_probe.errors import DataError, UsageError
from thr_probe.traces import read_run

VOCABULARY = {
    1: " so", 2: "So", 3: "so", 4: " wait", 5: "=", 6: "\n\n", 7: "▁thus", 8: "Ġthus",
    9: "12", 10: "x²", 11: "\ufffd", 12: " 等", 13: "$x$", 14: "check",
}  # fmt: skip


def scored(ids: list[int], thr: list[float] | None, *, correct: bool) -> dict[str, Any]:
    return {"token_ids": ids, "thr": thr, "correct": correct}


def small_groups() -> list[dict[str, Any]]:
    """Two mixed groups, one all correct, one all wrong. THR values are exact in binary."""
    return [
        {
            "prompt_id": "a",
            "completions": [
                scored([1, 5, 4, 3], [0.5, 8.0, -1.0, 0.25], correct=True),
                scored([4, 2], [-0.5, 2.0], correct=False),
            ],
        },
        {
            "prompt_id": "b",
            "completions": [
                scored([1, 7, 8], [1.5, 0.5, 0.25], correct=True),
                scored([4, 9, 10], [3.0, -4.0, -0.125], correct=False),
            ],
        },
        {"prompt_id": "c", "completions": [scored([1], [64.0], correct=True)]},
        {"prompt_id": "d", "completions": [scored([1], None, correct=False)]},
    ]


def test_a_small_run_gives_the_means_counted_by_eye(
    tmp_path: Path, make_run: Callable[..., Path]
) -> None:
    run = read_run(make_run(tmp_path / "run", small_groups(), tokens=VOCABULARY))
    analysis = thr_wordcloud(run)
    positive, negative = (analysis.curves[sign].set_index("token") for sign in SIGNS)
    # so: 0.5, 0.25, 1.5; So: 2; wait: -1, -0.5, 3; thus: 0.5, 0.25; x²: -0.125; "=" and "12" no
    assert positive["mean"].to_dict() == {"So": 2.0, "so": 0.75, "wait": 0.5, "thus": 0.375}
    assert positive["count"].to_dict() == {"So": 1, "so": 3, "wait": 3, "thus": 2}
    assert positive["rank"].tolist() == [1, 2, 3, 4]
    assert positive["num_questions"].to_dict() == {"So": 1, "so": 2, "wait": 2, "thus": 1}
    assert negative["mean"].to_dict() == {"x²": -0.125}
    # |THR| of all tokens of the kept groups: 9.75 + 2.5 + 2.25 + 7.125
    assert_allclose(positive["mass_share"]["wait"], 4.5 / 21.625, rtol=1e-14)
    assert_allclose(negative["mass_share"]["x²"], 0.125 / 21.625, rtol=1e-14)
    assert_allclose(analysis.value("mass_share", "positive").value, 9.5 / 21.625, rtol=1e-14)
    assert_allclose(analysis.value("token_share", "negative").value, 1 / 12, rtol=1e-14)
    assert_allclose(analysis.value("mean_thr", "positive").value, 6.5 / 9, rtol=1e-14)
    assert analysis.facts["num_tokens"] == 12
    assert analysis.facts["tokens_with_a_letter"] == 10
    assert analysis.facts["excluded_completions_no_correct"] == 1
    assert analysis.facts["excluded_completions_all_correct"] == 1


def test_options_decide_what_is_ranked(tmp_path: Path, make_run: Callable[..., Path]) -> None:
    run = read_run(make_run(tmp_path / "run", small_groups(), tokens=VOCABULARY))

    def means(**options: Any) -> dict[str, float]:
        table = thr_wordcloud(run, options=WordcloudOptions(**options)).curves["positive"]
        return dict(zip(table["token"], table["mean"], strict=True))

    assert means(min_count=3) == {"so": 0.75, "wait": 0.5}
    assert means(merge_case=True)["so"] == (0.5 + 0.25 + 1.5 + 2) / 4
    assert means(top=2) == {"So": 2.0, "so": 0.75}
    assert means(groups="has-correct")["so"] == (0.5 + 0.25 + 1.5 + 64) / 4
    assert thr_wordcloud(run, options=WordcloudOptions(min_count=2)).curves["negative"].empty


def test_types_of_equal_mean_are_ranked_by_count_then_by_name(
    tmp_path: Path, make_run: Callable[..., Path]
) -> None:
    ids = [2, 4, 4, 3]
    groups = [
        {
            "completions": [
                scored(ids, [0.5] * 4, correct=True),
                scored([14], [0.5], correct=False),
            ]
        }
    ]
    run = read_run(make_run(tmp_path / "run", groups, tokens=VOCABULARY))
    ranked = thr_wordcloud(run).curves["positive"]["token"].tolist()
    assert ranked == ["wait", "So", "check", "so"]


def random_groups(rng: np.random.Generator, num_questions: int) -> list[dict[str, Any]]:
    groups = []
    for question in range(num_questions):
        completions = []
        for rollout in range(4):
            length = int(rng.integers(3, 40))
            ids = rng.integers(1, 15, length).tolist()
            thr = rng.standard_t(3, length).astype(np.float32).tolist()
            completions.append(scored(ids, thr, correct=rollout < 2))
        groups.append({"prompt_id": f"q{question}", "completions": completions})
    return groups


@pytest.mark.parametrize("merge_case", [False, True])
def test_means_shares_and_intervals_equal_pandas_and_a_plain_loop(
    tmp_path: Path, make_run: Callable[..., Path], merge_case: bool
) -> None:
    groups = random_groups(np.random.default_rng(0), 9)
    path = make_run(tmp_path / "run", groups, tokens=VOCABULARY, groups_per_part=2)
    options = WordcloudOptions(merge_case=merge_case, seed=4)
    analysis = thr_wordcloud(read_run(path), options=options)

    words = {1: "so", 2: "So", 3: "so", 4: "wait", 7: "thus", 8: "thus", 10: "x²", 12: "等"}
    words |= {13: "$x$", 14: "check"}
    rows = pd.DataFrame(
        [
            (group["prompt_id"], words.get(token), value)
            for group in groups
            for given in group["completions"]
            for token, value in zip(given["token_ids"], given["thr"], strict=True)
        ],
        columns=["question", "word", "thr"],
    )
    if merge_case:
        rows["word"] = rows["word"].str.lower()
    rows["mass"] = rows["thr"].abs()
    expected = rows.groupby("word").agg(
        mean=("thr", "mean"), count=("thr", "size"), mass=("mass", "sum")
    )
    found = pd.concat(analysis.curves.values()).set_index("token").loc[expected.index]
    assert_allclose(found["mean"], expected["mean"], rtol=1e-12)
    assert_array_equal(found["count"], expected["count"])
    assert_allclose(found["mass_share"], expected["mass"] / rows["mass"].sum(), rtol=1e-12)

    weights = question_weights(9, seed=4)
    for word in ("so", "wait"):
        of_word = rows[rows["word"] == word].groupby("question")["thr"]
        per_question = {name: part.tolist() for name, part in of_word}
        draws = []
        for row in weights:
            drawn = [f"q{q}" for q, times in enumerate(row) for _ in range(times)]
            draws.append(np.mean([v for name in drawn for v in per_question.get(name, [])]))
        bounds = found.loc[word, ["low", "high"]].to_numpy(dtype=float)
        assert_allclose(bounds, np.quantile(draws, [0.025, 0.975]), rtol=1e-9)


def test_a_type_met_in_one_question_has_no_interval(
    tmp_path: Path, make_run: Callable[..., Path]
) -> None:
    run = read_run(make_run(tmp_path / "run", small_groups(), tokens=VOCABULARY))
    bounds = thr_wordcloud(run).curves["positive"].set_index("token")[["low", "high"]]
    assert_array_equal(bounds.loc[["So", "thus"]], np.nan)
    # so has 0.75/2 in a and 1.5/1 in b: resamples hold a twice, both, or b twice
    assert_array_equal(bounds.loc["so"], [0.375, 1.5])


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (" wait", "wait"),
        ("Ġwait", "wait"),
        ("▁▁wait\n", "wait"),
        ("##ing", "##ing"),
        ("altern", "altern"),
        ("\\frac", "\\frac"),
        (" 等", "等"),
        ("12", None),
        (" +", None),
        ("\n\n", None),
        ("", None),
        ("\ufffd", None),
        ("Ġ", None),
    ],
)
def test_a_token_type_is_the_text_without_markers_if_it_has_a_letter(
    text: str, word: str | None
) -> None:
    assert token_type(text) == word


def test_when_nothing_is_left_it_says_why(tmp_path: Path, make_run: Callable[..., Path]) -> None:
    wrong = [{"completions": [scored([1, 2], None, correct=False)]}]
    analysis = thr_wordcloud(read_run(make_run(tmp_path / "wrong", wrong, tokens=VOCABULARY)))
    assert "None of the 1 completion" in str(analysis.empty_reason)
    mixed = [{"completions": [scored([5], [1.0], correct=True), scored([9], [1.0], correct=False)]}]
    analysis = thr_wordcloud(read_run(make_run(tmp_path / "signs", mixed, tokens=VOCABULARY)))
    assert str(analysis.empty_reason).startswith("No token type with a letter has a mean THR")
    analysis = thr_wordcloud(read_run(make_run(tmp_path / "no_tokens", mixed)))
    assert str(analysis.empty_reason).startswith("tokens.parquet is missing from this run")
    without_ids = [{"completions": [{"token_ids": None, "thr": [1.0], "correct": True}]}]
    analysis = thr_wordcloud(read_run(make_run(tmp_path / "no_ids", without_ids)))
    assert str(analysis.empty_reason).startswith("This run has no token ids")
    unscored = read_run(make_run(tmp_path / "unscored", mixed, tokens=VOCABULARY, scored=False))
    assert "no scores" in str(thr_wordcloud(unscored).empty_reason)
    for empty in (analysis, thr_wordcloud(unscored)):
        assert empty.summary.empty
        assert empty.curves == {}


@pytest.mark.parametrize(("last", "missing"), [(5, 7), (20, 2)])
def test_an_id_that_the_token_table_lacks_is_named(
    tmp_path: Path, make_run: Callable[..., Path], last: int, missing: int
) -> None:
    run = read_run(make_run(tmp_path / "run", small_groups(), tokens={1: "a", last: "b"}))
    with pytest.raises(DataError, match=rf"tokens.parquet: token id {missing} is missing"):
        thr_wordcloud(run)


@pytest.mark.parametrize(
    "options", [{"top": 0}, {"min_count": 0}, {"groups": "all"}, {"groups": ""}]
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        WordcloudOptions(**options)
