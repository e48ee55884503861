"""`thr-probe train` from the shell: plan, a short run, what it tells."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields

import pytest
from train_runs import FLAGS
from typer.testing import CliRunner

from thr_probe.cli import app
from thr_probe.cli.training import cells, step_line
from thr_probe.train.config import TrainConfig


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "400"})


def short(**flags):
    return [f"--{name.replace('_', '-')}={value}" for name, value in (FLAGS | flags).items()]


def test_the_plan_is_printed_without_torch(tmp_path):
    program = """
import sys
from thr_probe.cli import app
try:
    app(["train", "-o", sys.argv[1], "--p", "-0.1", "--dry-run", "--format", "json"])
except SystemExit as stop:
    assert stop.code == 0
print([name for name in ("torch", "transformers", "pandas") if name in sys.modules],
      file=sys.stderr)
"""
    ran = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "r")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stderr.strip() == "[]"
    rows = {row["what"]: row for row in json.loads(ran.stdout)}
    assert rows["p"] == {"what": "p", "value": -0.1, "from": "flag"}
    assert rows["updates per step"]["value"] == 8
    assert rows["preset"]["value"] == "lab"
    assert not (tmp_path / "r").exists()


def test_every_option_of_train_is_a_flag_with_its_default():
    told = run("train", "--help").stdout
    for item in fields(TrainConfig):
        assert f"--{item.name.replace('_', '-')}" in told
        if item.default is not None and item.type != "bool":
            assert f"Default: {item.default}." in told


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--objective", "gspo"], "--objective gspo has one advantage per completion"),
        (["--p", "1"], "--p must lie strictly between -1 and 1"),
        (["--pass-at-k", "pure", "--k", "9"], "--k 9 is larger than --group-size 8"),
        (["--preset", "labs"], "unknown preset 'labs'"),
        (["--cov", "kl-cov", "--clip-high", "0.28"], "--clip-high does nothing with --cov kl-cov"),
        (["--tolerance", "-1"], "tolerance must be positive"),
        (["--vocab", "full", "--exact"], "exact does nothing with vocab 'full'"),
        (["--clip-low", "1.5"], "clip_low must lie in [0, 1), got 1.5"),
    ],
)
def test_what_is_impossible_ends_with_2_and_writes_nothing(words, message, tmp_path):
    result = run("train", "-o", tmp_path / "r", *words)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (tmp_path / "r").exists()


def test_a_short_run_tells_each_step_and_where_the_model_is(tmp_path):
    path = tmp_path / "r"
    result = run("train", "-o", path, *short(steps=2), "--cov", "kl-cov", "--mini-batch", "4",
                 "--method", "grpo", "--format", "json")  # fmt: skip
    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.stdout)
    assert row["steps"] == 2
    assert row["model"] == str(path / "model")
    assert "step 2/2  reward" in result.stderr
    assert "after 2/2  lab:validation  greedy accuracy" in result.stderr
    assert result.stderr.count("warning: --cov kl-cov does nothing with one update per step") == 1
    again = run("train", "-o", path, "--resume", "--format", "json")
    assert again.exit_code == 0, again.output
    assert run("train", "-o", path).exit_code == 2


@pytest.mark.parametrize(
    ("command", "words", "message"),
    [
        ("collect", ["--max-prompts=1", "-n2", "--max-new-tokens=8", "--no-score"],
         "config.toml: unknown key"),
        ("train", short(steps=1), "preset is 'lab' there, 'none' here"),
    ],
)  # fmt: skip
def test_a_run_is_resumed_only_as_what_it_was_started(command, words, message, tmp_path):
    path = tmp_path / "r"
    assert run(command, "-o", path, *words).exit_code == 0
    result = run("train", "-o", path, "--resume", "--preset", "none")
    assert result.exit_code == 2, result.output
    assert message in result.stderr


RECORD = {
    "step": 4, "reward_generated": 0.5, "reward_kept": 0.45, "loss": -0.01234, "grad_norm": 0.4567,
    "entropy": 0.321, "length_mean": 51.6, "retained_share": 0.3, "gen": 1.5, "update": 2.25,
    "thr": 0.126, "ref": 0.5, "old": 0.25, "total": 4.626,
}  # fmt: skip


def test_a_step_in_one_line_and_as_a_row():
    assert step_line(RECORD, 40) == (
        "step 5/40  reward 0.500 (kept 0.450)  loss -0.0123  grad 0.457  entropy 0.321  length 52  "
        "retained 30.0%  s: gen 1.50 update 2.25 thr 0.13 ref 0.50 old 0.25 total 4.63"
    )
    assert cells({**RECORD, "retained_share": None})[:5] == ["5", "0.500", "0.321", "52", "-"]
