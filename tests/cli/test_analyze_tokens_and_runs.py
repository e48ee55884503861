"""`analyze entropy`, `classes`, `health`, `drift` from the shell, and their place in `all`."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from thr_probe import gallery
from thr_probe.cli import app

TOKENS = {1: " 5", 2: " so", 3: " wait", 4: "="}
HEAVY = ("torch", "transformers", "pandas", "matplotlib", "pyarrow", "sklearn")


def run(*words, **options):
    return CliRunner().invoke(app, [str(word) for word in words], **options)


@pytest.fixture
def path(tmp_path, make_run):
    groups = [
        {"prompt_id": name, "tau": 0.025, "completions": [{"correct": True}, {"correct": False}]}
        for name in "abc"
    ]
    return make_run(tmp_path / "run", groups, tokens=TOKENS)


def test_help_loads_nothing_heavy():
    program = f"""
import sys
from thr_probe.cli import app
for name in ("entropy", "classes", "mismatch", "health", "drift"):
    try:
        app(["analyze", name, "--help"])
    except SystemExit as stop:
        assert stop.code == 0, name
print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert ran.stderr.strip() == "[]"


def test_entropy_prints_its_summary(path, tmp_path):
    result = run("analyze", "entropy", path, "-o", tmp_path / "out", "--format", "json")
    assert result.exit_code == 0, result.output
    rows = {(row["quantity"], row["split"]): row["value"] for row in json.loads(result.stdout)}
    assert rows["auc_entropy", "all"] == 0.5  # every token has the same entropy
    assert (tmp_path / "out" / "entropy-one_minus_p-map.csv").exists()


def test_classes_print_a_row_each_and_take_ones_own_scheme(path, tmp_path):
    words = ["analyze", "classes", path, "-o", tmp_path / "out", "--format", "json"]
    rows = json.loads(run(*words).stdout)
    assert {row["class"] for row in rows} == {"digits", "connectives", "reflection", "operators"}
    assert all(row["tokens"] == 6 for row in rows)
    scheme = tmp_path / "mine.toml"
    scheme.write_text('rest = "rest"\n[[class]]\nname = "five"\nwords = ["5"]\n')
    result = run(*words, "--scheme", scheme)
    assert {row["class"]: row["token_share"] for row in json.loads(result.stdout)} == {
        "rest": 0.75,
        "five": 0.25,
    }
    wrong = run(*words, "--scheme", "grammatical")
    assert wrong.exit_code == 2
    assert "choose lexical or paper" in wrong.stderr


def test_health_prints_its_checks_of_a_run_without_scores(tmp_path, make_run):
    groups = [{"completions": [{"finish_reason": "length"}, {"correct": True}]}]
    unscored = make_run(tmp_path / "run", groups, scored=False)
    result = run("analyze", "health", unscored, "--format", "json")
    assert result.exit_code == 0, result.output
    row = json.loads(result.stdout)[0]
    assert (row["check"], row["count"], row["of"], row["verdict"]) == ("truncated", 1, 2, "bad")
    assert (unscored / "analysis" / "health.pdf").exists()


def test_drift_says_how_to_get_a_second_score_set_and_compares_those_named(path, tmp_path):
    words = ["analyze", "drift", path, "-o", tmp_path / "out", "--format", "json"]
    alone = run(*words)
    assert alone.exit_code == 0
    assert "thr-probe score RUN --model CHECKPOINT" in " ".join(alone.stderr.split())
    for name in ("x", "y"):
        shutil.copytree(path / "scores" / "default", path / "scores" / name)
    result = run(*words, "--score-id", "y", "--score-id", "x")
    assert result.exit_code == 0, result.output
    assert {row["split"].partition(",")[0] for row in json.loads(result.stdout)} == {"x"}


def test_all_has_drift_only_where_several_score_sets_are(path, tmp_path, monkeypatch):
    # the other analyses have their own tests, and take their time
    few = {name: gallery.ANALYSES[name] for name in ("entropy", "classes", "health")}
    monkeypatch.setattr(gallery, "ANALYSES", few)
    words = ["analyze", "all", path, "-o", tmp_path / "out", "--format", "json"]

    def names():
        result = run(*words)
        return [row["analysis"] for row in json.loads(result.stdout) if row["figure"]]

    assert names() == ["entropy", "classes", "health"]
    shutil.copytree(path / "scores" / "default", path / "scores" / "other")
    assert names() == ["entropy", "classes", "health", "drift"]
