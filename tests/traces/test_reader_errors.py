from __future__ import annotations

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from thr_probe.errors import DataError, UsageError
from thr_probe.traces import read_run, validate_run, write_part

GROUPS = [
    {
        "prompt_id": f"p{index}",
        "completions": [{"correct": True, "thr": [0.1, 0.2]}, {"thr": [-0.1, -0.2, -0.3]}],
    }
    for index in range(3)
]


@pytest.fixture
def run_path(tmp_path, make_run):
    return make_run(tmp_path / "run", GROUPS, groups_per_part=1, tokens={1: "a"})


@pytest.fixture
def rollouts(run_path):
    return run_path / "rollouts" / "part-00001.parquet"


@pytest.fixture
def scores(run_path):
    return run_path / "scores" / "default" / "part-00001.parquet"


def rewrite(path, change, metadata=()):
    table = pq.read_table(path)
    keep = table.schema.metadata
    table = change(table)
    table = table.replace_schema_metadata({**keep, **dict(metadata)})
    pq.write_table(table, path)


def set_column(table, name, values):
    index = table.column_names.index(name)
    field = table.schema.field(name).with_nullable(True)
    return table.set_column(index, field, pa.array(values, field.type))


def refused(run_path, *words, columns=None):
    """Reading must end in a DataError with all these words; validation must find the same."""
    with pytest.raises(DataError) as caught:
        for _ in read_run(run_path).iter_completions(columns or ["text", "thr"]):
            pass
    for word in words:
        assert word in caught.value.message, (word, caught.value.message)
    assert caught.value.hint, caught.value.message
    assert caught.value.exit_code == 3
    found = validate_run(run_path)
    assert any(all(word in finding.message for word in words) for finding in found), found


def test_a_folder_that_does_not_exist(tmp_path):
    refused(tmp_path / "nowhere", "nowhere is not a run directory", "no such folder")


def test_a_folder_that_is_no_run(tmp_path):
    refused(tmp_path, f"{tmp_path} is not a run directory", "no manifest.json")


def test_a_parquet_file_given_instead_of_its_run(rollouts):
    refused(rollouts, "part-00001.parquet is not a run directory: it is a file")


@pytest.mark.parametrize("version", [2, 99, 0, "1", None, True])
def test_an_unknown_schema_version_in_the_manifest(run_path, version):
    manifest = run_path / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"schema_version": version}))
    refused(run_path, "manifest.json", f"schema version {version!r}", "expected 1")


def test_a_newer_schema_version_tells_to_upgrade(run_path):
    manifest = run_path / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"schema_version": 2}))
    with pytest.raises(DataError) as caught:
        read_run(run_path)
    assert "upgrade" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("status", "done", "field status: found 'done', expected incomplete or complete"),
        ("seed", "0", "field seed: found '0', expected int"),
        ("seed", True, "field seed: found True, expected int"),
        ("counts", [1], "field counts: found [1], expected dict"),
        ("model", 3, "field model: found 3, expected str or null"),
    ],
)
def test_a_manifest_field_of_the_wrong_kind(run_path, field, value, words):
    manifest = run_path / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {field: value}))
    refused(run_path, "manifest.json", words)


def test_a_manifest_without_a_required_field(run_path):
    manifest = run_path / "manifest.json"
    content = json.loads(manifest.read_text())
    del content["sampler"]
    manifest.write_text(json.dumps(content))
    refused(run_path, "manifest.json", "field sampler is missing")


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"'])
def test_a_manifest_that_is_no_json_object(run_path, text):
    (run_path / "manifest.json").write_text(text)
    refused(run_path, "manifest.json")


def test_a_manifest_with_more_fields_or_without_optional_ones_is_read(run_path):
    manifest = run_path / "manifest.json"
    content = json.loads(manifest.read_text()) | {"novel": 1}
    del content["versions"]
    manifest.write_text(json.dumps(content))
    run = read_run(run_path)
    assert (run.num_completions, run.manifest.versions) == (6, {})


def test_a_config_that_is_missing_or_no_toml(run_path):
    (run_path / "config.toml").write_text("a = ")
    refused(run_path, "config.toml cannot be read as TOML")
    (run_path / "config.toml").unlink()
    refused(run_path, "config.toml is missing")


@pytest.mark.parametrize("kept", [0, 3, 100, -1, -200])
def test_a_part_cut_off_anywhere(run_path, rollouts, kept):
    rollouts.write_bytes(rollouts.read_bytes()[:kept])
    refused(run_path, str(rollouts), "damaged or cut off")


