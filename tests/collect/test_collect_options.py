"""Runs without a THR pass, and completions that the length limit cut off."""

from __future__ import annotations

import dataclasses
import shutil
import tomllib

import pytest
from lab_runs import CONFIG, StopAfter, content, rows
from typer.testing import CliRunner

from thr_probe.analysis.passk import pass_at_k_curve
from thr_probe.analysis.reflection import reflection_ratio
from thr_probe.cli import app
from thr_probe.collect import collect
from thr_probe.config import ScoreConfig
from thr_probe.errors import UsageError
from thr_probe.score import score_run
from thr_probe.traces import read_run, validate_run

UNSCORED = dataclasses.replace(CONFIG, score=False)
ROLLOUT = ["prompt_id", "rollout_id", "token_ids", "reward", "correct", "finish_reason"]


@pytest.fixture(scope="module")
def unscored_run(tmp_path_factory):
    """The lab run without its scores; not to be changed."""
    path = tmp_path_factory.mktemp("unscored") / "run"
    assert collect(UNSCORED, path, argv=["thr-probe"])
    return path


def test_without_scoring_the_rollouts_are_the_same_and_no_scores_are_written(lab_run, unscored_run):
    run = read_run(unscored_run)
    assert run.is_complete
    assert not validate_run(unscored_run)
    assert not (unscored_run / "scores").exists()
    assert rows(unscored_run, ROLLOUT) == rows(lab_run, ROLLOUT)


def test_analyses_that_need_no_thr_work_without_scores(unscored_run):
    run = read_run(unscored_run)
    assert pass_at_k_curve(run).facts["num_questions"] == 6
    assert not reflection_ratio(run).summary.empty


def test_scores_added_later_are_those_of_a_scored_run(lab_run, unscored_run, tmp_path):
    path = tmp_path / "run"
    shutil.copytree(unscored_run, path)
    assert score_run(path, ScoreConfig()) == "lab"
    columns = ["thr", "entropy", "logprob", "advantage"]
    assert rows(path, columns) == rows(lab_run, columns)
    before = content(path)
    assert collect(UNSCORED, path, resume=True)
    assert content(path) == before


def test_an_unscored_run_resumes_to_the_uninterrupted_one(unscored_run, tmp_path):
    path = tmp_path / "run"
    assert not collect(UNSCORED, path, argv=["thr-probe"], monitor=StopAfter(1))
    assert not read_run(path).is_complete
    assert collect(UNSCORED, path, resume=True)
    assert content(path) == content(unscored_run)
    (path / "rollouts" / "part-00002.parquet").unlink()
    assert collect(UNSCORED, path, resume=True)
    assert content(path) == content(unscored_run)
    with pytest.raises(UsageError, match="score is False there, True here"):
        collect(CONFIG, path, resume=True)


def test_a_run_from_before_these_options_resumes(lab_run, tmp_path):
    path = tmp_path / "run"
    assert not collect(CONFIG, path, monitor=StopAfter(1))
    config = path / "config.toml"
    lines = config.read_text().splitlines(keepends=True)
    older = [line for line in lines if not line.startswith(("score =", "truncated_wrong ="))]
    assert len(older) == len(lines) - 2
    config.write_text("".join(older))
    assert collect(CONFIG, path, resume=True)
    assert rows(path, [*ROLLOUT, "thr"]) == rows(lab_run, [*ROLLOUT, "thr"])


def test_what_the_length_limit_cut_off_counts_as_wrong_where_asked(tmp_path):
    """At 32 tokens the policy of the lab has given some right answers without having ended."""
    plain = dataclasses.replace(UNSCORED, max_prompts=12, max_new_tokens=32)
    strict = dataclasses.replace(plain, truncated_wrong=True)
    assert collect(plain, tmp_path / "plain")
    assert collect(strict, tmp_path / "strict")
    told, judged = rows(tmp_path / "plain", ROLLOUT), rows(tmp_path / "strict", ROLLOUT)
    cut = [row["finish_reason"] == "length" for row in told]
    assert any(row["correct"] for row, is_cut in zip(told, cut, strict=True) if is_cut)
    assert any(row["correct"] for row, is_cut in zip(told, cut, strict=True) if not is_cut)
    wrong = {"reward": 0.0, "correct": False}
    expected = [row | wrong if is_cut else row for row, is_cut in zip(told, cut, strict=True)]
    assert judged == expected
    assert tomllib.loads((tmp_path / "strict" / "config.toml").read_text())["truncated_wrong"]


def test_the_flags_reach_the_run_and_the_next_command_needs_no_scores(tmp_path):
    flags = ["--max-prompts=1", "-n2", "--max-new-tokens=8", "--no-score", "--truncated-wrong"]
    result = CliRunner().invoke(app, ["collect", "-o", str(tmp_path / "run"), *flags])
    assert result.exit_code == 0, result.output
    assert f"next: thr-probe analyze passk {tmp_path / 'run'}" in result.stderr
    config = read_run(tmp_path / "run").config
    assert (config["score"], config["truncated_wrong"]) == (False, True)
