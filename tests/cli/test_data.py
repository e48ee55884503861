"""`thr-probe data` from the shell."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from thr_probe.cli import app

FORMATS = ("json", "csv", "md", "latex")


def run(*words, **options):
    return CliRunner().invoke(app, [str(word) for word in words], **options)


@pytest.fixture(scope="module")
def saved(tmp_path_factory, make_run):
    groups = [
        {"prompt_id": name, "completions": [{"correct": True}, {"finish_reason": "length"}]}
        for name in ("a", "b")
    ]
    tokens = {index: f" word{index}" for index in range(1, 5)}
    return make_run(
        tmp_path_factory.mktemp("data") / "run", groups, tokens=tokens, groups_per_part=1
    )


def test_info_prints_the_run_in_sections_and_in_every_format(saved):
    shown = run("data", "info", saved)
    assert shown.exit_code == 0, shown.output
    for words in ("problems with completions", "scores/default", "bytes by column", "50.0%"):
        assert words in shown.stdout
    rows = json.loads(run("data", "info", saved, "--format", "json").stdout)
    found = {(row["section"], row["name"]): row for row in rows}
    assert found["counts", "tokens"]["value"] == 16
    assert found["finish_reason", "length"]["share"] == 0.5
    for style in FORMATS:
        result = run("data", "info", saved, "--format", style)
        assert result.exit_code == 0
        assert "correct" in result.stdout


def test_validate_ends_with_0_for_sound_runs_and_3_naming_every_finding(saved, tmp_path, make_run):
    assert run("data", "validate", saved).exit_code == 0
    groups = [{"prompt_id": name, "completions": [{"correct": True}]} for name in "ab"]
    damaged = make_run(tmp_path / "damaged", groups, groups_per_part=1)
    (damaged / "scores/default/part-00001.parquet").unlink()
    (damaged / "problems.parquet").write_bytes(b"no")
    result = run("data", "validate", saved, damaged)
    assert result.exit_code == 3
    assert f"{saved}: sound" in result.stdout
    assert "part-00001.parquet is missing" in result.stdout
    assert "problems.parquet cannot be read" in result.stdout
    assert "hint: complete them" in result.stdout
    rows = json.loads(run("data", "validate", saved, damaged, "--format", "json").stdout)
    assert [row["sound"] for row in rows][:2] == [True, False]
    assert all(row["hint"] for row in rows[1:])


def test_validate_of_what_is_no_run_is_a_finding(tmp_path):
    result = run("data", "validate", tmp_path / "nothing")
    assert result.exit_code == 3
    assert "there is no such folder" in result.stdout


def test_schema_with_a_run_tells_what_is_stored(saved):
    rows = json.loads(run("data", "schema", saved, "--format", "json").stdout)
    found = {(row["table"], row["column"]): row for row in rows}
    assert found["scores/default", "thr_error"]["stored"] == "no"
    assert found["scores/default", "thr_error"]["source"] == "score with --thr-error"
    assert "scores/default" in run("data", "schema", saved).stdout
    plain = list(csv.DictReader(io.StringIO(run("data", "schema", "--format", "csv").stdout)))
    assert {"table", "column", "type", "unit", "meaning"} <= set(plain[0])


@pytest.mark.parametrize("layout", ["long", "trl", "verl"])
def test_schema_of_an_export_lists_its_columns(layout):
    rows = json.loads(run("data", "schema", "--of", layout, "--format", "json").stdout)
    names = {row["column"] for row in rows}
    wanted = {"long": "token_bytes", "trl": "old_per_token_logps", "verl": "old_log_probs"}
    assert wanted[layout] in names
    assert all(row["meaning"] for row in rows)


def test_export_prints_the_files_on_stdout_and_counts_on_stderr(saved, tmp_path):
    path = tmp_path / "long.csv"
    result = run("data", "export", saved, "--long", "-o", path)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{path}\n"
    assert "4 completions, 16 tokens" in result.stderr
    again = run("data", "export", saved, "--long", "-o", path)
    assert again.exit_code == 2
    assert "--overwrite" in again.stderr
    words = ("data", "export", saved, "--long", "-o", path, "--columns", "thr, position")
    assert run(*words, "--overwrite").exit_code == 0
    assert path.read_text().splitlines()[0] == '"thr","position"'


def test_export_to_a_trainer_says_what_the_run_lacks(saved, tmp_path):
    path = tmp_path / "trl.parquet"
    result = run("data", "export", saved, "--to", "trl", "--p", "-0.1", "-o", path)
    assert result.exit_code == 0, result.output
    assert "no column prompt_ids" in result.stderr
    assert pq.read_schema(path).metadata[b"thr_probe.p"] == b"-0.1"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "choose what to write"),
        (("--long", "--to", "trl"), "choose what to write"),
        (("--long", "--p", "0.1"), "--p belongs to --to"),
        (("--to", "verl", "--columns", "thr"), "--columns belongs to --long"),
        (("--to", "verl", "--p", "1"), "strictly between -1 and 1"),
        (("--long", "--columns", "thr_slf"), "a long table has no column"),
        (("--long", "--groups", "none"), "unknown groups"),
    ],
)
def test_words_that_do_not_fit_together_are_refused(saved, tmp_path, words, told):
    result = run("data", "export", saved, "-o", tmp_path / "x.parquet", *words)
    assert result.exit_code == 2
    assert told in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from thr_probe.cli import app\n"
        "try: app(['data', '--help'])\n"
        "except SystemExit: pass\n"
        "print([name for name in ('torch', 'pandas', 'pyarrow', 'matplotlib') "
        "if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "[]"