def test_flipped_bytes_are_caught_by_the_page_checksum_and_only_in_the_column_read(
    run_path, scores
):
    chunk = next(
        column
        for column in (pq.read_metadata(scores).row_group(0).column(index) for index in range(11))
        if column.path_in_schema.startswith("entropy")
    )
    content = bytearray(scores.read_bytes())
    content[chunk.data_page_offset + chunk.total_compressed_size - 2] ^= 0xFF
    scores.write_bytes(content)
    run = read_run(run_path)
    # nothing but the columns asked for is read, so thr is still fine
    assert sum(table.num_rows for table in run.iter_completions(["thr", "text"])) == 6
    refused(run_path, str(scores), "damaged or cut off", columns=["entropy"])


def test_a_foreign_parquet_file_among_the_parts(run_path, rollouts):
    pq.write_table(pa.table({"text": ["x"]}), rollouts)
    refused(run_path, str(rollouts), "was not written by thr_probe")


def test_a_file_that_is_no_parquet_at_all(run_path, scores):
    scores.write_text("prompt_id,thr\n" * 50)
    refused(run_path, str(scores), "cannot be read as Parquet")


def test_a_part_of_an_unknown_schema_version(run_path, rollouts):
    rewrite(rollouts, lambda table: table, {b"thr_probe.schema_version": b"7"})
    refused(run_path, str(rollouts), "found schema version 7, expected 1")


def test_a_scores_part_in_the_place_of_rollouts(run_path, rollouts, scores):
    shutil.copy(scores, rollouts)
    refused(run_path, str(rollouts), "found table 'scores', expected 'rollouts'")


def test_a_required_column_that_is_missing(run_path, scores):
    rewrite(scores, lambda table: table.drop_columns(["entropy"]))
    refused(run_path, str(scores), "column entropy is missing", "found: step, prompt_id")


@pytest.mark.parametrize(
    ("name", "wrong", "shown"),
    [
        ("thr", pa.list_(pa.float64()), "list<element: double>"),
        ("q", pa.float64(), "double"),
        ("prompt_id", pa.large_string(), "large_string"),
        ("rollout_id", pa.int64(), "int64"),
    ],
)
def test_a_column_of_the_wrong_type(run_path, scores, name, wrong, shown):
    def cast(table):
        index = table.column_names.index(name)
        return table.set_column(index, name, table[name].cast(wrong))

    rewrite(scores, cast)
    refused(run_path, str(scores), f"column {name}: found type {shown}, expected")


def test_lists_of_one_row_that_differ_in_length(run_path, scores):
    short = [[0.5, 0.5], [0.5, 0.5]]
    rewrite(scores, lambda table: set_column(table, "entropy", short))
    refused(
        run_path,
        "column entropy: found 2 entries at step=None, prompt_id='p1', rollout_id=1",
        "expected 3 as in column thr",
        columns=["thr", "entropy"],
    )


def test_lists_of_rollouts_and_scores_that_differ_in_length(run_path, rollouts):
    rewrite(rollouts, lambda table: set_column(table, "token_ids", [[1, 2], [1, 2, 3, 4]]))
    with pytest.raises(DataError, match=r"column thr: found 3 entries at .* rollout_id=1"):
        list(read_run(run_path).iter_completions(["token_ids", "thr"]))
    assert any("expected 4" in finding.message for finding in validate_run(run_path))


def test_the_same_completion_twice(run_path, rollouts):
    shutil.copy(rollouts, rollouts.with_name("part-00002.parquet"))
    refused(run_path, "2 rows with step=None, prompt_id='p1', rollout_id=0", "expected one")


def test_scores_of_other_rollouts(run_path, scores):
    shutil.copy(scores.with_name("part-00000.parquet"), scores)
    refused(run_path, str(scores), "column prompt_id", "prompt_id='p0'", "prompt_id='p1'")


def test_scores_in_another_order(run_path, scores):
    rewrite(scores, lambda table: table.take([1, 0]))
    refused(run_path, str(scores), "column rollout_id", "rollout_id=1", "rollout_id=0")


def test_scores_with_another_number_of_rows(run_path, scores):
    rewrite(scores, lambda table: table.slice(0, 1))
    refused(run_path, str(scores), "found 1 rows, expected 2 as in")


@pytest.mark.parametrize("table", ["rollouts", "scores/default"])
def test_a_part_missing_in_the_middle(run_path, table):
    (run_path / table / "part-00001.parquet").unlink()
    refused(run_path, f"{table}/part-00001.parquet is missing", "part 2 of the same table")


def test_the_last_part_missing_from_a_complete_run(run_path):
    (run_path / "rollouts" / "part-00002.parquet").unlink()
    refused(run_path, "rollouts: found 4 completions, expected 6")


def test_scores_that_stop_early_in_a_complete_run(run_path):
    (run_path / "scores" / "default" / "part-00002.parquet").unlink()
    refused(run_path, "default/part-00002.parquet is missing", "2 of 3 parts have scores")
    # what needs no scores still works
    assert len(list(read_run(run_path).iter_completions(["text"]))) == 3


def test_more_score_parts_than_rollouts(run_path, score_row):
    row = score_row(prompt_id="p9", thr=[1.0], entropy=[1.0], logprob=[-1.0])
    write_part(run_path, "scores/default", 3, [row])
    refused(run_path, "part-00003.parquet has no rollouts part beside it")


