"""`thr-probe preview` from the shell."""

from __future__ import annotations

import inspect
import json

import pytest
from typer.testing import CliRunner

from thr_probe.cli import app
from thr_probe.cli.preview import preview_command
from thr_probe.train.config import TrainConfig


def run(*words, **options):
    return CliRunner().invoke(app, [str(word) for word in words], **options)


@pytest.fixture(scope="module")
def saved(tmp_path_factory, make_run):
    path = tmp_path_factory.mktemp("preview") / "run"
    completions = [{"correct": True}, {"correct": False}, {"correct": False}, {"correct": True}]
    return make_run(
        path, [{"prompt_id": f"q{index}", "completions": completions} for index in "ab"]
    )


def test_several_p_print_a_row_each_and_files_are_named(saved, tmp_path):
    out = tmp_path / "out"
    result = run("preview", saved, "--p", -0.1, "--p", 0.2, "-o", out, "--format", "json")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    splits = [row["split"] for row in rows if row["quantity"] == "weight_mean"]
    assert splits == ["p = -0.1", "p = +0.2"]
    assert str(out / "preview.png") in result.stderr
    assert {path.name for path in out.glob("*.csv")} == {
        "preview.csv", "preview-drift.csv", "preview-chosen.csv", "preview-weights.csv",
        "preview-overlap.csv", "preview-groups.csv",
    }  # fmt: skip
    assert "--nthr has the policy replay" in result.stderr


def test_what_the_trainer_refuses_is_refused_in_its_words(saved):
    for words, expected in (
        (("--method", "ppo"), "--method 'ppo' does not exist"),
        (("--p", "1.5"), "must lie strictly between -1 and 1"),
        (("--method", "grpo", "--p", "0.1"), "--p belongs to --method thr"),
        (("--pass-at-k", "pure", "--k", "9"), "--k 9 is larger than"),
        (("--cov-share", "0"), "cov_share must lie in (0, 1]"),
    ):
        result = run("preview", saved, *words)
        assert result.exit_code == 2, result.output
        assert expected in result.stderr


def test_flags_shared_with_the_trainer_have_its_defaults():
    defaults = {item.name: item.default for item in TrainConfig.__dataclass_fields__.values()}
    defaults["cov_share"] = 2e-3  # the trainer's for KL-Cov
    parameters = inspect.signature(preview_command).parameters
    own = {"run", "p", "out", "nthr", "model", "score_id", "seed", "venue", "format"}
    for name, parameter in parameters.items():
        if name not in own:
            assert parameter.default == defaults[name], name


def test_nthr_of_a_run_without_a_policy_asks_for_one(make_run, tmp_path):
    completions = [{"correct": True}, {"correct": False}]
    path = make_run(tmp_path / "run", [{"completions": completions}], manifest={"model": None})
    result = run("preview", path, "--nthr", "--k", 2)
    assert result.exit_code == 2
    assert "does not say which policy" in result.stderr
