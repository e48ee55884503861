"""`thr-probe compare` and `analyze passk` of several runs: what is printed, written, refused."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from source_folders import MakeRun, labelled, make_evaluation, with_options
from typer.testing import CliRunner

from thr_probe.cli.app import app


def run(*words: object):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, make_run: MakeRun) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("runs")
    base = {f"question number {i}": "1000" if i < 10 else "0000" for i in range(20)}
    thr = {f"question number {i}": "1100" if i > 3 else "0000" for i in range(20)}
    return (
        make_run(folder / "base", labelled(base)),
        make_run(folder / "p", labelled(thr)),  # named as a column of the table is
    )


def test_compare_prints_the_table_the_gain_and_the_questions(runs: tuple[Path, Path]) -> None:
    result = run("compare", *runs)
    assert result.exit_code == 0, result.output
    head = result.stdout.splitlines()[0]
    for name in ("metric", "A: base", "B: p", "B - A", "95 % interval", "p (Holm)", "questions"):
        assert name in head
    assert "Pass@4" in result.stdout
    assert "a gain of 6 net questions of 20 for p" in result.stdout
    assert "only p solves, not base (10):\n  question number 10\n" in result.stdout
    assert "... 5 more: compare-questions.csv with -o has all" in result.stdout
    assert "only base solves, not p (4):\n  question number 0\n" in result.stdout


@pytest.mark.parametrize("style", ["json", "csv", "md", "latex"])
def test_compare_prints_in_every_format(runs: tuple[Path, Path], style: str) -> None:
    result = run("compare", *runs, "--k", 1, "--k", 4, "--format", style)
    assert result.exit_code == 0, result.output
    if style == "json":
        rows = json.loads(result.stdout)
        assert [row["metric"] for row in rows[:2]] == ["pass_at_1", "pass_at_4"]
        assert rows[1]["difference"] == pytest.approx(0.3)
        assert rows[0]["only_run"] is None
    elif style == "csv":
        assert result.stdout.startswith("run,baseline_run,metric,split,unit,baseline,")
    elif style == "md":
        assert "| Pass@4 | 50.0 % | 80.0 % | +30.0 points |" in result.stdout
    else:
        assert r"Pass@4 & 50.0 \% & 80.0 \%" in result.stdout


def test_compare_writes_tables_figure_and_caption(runs: tuple[Path, Path], tmp_path: Path) -> None:
    result = run("compare", *runs, "-o", tmp_path, "--venue", "icml")
    assert result.exit_code == 0, result.output
    endings = ["csv", "json", "tex", "pdf", "svg", "png"]
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {f"compare.{ending}" for ending in endings} | {
        f"compare-{curve}.csv" for curve in ("metrics", "forest", "questions")
    }
    saved = json.loads((tmp_path / "compare.json").read_text())
    assert saved["facts"]["baseline"] == "base"
    assert saved["command"].startswith("thr-probe") or saved["command"]
    questions = pd.read_csv(tmp_path / "compare-questions.csv")
    assert questions["solved_by"].value_counts()["run"] == 10


def test_compare_warns_on_stderr_and_strict_refuses(
    tmp_path: Path, make_run: MakeRun, runs: tuple[Path, Path]
) -> None:
    labels = {f"question number {i}": "1000" for i in range(20)}
    warm = with_options(make_run(tmp_path / "warm", labelled(labels)), temperature=0.6)
    result = run("compare", runs[0], warm, "--format", "csv")
    assert result.exit_code == 0
    assert "warning: TEMPERATURE: unknown for base, 0.6 for warm" in result.stderr
    assert "warning" not in result.stdout
    result = run("compare", runs[0], warm, "--strict")
    assert result.exit_code == 2
    assert "--strict: TEMPERATURE" in result.stderr


def test_several_runs_are_compared_with_the_first(
    tmp_path: Path, make_run: MakeRun, runs: tuple[Path, Path]
) -> None:
    labels = {f"question number {i}": "1111" for i in range(20)}
    third = make_run(tmp_path / "run", labelled(labels), scored=False)
    result = run("compare", *runs, third, "--format", "md")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("| run | metric | baseline | value | difference |")
    assert "| run | Pass@1 |" in result.stdout
    assert "left out: run: retained_share, mean_overlap" in result.stderr


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["{0}"], 2, "needs two runs or more"),
        (["{0}", "{0}"], 2, "base was given 2 times"),
        (["{0}", "{0}-nothing"], 3, "there is no such folder"),
        (["{0}", "{1}", "--k", "9"], 2, "Pass@9 needs 9 completions"),
        (["{0}", "{1}", "--venue", "odd"], 2, "unknown venue 'odd'"),
        (["{0}", "{1}", "--score-id", "odd"], 2, "has no score set 'odd'"),
        (["{0}", "{1}", "--seed", "-1"], 2, "seed must not be negative"),
    ],
)
def test_bad_input_gets_a_sentence(runs, words: list[str], code: int, told: str) -> None:
    result = run("compare", *(word.format(*runs) for word in words))
    assert result.exit_code == code, result.output
    assert told in result.stderr
    assert "Traceback" not in result.output


def test_disjoint_runs_are_bad_data(tmp_path, make_run, runs) -> None:
    other = make_run(tmp_path / "other", labelled({"z": "10"}))
    result = run("compare", runs[0], other)
    assert result.exit_code == 3
    assert "no question in common" in result.stderr


def test_passk_overlays_several_runs(runs: tuple[Path, Path], tmp_path: Path) -> None:
    result = run("analyze", "passk", *runs, "-o", tmp_path, "--format", "csv")
    assert result.exit_code == 0, result.output
    assert "pass_at_4,p minus base,share of questions,0.3" in result.stdout
    for name in ("passk.png", "passk-values.csv", "passk-differences.csv", "passk.tex"):
        assert (tmp_path / name).exists()


def test_passk_of_one_run_is_as_it_was(runs: tuple[Path, Path], tmp_path: Path) -> None:
    result = run("analyze", "passk", runs[0], "-o", tmp_path, "--format", "csv")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "passk-curve.csv").exists()
    assert "pass_at_4,all,share of questions,0.5" in result.stdout


def test_passk_takes_evaluations(tmp_path: Path, make_run: MakeRun) -> None:
    sets = {"sampled": {"one": {"a": "10", "b": "00"}, "two": {"c": "11", "d": "10"}}}
    several = make_evaluation(make_run, tmp_path / "eval", sets, checkpoints=("step-1", "final"))
    result = run("analyze", "passk", f"{several}:final", f"{several}:step-1", "-o", tmp_path / "o")
    assert result.exit_code == 0, result.output
    assert "eval:final, mean of datasets" in result.stdout
    result = run("analyze", "passk", several)
    assert result.exit_code == 2
    assert "holds 2 checkpoints" in result.stderr
    result = run("analyze", "passk", f"{several}:final")
    assert result.exit_code == 0, result.output
    assert (several / "analysis" / "passk.png").exists()
