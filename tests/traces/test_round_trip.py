from __future__ import annotations

from itertools import chain

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from thr_probe.errors import UsageError
from thr_probe.traces import (
    TABLES,
    RunStatus,
    list_values,
    read_run,
    validate_run,
    write_part,
    write_score_info,
)

KEY = ("step", "prompt_id", "rollout_id")


def stream(run, columns, **options):
    return pa.concat_tables(run.iter_completions(columns, **options))


def expected_values(golden, table, name):
    rows = {"rollouts": golden.ROLLOUTS, "scores": golden.SCORES}[table]
    return [row[name] for row in chain.from_iterable(rows)]


def test_the_golden_run_of_version_1_still_reads_value_for_value(golden, golden_path):
    run = read_run(golden_path)
    for table in ("rollouts", "scores"):
        for name in TABLES[table]:
            found = stream(run, [name])[name].to_pylist()
            assert found == expected_values(golden, table, name), name
    problems = pq.read_table(golden_path / "problems.parquet")
    assert problems.to_pylist() == golden.PROBLEMS
    pd.testing.assert_frame_equal(run.problems(), problems.to_pandas())
    assert run.tokens().to_dict("records") == golden.TOKENS
    assert run.config == golden.CONFIG
    assert run.score_info("default") == golden.SCORE_INFO | {"schema_version": 1}
    assert validate_run(golden_path) == []


def test_the_golden_manifest_reads_field_for_field(golden, golden_path):
    found = read_run(golden_path).manifest
    assert found.status is RunStatus.COMPLETE
    assert found.counts == {"empty_gold": 4, "parts": 2, "completions": 3}
    for name in ("model", "revision", "tokenizer_digest", "dataset", "dataset_digest", "sampler"):
        assert getattr(found, name) == getattr(golden.MANIFEST, name)
    for name in ("verifier", "seed", "argv", "num_prompts", "group_size", "versions"):
        assert getattr(found, name) == getattr(golden.MANIFEST, name)
    assert found.tool_version == "0.1.0"


def test_no_two_columns_of_the_golden_run_hold_the_same_values(golden):
    # otherwise a reader that swaps two columns would pass the test above
    for table in ("rollouts", "scores"):
        names = [name for name in TABLES[table] if name not in KEY]
        values = [repr(expected_values(golden, table, name)) for name in names]
        assert len(set(values)) == len(values)


def test_a_run_written_now_reads_back_like_the_golden_one(golden, golden_path, tmp_path):
    golden.write(tmp_path / "run")
    new, old = read_run(tmp_path / "run"), read_run(golden_path)
    columns = list(dict.fromkeys([*TABLES["rollouts"], *TABLES["scores"]]))
    assert stream(new, columns).equals(stream(old, columns))
    pd.testing.assert_frame_equal(new.problems(), old.problems())


def test_columns_come_in_the_order_asked_for_with_their_types(golden_path):
    names = ["thr", "text", "advantage", "step", "token_ids"]
    tables = list(read_run(golden_path).iter_completions(names))
    assert [table.column_names for table in tables] == [names, names]
    declared = {**TABLES["rollouts"], **TABLES["scores"]}
    assert [field.type for field in tables[0].schema] == [declared[name].type for name in names]


def test_the_files_are_plain_parquet_for_pyarrow_and_pandas(golden, golden_path):
    folder = golden_path / "scores" / "default"
    frame = pd.read_parquet(folder / "part-00000.parquet")
    assert frame["thr"].map(list).tolist() == [row["thr"] for row in golden.SCORES[0]]
    np.testing.assert_array_equal(frame["tau"], [0.125, 0.125])
    table = pq.read_table(golden_path / "rollouts")
    assert table["token_ids"].to_pylist() == expected_values(golden, "rollouts", "token_ids")
    unit = pq.read_schema(folder / "part-00000.parquet").field("entropy").metadata[b"unit"]
    assert unit == b"nats"


def test_the_files_are_plain_parquet_for_duckdb(golden, golden_path):
    duckdb = pytest.importorskip("duckdb")
    query = f"""
        SELECT s.thr, s.tau, r.token_ids, r.correct, p.level
        FROM '{golden_path}/scores/default/*.parquet' s
        JOIN '{golden_path}/rollouts/*.parquet' r USING (prompt_id, rollout_id)
        JOIN '{golden_path}/problems.parquet' p USING (prompt_id)
        ORDER BY prompt_id, rollout_id
    """
    assert duckdb.sql(query).fetchall() == [
        ([0.25, -0.0625, 3.5], 0.125, [5, 9, 3], True, "sum"),
        ([-7.0], 0.125, [9], False, "sum"),
        (None, None, [6], False, None),
    ]


def test_a_null_thr_list_is_told_from_numbers(golden_path):
    column = stream(read_run(golden_path), ["thr"])["thr"]
    values, offsets = list_values(column)
    assert column.is_valid().to_pylist() == [True, True, False]
    np.testing.assert_array_equal(offsets, [0, 3, 4, 4])
    np.testing.assert_array_equal(values, np.float32([0.25, -0.0625, 3.5, -7.0]))


