"""`analyze balance`, `split`, `position`, `advantage` and `tau` from the shell."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from thr_probe.cli import app

NAMES = ["balance", "split", "position", "advantage", "tau"]
FIRST = {
    "balance": "balance",
    "split": "self_share",
    "position": "magnitude",
    "advantage": "correct_positive",
    "tau": "retained_share_at_0.1",
}


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def path(make_run, tmp_path):
    lists = {"thr_self": [0.01] * 4, "thr_within": [0.02] * 4}
    groups = [
        {"prompt_id": name, "completions": [{"correct": label, **lists} for label in labels]}
        for name, labels in (("a", (True, False)), ("b", (True, False)), ("c", (True, True)))
    ]
    return make_run(tmp_path / "r", groups)


@pytest.mark.parametrize("name", NAMES)
def test_each_prints_its_summary_names_its_files_and_takes_the_options(path, tmp_path, name):
    out = tmp_path / "out"
    options = ["--groups", "has-correct", "--seed", "7", "--score-id", "default"]
    options += ["--venue", "icml", "--format", "json", "-o", out]
    result = run("analyze", name, path, *options)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)[0]["quantity"] == FIRST[name]
    assert str(out / f"{name}.pdf") in result.stderr
    facts = json.loads((out / f"{name}.json").read_text())["facts"]
    assert (facts["groups"], facts["seed"], facts["score_id"]) == ("has-correct", 7, "default")
    assert facts["num_questions"] == 3
    assert (out / f"{name}.tex").read_text().endswith(f"\\label{{fig:{name}}}\n")


@pytest.mark.parametrize("name", NAMES)
def test_bad_options_are_usage_errors(path, name):
    for options in (["--groups", "none"], ["--score-id", "other"], ["--seed", "-1"]):
        result = run("analyze", name, path, *options)
        assert result.exit_code == 2, (options, result.output)
        assert "Traceback" not in result.output


def test_split_needs_a_run_that_was_scored_with_it(make_run, tmp_path):
    groups = [{"completions": [{"correct": True}, {"correct": False}]}]
    result = run("analyze", "split", make_run(tmp_path / "plain", groups))
    assert result.exit_code == 3
    assert "column thr_self was not stored" in result.stderr
    assert "score with --split" in result.stderr


@pytest.mark.parametrize("name", NAMES)
def test_a_run_without_scores_says_that_there_is_nothing_to_draw(make_run, tmp_path, name):
    groups = [{"completions": [{"correct": True}, {"correct": False}]}]
    plain = make_run(tmp_path / "plain", groups, scored=False)
    result = run("analyze", name, plain, "--format", "json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == []
    assert "nothing to draw: This run has no scores" in result.stderr
