"""What a run holds: every number by counting the rows that went into it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from thr_probe.traces import read_run
from thr_probe.traces.info import QUANTILES, column_bytes, quantiles_of, run_info
from thr_probe.traces.schema import TABLES
from thr_probe.traces.stored import schema_rows


def told(run):
    return {(fact.section, fact.name): fact for fact in run_info(run)}


def values(run):
    return {key: fact.value for key, fact in told(run).items()}


@pytest.fixture
def run(tmp_path, make_run):
    """Two steps: groups mixed (of 3), all correct and all wrong (of 2); one problem unasked."""
    groups = [
        {
            "prompt_id": "a",
            "step": 0,
            "prompt_token_ids": [1, 2, 3],
            "completions": [
                {"correct": True, "token_ids": [1, 2]},
                {"token_ids": [1], "finish_reason": "length"},
                {"token_ids": [1, 2, 3, 4, 5, 6]},
            ],
        },
        {
            "prompt_id": "b",
            "step": 0,
            "prompt_token_ids": [1],
            "completions": [{"correct": True}] * 2,
        },
        {"prompt_id": "a", "step": 2, "completions": [{}, {"token_ids": None}]},
    ]
    path = make_run(tmp_path / "run", groups, groups_per_part=2)
    problems = pq.read_table(path / "problems.parquet")
    (first, *_) = problems.to_pylist()
    unasked = pa.Table.from_pylist(
        [first | {"prompt_id": "never", "prompt_token_ids": [1] * 50}], problems.schema
    )
    pq.write_table(pa.concat_tables([problems, unasked]), path / "problems.parquet")
    return read_run(path)


def test_counts_and_outcomes_are_those_of_the_rows(run):
    found = values(run)
    assert found["counts", "problems"] == 3
    assert found["counts", "problems_with_completions"] == 2
    assert found["counts", "groups"] == 3
    assert found["counts", "completions"] == 7
    assert found["counts", "completions_with_tokens"] == 6
    assert found["counts", "tokens"] == 2 + 1 + 6 + 4 + 4 + 4
    assert found["counts", "parts"] == 2
    assert (found["counts", "steps"], found["counts", "first_step"]) == (2, 0)
    assert found["counts", "last_step"] == 2
    assert found["outcomes", "correct_completions"] == 3
    assert found["outcomes", "mixed_groups"] == 1
    assert found["outcomes", "groups_all_correct"] == 1
    assert found["outcomes", "groups_all_wrong"] == 1
    assert found["outcomes", "smallest_group"] == 2
    assert found["outcomes", "largest_group"] == 3
    assert found["outcomes", "groups_of_another_size"] == 1


def test_states_have_counts_and_shares(run):
    found = told(run)
    assert found["finish_reason", "length"].value == 1
    assert found["finish_reason", "stop"].share == 6 / 7
    assert found["ids_source", "absent"].share == 1 / 7
    assert found["verify_status", "ok"].share == 1.0


def test_lengths_are_nearest_rank_quantiles(run):
    found = told(run)
    lengths = [1, 2, 4, 4, 4, 6]
    names = ["smallest", "5%", "25%", "median", "75%", "95%", "largest"]
    for name, quantile in zip(names, QUANTILES, strict=True):
        wanted = np.quantile(lengths, quantile, method="inverted_cdf")
        assert found["completion length", name].value == wanted
        assert found["completion length", name].unit == "tokens"
    # of the problems that were asked: 3 and 1 tokens
    assert found["prompt length", "largest"].value == 3


def test_quantiles_agree_with_numpy_on_random_counts():
    rng = np.random.default_rng(0)
    sample = rng.integers(0, 40, size=333)
    found = quantiles_of(Counter(sample.tolist()))
    for quantile, value in found.items():
        assert value == np.quantile(sample, quantile, method="inverted_cdf")


def test_bytes_are_those_of_the_files_and_of_the_footers(run):
    found = told(run)
    sizes = [path.stat().st_size for path in run.path.rglob("*") if path.is_file()]
    assert found["bytes on disk", "all files"].value == sum(sizes)
    assert found["bytes on disk", "all files"].per_token == sum(sizes) / 21
    inside = [fact for (section, _), fact in found.items() if section == "bytes on disk"][1:]
    assert sum(fact.value for fact in inside) == sum(sizes)
    thr = 0
    for part in run.score_parts["default"]:
        metadata = pq.ParquetFile(part.path).metadata
        for group in range(metadata.num_row_groups):
            row_group = metadata.row_group(group)
            chunks = [row_group.column(index) for index in range(row_group.num_columns)]
            thr += sum(
                chunk.total_compressed_size
                for chunk in chunks
                if chunk.path_in_schema == "thr.list.element"
            )
    assert found["bytes by column", "scores/default thr"].value == thr
    assert column_bytes(run.score_parts["default"])["thr"] == thr


def test_score_sets_have_their_columns_and_options(run):
    found = values(run)
    assert found["scores/default", "completions"] == 7
    assert found["scores/default", "model"] == "fake"
    assert "thr, entropy, logprob" in found["scores/default", "columns"]


def test_runs_without_ids_scores_or_end_are_told_as_far_as_they_go(tmp_path, make_run):
    groups = [{"completions": [{"correct": True, "token_ids": None, "text": "four"}]}]
    bare = values(read_run(make_run(tmp_path / "bare", groups, scored=False, complete=False)))
    assert bare["run", "status"] == "incomplete"
    assert bare["counts", "tokens"] is None
    assert bare["completion length", "median"] == 4
    assert bare["counts", "steps"] == 0
    assert not any(section.startswith("scores/") for section, _ in bare)
    empty = values(read_run(make_run(tmp_path / "empty", [])))
    assert empty["counts", "completions"] == 0
    assert ("completion length", "median") not in empty


def test_lengths_of_a_part_of_the_completions_say_of_how_many(tmp_path, make_run):
    completions = [{"token_ids": [1, 2]}, {"token_ids": None}, {"token_ids": None}]
    found = told(read_run(make_run(tmp_path / "run", [{"completions": completions}], scored=False)))
    part = found["completion length", "with token ids"]
    assert (part.value, part.share) == (1, 1 / 3)
    assert found["completion length", "largest"].value == 2


def test_a_score_set_whose_options_are_not_written_yet_is_told(tmp_path, make_run):
    path = make_run(tmp_path / "run", [{"completions": [{"correct": True}]}], complete=False)
    (path / "scores/default/score.json").unlink()
    assert "score.json is missing" in values(read_run(path))["scores/default", "options"]


def test_the_schema_lists_every_declared_column():
    rows = schema_rows()
    assert [(row["table"], row["column"]) for row in rows] == [
        (table, column) for table, columns in TABLES.items() for column in columns
    ]
    assert {row["column"]: row["type"] for row in rows}["thr"] == "list<float32> null"


def test_the_schema_of_a_run_tells_what_it_has_and_how_to_get_the_rest(run):
    rows = {(row["table"], row["column"]): row for row in schema_rows(run)}
    assert rows["scores/default", "thr"]["stored"] == "yes"
    assert rows["scores/default", "thr_self"]["stored"] == "no"
    assert rows["scores/default", "thr_self"]["source"] == "score with --split"
    assert rows["problems", "prompt_token_ids"]["stored"] == "yes"
    assert rows["tokens", "bytes"]["stored"] == "no"
    assert "policy's tokenizer" in rows["tokens", "bytes"]["source"]


def test_a_column_of_some_parts_and_one_of_another_program_are_told(run):
    part = run.rollout_parts[0].path
    table = pq.read_table(part)
    changed = table.append_column("mood", table["reward"]).drop_columns(["token_ids"])
    pq.write_table(changed.replace_schema_metadata(table.schema.metadata), part)
    rows = {(row["table"], row["column"]): row for row in schema_rows(read_run(run.path))}
    assert rows["rollouts", "token_ids"]["stored"] == "1 of 2 parts"
    assert rows["rollouts", "mood"]["type"] == "float64"


def test_a_run_without_scores_says_how_to_make_them(tmp_path, make_run):
    run = read_run(make_run(tmp_path / "run", [{"completions": [{}]}], scored=False))
    rows = {(row["table"], row["column"]): row for row in schema_rows(run)}
    assert rows["scores", "thr"]["stored"] == "no"
    assert rows["scores", "thr"]["source"].startswith("thr-probe score RUN")
