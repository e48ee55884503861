"""The long table: every value by a plain loop over the rows that went into the run."""

from __future__ import annotations

import csv
import json
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from thr_probe.errors import DataError, UsageError
from thr_probe.exporting.long import every_column, long_columns, write_long
from thr_probe.exporting.record import Selection
from thr_probe.traces import read_run

TEXT = {1: " a", 2: "\ufffd", 3: "€", 4: None}
BYTES = {2: b"\xe2\x82"}


def expected(rows):
    """The literal loop: one dict per token."""
    found = []
    for row in rows:
        for place in range(len(row["entropy"])):
            token = None if row["token_ids"] is None else row["token_ids"][place]
            thr = None if row["thr"] is None else row["thr"][place]
            sampled = row["sampler_logprobs"]
            found.append(
                {
                    "step": row["step"],
                    "prompt_id": row["prompt_id"],
                    "rollout_id": row["rollout_id"],
                    "position": place,
                    "token_id": token,
                    "token_text": TEXT.get(token),
                    "token_bytes": BYTES.get(token),
                    "sampler_logprobs": None if sampled is None else np.float32(sampled[place]),
                    "logprob": np.float32(row["logprob"][place]),
                    "entropy": np.float32(row["entropy"][place]),
                    "thr": None if thr is None else np.float32(thr),
                    "tau": None if row["tau"] is None else np.float32(row["tau"]),
                    "dominant": None if thr is None else bool(abs(thr) > row["tau"]),
                    "advantage": np.float32(row["advantage"]),
                    "q": np.float32(row["q"]),
                    "correct": row["correct"],
                    "reward": row["reward"],
                }
            )
    return found


def test_parquet_holds_every_token_as_a_plain_loop_gives_it(run, rows, tmp_path):
    done = write_long(Selection(run=run), tmp_path / "new" / "long.parquet")
    found = pq.read_table(done.files[0])
    assert found.to_pylist() == expected(rows)
    assert (done.num_completions, done.num_tokens, done.num_left_out) == (7, 21, 0)


def test_columns_carry_unit_and_meaning_and_the_file_names_its_documentation(run, tmp_path):
    write_long(Selection(run=run), tmp_path / "long.parquet")
    schema = pq.read_schema(tmp_path / "long.parquet")
    assert schema.metadata[b"thr_probe.documentation"] == b"thr-probe data schema --of long"
    assert schema.field("entropy").metadata[b"unit"] == b"nats"
    assert all(field.metadata[b"meaning"] for field in schema)
    assert {"entropy", "dominant", "thr_self"} <= {column.name for column in every_column()}


def test_csv_reads_back_as_the_same_numbers_with_bytes_as_digits(run, rows, tmp_path):
    write_long(Selection(run=run), tmp_path / "long.csv")
    with (tmp_path / "long.csv").open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    wanted = expected(rows)
    assert len(found) == len(wanted)
    for line, row in zip(found, wanted, strict=True):
        for name in ("thr", "tau", "logprob", "advantage"):
            assert (line[name] == "") == (row[name] is None)
            if row[name] is not None:
                assert np.float32(line[name]) == row[name]
        assert line["token_bytes"] == (row["token_bytes"] or b"").hex()
        assert line["dominant"] == {None: "", True: "true", False: "false"}[row["dominant"]]


@pytest.mark.parametrize(
    ("chosen", "kept"), [("has-correct", {"a"}), ("mixed", {"a"}), ("all", {"a", "b"})]
)
def test_groups_are_chosen_by_what_is_correct_in_them(run, tmp_path, chosen, kept):
    write_long(Selection(run=run, groups=chosen), tmp_path / "long.parquet")
    table = pq.read_table(tmp_path / "long.parquet")
    assert set(table["prompt_id"].to_pylist()) == kept
    steps = {"mixed": {0}}.get(chosen, {0, 1})
    assert set(table["step"].to_pylist()) == steps