def test_nan_in_a_file_is_refused_by_name(run_path, scores):
    nan = float("nan")
    lists = [[0.1, 0.2], [0.1, nan, 0.1]]
    rewrite(scores, lambda table: set_column(table, "thr", lists))
    refused(run_path, str(scores), "column thr: found nan", "rollout_id=1, position 1")


def test_null_where_every_row_has_a_value(run_path, rollouts):
    rewrite(rollouts, lambda table: set_column(table, "correct", [True, None]))
    refused(
        run_path, str(rollouts), "column correct: found null", "rollout_id=1", columns=["correct"]
    )


def test_null_among_the_entries_of_a_list(run_path, scores):
    rewrite(scores, lambda table: set_column(table, "logprob", [[-1.0, -1.0], [-1.0, None, -1.0]]))
    refused(run_path, str(scores), "column logprob", "a number for every", columns=["logprob"])


def test_a_state_that_does_not_exist(run_path, rollouts):
    rewrite(rollouts, lambda table: set_column(table, "finish_reason", ["stop", "eos"]))
    refused(
        run_path,
        "column finish_reason: found 'eos'",
        "expected one of stop, length, abort",
        columns=["finish_reason"],
    )


def test_a_column_that_was_not_stored_says_how_to_get_it(tmp_path, make_run):
    completions = [{"token_ids": None, "text": "only text"}]
    path = make_run(tmp_path / "r", [{"completions": completions}], scored=False)
    run = read_run(path)
    with pytest.raises(DataError, match="column token_ids was not stored") as caught:
        run.iter_completions(["token_ids"])
    assert "tokenizer" in (caught.value.hint or "")
    with pytest.raises(DataError, match="has no scores") as caught:
        run.iter_completions(["thr"])
    assert "thr-probe score" in (caught.value.hint or "")
    assert run.problems()["prompt_id"].tolist() == ["p0"]


def test_a_part_of_the_scores_that_is_opt_in_says_so(run_path):
    with pytest.raises(DataError, match="scores/default: column thr_self was not stored") as caught:
        read_run(run_path).iter_completions(["thr_self"])
    assert "--split" in (caught.value.hint or "")


def test_an_undeclared_column_of_another_score_set_is_not_taken(run_path, scores, score_row):
    lists = {name: [1.0, 1.0] for name in ("thr", "entropy", "logprob")}
    rows = [score_row(prompt_id="p0", rollout_id=k, **lists) for k in range(2)]
    other = write_part(run_path, "scores/other", 0, rows)
    rewrite(other, lambda table: table.append_column("novel", pa.array([1, 2])))
    manifest = run_path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"complete"', '"incomplete"'))
    with pytest.raises(DataError, match="scores/default: column novel was not stored"):
        read_run(run_path).iter_completions(["novel"], score_id="default")
    found = next(read_run(run_path).iter_completions(["novel"], score_id="other"))
    assert found["novel"].to_pylist() == [1, 2]


def test_an_unknown_column_is_met_with_the_nearest_name(run_path):
    with pytest.raises(UsageError, match="no column 'entrpy'") as caught:
        read_run(run_path).iter_completions(["entrpy"])
    assert caught.value.hint == "did you mean 'entropy'?"


def test_a_column_asked_for_twice(run_path):
    with pytest.raises(UsageError, match="asked for twice"):
        read_run(run_path).iter_completions(["thr", "thr"])


def test_score_info_that_is_missing(run_path):
    (run_path / "scores" / "default" / "score.json").unlink()
    with pytest.raises(DataError, match=r"score\.json is missing"):
        read_run(run_path).score_info("default")
    assert any("score.json" in finding.message for finding in validate_run(run_path))


def test_a_missing_problems_file(run_path):
    (run_path / "problems.parquet").unlink()
    refused(run_path, "problems.parquet is missing")


def test_a_damaged_tokens_file(run_path):
    (run_path / "tokens.parquet").write_bytes(b"PAR1")
    refused(run_path, "tokens.parquet cannot be read as Parquet")


def test_rollouts_of_a_problem_that_the_run_does_not_have(run_path, rollouts):
    rewrite(rollouts, lambda table: set_column(table, "prompt_id", ["p1", "zz"]))
    findings = [finding.message for finding in validate_run(run_path)]
    assert any("column prompt_id: found 'zz'" in message for message in findings), findings


def test_validation_goes_on_after_the_first_finding(run_path, rollouts, scores):
    rewrite(rollouts, lambda table: set_column(table, "finish_reason", ["stop", "eos"]))
    rewrite(scores, lambda table: set_column(table, "num_correct", [0, 1]))
    found = {finding.message.split(": ")[1] for finding in validate_run(run_path)}
    assert found == {"column finish_reason", "column tau"}
