"""Evaluations of the lab: numbers as counted by hand, traces, stopping, checkpoints, the shell."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import signal
import subprocess
import sys
from contextlib import nullcontext

import numpy as np
import pytest
from lab_runs import StopAfter, content, rows
from typer.testing import CliRunner

from thr_probe import engine
from thr_probe.cli import app
from thr_probe.cli.progress import ShellMonitor
from thr_probe.collect import collect
from thr_probe.config import CollectConfig
from thr_probe.core.pass_at_k import pass_at_k
from thr_probe.errors import UsageError
from thr_probe.evaluate.run import evaluate
from thr_probe.evaluate.settings import EvalConfig
from thr_probe.traces import read_run, validate_run

CONFIG = EvalConfig(max_prompts=6, samples=4, max_new_tokens=48, shard_prompts=3)
FLAGS = ["--max-prompts=6", "--samples=4", "--max-new-tokens=48", "--shard-prompts=3"]


def invoke(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """One evaluation of the policy of the lab; not to be changed."""
    path = tmp_path_factory.mktemp("evaluated") / "out"
    result = evaluate("lab", CONFIG, path, argv=["thr-probe"])
    return path, result


def values(result):
    return {(row["checkpoint"], row["measure"], row["dataset"]): row["value"] for row in result}


def test_greedy_accuracy_is_that_of_a_collected_run_counted_by_hand(evaluated, tmp_path):
    _, result = evaluated
    greedy = CollectConfig(
        max_prompts=6, group_size=1, temperature=0.0, max_new_tokens=48, shard_prompts=3
    )
    collect(greedy, tmp_path / "run")
    told = rows(tmp_path / "run", ["correct", "finish_reason"])
    right = [row["correct"] and row["finish_reason"] != "length" for row in told]
    found = values(result.rows)
    assert 0 < sum(right) < 6
    assert found["final", "greedy", "lab-test"] == sum(right) / 6
    cut = sum(row["finish_reason"] == "length" for row in told)
    assert result.rows[0]["truncated"] == cut / 6


def test_pass_at_k_is_counted_from_the_saved_samples(evaluated):
    path, result = evaluated
    saved = rows(path / "final" / "sampled" / "lab-test", ["correct"])
    c = np.array([row["correct"] for row in saved]).reshape(6, 4).sum(axis=1)
    assert c.any()
    found = values(result.rows)
    for k in (1, 2, 4):
        expected = pass_at_k(4, c, k).mean()
        np.testing.assert_allclose(found["final", f"pass@{k}", "lab-test"], expected)
    assert all(row["low"] <= row["value"] <= row["high"] for row in result.rows)


def test_every_set_is_an_ordinary_run_without_scores(evaluated):
    path, _ = evaluated
    for measure, size in (("greedy", 6), ("sampled", 24)):
        run = read_run(path / "final" / measure / "lab-test")
        assert run.is_complete
        assert run.num_completions == size
        assert run.score_ids == ()
        assert run.config["truncated_wrong"]
        assert not validate_run(run.path)


def test_the_files_hold_the_table_and_how_it_came_about(evaluated):
    path, result = evaluated
    saved = json.loads((path / "eval.json").read_text())
    assert saved["rows"] == [dict(row) for row in result.rows]
    assert saved["config"]["samples"] == 4
    assert [item["path"] for item in saved["runs"]] == [
        "final/greedy/lab-test",
        "final/sampled/lab-test",
    ]
    assert saved["runs"][0]["counts"]["max_new_tokens"] == 48
    with (path / "eval.csv").open() as file:
        told = list(csv.DictReader(file))
    assert [float(row["value"]) for row in told] == [row["value"] for row in result.rows]


def test_a_stopped_evaluation_goes_on_to_the_same_files(evaluated, tmp_path):
    path, result = evaluated
    out = tmp_path / "out"
    assert evaluate("lab", CONFIG, out, watch=lambda task: nullcontext(StopAfter(1))) is None
    assert not (out / "eval.json").exists()
    # after the last shard of a set there is nothing left to stop in it: the next does not begin
    stopped = evaluate(
        "lab", CONFIG, out, resume=True, watch=lambda task: nullcontext(StopAfter(2))
    )
    assert stopped is None
    assert read_run(out / "final" / "greedy" / "lab-test").is_complete
    assert not (out / "final" / "sampled").exists()
    assert evaluate("lab", CONFIG, out, resume=True).rows == result.rows
    for measure in ("greedy", "sampled"):
        run = f"final/{measure}/lab-test"
        assert content(out / run) == content(path / run)


def test_what_is_complete_needs_no_policy_again(evaluated, monkeypatch):
    path, result = evaluated

    def loaded(config, world, scores):
        raise AssertionError("loaded")

    monkeypatch.setattr(engine, "load_engine", loaded)
    assert evaluate("lab", CONFIG, path, resume=True, argv=["thr-probe"]).rows == result.rows


def test_an_evaluation_that_stands_is_not_overwritten_silently(evaluated):
    path, _ = evaluated
    with pytest.raises(UsageError, match="holds final/greedy/lab-test already"):
        evaluate("lab", CONFIG, path)
    with pytest.raises(UsageError, match="group_size is 4 there, 8 here"):
        evaluate("lab", dataclasses.replace(CONFIG, samples=8), path, resume=True)
    with pytest.raises(UsageError, match="choose one"):
        evaluate("lab", CONFIG, path, resume=True, overwrite=True)


def test_checkpoints_are_evaluated_and_the_best_is_told_beside_the_final_one(
    training_run, tmp_path, monkeypatch
):
    loads = []
    load = engine.load_engine
    monkeypatch.setattr(
        engine,
        "load_engine",
        lambda config, world, scores: (
            loads.append(config.model) or load(config, world, scores=scores)
        ),
    )
    config = EvalConfig(
        checkpoints="all",
        select="best",
        max_prompts=8,
        samples=2,
        dataset="lab:test,lab:validation",
    )
    result = evaluate(str(training_run), config, tmp_path / "out")
    # one policy per checkpoint, for all four runs
    assert loads == [
        str(training_run / "checkpoints" / "step-000002" / "model"),
        str(training_run / "model"),
    ]
    found = values(result.rows)
    for checkpoint in ("step-000002", "final"):
        sets = [found[checkpoint, "greedy", f"lab-{split}"] for split in ("test", "validation")]
        assert found[checkpoint, "greedy", "average"] == sum(sets) / 2
    assert found["step-000002", "greedy", "average"] > found["final", "greedy", "average"]
    assert result.best == "step-000002"
    assert any("optimistic" in note for note in result.notes)
    assert any("step-000004 is left out" in note for note in result.notes)
    saved = json.loads((tmp_path / "out" / "eval.json").read_text())
    assert (saved["best"], saved["best_is_optimistic"]) == ("step-000002", True)
    assert saved["runs"][0]["counts"]["max_new_tokens"] == 40
    words = ["--checkpoints=all", "--select=best", "--max-prompts=8", "--samples=2"]
    told = invoke(
        "eval", training_run, "-o", tmp_path / "out", "--dataset=lab:test,lab:validation", *words,
        "--resume", "--format=json",
    )  # fmt: skip
    assert told.exit_code == 0, told.output
    printed = json.loads(told.stdout)
    assert [row["selected"] for row in printed] == ["best, optimistic"] * 9 + ["final"] * 9
    assert "optimistic beside final" in told.stderr


def test_a_set_of_another_size_than_the_papers_is_warned_of(tmp_path):
    source = tmp_path / "aime24.jsonl"
    source.write_text('{"question": "What is 2 plus 2?", "answer": "4"}\n' * 2)
    config = EvalConfig(dataset=str(source), samples=0, max_new_tokens=4)
    result = evaluate("lab", config, tmp_path / "out")
    assert result.warnings == ("aime24: 1 problems, the paper's set has 30",)
    assert np.isnan(result.rows[0]["low"])
    assert json.loads((tmp_path / "out" / "eval.json").read_text())["rows"][0]["low"] is None


def test_the_shell_prints_the_table_and_where_the_files_are(evaluated):
    path, result = evaluated
    told = invoke("eval", "lab", "-o", path, *FLAGS, "--resume", "--format", "json")
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout) == [dict(row) for row in result.rows]
    assert f"tables: {path / 'eval.csv'}" in told.stderr
    assert "final: greedy on lab-test" in told.stderr


@pytest.mark.slow
def test_two_processes_under_torchrun_make_the_files_of_one(evaluated, tmp_path):
    path, _ = evaluated
    words = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    ran = subprocess.run(
        [*words, "-m", "thr_probe", "eval", "lab", "-o", "out", *FLAGS, "--format", "csv"],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert ran.stdout == (path / "eval.csv").read_text()
    assert (tmp_path / "out" / "eval.csv").read_bytes() == (path / "eval.csv").read_bytes()
    for measure in ("greedy", "sampled"):
        run = f"final/{measure}/lab-test"
        assert content(tmp_path / "out" / run) == content(path / run)


def test_ctrl_c_stops_after_the_shard_and_prints_how_to_go_on(tmp_path, monkeypatch):
    advance = ShellMonitor.advance

    def interrupted(self, step):
        advance(self, step)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(ShellMonitor, "advance", interrupted)
    monkeypatch.setattr("sys.argv", ["thr-probe", "eval", "lab", "-o", "my out", *FLAGS])
    told = invoke("eval", "lab", "-o", tmp_path / "out", *FLAGS)
    assert told.exit_code == 130
    assert "continue with: thr-probe eval lab -o 'my out'" in told.stderr
    assert told.stderr.rstrip().endswith("--resume")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--temperature=-1"], "temperature must be 0 or positive"),
        (["--top-p=1.5"], "top_p must lie in (0, 1]"),
    ],
)
def test_sampling_that_is_impossible_is_refused_before_the_greedy_sets(words, message, tmp_path):
    told = invoke("eval", "lab", "-o", tmp_path / "out", *FLAGS, *words)
    assert told.exit_code == 2
    assert message in told.stderr
    assert not (tmp_path / "out").exists()


def test_an_unknown_set_is_an_error_before_anything_is_loaded(tmp_path):
    told = invoke("eval", "lab", "-o", tmp_path / "out", "--dataset", "aime42.parquet")
    assert told.exit_code == 3
    assert "aime42.parquet does not exist" in told.stderr
    assert not (tmp_path / "out").exists()
