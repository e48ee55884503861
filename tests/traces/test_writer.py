from __future__ import annotations

import errno
import os
import shutil
import tomllib
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from thr_probe.errors import DataError, UsageError
from thr_probe.traces import (
    TABLES,
    Manifest,
    completed_parts,
    create_run,
    finish_run,
    read_config,
    read_manifest,
    read_run,
    write_part,
    write_score_info,
    write_tokens,
)

MANIFEST = Manifest(
    dataset="d", sampler="s", verifier="v", seed=3, num_prompts=1, group_size=2, argv=("collect",)
)
PROBLEM = {
    "prompt_id": "a",
    "dataset": "d",
    "level": None,
    "question": "?",
    "prompt_text": "?",
    "answer": "1",
}


def start(path, **options):
    arguments = {"manifest": MANIFEST, "config": {}, "problems": [PROBLEM]} | options
    create_run(path, **arguments)


def files(path):
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }


def test_equal_rows_give_equal_bytes_whenever_and_wherever_they_are_written(golden, tmp_path):
    golden.write(tmp_path / "one")
    golden.write(tmp_path / "elsewhere" / "two")
    assert files(tmp_path / "one") == files(tmp_path / "elsewhere" / "two")
    assert len(files(tmp_path / "one")) == 9


def test_lists_as_numpy_arrays_or_as_an_arrow_table_give_the_same_bytes(
    tmp_path, rollout_row, score_row
):
    thr = [0.1, -2.5e-7, 3e30]
    score = {"thr": thr, "entropy": [0.1, 0.2, 0.3], "logprob": [-0.1, -0.2, -0.3]}
    arrays = {name: np.array(values, dtype=np.float32) for name, values in score.items()}
    one = write_part(tmp_path, "scores/a", 0, [score_row(**score)])
    two = write_part(tmp_path, "scores/b", 0, [score_row(**arrays)])
    table = pq.read_table(one)
    shuffled = table.select(table.column_names[::-1]).replace_schema_metadata(None)
    three = write_part(tmp_path, "scores/c", 0, shuffled)
    assert one.read_bytes() == two.read_bytes() == three.read_bytes()
    assert pq.read_table(one)["thr"].to_pylist() == [np.float32(thr).tolist()]


def test_float_lists_are_split_by_byte_and_compressed(golden_path):
    for folder, names in (
        ("rollouts", ["sampler_logprobs"]),
        ("scores/default", ["thr", "entropy"]),
    ):
        group = pq.read_metadata(golden_path / folder / "part-00000.parquet").row_group(0)
        chunks = {
            group.column(index).path_in_schema: group.column(index)
            for index in range(group.num_columns)
        }
        for name in names:
            chunk = chunks[f"{name}.list.element"]
            assert chunk.compression == "ZSTD"
            assert "BYTE_STREAM_SPLIT" in chunk.encodings
            assert not chunk.has_dictionary_page


def test_float_lists_of_noise_cost_less_than_four_bytes_a_value(tmp_path, score_row):
    rng = np.random.default_rng(0)
    rows = []
    for index in range(256):
        lists = {
            "thr": rng.standard_t(2, 400) * rng.lognormal(-2, 1, 400),
            "entropy": rng.gamma(0.3, 1.0, 400),
            "logprob": -rng.gamma(0.3, 1.0, 400),
        }
        lists = {name: values.astype(np.float32) for name, values in lists.items()}
        rows.append(score_row(rollout_id=index, **lists))
    size = write_part(tmp_path, "scores/a", 0, rows).stat().st_size
    tokens = 256 * 400
    # measured 10.7; Parquet's defaults need 17 (a dictionary page of every float)
    assert size / tokens < 11


@dataclass(frozen=True)
class FakeProblem:
    prompt_id: str = "a"
    dataset: str = "d"
    level: str | None = "hard"
    question: str = "q"
    prompt_text: str = "p"
    answer: str = "7"
    ignored: int = 3


def test_records_are_taken_by_attribute_and_mappings_by_key(tmp_path):
    start(tmp_path / "r", problems=[FakeProblem()])
    (row,) = read_run(tmp_path / "r").problems().to_dict("records")
    assert row == {
        "prompt_id": "a",
        "dataset": "d",
        "level": "hard",
        "question": "q",
        "prompt_text": "p",
        "answer": "7",
    }


