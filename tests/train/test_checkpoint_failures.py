"""Checkpoints when the disk is full, the process is killed or the files are not what they were."""

from __future__ import annotations

import builtins
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from checkpoints import content, full_disk, names, save
from trained_pairs import ALONE, STATE, assert_same, everything, trained, update

from thr_probe.errors import DataError
from thr_probe.policy import load_policy
from thr_probe.train import checkpoint
from thr_probe.train.checkpoint import (
    Trained,
    checkpoint_model,
    checkpoint_steps,
    load_checkpoint,
)


def failing_at(name, call, monkeypatch):
    """From its nth call on, let a function of `os` find the disk full; returns the calls so far."""
    real, calls = getattr(os, name), []

    def counted(*arguments, **options):
        calls.append(arguments)
        if len(calls) >= call:
            full_disk()
        return real(*arguments, **options)

    monkeypatch.setattr(os, name, counted)
    return calls


@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_a_full_disk_at_any_moment_leaves_the_checkpoint_before_and_no_half_one(
    held, tmp_path, monkeypatch, name
):
    save(tmp_path, held)
    before, expected = content(tmp_path), everything(held)
    save(tmp_path / "counted", held)
    with monkeypatch.context() as patch:
        calls = failing_at(name, 10**9, patch)
        save(tmp_path / "counted", held, 2)
    assert len(calls) >= 2
    update(held.module, held.optimizer, [1])
    for call in range(1, len(calls) + 1):
        with monkeypatch.context() as patch:
            made = failing_at(name, call, patch)
            with pytest.raises(DataError, match=r"could not write .*: No space left") as caught:
                save(tmp_path, held, 2)
            assert len(made) >= call
        assert "free some space" in (caught.value.hint or "")
        assert before.items() <= content(tmp_path).items()
        # a refusal after the last rename finds the new one whole
        steps = checkpoint_steps(tmp_path)
        assert names(tmp_path / "checkpoints") == [f"step-{step:06d}" for step in steps]
        if steps == [1, 2]:
            assert (name, call) == ("fsync", len(calls))
        else:
            other = trained(ALONE, "tied", seed=1, dtype=torch.float32)
            assert load_checkpoint(tmp_path, other, world=ALONE) == STATE
            assert_same(everything(other), expected)
    save(tmp_path, held, 2)
    assert load_checkpoint(tmp_path, held, world=ALONE) == STATE | {"num_steps": 2}


def test_a_folder_that_cannot_be_made(held, tmp_path, monkeypatch):
    save(tmp_path, held)
    before = content(tmp_path)
    with monkeypatch.context() as patch:
        failing_at("mkdir", 1, patch)
        with pytest.raises(DataError, match=r"could not write .*step-000002\S*: No space left"):
            save(tmp_path, held, 2)
    assert content(tmp_path) == before


def test_a_full_disk_in_the_model_directory(held, tmp_path, monkeypatch):
    save(tmp_path, held)
    before = content(tmp_path)

    def half(policy, folder):
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"half")
        full_disk()

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_policy", half)
        with pytest.raises(DataError, match=r"could not write .*step-000002: No space left"):
            save(tmp_path, held, 2)
    assert content(tmp_path) == before


