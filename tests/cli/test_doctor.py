"""`thr-probe doctor` from the shell."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from thr_probe import doctor
from thr_probe.cli import app
from thr_probe.cli.doctor import find_font, run_lab, run_verifier


def run(*words, **options):
    return CliRunner().invoke(app, [str(word) for word in words], **options)


def test_a_sound_base_ends_with_0_whatever_extras_are_absent():
    result = run("doctor", "--quick", "--format", "json")
    assert result.exit_code == 0, result.output
    rows = {row["check"]: row for row in json.loads(result.stdout)}
    assert rows["torch"]["status"] == "ok"
    assert {"python", "numpy", "threads", "hub", "current folder"} <= rows.keys()
    for row in rows.values():
        assert row["status"] in {"ok", "absent", "look"}
        assert row["status"] == "ok" or row["advice"]


def test_a_broken_base_ends_with_4_and_names_what_is_broken(monkeypatch):
    installed = doctor._installed
    monkeypatch.setattr(
        doctor, "_installed", lambda each: "1.0" if each.name == "torch" else installed(each)
    )
    result = run("doctor", "--quick")
    assert result.exit_code == 4
    assert "the base does not work: torch" in result.stderr
    assert "1.0, asked >=2" in result.stdout


def test_what_it_runs_works_here():
    assert "writes an answer" in run_lab()
    assert "math-verify" in run_verifier()
    assert "DejaVu Sans" in find_font()
