"""Checkpoints: whole or absent, bit for bit, by any number of processes, without pickle."""

from __future__ import annotations

import json
import pickletools

import pytest
import torch
from checkpoints import content, full_disk, names, save
from trained_pairs import ALONE, STATE, VARIANTS, assert_same, everything, trained, update, variant
from two_processes import run_in_processes

from thr_probe.errors import DataError
from thr_probe.policy import load_policy
from thr_probe.train import state
from thr_probe.train.checkpoint import (
    checkpoint_model,
    checkpoint_steps,
    export_model,
    load_checkpoint,
    save_checkpoint,
)
from thr_probe.train.module import push_weights


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_and_optimiser_come_back_bit_for_bit_and_go_on_alike(name, dtype, tmp_path):
    held = trained(ALONE, name, numbers=[0, 1], dtype=dtype)
    policy = variant(name)
    push_weights(held.module, policy)
    save_checkpoint(tmp_path, held, STATE, policy=policy, world=ALONE)
    other = trained(ALONE, name, seed=1, numbers=[5], dtype=dtype)
    assert load_checkpoint(tmp_path, other, world=ALONE) == STATE
    assert_same(everything(other), everything(held))
    entries = {key.partition("/")[2] for key in everything(other)}
    assert entries == {"", "exp_avg", "exp_avg_sq", "step"}
    for one in (held, other):
        update(one.module, one.optimizer, [2])
    assert_same(everything(other), everything(held))


def test_a_new_optimiser_takes_the_state_of_the_old_one_and_keeps_its_own_options(held, tmp_path):
    save(tmp_path, held)
    other = trained(ALONE, "tied", seed=1, dtype=torch.float32)
    other.optimizer.param_groups[0]["lr"] = 0.5
    load_checkpoint(tmp_path, other, world=ALONE)
    assert_same(everything(other), everything(held))
    assert other.optimizer.param_groups[0]["lr"] == 0.5


def test_before_the_first_update_there_is_no_optimiser_state(tmp_path):
    save(tmp_path, trained(ALONE, "tied", dtype=torch.float32), num_steps=0)
    other = trained(ALONE, "tied", seed=1, numbers=[0], dtype=torch.float32)
    load_checkpoint(tmp_path, other, world=ALONE)
    assert not other.optimizer.state_dict()["state"]


def test_the_state_is_split_into_files_of_a_size(held, tmp_path, monkeypatch):
    monkeypatch.setattr(state, "_FILE_BYTES", 20_000)
    save(tmp_path, held)
    folder = tmp_path / "checkpoints" / "step-000001" / "state"
    assert len(names(folder)) > 4
    largest = max(path.stat().st_size for path in folder.iterdir())
    assert largest < 20_000 + 270 * 32 * 4
    other = trained(ALONE, "tied", seed=1, dtype=torch.float32)
    load_checkpoint(tmp_path, other, world=ALONE)
    assert_same(everything(other), everything(held))


def test_model_is_a_model_directory_with_the_trained_weights(held, tmp_path):
    save(tmp_path, held)
    policy = load_policy(str(checkpoint_model(tmp_path, 1)), device="cpu", dtype="float32")
    assert_same(dict(policy.model.named_parameters()), dict(held.module.model.named_parameters()))
    with pytest.raises(DataError, match="no such checkpoint") as caught:
        checkpoint_model(tmp_path, 2)
    assert caught.value.hint == "there are: 1"


def test_no_file_of_a_checkpoint_is_a_pickle(held, tmp_path):
    save(tmp_path, held)
    files = [path for path in (tmp_path / "checkpoints").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".safetensors"}
    for path in files:
        with pytest.raises(ValueError):  # noqa: PT011 - whatever the first opcode is
            for _ in pickletools.genops(path.read_bytes()):
                pass


def test_loading_never_unpickles(held, tmp_path, monkeypatch):
    save(tmp_path, held)

    def refuse(*_arguments, **_options):
        raise AssertionError("something was unpickled")

    monkeypatch.setattr("pickle.load", refuse)
    monkeypatch.setattr("pickle.loads", refuse)
    monkeypatch.setattr(torch, "load", refuse)
    assert load_checkpoint(tmp_path, held, world=ALONE) == STATE


@pytest.mark.parametrize("value", [{1, 2}, float("nan"), b"x", torch.ones(1)])
def test_state_that_json_cannot_say_is_refused_before_anything_is_written(held, tmp_path, value):
    saved = {"num_steps": 1, "x": value}
    with pytest.raises((TypeError, ValueError)):
        save_checkpoint(tmp_path, held, saved, policy=variant("tied"), world=ALONE)
    assert names(tmp_path) == []


def test_no_checkpoint_is_none(held, tmp_path):
    assert load_checkpoint(tmp_path, held, world=ALONE) is None
    assert checkpoint_steps(tmp_path) == []


def test_the_newest_are_kept_and_the_newest_of_them_is_loaded(held, tmp_path):
    for num_steps in (5, 10, 99, 100):
        save(tmp_path, held, num_steps, keep=2)
    assert checkpoint_steps(tmp_path) == [99, 100]
    assert names(tmp_path / "checkpoints") == ["step-000099", "step-000100"]
    assert load_checkpoint(tmp_path, held, world=ALONE)["num_steps"] == 100
    save(tmp_path, held, 1_000_000)
    assert checkpoint_steps(tmp_path) == [99, 100, 1_000_000]


def test_one_that_is_there_is_left_alone(held, tmp_path):
    save(tmp_path, held)
    before = content(tmp_path)
    update(held.module, held.optimizer, [1])
    save(tmp_path, held)
    assert content(tmp_path) == before


def test_an_exported_model_replaces_the_one_before_or_leaves_it(tmp_path, monkeypatch):
    first, second = (variant("tied", seed=seed, dtype=torch.float32) for seed in (0, 1))
    folder = tmp_path / "run" / "model"
    export_model(folder, first)
    before = content(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full_disk)
        with pytest.raises(DataError, match=r"could not write .*model: No space left"):
            export_model(folder, second)
    assert content(tmp_path) == before
    export_model(folder, second)
    assert names(tmp_path / "run") == ["model"]
    loaded = load_policy(str(folder), device="cpu", dtype="float32")
    assert_same(dict(loaded.model.named_parameters()), dict(second.model.named_parameters()))


@pytest.mark.slow
def test_two_processes_save_what_one_loads_and_the_other_way_round(tmp_path):
    for name in VARIANTS:
        held = trained(ALONE, name, numbers=[3], dtype=torch.float32)
        torch.save(everything(held), tmp_path / f"{name}-alone.pt")
        save_checkpoint(tmp_path / f"{name}-alone", held, STATE, policy=variant(name), world=ALONE)
    run_in_processes("trained_pairs", "checkpoints", tmp_path)
    for name in VARIANTS:
        other = trained(ALONE, name, seed=1, dtype=torch.float32)
        assert load_checkpoint(tmp_path / name, other, world=ALONE) == STATE
        assert_same(everything(other), torch.load(tmp_path / f"{name}.pt"))


@pytest.mark.slow
def test_what_one_process_cannot_write_or_read_is_told_in_both(tmp_path):
    run_in_processes("trained_pairs", "failures", tmp_path)
    first, second = (json.loads((tmp_path / f"told-{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    written = f"could not write {tmp_path / 'checkpoints' / 'step-000002'}: No space left on device"
    assert first[0].endswith("No space left on device")
    assert first[1] == written
    assert "step-000001 cannot be read" in first[2]
