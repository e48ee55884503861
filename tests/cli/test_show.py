"""`thr-probe show` from the shell."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from thr_probe.cli import app


def run(*words, **options):
    return CliRunner().invoke(app, [str(word) for word in words], **options)


@pytest.fixture(scope="module")
def saved(tmp_path_factory, make_run):
    completions = [
        {"correct": True, "token_ids": [1, 2], "thr": [0.9, -0.8]},
        {"correct": False, "token_ids": [2, 1], "thr": [0.1, -0.7]},
    ]
    group = {"prompt_id": "abc", "tau": 0.5, "completions": completions}
    path = tmp_path_factory.mktemp("show") / "run"
    return make_run(path, [group], tokens={1: "yes", 2: " no"})


def test_tokens_are_marked_where_there_is_no_colour(saved):
    result = run("show", saved, "abc", env={"NO_COLOR": "1"})
    assert result.exit_code == 0, result.output
    assert "⟦yes⟧⟪·no⟫" in result.stdout
    assert "·no⟪yes⟫" in result.stdout
    assert "\x1b" not in result.stdout
    one = run("show", saved, 0, 1)
    assert "rollout 0" not in one.stdout


def test_json_has_the_numbers_per_token(saved):
    result = run("show", saved, "a", 0, "--format", "json", "--by", "advantage", "--p", -0.5)
    rows = json.loads(result.stdout)
    assert [row["text"] for row in rows] == ["yes", " no"]
    assert [round(row["value"], 6) for row in rows] == [0.5, 1.5]


def test_fig1_prints_both_and_writes_the_figure(saved, tmp_path):
    out = tmp_path / "out"
    result = run("show", saved, "abc", "--style", "fig1", "-o", out)
    assert result.exit_code == 0, result.output
    assert "⟦yes⟧‹1.1|0.9›⟪·no⟫‹0.9|1.1›" in result.stdout
    assert (out / "completions.pdf").exists()
    assert str(out / "completions.png") in result.stderr


def test_mistakes_are_sentences(saved):
    for words, expected in (
        (("zzz",), "no question 'zzz'"),
        (("abc", "7"), "no rollout 7"),
        (("abc", "--by", "entrpy"), "did you mean entropy"),
        (("abc", "--style", "fig2"), "choose tokens or fig1"),
        (("abc", "-o", "x"), "-o writes the figure of --style fig1"),
        (("abc", "--p", "1"), "strictly between -1 and 1"),
        (("abc", "--style", "fig1", "--p", "0"), "strictly between 0 and 1"),
    ):
        result = run("show", saved, *words)
        assert result.exit_code == 2, (words, result.output)
        assert expected in result.stderr
