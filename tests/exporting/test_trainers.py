"""Exports for trainers: every value by a plain loop, and the formats as their tools read them."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from thr_probe.core.advantages import group_advantages
from thr_probe.errors import DataError, UsageError
from thr_probe.exporting.layouts import LAYOUTS, layout_columns
from thr_probe.exporting.record import Selection
from thr_probe.exporting.trainers import write_for_trainer
from thr_probe.importing.formats import load_importer
from thr_probe.traces import read_run
from thr_probe.traces.importers.foreign import ImportOptions

PROMPTS = {"a": [9, 8], "b": [5]}


def literal_advantages(row, p):
    """Equation 5 a token at a time."""
    found = []
    for place in range(len(row["token_ids"])):
        weight = 0.0
        if row["thr"] is not None and abs(np.float32(row["thr"][place])) > np.float32(row["tau"]):
            thr = row["thr"][place]
            sign = 1 if thr > 0 else -1 if thr < 0 else 0
            weight = 1 + sign * p
        found.append(np.float32(weight * float(np.float32(row["advantage"]))))
    return found


def with_ids(rows):
    return [row for row in rows if row["token_ids"] is not None]


@pytest.mark.parametrize("p", [0.0, -0.1, 0.3])
def test_trl_rows_are_what_a_plain_loop_gives(run, rows, tmp_path, p):
    done = write_for_trainer(Selection(run=run), tmp_path / "trl.parquet", to="trl", p=p)
    assert (done.num_completions, done.num_tokens, done.num_left_out) == (6, 17, 1)
    found = pq.read_table(tmp_path / "trl.parquet").to_pylist()
    assert len(found) == 6
    for line, row in zip(found, with_ids(rows), strict=True):
        length = len(row["token_ids"])
        assert (line["step"], line["prompt_id"]) == (row["step"], row["prompt_id"])
        assert line["prompt"] == f"prompt {row['prompt_id']}"
        assert line["answer"] == {"a": "7", "b": "1"}[row["prompt_id"]]
        assert line["completion_ids"] == row["token_ids"]
        assert line["prompt_ids"] == PROMPTS[row["prompt_id"]]
        assert line["prompt_mask"] == [1] * len(PROMPTS[row["prompt_id"]])
        assert line["completion_mask"] == [1] * length
        assert line["advantages"] == literal_advantages(row, p)
        assert line["advantage"] == np.float32(row["advantage"])
        assert line["old_per_token_logps"] == [np.float32(x) for x in row["logprob"]]
        sampled = row["sampler_logprobs"]
        wanted = None if sampled is None else [np.float32(x) for x in sampled]
        assert line["sampling_per_token_logps"] == wanted
    metadata = pq.read_schema(tmp_path / "trl.parquet").metadata
    assert float(metadata[b"thr_probe.p"]) == p
    assert metadata[b"thr_probe.documentation"] == b"thr-probe data schema --of trl"


def test_the_loop_meets_weighted_unweighted_and_dropped_tokens(rows):
    first = literal_advantages(rows[0], -0.5)
    advantage = np.float32(rows[0]["advantage"])
    assert [value / advantage for value in first] == pytest.approx([0.5, 1.5, 0.0, 0.0])


def test_verl_rows_are_what_a_plain_loop_gives_in_both_formats(run, rows, tmp_path):
    selection = Selection(run=run)
    write_for_trainer(selection, tmp_path / "verl.parquet", to="verl", p=0.2)
    write_for_trainer(selection, tmp_path / "verl.jsonl", to="verl", p=0.2)
    table = pq.read_table(tmp_path / "verl.parquet").to_pylist()
    text = (tmp_path / "verl.jsonl").read_text(encoding="utf-8")
    assert "é" in text
    lines = [json.loads(line) for line in text.splitlines()]
    for found, line, row in zip(table, lines, with_ids(rows), strict=True):
        prompt = PROMPTS[row["prompt_id"]]
        assert found["uid"] == line["uid"] == f"{row['step']}/{row['prompt_id']}"
        assert found["score"] == line["score"] == row["reward"]
        assert found["acc"] is line["acc"] is row["correct"]
        assert found["input_ids"] == line["input_ids"] == prompt + row["token_ids"]
        assert found["prompts"] == line["prompts"] == prompt
        assert found["response_mask"] == [1] * len(row["token_ids"])
        scores = [0.0] * len(row["token_ids"])
        scores[-1:] = [row["reward"]] if scores else []
        assert found["token_level_scores"] == line["token_level_scores"] == scores
        assert found["advantages"] == literal_advantages(row, 0.2)
        # JSON has the fewest digits that read back as the same float32
        assert [np.float32(x) for x in line["advantages"]] == found["advantages"]
        assert line["old_log_probs"] == row["logprob"]


def test_the_six_fields_of_verls_rollout_dump_are_there_under_its_file_names(run, tmp_path):
    done = write_for_trainer(Selection(run=run), tmp_path / "dump", to="verl")
    assert [path.name for path in done.files] == ["0.jsonl", "1.jsonl"]
    for step, number in ((0, 5), (1, 1)):
        lines = (tmp_path / "dump" / f"{step}.jsonl").read_text(encoding="utf-8").splitlines()
        assert len(lines) == number
        for line in map(json.loads, lines):
            assert list(line)[:6] == ["input", "output", "gts", "score", "step", "uid"]
            assert line["step"] == step


def test_trls_logged_completions_have_its_file_names(run, tmp_path):
    done = write_for_trainer(Selection(run=run), tmp_path / "logs", to="trl")
    names = ["completions_00000.parquet", "completions_00001.parquet"]
    assert [path.name for path in done.files] == names
    steps = [set(pq.read_table(path)["step"].to_pylist()) for path in done.files]
    assert steps == [{0}, {1}]


def test_outside_training_the_group_is_the_prompt_and_the_file_is_that_of_step_0(
    tmp_path, make_run
):
    groups = [{"prompt_id": "x", "completions": [{"correct": True}, {}]}]
    run = read_run(make_run(tmp_path / "run", groups))
    (path,) = write_for_trainer(Selection(run=run), tmp_path / "dump", to="verl").files
    assert path.name == "0.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["uid"], line["step"]) for line in lines] == [("x", None)] * 2


def test_columns_that_the_run_cannot_fill_are_left_out(tmp_path, make_run):
    groups = [{"completions": [{"correct": True}, {}]}]
    run = read_run(make_run(tmp_path / "run", groups))
    done = write_for_trainer(Selection(run=run), tmp_path / "trl.parquet", to="trl")
    missing = {column.name for column in layout_columns("trl")} - {
        column.name for column in done.columns
    }
    assert missing == {
        "prompt_ids",
        "prompt_mask",
        "sampling_per_token_logps",
        "ref_per_token_logps",
    }
    assert pq.read_schema(tmp_path / "trl.parquet").names == [c.name for c in done.columns]


def test_every_column_of_every_layout_says_unit_and_meaning():
    for layout in LAYOUTS:
        for column in layout_columns(layout):
            assert column.unit, column.name
            assert column.meaning, column.name


def test_the_stored_advantage_is_the_trainers_own(run, rows, tmp_path):
    torch = pytest.importorskip("torch")
    write_for_trainer(Selection(run=run, groups="mixed"), tmp_path / "t.parquet", to="trl")
    found = pq.read_table(tmp_path / "t.parquet")["advantage"].to_pylist()
    wanted = group_advantages(torch.tensor([True, False, False])).tolist()
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_what_cannot_be_written_is_refused_in_a_sentence(run, tmp_path, make_run):
    selection = Selection(run=run)
    with pytest.raises(UsageError, match="strictly between -1 and 1"):
        write_for_trainer(selection, tmp_path / "x.parquet", to="trl", p=1.0)
    with pytest.raises(UsageError, match="unknown trainer"):
        write_for_trainer(selection, tmp_path / "x.parquet", to="prl")
    with pytest.raises(UsageError, match=r"ends in \.jsonl"):
        write_for_trainer(selection, tmp_path / "x.jsonl", to="trl")
    unscored = read_run(
        make_run(tmp_path / "unscored", [{"completions": [{"correct": True}]}], scored=False)
    )
    with pytest.raises(DataError, match="has no scores"):
        write_for_trainer(Selection(run=unscored), tmp_path / "x.parquet", to="trl")
    no_ids = [{"completions": [{"correct": True, "token_ids": None}]}]
    without = read_run(make_run(tmp_path / "without", no_ids))
    with pytest.raises(DataError, match="has no token ids"):
        write_for_trainer(Selection(run=without), tmp_path / "x.parquet", to="trl")
    assert not (tmp_path / "x.parquet").exists()


def test_a_folder_is_replaced_only_when_it_holds_such_an_export(run, tmp_path):
    selection, folder = Selection(run=run), tmp_path / "dump"
    write_for_trainer(selection, folder, to="verl")
    with pytest.raises(UsageError, match="is not empty"):
        write_for_trainer(selection, folder, to="verl")
    write_for_trainer(selection, folder, to="verl", p=0.5, overwrite=True)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"holds notes\.txt"):
        write_for_trainer(selection, folder, to="verl", overwrite=True)
    assert (folder / "notes.txt").read_text() == "mine"


def test_steps_that_do_not_follow_each_other_go_to_one_file(tmp_path, make_run):
    groups = [
        {"prompt_id": name, "step": step, "completions": [{"correct": True}]}
        for name, step in (("a", 0), ("b", 1), ("c", 0))
    ]
    run = read_run(make_run(tmp_path / "run", groups, groups_per_part=1))
    with pytest.raises(DataError, match="step 0 do not follow each other"):
        write_for_trainer(Selection(run=run), tmp_path / "dump", to="verl")
    assert [each.name for each in tmp_path.iterdir()] == ["run"]
    write_for_trainer(Selection(run=run), tmp_path / "one.jsonl", to="verl")


@pytest.mark.parametrize("to", ["verl", "trl"])
def test_what_is_written_as_a_trainers_dump_is_imported_again(run, rows, tmp_path, to):
    write_for_trainer(Selection(run=run), tmp_path / "dump", to=to, p=-0.1)
    importer = load_importer(to)
    files = importer.find(tmp_path / "dump")
    assert len(files) == 2
    found = list(importer.read(files, ImportOptions()))
    kept = with_ids(rows)
    assert [each.step for each in found] == [row["step"] for row in kept]
    assert [each.reward for each in found] == [row["reward"] for row in kept]
    assert [each.answer for each in found] == [{"a": "7", "b": "1"}[r["prompt_id"]] for r in kept]
    assert found[0].text == "right"
    assert found[0].prompt_text == "prompt a"
    groups = [each.group for each in found]
    assert len(set(groups[:3])) == 1  # group a of step 0
    assert groups[3] == groups[4] != groups[0]
    if to == "verl":
        assert [each.correct for each in found] == [row["correct"] for row in kept]