def test_the_config_is_kept_without_its_nones(tmp_path):
    config = {"b": 1, "a": None, "nested": {"x": 0.5, "none": None, "list": ["u", "v"]}}
    start(tmp_path / "r", config=config)
    assert read_config(tmp_path / "r") == {"b": 1, "nested": {"x": 0.5, "list": ["u", "v"]}}
    text = (tmp_path / "r" / "config.toml").read_text()
    assert tomllib.loads(text)["nested"]["list"] == ["u", "v"]
    with pytest.raises(DataError, match=r"config\.toml: not expressible as TOML"):
        start(tmp_path / "s", config={"path": object()})


def test_a_run_is_incomplete_until_finished_and_then_counts_what_is_there(tmp_path, rollout_row):
    start(tmp_path / "r")
    assert read_manifest(tmp_path / "r").status == "incomplete"
    for part in range(3):
        rows = [rollout_row(rollout_id=2 * part + k) for k in range(2)]
        write_part(tmp_path / "r", "rollouts", part, rows)
    finished = finish_run(tmp_path / "r", MANIFEST)
    assert finished == read_manifest(tmp_path / "r")
    assert finished.status == "complete"
    assert finished.counts == {"parts": 3, "completions": 6}
    assert finished.argv == ("collect",)


def test_a_finished_run_resumed_without_work_is_the_same_byte_for_byte(tmp_path, rollout_row):
    start(tmp_path / "r")
    write_part(tmp_path / "r", "rollouts", 0, [rollout_row()])
    finish_run(tmp_path / "r", MANIFEST)
    before = files(tmp_path / "r")
    assert completed_parts(tmp_path / "r", "rollouts") == [0]
    finish_run(tmp_path / "r", read_manifest(tmp_path / "r"))
    assert files(tmp_path / "r") == before


def test_a_run_is_never_replaced_silently(tmp_path, rollout_row):
    path = tmp_path / "r"
    start(path)
    write_part(path, "rollouts", 0, [rollout_row()])
    before = files(path)
    with pytest.raises(UsageError, match="holds a run already") as caught:
        start(path)
    assert "--resume" in (caught.value.hint or "")
    assert files(path) == before


def test_overwrite_replaces_the_run_and_nothing_else(tmp_path, rollout_row, score_row):
    path = tmp_path / "r"
    start(path)
    write_part(path, "rollouts", 0, [rollout_row()])
    write_part(path, "scores/a", 0, [score_row()])
    (path / "notes.txt").write_text("mine")
    start(path, overwrite=True, config={"new": 1})
    assert sorted(files(path)) == ["config.toml", "manifest.json", "notes.txt", "problems.parquet"]
    assert read_run(path).score_ids == ()
    assert (path / "notes.txt").read_text() == "mine"


def test_an_old_run_that_cannot_be_removed_is_an_error(tmp_path, monkeypatch):
    start(tmp_path / "r")

    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(shutil, "rmtree", refuse)
    with pytest.raises(DataError, match=r"could not write .*: Permission denied") as caught:
        start(tmp_path / "r", overwrite=True)
    assert "may write to" in (caught.value.hint or "")


def test_an_empty_part_is_a_part(tmp_path):
    start(tmp_path / "r")
    for table in ("rollouts", "scores/a"):
        write_part(tmp_path / "r", table, 0, [])
    assert finish_run(tmp_path / "r", MANIFEST).counts == {"parts": 1, "completions": 0}
    run = read_run(tmp_path / "r")
    assert [table.num_rows for table in run.iter_completions(["text", "thr"])] == []


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_with_other_files_is_left_alone(tmp_path, overwrite):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UsageError, match=r"not empty and not a run \(it holds thesis.tex\)"):
        start(tmp_path, overwrite=overwrite)
    assert files(tmp_path) == {"thesis.tex": b"mine"}


