"""The journal of a training run: whole lines only, whatever was killed while writing it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from pandas.testing import assert_frame_equal

from thr_probe.errors import DataError
from thr_probe.traces.metrics import append_metrics, read_metrics, truncate_metrics


def step(number, **values):
    return {"kind": "step", "step": number, **values}


def evaluation(number, dataset="lab:validation", **values):
    return {"kind": "eval", "step": number, "dataset": dataset, **values}


def test_records_are_read_as_they_were_appended(tmp_path):
    for record in (
        evaluation(0, greedy_accuracy=0.25, num_prompts=64),
        step(0, loss=0.5, reward_kept=0.1),
        step(1, loss=-1e-9, kl=2.0),
    ):
        append_metrics(tmp_path, record)
    steps, evals = read_metrics(tmp_path)
    nan = np.nan
    assert_frame_equal(
        steps,
        pd.DataFrame(
            {"step": [0, 1], "loss": [0.5, -1e-9], "reward_kept": [0.1, nan], "kl": [nan, 2.0]}
        ),
    )
    assert_frame_equal(
        evals,
        pd.DataFrame(
            {
                "step": [0],
                "dataset": ["lab:validation"],
                "greedy_accuracy": [0.25],
                "num_prompts": [64.0],
            }
        ),
    )


def test_numbers_of_numpy_and_torch_are_written_as_numbers(tmp_path):
    values = {"a": np.float32(0.5), "b": np.int64(3), "c": torch.tensor(2.0), "d": np.bool_(True)}
    append_metrics(tmp_path, step(0, **values))
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line) == {"kind": "step", "step": 0, "a": 0.5, "b": 3, "c": 2.0, "d": True}


def test_what_json_does_not_know_is_written_as_null_and_read_as_missing(tmp_path):
    append_metrics(tmp_path, step(0, ratio_max=float("inf"), kl=float("nan")))
    assert (
        tmp_path / "metrics.jsonl"
    ).read_text() == '{"kind": "step", "step": 0, "ratio_max": null, "kl": null}\n'
    steps, _ = read_metrics(tmp_path)
    assert steps[["ratio_max", "kl"]].isna().all(axis=None)


def test_truth_values_and_nulls_are_read_as_numbers(tmp_path):
    append_metrics(tmp_path, step(0, resumed=True, kl=None))
    append_metrics(tmp_path, step(1, resumed=False, kl=2))
    steps, _ = read_metrics(tmp_path)
    assert steps["resumed"].tolist() == [1.0, 0.0]
    np.testing.assert_array_equal(steps["kl"], [np.nan, 2.0])


@pytest.mark.parametrize("torn", [b'{"kind": "st', b"\0\0\0", b'{"kind": "step", "step": 2}'])
def test_a_torn_last_line_is_dropped_when_read_appended_to_and_truncated(tmp_path, torn):
    path = tmp_path / "metrics.jsonl"
    append_metrics(tmp_path, step(0))
    append_metrics(tmp_path, step(1))
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    assert read_metrics(tmp_path)[0]["step"].tolist() == [0, 1]
    truncate_metrics(tmp_path, 5)
    assert path.read_bytes() == whole
    path.write_bytes(whole + torn)
    append_metrics(tmp_path, step(2, loss=1.0))
    assert path.read_bytes() == whole + b'{"kind": "step", "step": 2, "loss": 1.0}\n'


def test_a_torn_line_longer_than_a_block_is_dropped_too(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"kind": "step", "step": 0}\n' + b"x" * 200_000)
    append_metrics(tmp_path, step(1))
    assert read_metrics(tmp_path)[0]["step"].tolist() == [0, 1]
    path.write_bytes(b"x" * 200_000)
    append_metrics(tmp_path, step(1))
    assert read_metrics(tmp_path)[0]["step"].tolist() == [1]


def test_truncation_keeps_the_first_steps_and_the_evaluations_until_then(tmp_path):
    append_metrics(tmp_path, evaluation(0))
    for number in range(4):
        append_metrics(tmp_path, step(number))
        append_metrics(tmp_path, evaluation(number + 1))
    truncate_metrics(tmp_path, 2)
    steps, evals = read_metrics(tmp_path)
    assert steps["step"].tolist() == [0, 1]
    assert evals["step"].tolist() == [0, 1, 2]
    truncate_metrics(tmp_path, 0)
    steps, evals = read_metrics(tmp_path)
    assert steps.empty
    assert evals["step"].tolist() == [0]
    truncate_metrics(tmp_path / "nowhere", 3)


def test_a_step_done_again_replaces_the_earlier_record(tmp_path):
    for number, loss in ((0, 1.0), (1, 2.0), (1, 3.0)):
        append_metrics(tmp_path, step(number, loss=loss))
        append_metrics(tmp_path, evaluation(number, loss=loss))
        append_metrics(tmp_path, evaluation(number, "other", loss=-loss))
    steps, evals = read_metrics(tmp_path)
    np.testing.assert_array_equal(steps[["step", "loss"]], [[0, 1.0], [1, 3.0]])
    assert list(zip(evals["step"], evals["dataset"], evals["loss"], strict=True)) == [
        (0, "lab:validation", 1.0),
        (0, "other", -1.0),
        (1, "lab:validation", 3.0),
        (1, "other", -3.0),
    ]


def test_a_run_that_has_only_begun_has_no_rows(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("")
    steps, evals = read_metrics(tmp_path)
    assert steps.empty
    assert evals.empty
    assert list(evals) == ["step", "dataset"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nonsense", "line 2: not JSON"),
        ("[1]", "line 2: found '[1]', expected a record"),
        ('{"kind": "stop", "step": 1}', "expected a record of kind step or eval"),
        ('{"kind": "step"}', "line 2: step: found None, expected a whole number"),
        ('{"kind": "step", "step": 1.5}', "line 2: step: found 1.5"),
        ('{"kind": "eval", "step": 1}', "line 2: dataset: found None, expected text"),
        ('{"kind": ["step"], "step": 1}', "expected a record of kind step or eval"),
        ('{"kind": "step", "step": 1, "kl": "0.5"}', "line 2: kl: found '0.5', expected a number"),
        ('{"kind": "step", "step": 1, "kl": [0.5]}', "line 2: kl: found [0.5], expected a number"),
        ('{"kind": "step", "step": 1, "kl": {}}', "line 2: kl: found {}, expected a number"),
        ('{"kind": "step", "step": 1, "dataset": [1]}', "line 2: dataset: found [1]"),
        ('{"kind": "eval", "step": 1, "dataset": "a", "n": "x"}', "line 2: n: found 'x'"),
    ],
)
def test_a_damaged_line_is_named(tmp_path, line, message):
    append_metrics(tmp_path, step(0))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(DataError) as caught:
        read_metrics(tmp_path)
    assert message in caught.value.message


def test_a_folder_without_metrics_is_no_training_run(tmp_path):
    with pytest.raises(DataError, match=r"not a training run: it has no metrics\.jsonl"):
        read_metrics(tmp_path)
    with pytest.raises(DataError, match="there is no such folder"):
        read_metrics(tmp_path / "nowhere")


def test_a_full_disk_is_an_error_that_says_what_to_do(tmp_path, monkeypatch):
    append_metrics(tmp_path, step(0))

    def full(_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        DataError, match=r"could not write .*metrics\.jsonl: No space left"
    ) as caught:
        append_metrics(tmp_path, step(1))
    assert "--resume" in (caught.value.hint or "")


KILLED = """
import sys
from pathlib import Path
from thr_probe.traces.metrics import append_metrics
path = Path(sys.argv[1])
append_metrics(path, {"kind": "step", "step": int(sys.argv[2]), "filler": 0})
print("ready", flush=True)
for number in range(int(sys.argv[2]) + 1, 10**9):
    append_metrics(path, {"kind": "step", "step": number, "filler": 10**300})
"""


def test_a_writer_killed_at_any_moment_leaves_every_synced_record(tmp_path):
    last = -1
    for _ in range(3):
        words = [sys.executable, "-c", KILLED, str(tmp_path), str(last + 1)]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        process.stdout.readline()
        while len(read_metrics(tmp_path)[0]) < last + 20:
            pass
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        process.stdout.close()
        steps = read_metrics(tmp_path)[0]["step"].tolist()
        assert steps == list(range(len(steps)))
        last = steps[-1]
