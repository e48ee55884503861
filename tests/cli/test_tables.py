"""`thr-probe table` from the shell."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys

import pytest
from paper_sources import write_evaluation
from typer.testing import CliRunner

from thr_probe.cli import app


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def two(tmp_path, make_run):
    solved = {"grpo": [1, 0, 0, 0, 0, 0, 0, 0], "thr": [1, 1, 1, 1, 1, 1, 0, 0]}
    return [
        write_evaluation(tmp_path / name, make_run, greedy={"aime24": right})
        for name, right in solved.items()
    ]


def test_the_table_for_people_shows_marks_and_what_they_mean(two):
    result = run("table", "greedy", f"GRPO={two[0]}", two[1])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[1].split() == ["Method", "AIME24"]
    assert lines[2].split() == ["GRPO", "12.5"]
    assert lines[4].split() == ["thr", "75.0↑"]
    assert "paired difference to GRPO" in result.stdout
    assert "2,000 resamples" in result.stdout


def test_formats_for_papers_and_machines(two):
    def printed(form):
        result = run("table", "greedy", *two, "--format", form)
        assert result.exit_code == 0, result.output
        return result.stdout

    bold = next(line for line in printed("md").splitlines() if line.startswith("| thr"))
    assert bold.startswith("| thr | **75.0** [")
    assert bold.endswith("] ↑ |")
    assert r"thr & \textbf{75.0}$^{\uparrow}$ \\" in printed("latex")
    (grpo, thr) = csv.DictReader(io.StringIO(printed("csv")))
    assert (grpo["value"], thr["value"], thr["marked"]) == ("12.5", "75.0", "True")
    content = json.loads(printed("json"))
    assert content["rows"][1]["difference"] == 62.5
    assert content["rows"][0]["diff_low"] is None


def test_published_rows_and_files(two, tmp_path):
    out = tmp_path / "out"
    result = run("table", "greedy", *two, "--paper", "Llama3.2-3B-Instruct", "-o", out)
    assert result.exit_code == 0, result.output
    assert "Published, Llama3.2-3B-Instruct" in result.stdout
    assert {path.name for path in out.iterdir()} == {
        "greedy.md", "greedy.tex", "greedy.csv", "greedy.json",
    }  # fmt: skip
    assert str(out / "greedy.tex") in result.stderr


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["gredy"], 2, "did you mean greedy?"),
        (["passk"], 3, "grpo has no sampled completions"),
        (["greedy", "--versus", "thrr"], 2, "did you mean thr?"),
        (["greedy", "--paper", "llama"], 2, "did you mean"),
        (["greedy", "-o", "t.docx"], 2, "unknown ending .docx"),
    ],
)
def test_mistakes_get_a_sentence(two, tmp_path, monkeypatch, words, code, message):
    monkeypatch.chdir(tmp_path)
    result = run("table", words[0], *two, *words[1:])
    assert result.exit_code == code
    assert message in " ".join(result.stderr.split())


def test_tables_are_filled_without_torch_and_without_figures(two):
    script = (
        "import sys; from thr_probe.report.tables import paper_table; "
        f"paper_table('greedy', [{str(two[0])!r}], paper='all'); "
        "print([name for name in ('torch', 'matplotlib', 'sklearn') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
