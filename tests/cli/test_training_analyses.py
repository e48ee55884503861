"""`analyze curves` and `analyze timing` from the shell, and `analyze all` of a training run."""

from __future__ import annotations

import csv
import io
import json

import pytest
from training_journals import METRICS, training_records, write_journal
from typer.testing import CliRunner

from thr_probe.cli import app

COLUMNS = ["Data Gen", "Model Upd", "THR", "Ref", "Old Prob", "Total (Sec)"]


def run(*words, **options):
    return CliRunner().invoke(app, [str(word) for word in words], **options)


@pytest.fixture
def runs(tmp_path):
    return [
        write_journal(tmp_path / "runs" / name, training_records(num_steps, eval_every=2))
        for name, num_steps in (("thr", 6), ("grpo", 4))
    ]


def test_curves_of_several_runs_print_a_row_each_and_name_their_files(runs, tmp_path):
    out = tmp_path / "out"
    result = run("analyze", "curves", *runs, "-o", out, "--smooth", 2, "--format", "json")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert [(row["run"], row["steps"], row["validation"]) for row in rows] == [
        ("thr", 6, "lab:validation"),
        ("grpo", 4, "lab:validation"),
    ]
    assert str(out / "curves.png") in result.stderr
    assert {path.name for path in out.iterdir()} == {
        "curves.csv", "curves-curve.csv", "curves.json", "curves.tex",
        "curves.pdf", "curves.svg", "curves.png",
    }  # fmt: skip
    facts = json.loads((out / "curves.json").read_text())
    assert facts["facts"]["smooth"] == 2


@pytest.mark.parametrize("name", ["curves", "timing"])
def test_files_go_beside_a_single_run_and_into_a_folder_here_for_several(
    runs, tmp_path, monkeypatch, name
):
    monkeypatch.chdir(tmp_path)
    assert run("analyze", name, runs[0]).exit_code == 0
    assert (runs[0] / "analysis" / f"{name}.pdf").exists()
    assert not (tmp_path / "analysis").exists()
    assert run("analyze", name, *runs).exit_code == 0
    assert (tmp_path / "analysis" / f"{name}.pdf").exists()


def test_timing_is_table_10_in_the_formats_of_papers(runs, tmp_path):
    words = ["analyze", "timing", *runs, "-o", tmp_path / "out", "--format"]
    printed = {style: run(*words, style).stdout for style in ("csv", "md", "latex", "human")}
    rows = list(csv.DictReader(io.StringIO(printed["csv"])))
    assert list(rows[0]) == ["run", "steps", *COLUMNS]
    assert [float(rows[0][column]) for column in COLUMNS] == [347, 210, 37, 120, 120, 834]
    assert printed["md"].splitlines()[2] == "| thr | 6 | 347 | 210 | 37 | 120 | 120 | 834 |"
    assert r"grpo & 4 & 347 & 210 & 37 & 120 & 120 & 834 \\" in printed["latex"].splitlines()
    assert printed["human"].split()[:4] == ["run", "steps", "Data", "Gen"]
    saved = (tmp_path / "out" / "timing-table.csv").read_text()
    assert saved.splitlines()[0].split(",") == ["run", "steps", *COLUMNS]


def test_timing_in_percent_without_the_first_steps(runs):
    words = ["--unit", "percent", "--skip-steps", 5, "--format", "json"]
    result = run("analyze", "timing", *runs, *words, "-o", runs[0] / "t")
    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.stdout)
    assert (row["run"], row["steps"], row["Total (%)"]) == ("thr", 1, 100)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["curves", "nowhere"], 3, "nowhere is not a training run: there is no such folder"),
        (["timing", "."], 3, "is not a training run: it has no metrics.jsonl"),
        (["curves"], 2, "Missing argument"),
        (["curves", "runs/thr", "runs/thr"], 2, "thr was given 2 times"),
        (["curves", "runs/thr", "--smooth", "0"], 2, "--smooth must be at least 1 step"),
        (["timing", "runs/thr", "--skip-steps", "-1"], 2, "--skip-steps must be 0 or positive"),
        (["timing", "runs/thr", "--unit", "hours"], 2, "unknown unit 'hours'"),
        (["curves", "runs/thr", "--venue", "nature"], 2, "unknown venue 'nature'"),
    ],
)
def test_errors_end_with_their_exit_code_and_leave_nothing(
    runs, tmp_path, monkeypatch, words, code, message
):
    monkeypatch.chdir(tmp_path)
    result = run("analyze", *words, env={"COLUMNS": "200"})
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert not result.stdout
    assert not (runs[0] / "analysis").exists()


@pytest.mark.parametrize("name", ["curves", "timing"])
def test_a_run_that_has_only_begun_says_that_there_is_nothing_to_draw(tmp_path, name):
    path = write_journal(tmp_path / "new", [])
    result = run("analyze", name, path, "--format", "json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == []
    assert "nothing to draw: No step is finished yet in new." in result.stderr


def test_all_analyses_of_a_training_run_include_curves_and_timing(make_run, tmp_path):
    completions = [{"correct": index == 0, "text": "wait"} for index in range(4)]
    path = make_run(tmp_path / "r", groups=[{"prompt_id": "a", "completions": completions}])
    plain = run("analyze", "all", path, "--format", "json")
    assert not {"curves", "timing"} & {row["analysis"] for row in json.loads(plain.stdout)}
    write_journal(path, training_records(3))
    result = run("analyze", "all", path, "--format", "json")
    notes = {row["analysis"]: row["note"] for row in json.loads(result.stdout)}
    assert notes["curves"] == notes["timing"] == ""
    assert (path / "analysis" / "timing-table.csv").exists()
    assert (path / "analysis" / "density.png").exists()


def test_a_damaged_journal_is_noted_and_the_other_analyses_go_on(make_run, tmp_path):
    completions = [{"correct": index == 0, "text": "wait"} for index in range(4)]
    path = make_run(tmp_path / "r", groups=[{"prompt_id": "a", "completions": completions}])
    (path / METRICS).write_text("not json\n")
    result = run("analyze", "all", path, "--format", "json")
    assert result.exit_code == 5
    notes = {row["analysis"]: row["note"] for row in json.loads(result.stdout)}
    assert "line 1: not JSON" in notes["curves"]
    assert notes["passk"] == ""
    assert "not computed: curves, timing" in result.stderr


def test_help_says_where_files_go():
    for name in ("curves", "timing"):
        result = run("analyze", name, "--help", env={"COLUMNS": "200"})
        assert "RUN/analysis of a single run, ./analysis of several" in result.stdout
        assert "RUN..." in result.stdout
