from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from thr_probe.errors import DataError
from thr_probe.traces.importers import verifiers
from thr_probe.traces.importers.foreign import ImportOptions, Refused
from thr_probe.traces.importers.prime_rl import IMPORTER

FIXTURES = Path(__file__).parent / "fixtures"
HERE = FIXTURES / "prime_rl"
ALL = "rollouts/step_3/train/all/traces.jsonl.gz"
SAID = [
    json.loads(line)
    for line in (FIXTURES / "inspect" / "lab_completions.jsonl").read_text().splitlines()
]


def read(path, **options):
    return list(IMPORTER.read(IMPORTER.find(path), ImportOptions(**options)))


def names(path):
    return [file.relative_to(path).as_posix() for file in IMPORTER.find(path)]


def exported(tmp_path, *rows, stable=True):
    path = tmp_path / "token_exports" / "step_3" / "rank_0.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    if stable:
        (path.parent / "STABLE").touch()
    return path


def first_export():
    return json.loads(
        (HERE / "exports/token_exports/step_3/rank_0.jsonl").read_text().splitlines()[0]
    )


def test_a_run_gives_all_training_rollouts_of_its_steps():
    assert names(HERE / "traces") == [ALL]
    evaluation = HERE / "traces/rollouts/step_3/eval/all/traces.jsonl"
    assert IMPORTER.left_out(HERE / "traces") == [evaluation]
    assert (IMPORTER.left_out(evaluation), IMPORTER.left_out(HERE / "rows")) == ([], [])
    assert names(HERE / "rows") == ["rollouts/step_2/train_rollouts.jsonl"]
    assert names(HERE / "exports") == ["token_exports/step_3/rank_0.jsonl"]
    # verifiers' own importer leaves them to this one
    assert verifiers.IMPORTER.find(HERE) == []
    assert names(FIXTURES / "verifiers") == []


def test_rollouts_come_before_exports_and_steps_in_their_order(tmp_path):
    trace = (HERE / "traces/rollouts/step_3/eval/all/traces.jsonl").read_bytes()
    for step in (10, 9):
        path = tmp_path / "rollouts" / f"step_{step}" / "train_rollouts.jsonl"
        path.parent.mkdir(parents=True)
        path.write_bytes(trace)
    exported(tmp_path, first_export())
    assert names(tmp_path) == [
        "rollouts/step_9/train_rollouts.jsonl",
        "rollouts/step_10/train_rollouts.jsonl",
    ]
    assert names(tmp_path / "token_exports") == ["step_3/rank_0.jsonl"]


def test_trained_rollouts_are_read_where_the_others_are_not_there(tmp_path):
    path = tmp_path / "rollouts/step_3/train/effective/traces.jsonl"
    path.parent.mkdir(parents=True)
    path.write_bytes((HERE / "traces/rollouts/step_3/train/effective/traces.jsonl").read_bytes())
    assert names(tmp_path) == ["rollouts/step_3/train/effective/traces.jsonl"]
    assert len(read(tmp_path)) == 4


def test_an_evaluation_is_read_where_it_is_given_itself():
    (one,) = read(HERE / "traces/rollouts/step_3/eval/all/traces.jsonl")
    assert one.step == 3


def test_episodes_give_ids_logprobs_step_and_group():
    found = read(HERE / "traces")
    assert len(found) == 8
    for one, row in zip(found, SAID[:8], strict=True):
        assert (one.text, one.token_ids) == (row["text"], row["token_ids"])
        assert one.prompt_token_ids == row["prompt_token_ids"]
        assert one.sampler_logprobs == [round(value, 4) for value in row["logprobs"]]
        assert (one.step, one.group) == (3, f"3:{row['question']}")
        assert one.reward == float(row["correct"])
        assert one.answer == row["answer"]


def test_rows_of_old_runs_are_grouped_by_example():
    found = read(HERE / "rows")
    assert len(found) == 24
    assert Counter(one.group for one in found) == {f"2::{number}": 4 for number in range(6)}
    assert {one.step for one in found} == {2}


