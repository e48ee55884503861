"""`thr-probe analyze mismatch` from the shell, and its place in `analyze all`."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from thr_probe.cli import app

LISTS = {"logprob": [-0.5, -1.0], "sampler_logprobs": [-0.5, -2.0]}


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def path(tmp_path, make_run):
    completions = [{"correct": True, **LISTS}, {"correct": False, **LISTS}]
    groups = [{"prompt_id": name, "completions": completions} for name in "ab"]
    return make_run(tmp_path / "run", groups)


def test_the_summary_is_printed_and_the_caution_told(path, tmp_path):
    words = ["--bound", 2, "--cap", 2.5, "--format", "json"]
    result = run("analyze", "mismatch", path, "-o", tmp_path / "out", *words)
    assert result.exit_code == 0, result.output
    rows = {(row["quantity"], row["split"]): row["value"] for row in json.loads(result.stdout)}
    assert rows["mean_gap", "all"] == 0.5
    assert rows["beyond_share", "all"] == rows["truncated_share", "all"] - 0.5 == 0
    assert "temperature of the sampler or of the scores is not recorded" in result.stderr.replace(
        "\n", " "
    )
    for name in ("mismatch.pdf", "mismatch-worst.csv", "mismatch.tex"):
        assert (tmp_path / "out" / name).is_file()


def test_a_cap_below_1_is_a_usage_error(path):
    result = run("analyze", "mismatch", path, "--cap", 0.5)
    assert result.exit_code == 2
    assert "cap must be a number of at least 1" in result.stderr