def test_every_row_comes_once_over_many_parts_and_row_groups(tmp_path, make_run):
    completions = [{"correct": k == 0, "text": f"t{k}", "token_ids": [k]} for k in range(7)]
    groups = [{"prompt_id": f"p{index:04d}", "completions": completions} for index in range(200)]
    path = make_run(tmp_path / "r", groups, groups_per_part=90)
    run = read_run(path)
    tables = list(run.iter_completions(["prompt_id", "rollout_id", "thr", "text"]))
    # 90 groups of 7 are 630 rows a part: cut at 73 whole groups (511 rows), not inside a group
    assert [table.num_rows for table in tables] == [511, 119, 511, 119, 140]
    assert run.num_completions == 1400
    together = pa.concat_tables(tables)
    wanted = [(group["prompt_id"], k) for group in groups for k in range(7)]
    assert list(zip(*(together[n].to_pylist() for n in KEY[1:]), strict=True)) == wanted
    assert together["text"].to_pylist() == [f"t{k}" for _ in range(200) for k in range(7)]


def test_one_group_larger_than_a_row_group_stays_whole(tmp_path, make_run):
    big = {"completions": [{"token_ids": [1]} for _ in range(600)]}
    small = {"completions": [{"token_ids": [1]}]}
    run = read_run(make_run(tmp_path / "r", [small, big, small]))
    assert [table.num_rows for table in run.iter_completions(["seed"])] == [1, 600, 1]


def test_scores_written_with_other_row_groups_still_line_up(tmp_path, make_run):
    groups = [
        {"prompt_id": f"p{index}", "completions": [{"correct": True}] * 10} for index in range(60)
    ]
    path = make_run(tmp_path / "r", groups)
    part = path / "scores" / "default" / "part-00000.parquet"
    table = pq.read_table(part)
    # 510 + 90 rows in the rollouts part; 170 x 3 + 90 here, with one common cut
    pq.write_table(table, part, row_group_size=170)
    tables = list(read_run(path).iter_completions(["prompt_id", "thr"]))
    assert [table.num_rows for table in tables] == [510, 90]
    pq.write_table(table, part, row_group_size=400)
    tables = list(read_run(path).iter_completions(["prompt_id", "thr"]))
    assert [table.num_rows for table in tables] == [600]


def test_an_optional_column_that_only_some_parts_have_is_null_elsewhere(
    tmp_path, make_run, rollout_row
):
    path = make_run(tmp_path / "r", [{"completions": [{}]}], complete=False)
    rows = [rollout_row(prompt_id="b", ids_source="absent")]
    write_part(path, "rollouts", 1, rows)
    assert stream(read_run(path), ["token_ids"])["token_ids"].to_pylist() == [[1, 2, 3, 4], None]


def test_undeclared_columns_of_a_later_version_are_tolerated_and_readable(tmp_path, make_run):
    path = make_run(tmp_path / "r", [{"completions": [{}, {}]}])
    for part in ("rollouts", "scores/default"):
        file = path / part / "part-00000.parquet"
        table = pq.read_table(file)
        extra = pa.array([5, 6], pa.int8())
        pq.write_table(table.append_column("novel_" + part[:2], extra), file)
    run = read_run(path)
    assert stream(run, ["novel_ro", "novel_sc"]).to_pydict() == {
        "novel_ro": [5, 6],
        "novel_sc": [5, 6],
    }
    assert validate_run(path) == []


def test_the_score_set_is_the_only_one_or_default_or_named(tmp_path, make_run, score_row):
    path = make_run(tmp_path / "r", [{"prompt_id": "a", "completions": [{}]}], score_id="base")

    def add(score_id, tau):
        row = score_row(tau=tau, thr=[1.0] * 4, entropy=[1.0] * 4, logprob=[-1.0] * 4)
        write_part(path, f"scores/{score_id}", 0, [row])
        write_score_info(path, score_id, {"model": score_id})

    assert read_run(path).resolve_score_id() == "base"
    add("later", 0.25)
    with pytest.raises(UsageError, match="several score sets: base, later"):
        read_run(path).iter_completions(["tau"])
    assert stream(read_run(path), ["tau"], score_id="later")["tau"].to_pylist() == [0.25]
    add("default", 0.75)
    run = read_run(path)
    assert run.score_ids == ("base", "default", "later")
    assert stream(run, ["tau"])["tau"].to_pylist() == [0.75]
    assert run.score_info("later")["model"] == "later"
    with pytest.raises(UsageError, match="no score set 'x'"):
        run.iter_completions(["tau"], score_id="x")


def test_a_run_without_parts_yields_nothing(tmp_path, make_run):
    path = make_run(tmp_path / "r", [], scored=False)
    run = read_run(path)
    assert list(run.iter_completions(["text"])) == []
    assert run.num_completions == 0
    assert run.tokens() is None


def test_an_incomplete_run_reads_as_far_as_it_goes(tmp_path, make_run):
    groups = [{"completions": [{"text": str(index)}]} for index in range(3)]
    path = make_run(tmp_path / "r", groups, groups_per_part=1, complete=False)
    (path / "scores" / "default" / "part-00002.parquet").unlink()
    run = read_run(path)
    assert not run.is_complete
    assert stream(run, ["text"])["text"].to_pylist() == ["0", "1", "2"]
    assert stream(run, ["text", "q"])["text"].to_pylist() == ["0", "1"]