def test_a_start_that_was_killed_before_the_manifest_is_started_again(tmp_path):
    start(tmp_path / "r")
    (tmp_path / "r" / "manifest.json").unlink()
    (tmp_path / "r" / ".config.toml.1.tmp").write_text("half")
    start(tmp_path / "r", config={"x": 1})
    assert read_run(tmp_path / "r").config == {"x": 1}
    assert not list((tmp_path / "r").glob(".*"))


def test_a_part_is_written_once_unless_told_otherwise(tmp_path, rollout_row):
    path = write_part(tmp_path, "rollouts", 4, [rollout_row(text="first")])
    assert path == tmp_path / "rollouts" / "part-00004.parquet"
    with pytest.raises(UsageError, match=r"part-00004\.parquet exists already"):
        write_part(tmp_path, "rollouts", 4, [rollout_row(text="second")])
    assert pq.read_table(path)["text"].to_pylist() == ["first"]
    write_part(tmp_path, "rollouts", 4, [rollout_row(text="second")], overwrite=True)
    assert pq.read_table(path)["text"].to_pylist() == ["second"]


def test_completed_parts_are_listed_and_leftovers_removed(tmp_path, rollout_row):
    for part in (0, 1, 11):
        write_part(tmp_path, "rollouts", part, [rollout_row()])
    leftover = tmp_path / "rollouts" / ".part-00002.parquet.123.tmp"
    leftover.write_bytes(b"PAR1 half")
    assert completed_parts(tmp_path, "rollouts") == [0, 1, 11]
    assert not leftover.exists()
    assert completed_parts(tmp_path, "scores/default") == []


def test_a_damaged_part_is_an_error_and_not_silently_written_again(tmp_path, rollout_row):
    path = write_part(tmp_path, "rollouts", 0, [rollout_row()])
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DataError, match=r"part-00000\.parquet cannot be read as Parquet"):
        completed_parts(tmp_path, "rollouts")
    assert path.exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"thr": [0.1, float("nan")]}, "column thr: found nan .* position 1, expected finite"),
        ({"thr_self": [float("inf"), 1.0]}, "column thr_self: found inf .* position 0"),
        ({"tau": float("nan")}, "column tau: found nan .* rollout_id=0, expected numbers"),
        ({"thr": None}, "column thr: found null .* expected a list where num_correct > 0"),
        ({"num_correct": 0}, "column tau: found 0.5 .* null where the group has no correct"),
        ({"entropy": None}, "column entropy: found null .* a value in every row"),
        ({"entropy": [0.1]}, "column thr: found 2|column entropy: found 1 entries .* expected 2"),
        ({"entropy": [1, None]}, "column entropy: expected type list<element: float>"),
        ({"thr": [[1.0], [2.0]]}, "column thr: .* array of 2 axes"),
        ({"thr": ["a", "b"]}, "column thr: expected type"),
        ({"thr": [1e300, 1.0]}, "column thr: found inf .* position 0"),
        ({"num_correct": "one"}, "column num_correct: expected type int32"),
        ({"num_correct": 2**40}, "column num_correct: expected type int32"),
        ({"num_correct": 1.5}, "column num_correct: expected type int32"),
        ({"novel": 1}, "column novel is not declared"),
    ],
)
def test_rows_that_break_the_contract_are_never_written(tmp_path, score_row, change, words):
    with pytest.raises(DataError, match=words):
        write_part(tmp_path, "scores/a", 0, [score_row(**change)])
    assert files(tmp_path) == {}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"finish_reason": "eos"}, "column finish_reason: found 'eos' .* one of stop, length"),
        ({"token_ids": [1.5]}, r"column token_ids: .*list of float64, expected int32"),
        ({"token_ids": [2**31]}, "column token_ids: .*does not fit int32"),
        ({"text": None}, "column text: found null"),
        ({"reward": float("nan")}, "column reward: found nan"),
        ({"text": 3}, "column text: expected type string"),
    ],
)
def test_rollouts_that_break_the_contract_are_never_written(tmp_path, rollout_row, change, words):
    with pytest.raises(DataError, match=words):
        write_part(tmp_path, "rollouts", 0, [rollout_row(**change)])
    assert files(tmp_path) == {}


