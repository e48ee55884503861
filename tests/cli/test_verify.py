"""`thr-probe verify` from the shell."""

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
        {"correct": True, "text": r"\boxed{1.22}"},
        {"correct": False, "text": "\\boxed{\x1b[31m9}"},
        {"correct": True, "text": "\\boxed{\x1b[31m8}"},
    ]
    group = {"answer": "1,22", "completions": completions}
    return make_run(tmp_path_factory.mktemp("verify") / "run", [group], scored=False)


def test_agreement_is_printed_and_nothing_is_written_without_out(saved):
    before = sorted(saved.rglob("*"))
    result = run("verify", saved, "--format", "json")
    assert result.exit_code == 0, result.output
    first, *kinds = json.loads(result.stdout)
    assert (first["quantity"], round(first["value"], 3)) == ("agreement", 0.667)
    assert [(row["quantity"], row["count"]) for row in kinds] == [("stored right, now wrong", 1)]
    assert "3 completions" not in result.stdout
    assert "completions/s" in result.stderr
    assert sorted(saved.rglob("*")) == before


def test_audit_lists_disagreements_by_kind_with_examples_that_are_safe_to_print(saved, tmp_path):
    result = run("verify", saved, "--audit", "-o", tmp_path / "out", env={"COLUMNS": "240"})
    assert result.exit_code == 0, result.output
    assert "label_noise" in result.stdout
    assert "first right, second wrong" in result.stdout
    assert "\x1b" not in result.stdout
    assert "\\x1b[31m8" in result.stdout
    assert str(tmp_path / "out" / "verify.json") in result.stderr


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    result = run("verify", tmp_path)
    assert result.exit_code == 3
    assert "is not a run directory" in result.stderr