def test_a_disk_that_is_full_when_the_state_is_written(held, tmp_path, monkeypatch):
    real = builtins.open

    class Full:
        def __init__(self, file):
            self.file = file

        def __getattr__(self, name):
            return getattr(self.file, name)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

        def write(self, data):
            self.file.write(data[: len(data) // 2])
            full_disk()

    def opened(file, *arguments, **options):
        made = real(file, *arguments, **options)
        return Full(made) if str(file).endswith(".safetensors") else made

    save(tmp_path, held)
    before = content(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", opened)
        with pytest.raises(DataError, match=r"could not write .*step-000002: No space left"):
            save(tmp_path, held, 2)
    assert content(tmp_path) == before


@pytest.mark.parametrize("name", [".step-000002.tmp", ".step-000001.4711.tmp"])
def test_what_killed_processes_left_goes_at_the_next_save_and_load(held, tmp_path, name):
    save(tmp_path, held)
    for act in (
        lambda: save(tmp_path, held, 2),
        lambda: load_checkpoint(tmp_path, held, world=ALONE),
    ):
        leftover = tmp_path / "checkpoints" / name
        (leftover / "state").mkdir(parents=True)
        (leftover / "state" / "shard-00001-model-00001-of-00001.safetensors").write_bytes(b"half")
        act()
        assert names(tmp_path / "checkpoints") == ["step-000001", "step-000002"]


KILLED = """
import os, sys, time
from pathlib import Path
import torch
from trained_pairs import ALONE, STATE, trained, variant
from thr_probe.train.checkpoint import save_checkpoint
real_sync = os.fsync
def slow_sync(descriptor):
    time.sleep(0.02)
    real_sync(descriptor)
os.fsync = slow_sync
held, policy = trained(ALONE, "tied", numbers=[0], dtype=torch.float32), variant("tied")
print("ready", flush=True)
for number in range(1, 1000):
    save_checkpoint(Path(sys.argv[1]), held, STATE | {"num_steps": number}, policy=policy,
                    world=ALONE, keep=2)
"""


@pytest.mark.slow
def test_a_process_killed_at_any_moment_leaves_whole_checkpoints(held, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    for attempt in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path / str(attempt))],
            stdout=subprocess.PIPE,
            env=environment,
        )
        process.stdout.readline()
        time.sleep(0.9 + 0.23 * attempt)
        process.send_signal(signal.SIGKILL)
        assert process.wait(30) == -signal.SIGKILL
        process.stdout.close()
        steps = checkpoint_steps(tmp_path / str(attempt))
        assert steps
        other = trained(ALONE, "tied", seed=1, dtype=torch.float32)
        loaded = load_checkpoint(tmp_path / str(attempt), other, world=ALONE)
        assert loaded["num_steps"] == steps[-1]
        assert_same(everything(other), everything(held))
        load_policy(str(checkpoint_model(tmp_path / str(attempt), steps[-1])), device="cpu")


def damaged_file(folder):
    [path] = (folder / "state").iterdir()
    path.write_bytes(b"\0" * path.stat().st_size)


def cut_file(folder):
    [path] = (folder / "state").iterdir()
    path.write_bytes(path.read_bytes()[:-10])


def missing_file(folder):
    [path] = (folder / "state").iterdir()
    path.unlink()


def missing_trainer(folder):
    (folder / "trainer.json").unlink()


def cut_trainer(folder):
    path = folder / "trainer.json"
    path.write_text(path.read_text()[:-10])


def foreign_trainer(folder):
    path = folder / "trainer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"state": {"num_steps": 7}}))


@pytest.mark.parametrize(
    "damage",
    [damaged_file, cut_file, missing_file, missing_trainer, cut_trainer, foreign_trainer],
    ids=lambda damage: damage.__name__,
)
def test_a_damaged_checkpoint_is_told_by_its_path(held, tmp_path, damage):
    save(tmp_path, held)
    damage(tmp_path / "checkpoints" / "step-000001")
    with pytest.raises(DataError, match="step-000001") as caught:
        load_checkpoint(tmp_path, held, world=ALONE)
    assert caught.value.hint


@pytest.mark.parametrize("name", ["untied", "soft-cap"])
def test_a_checkpoint_of_another_model_is_told(held, tmp_path, name):
    save(tmp_path, held)
    with pytest.raises(DataError, match=r"step-000001 cannot be read: \S+ is only in the"):
        load_checkpoint(tmp_path, trained(ALONE, name), world=ALONE)


def test_a_checkpoint_of_a_model_of_another_size_is_told(held, tmp_path):
    save(tmp_path, held)
    layer = held.module.model.model.norm
    layer.weight = torch.nn.Parameter(torch.ones(64))
    other = Trained(
        module=held.module, optimizer=torch.optim.AdamW(held.module.parameters(), lr=1.0)
    )
    with pytest.raises(DataError, match=r"step-000001 cannot be read"):
        load_checkpoint(tmp_path, other, world=ALONE)
