"""A question in the terminal and as Figure 1: numbers, colours, marks, excerpts, errors."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console

from thr_probe.core.advantages import thr_advantages
from thr_probe.errors import DataError, UsageError
from thr_probe.figures import plot_completions, save_analysis
from thr_probe.report.tokens.show import Look, shown
from thr_probe.report.tokens.show_data import resolve_question, shown_question, token_rows
from thr_probe.report.tokens.show_fig1 import EXCERPT, completions_analysis, pair_of
from thr_probe.traces import read_run, write_tokens

BYTES = {1: b"so", 2: b" what", 3: b"\xe2\x82", 4: b"\xac", 5: b"\x1b[31m", 6: b"\n", 7: b"$x$"}
IDS = [1, 2, 3, 4, 5, 6]
THR = [0.9, -0.8, 0.1, 0.7, -0.05, 0.0]


@pytest.fixture(scope="module")
def run(tmp_path_factory, make_run):
    right = {"correct": True, "token_ids": IDS, "thr": THR, "extracted": "1\x1b[0m"}
    wrong = {"correct": False, "token_ids": [7, 2, 1], "thr": [-0.6, 0.2, 0.75]}
    right |= {"entropy": [0.1, 2.0, 0.3, 0.2, 0.1, 0.0]}
    groups = [
        {"prompt_id": "ab12", "tau": 0.5, "completions": [right, wrong]},
        {"prompt_id": "ab34", "completions": [{"correct": False, "token_ids": IDS}] * 2},
        {"prompt_id": "cd56", "completions": [{"correct": True, "token_ids": IDS}] * 2},
    ]
    path = make_run(tmp_path_factory.mktemp("show") / "run", groups)
    rows = [
        {"token_id": key, "bytes": value, "text": value.decode("utf-8", "replace")}
        for key, value in BYTES.items()
    ]
    write_tokens(path, rows)
    return read_run(path)


def printed(question, look, **options):
    out = io.StringIO()
    console = Console(file=out, width=200, markup=False, highlight=False, **options)
    for line in shown(question, look):
        console.print(line)
    return out.getvalue()


def test_rows_hold_the_numbers_of_every_token_and_its_piece(run):
    rows = token_rows(shown_question(run, "ab12", 0), "thr", 0.3)
    assert [row["token_id"] for row in rows] == IDS
    np.testing.assert_allclose([row["thr"] for row in rows], np.float32(THR))
    assert [row["dominant"] for row in rows] == [abs(value) > 0.5 for value in THR]
    assert [row["text"] for row in rows] == ["so", " what", "€", "€", "\\x1b[31m", "\n"]
    assert [row["piece"] for row in rows] == [0, 1, 2, 2, 3, 4]
    advantage = thr_advantages(torch.ones(6).double(), torch.tensor(THR).double(), 0.5, 0.3)
    np.testing.assert_allclose([row["advantage"] for row in rows], advantage.numpy(), rtol=1e-6)


@pytest.mark.parametrize("by", ["thr", "thr-tau", "entropy", "logprob", "advantage"])
def test_values_are_what_was_asked_for(run, by):
    question = shown_question(run, "0", 0)
    found = [row["value"] for row in token_rows(question, by, -0.2)]
    factor = [(1 + np.sign(value) * -0.2) * (abs(value) > 0.5) for value in THR]
    expected = {
        "thr": THR,
        "thr-tau": np.array(THR) / 0.5,
        "entropy": [0.1, 2.0, 0.3, 0.2, 0.1, 0.0],
        "logprob": [-0.5] * 6,
        "advantage": factor,
    }
    np.testing.assert_allclose(found, expected[by], rtol=1e-6, atol=1e-7)


def test_without_colour_marks_carry_sign_and_dominance_and_nothing_acts(run):
    text = printed(shown_question(run, "ab12"), Look(coloured=False))
    assert "⟦so⟧⟪·what⟫⟦€⟧\\x1b[31m⏎" in text
    assert "⟪$x$⟫·what⟦so⟧" in text
    assert "\x1b" not in text
    assert "rollout 0: correct, 6 tokens" in text
    assert "answer found: 1\\x1b[0m" in text
    assert "⟦above 0 (exploitation)⟧" in text


def test_colours_go_by_sign_and_dominant_tokens_are_bold_and_underlined(run):
    question = shown_question(run, "ab12", 0)
    body = list(shown(question, Look()))[-1]
    styles = {body.plain[span.start : span.end]: span.style for span in body.spans}
    assert styles["so"].bgcolor.name == "#0072b2"
    assert styles["·what"].bgcolor.name in {"#d55e00", "#e88e54"}
    for word in ("so", "·what", "€"):
        assert styles[word].bold
        assert styles[word].underline
    assert styles["·what"].italic
    assert not styles["so"].italic
    assert "\\x1b[31m" not in styles  # not dominant, and too small for a colour
    coloured = printed(question, Look(), force_terminal=True, color_system="truecolor")
    assert "\x1b[31m" not in coloured
    assert "\\x1b[31m" in coloured


def test_entropy_and_advantage_have_marks_of_their_own(run):
    question = shown_question(run, "ab12", 0)
    entropy = printed(question, Look(by="entropy", coloured=False))
    assert "so⟪·what⟫€" in entropy
    assert "the highest fifth" in entropy
    advantage = printed(question, Look(by="advantage", p=0.2, coloured=False))
    assert "⟦so⟧⟦·what⟧⟦€⟧" in advantage


def test_a_question_without_a_correct_completion_is_shown_plain_and_says_so(run):
    text = printed(shown_question(run, "ab34", 0), Look(coloured=False))
    assert "THR undefined" in text
    assert "so·what€" in text
    by_entropy = printed(shown_question(run, "ab34", 0), Look(by="entropy"), force_terminal=True)
    assert "so" in by_entropy


def test_questions_are_found_by_id_by_beginning_and_by_place(run):
    known = ["ab12", "ab34", "cd56"]
    assert [resolve_question(known, given) for given in ("ab34", "cd", "2")] == [
        "ab34",
        "cd56",
        "cd56",
    ]
    with pytest.raises(UsageError, match="2 questions begin with 'ab'"):
        resolve_question(known, "ab")
    with pytest.raises(UsageError, match="expected a prompt_id") as caught:
        resolve_question(known, "ab13")
    assert "did you mean ab34 or ab12" in str(caught.value.hint)
    with pytest.raises(UsageError, match="expected a prompt_id") as caught:
        resolve_question(known, "7")
    with pytest.raises(UsageError, match="no rollout 9") as caught:
        shown_question(run, "ab12", 9)
    assert caught.value.hint == "it has 0 to 1"


def test_the_newest_step_of_a_training_run_is_shown(make_run, tmp_path):
    groups = [
        {"prompt_id": "a", "step": step, "completions": [
            {"correct": True, "token_ids": [1]}, {"correct": False, "token_ids": [2]},
        ]}
        for step in (0, 3)
    ]  # fmt: skip
    run = read_run(make_run(tmp_path / "run", groups, tokens={1: "x", 2: "y"}))
    question = shown_question(run, "a")
    assert [each.step for each in question.completions] == [3, 3]
    assert "step 3, the newest of 2" in printed(question, Look(coloured=False))


def test_runs_without_scores_or_token_texts_say_what_they_lack(make_run, tmp_path):
    completions = [{"correct": True}, {"correct": False}]
    bare = read_run(make_run(tmp_path / "bare", [{"completions": completions}], scored=False))
    with pytest.raises(DataError, match="has no scores"):
        shown_question(bare, "0")
    scored = read_run(make_run(tmp_path / "scored", [{"completions": completions}]))
    with pytest.raises(DataError, match="texts of its tokens were not stored"):
        shown_question(scored, "0")


def test_figure_1_takes_one_of_each_kind_with_weights_by_equation_5(run):
    pair = pair_of(shown_question(run, "ab12"))
    assert [each.correct for each in pair.completions] == [True, False]
    pieces = completions_analysis(pair, 0.2).curves["pieces"]
    signs = np.sign(pieces["thr"])
    expected = np.where(pieces["dominant"], 1 + 0.2 * signs, 0.0)
    np.testing.assert_allclose(pieces["weight_plus"], expected)
    np.testing.assert_allclose(
        pieces["weight_minus"], np.where(pieces["dominant"], 1 - 0.2 * signs, 0.0)
    )
    text = printed(pair, Look(p=0.2, with_weights=True, coloured=False))
    assert "⟦so⟧‹1.2|0.8›⟪·what⟫‹0.8|1.2›" in text


@pytest.mark.parametrize(("prompt", "word"), [("ab34", "no correct"), ("cd56", "no incorrect")])
def test_figure_1_needs_both_kinds(run, prompt, word):
    with pytest.raises(UsageError, match=word):
        pair_of(shown_question(run, prompt))


def test_a_long_completion_is_cut_to_the_stretch_with_the_most_influence(make_run, tmp_path):
    rng = np.random.default_rng(3)
    thr = np.float32(rng.normal(0, 0.2, 400))
    thr[210:240] = 3.0
    right = {"correct": True, "token_ids": [1] * 400, "thr": thr.tolist()}
    wrong = {"correct": False, "token_ids": [2, 3], "thr": [0.9, -0.9]}
    group = {"prompt_id": "a", "tau": 0.5, "completions": [right, wrong]}
    tokens = {1: "word ", 2: "東京\x1b", 3: "$\\frac{1}{2}$"}
    run = read_run(make_run(tmp_path / "run", [group], tokens=tokens))
    analysis = completions_analysis(pair_of(shown_question(run, "a")), 0.1)
    pieces = analysis.curves["pieces"]
    own = pieces[pieces["panel"] == "correct"].reset_index(drop=True)
    drawn = own.index[own["drawn"]]
    assert set(range(210, 240)) <= set(drawn)
    assert own.loc[drawn, "text"].str.len().sum() <= EXCERPT
    # no other stretch that fits holds more
    mass = np.where(np.abs(thr) > 0.5, np.abs(thr), 0.0)
    best = max(mass[start : start + len(drawn)].sum() for start in range(400))
    np.testing.assert_allclose(mass[drawn].sum(), best, rtol=1e-6)
    before, after = analysis.count("correct_before"), analysis.count("correct_after")
    assert before + after + len(drawn) == 400
    assert f"of the correct one {before} tokens before and {after} behind" in analysis.caption
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a glyph that the font lacks would warn
        for venue in ("neurips", "icml"):
            figure = plot_completions(analysis, venue=venue)
            save_analysis(analysis, figure, tmp_path / venue)
    texts = [each.get_text() for each in figure.axes[0].texts]
    assert "□□\\x1b" in texts
    assert any(f"{before:,} tokens before" in text for text in texts)


@pytest.mark.parametrize("venue", ["neurips", "icml"])
def test_the_figure_keeps_its_text_inside_and_apart(run, venue):
    figure = plot_completions(
        completions_analysis(pair_of(shown_question(run, "ab12")), 0.05), venue=venue
    )
    figure.canvas.draw()
    box = figure.bbox
    extents = [each.get_window_extent() for each in figure.axes[0].texts if each.get_text()]
    for each in extents:
        assert box.x0 - 1 <= each.x0
        assert each.x1 <= box.x1 + 1
        assert box.y0 - 1 <= each.y0
        assert each.y1 <= box.y1 + 1
    labels = [
        each.get_window_extent()
        for each in figure.axes[0].texts
        if each.get_text() in {"1.05", "0.95"}
    ]
    assert len(labels) == 2 * 5
    for one in labels:
        assert sum(one.overlaps(other) for other in labels) == 1


def test_nothing_dominant_is_a_notice(make_run, tmp_path):
    completions = [{"correct": True, "token_ids": [1]}, {"correct": False, "token_ids": [1]}]
    group = {"completions": completions, "tau": 100.0}
    run = read_run(make_run(tmp_path / "run", [group], tokens={1: "x"}))
    analysis = completions_analysis(pair_of(shown_question(run, "0")), 0.1)
    assert "has a dominant token" in str(analysis.empty_reason)
    plot_completions(analysis)


def test_a_run_without_questions_says_so() -> None:
    with pytest.raises(DataError, match="has no questions"):
        resolve_question([], "0")


def test_places_count_the_questions_that_have_completions(tmp_path, make_run):
    groups = [{"prompt_id": name, "completions": [{"correct": True}]} for name in ("a", "b", "c")]
    tokens = {number: f"w{number}" for number in range(1, 5)}
    path = make_run(tmp_path / "run", groups, tokens=tokens, groups_per_part=1, complete=False)
    problems = pq.read_table(path / "problems.parquet")
    pq.write_table(problems.take([2, 0, 1]), path / "problems.parquet")
    (path / "rollouts/part-00002.parquet").unlink()
    (path / "scores/default/part-00002.parquet").unlink()
    run = read_run(path)
    assert [shown_question(run, place).prompt_id for place in ("0", "1")] == ["a", "b"]
    with pytest.raises(UsageError, match="0 to 1"):
        shown_question(run, "2")
    with pytest.raises(DataError, match=r"no completions of c are there \(yet\)"):
        shown_question(run, "c")
