"""`thr-probe report` from the shell: what it writes, what it says, how it ends."""

from __future__ import annotations

import inspect
import json
from dataclasses import fields
from pathlib import Path

import pytest
from typer.testing import CliRunner

from thr_probe import gallery
from thr_probe.cli import app
from thr_probe.cli.report import report_command
from thr_probe.errors import DataError
from thr_probe.report.build import ReportOptions

COMPLETIONS = [{"correct": True}, {"correct": False}]
GROUPS = [{"prompt_id": f"q{index}", "completions": COMPLETIONS} for index in range(3)]


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two analyses, one with scores and one without."""
    names = ("density", "passk")
    monkeypatch.setattr(gallery, "ANALYSES", {name: gallery.ANALYSES[name] for name in names})


def run(*arguments: object):
    return CliRunner().invoke(app, ["report", *map(str, arguments)])


def test_the_page_is_named_on_stdout_and_the_files_for_latex_beside(make_run, tmp_path):
    trace = make_run(tmp_path / "run", GROUPS, tokens={1: " wait"})
    out, latex = tmp_path / "deep" / "page.html", tmp_path / "latex"
    result = run(trace, "-o", out, "--latex", latex)
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == str(out)
    assert out.read_text().startswith("<!doctype html>")
    assert f"for LaTeX: {latex / 'report.tex'}" in result.stderr
    assert (latex / "density.tex").exists()


def test_what_a_run_lacks_is_told_on_stderr_and_is_no_failure(make_run, tmp_path):
    trace = make_run(tmp_path / "run", GROUPS, scored=False)
    result = run(trace, "-o", tmp_path / "page.html", "--keep", tmp_path / "files")
    assert result.exit_code == 0, result.output
    assert "run: density: " in result.stderr
    assert "scores" in result.stderr
    assert (tmp_path / "files" / "passk.csv").exists()


def test_an_analysis_that_fails_leaves_the_page_and_ends_as_incomplete(
    make_run, tmp_path, monkeypatch
):
    def broken(run, **options):
        raise DataError("column thr: found nan", "score the run again")

    monkeypatch.setattr(gallery, "ANALYSES", gallery.ANALYSES | {"density": broken})
    result = run(make_run(tmp_path / "run", GROUPS), "-o", tmp_path / "page.html")
    assert result.exit_code == 5, result.output
    assert "not computed: run: density" in result.stderr
    assert "column thr: found nan" in (tmp_path / "page.html").read_text()


def test_a_file_to_keep_the_files_in_is_refused_at_once(make_run, tmp_path):
    (tmp_path / "file").write_text("kept")
    trace = make_run(tmp_path / "run", GROUPS)
    result = run(trace, "-o", tmp_path / "page.html", "--keep", tmp_path / "file")
    assert result.exit_code == 3
    assert "is a file, and a folder is needed" in result.stderr
    assert not (tmp_path / "page.html").exists()


def test_options_reach_the_analyses(make_run, tmp_path):
    trace = make_run(tmp_path / "run", GROUPS, score_id="second")
    files = tmp_path / "files"
    options = ["--seed", "7", "--groups", "has-correct", "--score-id", "second", "--keep", files]
    result = run(trace, "-o", tmp_path / "page.html", *options)
    assert result.exit_code == 0, result.output
    facts = json.loads((files / "density.json").read_text())["facts"]
    assert facts["seed"] == 7
    assert facts["groups"] == "has-correct"
    assert facts["score_id"] == "second"


def test_a_run_that_cannot_be_read_beside_one_that_can_ends_as_incomplete(make_run, tmp_path):
    trace = make_run(tmp_path / "run", GROUPS)
    result = run(trace, tmp_path / "nowhere", "-o", tmp_path / "page.html")
    assert result.exit_code == 5
    assert "nowhere" in result.stderr
    assert (tmp_path / "page.html").exists()


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--venue", "nature"], 2, "nature"),
        (["--score-id", "other"], 2, "other"),
        (["--groups", "some"], 2, "some"),
    ],
)
def test_options_that_do_not_exist_are_a_sentence(make_run, tmp_path, options, code, words):
    trace = make_run(tmp_path / "run", GROUPS)
    result = run(trace, "-o", tmp_path / "page.html", *options)
    assert result.exit_code == code
    assert words in result.stderr
    assert not (tmp_path / "page.html").exists()


def test_a_path_that_is_no_run_is_a_sentence(tmp_path: Path):
    result = run(tmp_path, "-o", tmp_path / "page.html")
    assert result.exit_code == 3
    assert "error:" in result.stderr


def test_the_shell_has_the_defaults_of_the_options():
    defaults = inspect.signature(report_command).parameters
    for field in fields(ReportOptions):
        if field.name != "command":
            assert defaults[field.name].default == field.default
