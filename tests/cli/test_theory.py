"""`thr-probe theory` from the shell."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from thr_probe.cli import app

NAMES = ("entropy-shape", "distributions", "cosines", "lemma", "labels")
SMALL = ["-V", "10", "-V", "100", "--top", "0.9", "--draws", "2", "--format", "json"]


def run(*words):
    return CliRunner().invoke(app, ["theory", *(str(word) for word in words)])


def test_it_prints_the_cosines_and_writes_five_analyses(tmp_path):
    result = run("-o", tmp_path, *SMALL)
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert [(row["vocab_size"], row["top"]) for row in rows] == [(10, 0.9), (100, 0.9)]
    assert all(row["cos_entropy_residual"] == -row["cos_direction_residual"] for row in rows)
    for name in NAMES:
        for ending in ("csv", "json", "tex", "pdf", "svg", "png"):
            assert (tmp_path / f"theory-{name}.{ending}").exists()
    facts = json.loads((tmp_path / "theory-cosines.json").read_text())["facts"]
    assert facts["spread"] == "uniform"
    assert facts["label"] == "argmax"


def test_what_does_not_exist_is_refused_with_a_sentence(tmp_path):
    for words, message in (
        (("--spread", "zipf"), "unknown spread 'zipf'"),
        (("--label", "best"), "unknown label 'best'"),
        (("--top", "1"), "strictly between 0 and 1"),
        (("--venue", "cvpr"), "unknown venue 'cvpr'"),
        (("--seed", "-1"), "seed -1"),
    ):
        result = run("-o", tmp_path, *words, "--draws", "1")
        assert result.exit_code == 2, result.output
        assert message in result.stderr