def test_a_missing_column_is_named_for_rows_and_for_tables(tmp_path, rollout_row):
    row = rollout_row()
    del row["verifier"]
    with pytest.raises(DataError, match="column verifier is missing in row 1"):
        write_part(tmp_path, "rollouts", 0, [rollout_row(), row])
    with pytest.raises(DataError, match="column verifier is missing"):
        write_part(tmp_path, "rollouts", 0, pa.Table.from_pylist([row]))
    with pytest.raises(DataError, match="column novel is not declared"):
        write_part(tmp_path, "rollouts", 0, pa.Table.from_pylist([rollout_row(novel=1)]))
    with pytest.raises(DataError, match="column reward: expected type double"):
        write_part(tmp_path, "rollouts", 0, pa.Table.from_pylist([rollout_row(reward="x")]))


def test_a_column_without_any_value_is_left_out_only_when_optional(tmp_path, rollout_row):
    rows = [rollout_row(token_ids=None, extracted=None)]
    names = pq.read_table(write_part(tmp_path, "rollouts", 0, rows)).column_names
    assert "token_ids" not in names
    assert {"extracted", "step"} <= set(names)


def test_groups_without_a_correct_completion_are_written_as_null(tmp_path, score_row):
    undefined = {"num_correct": 0, "q": 0.0, "tau": None, "retained": None, "thr": None}
    table = pq.read_table(write_part(tmp_path, "scores/a", 0, [score_row(**undefined)]))
    for name in ("tau", "retained", "thr"):
        assert table[name].to_pylist() == [None]
    assert table["entropy"].to_pylist() == [[0.25, 0.75]]


def test_tokens_are_sorted_and_each_id_comes_once(tmp_path):
    rows = [{"token_id": i, "bytes": bytes([i]), "text": chr(i)} for i in (99, 97, 98)]
    table = pq.read_table(write_tokens(tmp_path, rows))
    assert table["token_id"].to_pylist() == [97, 98, 99]
    assert table["text"].to_pylist() == ["a", "b", "c"]
    with pytest.raises(DataError, match="column token_id: found 98 twice"):
        write_tokens(tmp_path, [*rows, rows[2]])


def test_problems_with_one_id_are_refused(tmp_path):
    with pytest.raises(DataError, match="column prompt_id: found 'a' twice"):
        start(tmp_path / "r", problems=[PROBLEM, PROBLEM])


@pytest.mark.parametrize("score_id", ["", "..", "a/b", ".hidden", "a b", "-x"])
def test_a_score_id_has_to_be_a_plain_folder_name(tmp_path, score_id, score_row):
    with pytest.raises(UsageError, match="cannot be a folder name"):
        write_part(tmp_path, f"scores/{score_id}", 0, [score_row()])
    with pytest.raises(UsageError, match="cannot be a folder name"):
        write_score_info(tmp_path, score_id, {})


@pytest.mark.parametrize("table", ["score", "scores", "rollouts/a", "problems", "tokens"])
def test_only_rollouts_and_score_sets_have_parts(tmp_path, table):
    with pytest.raises(UsageError):
        write_part(tmp_path, table, 0, [])


def test_score_info_is_sorted_json_and_refuses_what_json_cannot_say(tmp_path):
    path = write_score_info(tmp_path, "a", {"z": 1, "a": [1.5, None]})
    text = '{\n  "a": [\n    1.5,\n    null\n  ],\n  "schema_version": 1,\n  "z": 1\n}\n'
    assert path.read_text() == text
    for bad in (float("nan"), object()):
        with pytest.raises(DataError, match=r"score\.json: not expressible as JSON"):
            write_score_info(tmp_path, "a", {"x": bad})
    assert path.read_text() == text


def test_nothing_in_a_run_names_the_machine_or_the_time(golden, tmp_path):
    golden.write(tmp_path / "r")
    host = os.uname().nodename.encode()
    for name, content in files(tmp_path / "r").items():
        assert str(tmp_path).encode() not in content, name
        assert len(host) < 4 or host not in content, name


def test_every_declared_column_can_be_written(golden, tmp_path):
    golden.write(tmp_path / "r")
    for folder in ("rollouts", "scores/default"):
        names = pq.read_table(tmp_path / "r" / folder / "part-00000.parquet").column_names
        assert set(names) == set(TABLES[folder.partition("/")[0]])
