"""`collect`, `score` and `demo` from the shell: what they print, where files go, how they stop."""

from __future__ import annotations

import json
import os
import signal

import pytest
from typer.testing import CliRunner

from thr_probe.cli import app
from thr_probe.cli.progress import ShellMonitor, shell_monitor
from thr_probe.progress import Advance
from thr_probe.traces import read_run

SMALL = ["--max-prompts", "4", "-n", "4", "--max-new-tokens", "40", "--shard-prompts", "2"]


def run(*words, **options):
    return CliRunner().invoke(app, [str(word) for word in words], **options)


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    path = tmp_path_factory.mktemp("shell") / "run"
    result = run("collect", "-o", path, *SMALL, "--format", "json")
    assert result.exit_code == 0, result.output
    return path, result


def test_collect_prints_its_result_and_the_next_command(collected):
    path, result = collected
    [row] = json.loads(result.stdout)
    assert (row["run"], row["prompts"], row["completions"]) == (str(path), 4, 16)
    labels = [
        label for table in read_run(path).iter_completions(["correct"])
        for label in table["correct"].to_pylist()
    ]  # fmt: skip
    assert row["accuracy"] == sum(labels) / 16
    assert f"next: thr-probe analyze all {path}" in result.stderr
    assert "prompts 4/4" in result.stderr


def test_a_complete_run_resumes_to_itself_without_repeating_its_options(collected):
    path, _ = collected
    before = (path / "manifest.json").read_bytes()
    result = run("collect", "-o", path, "--resume")
    assert result.exit_code == 0, result.output
    assert (path / "manifest.json").read_bytes() == before
    other = run("collect", "-o", path, "--resume", "--seed", 3)
    assert other.exit_code == 2
    assert "other options: seed is 0 there, 3 here" in other.stderr


def test_score_adds_a_set_and_names_it(collected):
    path, _ = collected
    result = run("score", path, "--score-id", "second", "--split", "--format", "json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)[0]["score_id"] == "second"
    assert read_run(path).score_ids == ("default", "second")
    again = run("score", path, "--score-id", "second")
    assert again.exit_code == 2
    assert "has a score set 'second' already" in again.stderr


@pytest.mark.slow
def test_the_demo_leaves_run_and_figures_and_says_what_they_show(tmp_path):
    result = run("demo", "-o", tmp_path / "demo", "--max-prompts", "8", "-n", "4")
    assert result.exit_code == 0, result.output
    assert read_run(tmp_path / "demo" / "run").is_complete
    for name in ("density", "overlap", "wordcloud", "reflection", "retention", "passk"):
        assert (tmp_path / "demo" / "figures" / f"{name}.pdf").exists()
        assert str(tmp_path / "demo" / "figures" / f"{name}.png") in result.stdout
    assert str(tmp_path / "demo" / "report.html") in result.stdout
    page = (tmp_path / "demo" / "report.html").read_text(encoding="utf-8")
    assert '<article id="split">' in page  # the parts of THR were asked for
    assert 'id="missing"' not in page
    facts = json.loads((tmp_path / "demo" / "figures" / "density.json").read_text())
    splits = {row["split"] for row in facts["summary"]}
    split = "all, tau > 0" if "all, tau > 0" in splits else "all"
    rows = {(row["quantity"], row["split"]): row for row in facts["summary"]}
    share = rows["dominant_share", split]
    stated = f"{share['value']:.0%} [{share['low']:.0%}, {share['high']:.0%}] of the tokens are"
    assert stated in result.stdout
    again = run("demo", "-o", tmp_path / "demo")
    assert again.exit_code == 2
    assert "--overwrite" in again.stderr


def test_ctrl_c_stops_after_the_shard_and_prints_how_to_go_on(tmp_path, monkeypatch):
    advance = ShellMonitor.advance

    def interrupted(self, step):
        advance(self, step)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(ShellMonitor, "advance", interrupted)
    monkeypatch.setattr("sys.argv", ["thr-probe", "collect", "-o", "my run", *SMALL])
    result = run("collect", "-o", tmp_path / "r", *SMALL)
    assert result.exit_code == 130
    assert "continue with: thr-probe collect -o 'my run'" in result.stderr
    assert result.stderr.rstrip().endswith("--resume")
    assert not read_run(tmp_path / "r").is_complete
    monkeypatch.undo()
    assert run("collect", "-o", tmp_path / "r", "--resume").exit_code == 0
    assert read_run(tmp_path / "r").is_complete


def press_twice():
    with shell_monitor() as monitor:
        assert not monitor.should_stop()
        os.kill(os.getpid(), signal.SIGINT)
        assert monitor.should_stop()
        os.kill(os.getpid(), signal.SIGINT)


def test_a_second_ctrl_c_stops_at_once():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        press_twice()
    assert signal.getsignal(signal.SIGINT) is before


def test_progress_is_a_line_per_interval_where_there_is_no_terminal(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    with shell_monitor() as monitor:
        monitor.begin(4)
        for seconds, advance in (
            (4.0, Advance(prompts=1, resumed=True)),
            (12.0, Advance(prompts=1, completions=2, correct=1, tokens=600)),
            (15.0, Advance(prompts=2, completions=2, correct=2, tokens=300)),
        ):
            now[0] = seconds
            monitor.advance(advance)
    assert capsys.readouterr().err.splitlines() == [
        "prompts 2/4  50 tokens/s  50.0% correct  about 24 s left",
        "prompts 4/4  60 tokens/s  75.0% correct  15 s",
    ]


def test_a_verifier_that_fails_is_counted_and_told(tmp_path, monkeypatch):
    (tmp_path / "ending.py").write_text("import os\ndef judge(c, a):\n    os._exit(3)\n")
    monkeypatch.chdir(tmp_path)
    words = ["--max-prompts", "1", "-n", "2", "--max-new-tokens", "8", "--format", "json"]
    result = run("collect", "-o", "r", *words, "--verifier", "ending:judge")
    assert result.exit_code == 5, result.output
    assert json.loads(result.stdout)[0]["verifier error"] == 2
    assert "the verifier failed on 2 of 2 completions" in result.stderr


def test_tokens_that_the_bound_leaves_open_are_told_at_the_end(capsys):
    with shell_monitor() as monitor:
        monitor.begin(2)
        monitor.advance(Advance(prompts=1, completions=2, tokens=600, undecided=2))
        monitor.advance(Advance(prompts=1, completions=2, tokens=400, undecided=1))
    told = " ".join(capsys.readouterr().err.split())
    assert "the bound on THR leaves 3 of 1,000 tokens open" in told
    assert told.endswith("--vocab sparse --exact decides them")
