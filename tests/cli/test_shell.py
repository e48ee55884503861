"""The shell: what --help loads, how errors end, what goes to which stream."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from typer.testing import CliRunner

from thr_probe import __version__
from thr_probe.cli import app
from thr_probe.cli.output import Format, print_rows
from thr_probe.config import CollectConfig

HEAVY = ("torch", "transformers", "pandas", "matplotlib", "scipy", "pyarrow", "sklearn", "seaborn")
COMMANDS = [
    [],
    ["demo"],
    ["collect"],
    ["score"],
    ["train"],
    ["eval"],
    ["reproduce"],
    ["analyze"],
    *(
        ["analyze", name]
        for name in (
            "density",
            "overlap",
            "wordcloud",
            "reflection",
            "retention",
            "passk",
            "all",
            "curves",
            "timing",
        )
    ),
]


def run(*words, **options):
    return CliRunner().invoke(app, [str(word) for word in words], **options)


def test_help_of_every_command_loads_nothing_heavy():
    program = f"""
import sys
from thr_probe.cli import app
for command in {COMMANDS!r}:
    try:
        app([*command, "--help"])
    except SystemExit as stop:
        assert stop.code == 0, (command, stop.code)
print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert ran.stderr.strip() == "[]"
    assert ran.stdout.count("Usage:") == len(COMMANDS)


def test_every_option_of_collect_is_a_flag_with_its_default():
    result = run("collect", "--help", env={"COLUMNS": "400"})
    for item in fields(CollectConfig):
        assert f"--{item.name.replace('_', '-')}" in result.stdout
        if item.default is not None and item.type != "bool":
            assert f"Default: {item.default}." in result.stdout


def test_the_version_is_printed():
    assert run("--version").stdout == f"thr-probe {__version__}\n"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["analyze", "density", "nowhere"], 3, "nowhere is not a run directory"),
        (["analyze", "histogram", "nowhere"], 2, "No such command"),
        (["collect", "-o", "r", "--temprature", "1"], 2, "No such option"),
        (["collect"], 2, "Missing option"),
        (["collect", "-o", "r", "--dataset", "no/such.parquet"], 3, "no/such.parquet"),
        (["collect", "-o", "r", "--model", "./no-such-model"], 4, "no-such-model"),
        (["collect", "-o", "r", "--vocab", "nucleus", "--max-prompts", "1"], 2, "unknown vocab"),
        (["collect", "-o", "r", "--config", "no.toml"], 3, "no such config file"),
        (["collect", "-o", "r", "--reduce", "median"], 2, "reduce='median'"),
        (["collect", "-o", "r", "--temperature", "-1"], 2, "temperature must be 0 or positive"),
        (["collect", "-o", "r", "--template", "mine"], 2, "mine"),
        (["collect", "-o", "r", "--verifier", "nothing"], 2, "nothing"),
        (["score", "nowhere"], 3, "nowhere is not a run directory"),
    ],
)
def test_errors_end_with_their_exit_code_and_say_what_was_wrong(
    words, code, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    result = run(*words, env={"COLUMNS": "200"})
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert not result.stdout
    assert not (tmp_path / "r").exists()


def test_a_dry_run_prints_the_resolved_options_and_makes_nothing(tmp_path):
    result = run("collect", "-o", tmp_path / "r", "--seed", 9, "--dry-run", "--format", "json")
    options = {row["option"]: row["value"] for row in json.loads(result.stdout)}
    assert options["seed"] == 9
    assert options["model"] == "lab"
    assert not (tmp_path / "r").exists()


def test_negative_and_infinite_values_are_read_as_values(tmp_path):
    words = ["collect", "-o", tmp_path / "r", "--beta", "-inf", "--dry-run", "--format", "json"]
    options = {row["option"]: row["value"] for row in json.loads(run(*words).stdout)}
    assert options["beta"] is None or options["beta"] == float("-inf")


def test_results_go_to_stdout_and_paths_to_stderr(make_run, tmp_path):
    path = make_run(tmp_path / "r", groups=[group("a"), group("b")])
    result = run("analyze", "passk", path, "-o", tmp_path / "out", "--format", "csv")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("quantity,split,unit,value,low,high,num_questions\n")
    assert str(tmp_path / "out" / "passk.pdf") in result.stderr
    assert {item.suffix for item in (tmp_path / "out").iterdir()} == {
        ".csv", ".json", ".tex", ".pdf", ".svg", ".png",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("style", "start"), [("md", "| quantity | split |"), ("latex", r"\begin{tabular}{lllllll}")]
)
def test_tables_come_in_the_formats_of_papers(make_run, tmp_path, style, start):
    path = make_run(tmp_path / "r", groups=[group("a"), group("b")])
    result = run("analyze", "passk", path, "-o", tmp_path / "out", "--format", style)
    assert result.stdout.startswith(start)


@pytest.mark.parametrize(
    "words",
    [
        ["density", "--style", "diagnostic", "--normalize", "tau", "--bins", 40],
        ["density", "--venue", "icml", "--groups", "has-correct"],
        ["overlap", "--seed", 3],
        ["wordcloud", "--top", 3, "--min-count", 2, "--merge-case"],
        ["reflection", "--unit", "token"],
        ["retention", "--score-id", "default"],
        ["passk", "--k", 1, "--k", 3, "--by", "level"],
    ],
)
def test_every_analysis_runs_with_its_options(make_run, tmp_path, words):
    tokens = {1: "wait", 2: " so", 3: "Wait", 4: " it"}
    path = make_run(tmp_path / "r", groups=[group("a"), group("b"), group("c")], tokens=tokens)
    result = run("analyze", words[0], path, *words[1:], "--format", "json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)
    assert (path / "analysis" / f"{words[0]}.pdf").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["density", "--style", "loud"], "loud"),
        (["density", "--groups", "all"], "all"),
        (["passk", "--k", 99], "99"),
        (["reflection", "--unit", "line"], "line"),
        (["retention", "--score-id", "other"], "no score set 'other'"),
        (["overlap", "--venue", "nature"], "unknown venue 'nature'"),
    ],
)
def test_option_values_that_do_not_exist_are_usage_errors(make_run, tmp_path, words, message):
    path = make_run(tmp_path / "r", groups=[group("a"), group("b")])
    result = run("analyze", words[0], path, *words[1:])
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert not result.stdout


