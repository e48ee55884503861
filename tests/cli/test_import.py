"""`thr-probe import` from the shell: what it prints, its exit codes, and what runs on its runs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from thr_probe.cli import app
from thr_probe.importing.formats import FORMATS
from thr_probe.lab import policy_directory
from thr_probe.traces import read_run, validate_run

FIXTURES = Path(__file__).parents[1] / "traces" / "importers" / "fixtures"
MAP = "question=q,answer=gold,completion=said,correct=ok"


def run(*words: object, **options: Any) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words], **options)


def rows(num_questions: int = 6, group_size: int = 4) -> list[dict[str, Any]]:
    """Epoch by epoch; question k is answered rightly k times."""
    return [
        {
            "q": f"What is {k}+1?",
            "gold": str(k + 1),
            "said": f"Wait, but I think it is \\boxed{{{k + 1 if turn < k else 0}}}",
            "ok": turn < k,
        }
        for turn in range(group_size)
        for k in range(num_questions)
    ]


def written(path: Path, content: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in content))
    return path


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--reward-column", "ok"], "add --map reward=ok"),
        (["--correct-above", "nan"], "--correct-above must be a number"),
        (["--temperature", "inf"], "--temperature must be"),
    ],
)
def test_options_that_would_decide_nothing_are_refused(tmp_path, words, told):
    table = written(tmp_path / "rows.jsonl", rows())
    source = ["--from", "generic", "--map", MAP]
    result = run("import", table, *source, *words, "-o", tmp_path / "run")
    assert result.exit_code == 2, result.stderr
    assert told in result.stderr
    assert not (tmp_path / "run").exists()


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return written(tmp_path / "my rows.jsonl", rows())


def test_import_prints_what_it_found_and_the_next_command(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = run("import", table, "--from", "generic", "--map", MAP, "-o", out, "--format", "json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found == json.loads((out / "import.json").read_text())
    assert (found["completions"], found["groups"], found["rows_refused"]) == (24, 6, 0)
    assert found["group_size"] == {"min": 4, "median": 4, "max": 4, "common": 4}
    assert f"next: thr-probe analyze passk {out}" in result.stderr
    assert "columns: question=q, answer=gold, completion=said, correct=ok" in result.stderr
    assert validate_run(out) == []
    assert read_run(out).manifest.argv[0] == "thr-probe"


@pytest.mark.parametrize("style", ["human", "csv", "md", "latex"])
def test_the_report_is_printed_in_every_format(table: Path, tmp_path: Path, style: str) -> None:
    out = tmp_path / "run"
    result = run("import", table, "--from", "generic", "--map", MAP, "-o", out, "--format", style)
    assert result.exit_code == 0, result.output
    assert "completions" in result.stdout
    assert "24" in result.stdout


def test_map_may_be_given_in_pieces_and_says_what_is_wrong_with_it(
    table: Path, tmp_path: Path
) -> None:
    pieces = [word for pair in MAP.split(",") for word in ("--map", pair)]
    words = ["import", table, "--from", "generic", "-o", tmp_path / "run"]
    assert run(*words, *pieces, "--dry-run").exit_code == 0
    for wrong, message in {
        "question": "is no pair",
        "question=q,question=q": "names the field question twice",
        "qestion=q": "there is no field 'qestion'",
        "question=p": "has no column 'p'; it has q, gold, said, ok",
    }.items():
        result = run(*words, "--map", wrong)
        assert result.exit_code == 2, result.output
        assert message in result.stderr
    fixtures = Path(__file__).parents[1] / "traces" / "importers" / "fixtures" / "lm_eval"
    result = run("import", fixtures, "--from", "lm-eval", "--map", MAP, "-o", tmp_path / "run")
    assert result.exit_code == 2
    assert "--map names the columns of generic tables, and this is lm-eval" in result.stderr
    assert not (tmp_path / "run").exists()


def test_refused_rows_end_with_5_and_leave_a_whole_run(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.jsonl", rows())
    with path.open("a") as file:
        file.write('{"q": "cut of')
    out = tmp_path / "run"
    result = run("import", path, "--from", "generic", "--map", MAP, "-o", out)
    assert result.exit_code == 5
    assert "refused 1 of 25 rows" in result.stderr
    assert "not JSON, the file seems cut off" in result.stdout
    assert f"{path}, line 25" in result.stdout
    assert read_run(out).is_complete
    assert read_run(out).num_completions == 24


def test_nothing_to_import_ends_with_3_and_the_reason(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.jsonl", [{"question": "q", "completion": "c"}])
    result = run("import", path, "--from", "generic", "-o", tmp_path / "run")
    assert result.exit_code == 3
    assert "neither a label nor a reward nor a gold answer" in result.stderr
    assert not (tmp_path / "run").exists()


def test_shaped_rewards_end_with_2_and_ask_for_the_threshold(tmp_path: Path) -> None:
    shaped = [{"question": "q", "completion": "c", "reward": each} for each in (0.1, 0.9)]
    path = written(tmp_path / "rows.jsonl", shaped)
    words = ["import", path, "--from", "generic", "-o", tmp_path / "run"]
    result = run(*words)
    assert result.exit_code == 2
    assert "the reward is 0.1" in result.stderr
    assert "--correct-above" in result.stderr
    assert run(*words, "--correct-above", "0.5").exit_code == 0


def test_an_unknown_format_ends_with_2_and_the_closest(table: Path, tmp_path: Path) -> None:
    result = run("import", table, "--from", "lmeval", "-o", tmp_path / "run")
    assert result.exit_code == 2
    assert "did you mean --from lm-eval?" in result.stderr


def test_a_table_is_not_recognised_and_the_map_is_shown(table: Path, tmp_path: Path) -> None:
    result = run("import", table, "-o", tmp_path / "run")
    assert result.exit_code == 3
    assert "the format is not recognised" in result.stderr
    assert "--from generic --map" in result.stderr


def test_a_run_that_stands_is_not_replaced_unless_asked(table: Path, tmp_path: Path) -> None:
    words = ["import", table, "--from", "generic", "--map", MAP, "-o", tmp_path / "run"]
    assert run(*words).exit_code == 0
    result = run(*words)
    assert result.exit_code == 2
    assert "holds a run already" in result.stderr
    assert run(*words, "--resume").exit_code == 0
    assert run(*words, "--overwrite").exit_code == 0


def test_several_files_and_a_folder_are_one_run(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    first = written(tmp_path / "a.jsonl", rows(3))
    written(tmp_path / "more" / "b.jsonl", rows(6)[3:4])
    (tmp_path / "more" / "notes.txt").write_text("not a table")
    out = tmp_path / "run"
    words = ["import", first, tmp_path / "more", "--from", "generic", "--map", MAP, "-o", out]
    result = run(*words, "--format", "json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [Path(file["path"]).name for file in found["files"]] == ["a.jsonl", "b.jsonl"]
    assert found["completions"] == 13


def test_the_same_content_twice_is_an_error(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        written(tmp_path / name, rows())
    result = run("import", tmp_path, "--from", "generic", "--map", MAP, "-o", tmp_path / "run")
    assert result.exit_code == 3
    assert "have the same content" in result.stderr


def test_the_help_names_every_format() -> None:
    result = run("import", "--help", env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert all(name in result.stdout for name in FORMATS)


@pytest.fixture(scope="module")
def without_ids(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("without_ids")
    path = written(folder / "rows.jsonl", rows())
    out = folder / "run"
    assert run("import", path, "--from", "generic", "--map", MAP, "-o", out).exit_code == 0
    return out


@pytest.mark.parametrize("analysis", ["passk", "reflection", "health", "all"])
def test_runs_without_token_ids_are_analysed_by_their_texts(
    without_ids: Path, tmp_path: Path, analysis: str
) -> None:
    result = run("analyze", analysis, without_ids, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert (
        (tmp_path / "out" / ("passk" if analysis == "all" else analysis))
        .with_suffix(".png")
        .exists()
    )


def test_runs_without_token_ids_are_verified_and_put_into_tables(without_ids: Path) -> None:
    assert run("verify", without_ids).exit_code == 0
    assert run("table", "passk", without_ids).exit_code == 0


@pytest.mark.parametrize("words", [["view"], ["show"], ["score"]])
def test_what_needs_tokens_says_so(without_ids: Path, tmp_path: Path, words: list[str]) -> None:
    more = {"view": ["-o", tmp_path / "view.html"], "show": ["0"], "score": []}[words[0]]
    result = run(*words, without_ids, *more)
    assert result.exit_code == 3
    assert "thr-probe score" in result.stderr or "tokenizer" in result.stderr


def test_a_tokenizer_makes_a_run_that_is_scored(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.jsonl", rows(3))
    out = tmp_path / "run"
    words = ["import", path, "--from", "generic", "--map", MAP, "--tokenizer", "lab"]
    result = run(*words, "--model-name", "lab", "-o", out)
    assert result.exit_code == 0, result.output
    assert run("score", out, "--model", "lab").exit_code == 0
    assert run("analyze", "density", out, "-o", tmp_path / "figures").exit_code == 0
    assert validate_run(out) == []


def test_regrading_tells_the_agreement(table: Path, tmp_path: Path) -> None:
    words = ["import", table, "--from", "generic", "--map", MAP, "--regrade", "-o"]
    result = run(*words, tmp_path / "run", "--format", "csv")
    assert result.exit_code == 0, result.output
    assert "agreement,1.0,of 24 source labels" in result.stdout


def test_interrupted_while_writing_it_prints_how_to_go_on_and_does(tmp_path: Path) -> None:
    path = written(
        tmp_path / "rows.jsonl",
        [{"question": f"{k}?", "completion": "x" * 300_000, "correct": True} for k in range(300)],
    )
    out = tmp_path / "run"
    words = [sys.executable, "-m", "thr_probe", "import", str(path), "--from", "generic"]
    words += ["-o", str(out)]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(out.glob("rollouts/part-*.parquet")) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "--resume" in errors
    assert not read_run(out).is_complete
    assert sorted(each.name for each in tmp_path.iterdir()) == ["rows.jsonl", "run"]
    assert run("import", path, "--from", "generic", "-o", out, "--resume").exit_code == 0
    assert read_run(out).is_complete
    assert read_run(out).num_completions == 300


def test_real_rollouts_become_groups_with_the_labels_of_their_file(
    test_data: Path, tmp_path: Path
) -> None:
    path = test_data / "rollouts" / "math500_r1distill_llama8b_x80.parquet"
    columns = "prompt=question_id,question=question,answer=gold,completion=completion"
    out = tmp_path / "run"
    words = ["import", path, "--from", "generic", "--map", columns + ",correct=correct", "-o", out]
    result = run(*words, "--format", "json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["groups"], found["completions"], found["counts"]["correct"]) == (50, 4000, 3060)
    assert found["group_size"]["min"] == found["group_size"]["max"] == 80


def test_a_run_of_shaped_rewards_is_verified_too(tmp_path: Path) -> None:
    shaped = [
        {"question": "q", "answer": "7", "completion": f"\\boxed{{{n}}}", "reward": n / 10}
        for n in (6, 7, 8)
    ]
    path = written(tmp_path / "rows.jsonl", shaped)
    out = tmp_path / "run"
    words = ["import", path, "--from", "generic", "-o", out, "--correct-above", "0.65"]
    assert run(*words).exit_code == 0
    result = run("verify", out, "--format", "json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)[0]["value"] == pytest.approx(2 / 3)


def test_chat_prompts_go_through_the_tokenizers_template(tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(policy_directory() / name, tmp_path)
    template = "{% for one in messages %}<|{{ one.role }}|>{{ one.content }}{% endfor %}<|said|>"
    (tmp_path / "chat_template.jinja").write_text(template)
    out = tmp_path / "run"
    words = ["import", FIXTURES / "trl" / "chat", "--reward-column", "verified", "-o", out]
    found = {}
    for options in ([], ["--no-chat-template"]):
        extra = ["--tokenizer", tmp_path, "--overwrite", "--format", "json", *options]
        result = run(*words, *extra)
        assert result.exit_code == 0, result.output
        problem = read_run(out).problems().iloc[0]
        counts = json.loads(result.stdout)["counts"]
        found[bool(options)] = problem["prompt_text"]
        assert counts["prompts_with_template"] == (0 if options else 8)
        assert counts["prompts_without_template"] == (8 if options else 0)
    assert found[False] == f"<|user|>{found[True]}<|said|>"
    assert found[True].startswith("Question: ")


def test_evaluation_beside_training_is_left_out_with_a_word(tmp_path: Path) -> None:
    folder = FIXTURES / "nemo_rl"
    result = run("import", folder, "--tokenizer", "lab", "-o", tmp_path / "run")
    val = folder / "val_data_step3.jsonl"
    said = " ".join(result.stderr.split())
    assert f"left out, as evaluation beside training: {val}; name a file" in said
    assert read_run(tmp_path / "run").manifest.dataset == "train"


def test_ids_alone_are_decoded(tmp_path: Path) -> None:
    folder = FIXTURES / "prime_rl" / "exports"
    result = run("import", folder, "-o", tmp_path / "run")
    assert "only token ids, no text: give --tokenizer" in result.output
    result = run("import", folder, "-o", tmp_path / "run", "--tokenizer", "lab")
    assert result.exit_code == 0, result.output
    (prompt, *_) = read_run(tmp_path / "run").problems()["prompt_text"]
    assert prompt.startswith("Question: ")
