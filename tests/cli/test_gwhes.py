"""`thr-probe analyze gwhes` from the shell."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from typer.testing import CliRunner

from thr_probe.cli import app
from thr_probe.collect import collect
from thr_probe.config import CollectConfig


def run(*words):
    return CliRunner().invoke(app, ["analyze", "gwhes", *(str(word) for word in words)])


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    path = tmp_path_factory.mktemp("gwhes") / "run"
    config = CollectConfig(max_prompts=8, group_size=6, max_new_tokens=80, shard_prompts=8)
    assert collect(config, path)
    return path


def test_it_prints_the_agreement_and_saves_the_measurements(collected, tmp_path):
    result = run(collected, "-o", tmp_path, "--max-questions", 3, "--format", "json")
    assert result.exit_code == 0, result.output
    rows = {row["quantity"]: row for row in json.loads(result.stdout)}
    assert -1 <= rows["rank_agreement"]["value"] <= 1
    questions = pd.read_csv(tmp_path / "gwhes-questions.csv")
    assert len(questions) == 3
    expected = questions["gwhes"].corr(-questions["change"], method="spearman")
    assert rows["rank_agreement"]["value"] == pytest.approx(expected, abs=1e-9)
    record = json.loads((tmp_path / "gwhes.json").read_text())
    assert record["facts"]["lr"] == 1e-3
    assert record["facts"]["model"] == "lab"
    assert (tmp_path / "gwhes.pdf").exists()
    assert "stopped before" in (tmp_path / "gwhes.tex").read_text()


def test_one_question_becomes_a_notice(collected, tmp_path):
    result = run(collected, "-o", tmp_path, "--max-questions", 1)
    assert result.exit_code == 0, result.output
    assert "nothing to draw: 1 question measured" in result.stderr


def test_what_cannot_be_is_refused_with_a_sentence(collected, tmp_path, make_run):
    for words, message in (
        (("--optimizer", "lion"), "unknown optimizer 'lion'"),
        (("--lr", "0"), "--lr must be positive"),
        (("--max-questions", "0"), "--max-questions must be at least 1"),
        (("--venue", "cvpr"), "unknown venue 'cvpr'"),
        (("--model", tmp_path / "none"), "no model directory"),
    ):
        result = run(collected, "-o", tmp_path, *words)
        assert result.exit_code in {2, 4}, result.output
        assert message in result.stderr
    absent = [{"completions": [{"correct": True, "token_ids": None}, {"correct": False}]}]
    nameless = make_run(tmp_path / "run", absent, manifest={"model": None})
    result = run(nameless, "-o", tmp_path)
    assert result.exit_code == 2
    assert "give one with --model" in result.stderr
    result = run(nameless, "-o", tmp_path, "--model", "lab")
    assert result.exit_code == 3
    assert "1 of 2 completions have no token ids" in result.stderr