def test_a_wordcloud_of_nothing_says_why(make_run, tmp_path):
    wrong = {"completions": [{"correct": False, "token_ids": [1, 2]}] * 2}
    path = make_run(tmp_path / "r", groups=[wrong], tokens={1: "a", 2: "b"})
    result = run("analyze", "wordcloud", path, "--format", "json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == []
    assert "nothing to draw" in result.stderr


def test_brackets_in_paths_are_printed_as_they_are(make_run, tmp_path):
    path = make_run(tmp_path / "x[red]y[/b]", groups=[group("a"), group("b")])
    result = run("analyze", "passk", path)
    assert result.exit_code == 0, result.output
    assert str(path / "analysis" / "passk.png") in result.stderr


def test_names_in_tables_are_not_cut_where_there_is_no_terminal(make_run, tmp_path):
    path = make_run(tmp_path / "r", groups=[group("a"), group("b")])
    result = run("analyze", "density", path, env={"COLUMNS": "40"})
    assert "positive_share_of_dominant" in result.stdout


def test_cells_are_escaped_for_latex_and_markdown(capsys):
    print_rows([{"token": r"\xf3 a_b^|x|<"}], Format.LATEX)
    expected = r"\textbackslash{}xf3 a\_b\textasciicircum{}\textbar{}x\textbar{}\textless{} \\"
    assert expected in capsys.readouterr().out.splitlines()
    print_rows([{"token": "a|b"}], Format.MD)
    assert r"| a\|b |" in capsys.readouterr().out


def test_figures_of_another_score_set_have_a_folder_of_their_own(make_run, tmp_path):
    path = make_run(tmp_path / "r", groups=[group("a"), group("b")], score_id="step-2")
    assert run("analyze", "retention", path, "--score-id", "step-2").exit_code == 0
    assert (path / "analysis" / "step-2" / "retention.pdf").exists()


def test_a_full_standard_output_is_an_error_in_one_line(make_run, tmp_path):
    path = make_run(tmp_path / "r", groups=[group("a"), group("b")])
    words = [sys.executable, "-m", "thr_probe", "analyze", "passk", str(path), "--format", "csv"]
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert ran.returncode != 0
    assert "Traceback" not in ran.stderr
    assert "No space left" in ran.stderr


def test_an_incomplete_run_is_analyzed_with_a_warning(make_run, tmp_path):
    path = make_run(tmp_path / "r", groups=[group("a"), group("b")], complete=False)
    result = run("analyze", "passk", path)
    assert result.exit_code == 0
    assert "is not complete" in result.stderr


def test_analyze_all_names_what_a_run_without_scores_cannot_give(make_run, tmp_path):
    path = make_run(tmp_path / "r", groups=[group("a"), group("b")], scored=False)
    result = run("analyze", "all", path, "--format", "json")
    assert result.exit_code == 0
    notes = {row["analysis"]: row["note"] for row in json.loads(result.stdout)}
    assert "has no scores" in notes["density"]
    assert notes["passk"] == ""
    assert (path / "analysis" / "passk.png").exists()


def group(prompt_id):
    completions = [
        {"correct": index == 0, "text": "wait, so 1", "token_ids": [1, 2, 3, 4]}
        for index in range(4)
    ]
    return {"prompt_id": prompt_id, "completions": completions}


def test_the_generated_pages_are_current():
    ran = subprocess.run(
        [sys.executable, "-m", "thr_probe.cli.docs", "--check"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert ran.returncode == 0, ran.stderr