@pytest.mark.parametrize("stamp_in", ["episode", "trace"])
def test_stamps_of_single_traces_give_the_group(tmp_path, stamp_in):
    episode = json.loads((HERE / "traces/rollouts/step_3/eval/all/traces.jsonl").read_text())
    stamp = {"group_id": "g1", "env_name": "sums"}
    row = episode["traces"][0]
    if stamp_in == "episode":
        del episode["group"]
        row = {**episode, "prime_rl": stamp}
    else:
        row["info"] = {"prime_rl": stamp}
    path = tmp_path / "rollouts" / "step_4" / "train_rollouts.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(row) + "\n")
    (one,) = read(tmp_path)
    assert (one.group, one.step) == ("4:g1", 4)
    assert one.dataset == ("lab_arithmetic" if stamp_in == "episode" else "sums")


def test_exports_give_ids_full_logprobs_and_groups_by_prompt():
    found = read(HERE / "exports")
    assert len(found) == 12
    for one, row in zip(found, SAID[:12], strict=True):
        assert (one.text, one.prompt_text) == ("", "")
        assert one.token_ids == row["token_ids"]
        assert one.prompt_token_ids == row["prompt_token_ids"]
        assert one.sampler_logprobs == row["logprobs"]
        assert one.reward == float(row["correct"])
        assert (one.step, one.dataset) == (3, "lab_arithmetic")
    groups = [one.group for one in found]
    assert [groups.index(group) for group in groups] == [0] * 4 + [4] * 4 + [8] * 4


def test_exports_that_are_no_completions_are_refused(tmp_path):
    row = first_export()
    turns = [*row["loss_mask"][:-2], False, True]
    nulls = [*row["inference_logprobs"][:-1], None]
    without = {key: value for key, value in row.items() if key != "loss_mask"}
    found = read(
        exported(
            tmp_path,
            row,
            {**row, "loss_mask": turns},
            {**row, "loss_mask": [True]},
            {**row, "loss_mask": [False] * len(turns)},
            without,
            {**row, "inference_logprobs": nulls},
            {**row, "rewards": [None] * len(turns)},
            stable=False,
        )
    )
    assert [one.reason for one in found if isinstance(one, Refused)] == [
        "the step is still being written, it is read so far",
        "tokens that were not sampled stand behind sampled ones: several turns",
        f"{len(turns)} token ids with a mask of 1",
        "no token was sampled",
        "field loss_mask is missing",
    ]
    assert (found[6].sampler_logprobs, found[6].reward) == (None, 0.0)
    assert (found[7].reward, len(found[7].sampler_logprobs)) == (None, 58)


def test_exports_hold_one_reward(tmp_path):
    path = exported(tmp_path, first_export())
    assert len(read(path, reward_column="rewards")) == 1
    with pytest.raises(DataError, match="hold one reward, not style"):
        read(path, reward_column="style")


def test_a_packed_file_that_was_cut_off_is_read_up_to_the_cut(tmp_path):
    path = tmp_path / ALL
    path.parent.mkdir(parents=True)
    rows = gzip.decompress((HERE / "traces" / ALL).read_bytes())
    path.write_bytes(gzip.compress(rows)[:-200])
    found = read(tmp_path)
    assert isinstance(found[-1], Refused)
    assert len(found) > 2


def test_other_files_of_a_step_are_left_alone(tmp_path):
    step = tmp_path / "rollouts" / "step_1"
    step.mkdir(parents=True)
    (step / "train_rollouts.bin").write_bytes(b"\x93\x01\x02\x03")
    (step / "summary.jsonl").write_text('{"reward": 1.0}\n')
    assert IMPORTER.find(tmp_path) == []
    with pytest.raises(DataError, match="no rollout, expected the fields traces, nodes"):
        list(IMPORTER.read([step / "summary.jsonl"], ImportOptions()))