def test_only_the_columns_asked_for_are_written_in_their_order(run, tmp_path):
    chosen = ["thr", "position", "finish_reason"]
    write_long(Selection(run=run), tmp_path / "long.parquet", columns=chosen)
    table = pq.read_table(tmp_path / "long.parquet")
    assert table.column_names == chosen
    assert table.num_rows == 21


def test_a_run_without_scores_gives_its_ids_and_one_without_ids_is_refused(tmp_path, make_run):
    groups = [{"completions": [{"correct": True, "token_ids": [1, 2]}]}]
    run = read_run(make_run(tmp_path / "run", groups, scored=False))
    write_long(Selection(run=run), tmp_path / "long.parquet")
    table = pq.read_table(tmp_path / "long.parquet")
    assert table["token_id"].to_pylist() == [1, 2]
    assert "thr" not in table.column_names
    bare = read_run(
        make_run(tmp_path / "bare", [{"completions": [{"token_ids": None}]}], scored=False)
    )
    with pytest.raises(DataError, match="no token ids and no scores"):
        write_long(Selection(run=bare), tmp_path / "bare.parquet")
    assert not (tmp_path / "bare.parquet").exists()


def test_completions_without_any_list_are_left_out_and_counted(tmp_path, make_run):
    groups = [{"completions": [{"token_ids": None}, {"token_ids": [5]}]}]
    run = read_run(make_run(tmp_path / "run", groups, scored=False))
    done = write_long(Selection(run=run), tmp_path / "long.parquet")
    assert (done.num_completions, done.num_tokens, done.num_left_out) == (1, 1, 1)


def test_wrong_names_are_refused_with_what_would_be_right(run, tmp_path):
    with pytest.raises(UsageError, match="no column 'entropi'") as caught:
        long_columns(Selection(run=run), ["entropi"])
    assert caught.value.hint == "did you mean 'entropy'?"
    with pytest.raises(UsageError, match="this run has no column thr_self") as caught:
        long_columns(Selection(run=run), ["thr_self"])
    assert caught.value.hint == "to get it: score with --split"
    with pytest.raises(UsageError, match="unknown groups 'some'"):
        Selection(run=run, groups="some")
    with pytest.raises(UsageError, match=r"ends in \.txt"):
        write_long(Selection(run=run), tmp_path / "long.txt")


def test_a_file_is_replaced_only_when_asked_and_never_by_half_of_one(run, tmp_path):
    path = tmp_path / "long.parquet"
    path.write_bytes(b"precious")
    with pytest.raises(UsageError, match="exists already"):
        write_long(Selection(run=run), path)
    damaged = run.rollout_parts[1].path
    data = bytearray(damaged.read_bytes())
    data[4:80] = bytes(76)
    damaged.write_bytes(data)
    with pytest.raises(DataError):
        write_long(Selection(run=run), path, overwrite=True)
    assert path.read_bytes() == b"precious"
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []


def test_memory_is_that_of_row_groups_not_of_the_run(tmp_path, make_run):
    groups = [{"completions": [{"correct": True}] * 4} for _ in range(6)]
    run = read_run(make_run(tmp_path / "run", groups, groups_per_part=2))
    write_long(Selection(run=run), tmp_path / "long.parquet")
    file = pq.ParquetFile(tmp_path / "long.parquet")
    assert file.num_row_groups == 3


def test_a_long_table_is_written_without_torch(run, tmp_path):
    code = (
        "import sys, json; from thr_probe.traces import read_run;"
        "from thr_probe.exporting.long import write_long;"
        "from thr_probe.exporting.record import Selection; from pathlib import Path;"
        "write_long(Selection(run=read_run(sys.argv[1])), Path(sys.argv[2]));"
        "print(json.dumps('torch' in sys.modules))"
    )
    words = [sys.executable, "-c", code, str(run.path), str(tmp_path / "long.csv")]
    ran = subprocess.run(words, capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout) is False


def test_an_empty_run_gives_an_empty_table(tmp_path, make_run):
    run = read_run(make_run(tmp_path / "run", []))
    with pytest.raises(DataError, match="nothing per token"):
        write_long(Selection(run=run), tmp_path / "long.parquet")
