"""Checkpoints of a training run: whole or absent, for any number of processes, without pickle.

    RUN/checkpoints/step-000020/model/         the policy as a model directory (`load_policy`)
    RUN/checkpoints/step-000020/state/         float32 weights and optimiser state
    RUN/checkpoints/step-000020/trainer.json   the rest of what the trainer goes on from

The folder must be one that all processes see.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

from safetensors import SafetensorError
from torch import nn
from torch.optim import Optimizer

from thr_probe.errors import DataError, ThrProbeError
from thr_probe.policy import Policy, save_policy
from thr_probe.processes import World
from thr_probe.traces.atomic import (
    make_folder,
    put_in_place,
    remove_folder,
    remove_temporaries,
    temporary_folder,
    write_error,
    write_text,
)
from thr_probe.traces.manifest import read_json_object
from thr_probe.train.state import Room, make_room, read_state, write_state

CHECKPOINTS = "checkpoints"
MODEL = "model"

_STATE = "state"
_TRAINER = "trainer.json"
_NAME = re.compile(r"step-(\d{6,})")
_DAMAGED = "it is damaged, or of another model; without that folder the one before it is taken"
_UNREADABLE = (OSError, SafetensorError, ValueError, KeyError, AssertionError, RuntimeError)

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """The tensors that a training run goes on from."""

    module: nn.Module
    """The trained module, sharded or not."""
    optimizer: Optimizer
    """Of its parameters; its state has to be tensors, as AdamW's is."""


def save_checkpoint(
    run_path: Path,
    trained: Trained,
    state: Mapping[str, object],
    *,
    policy: Policy,
    world: World,
    keep: int | None = None,
) -> None:
    """Write the checkpoint of `state["num_steps"]` finished steps; every process calls it.

    It gets its name once all of it is on disk: until then, and when the operating system refuses,
    the earlier checkpoints stand as they were. One that is there already is left alone.

    Args:
        run_path: the run directory.
        trained: module and optimiser.
        state: what else the trainer goes on from, as JSON can say it, `num_steps` among it.
        policy: already holding the weights; the first process's becomes `model/`.
        world: the processes of the command.
        keep: how many checkpoints to keep, the newest; None keeps all.

    Raises:
        DataError: in every process, when one of them could not write its part.
    """
    path = _checkpoint_path(run_path, cast("int", state["num_steps"]))
    temporary = temporary_folder(path)
    told = json.dumps(state, allow_nan=False)  # before anything is written, in every process

    def begin() -> bool:
        make_folder(path.parent)
        _remove_leftovers(path.parent)
        if not path.exists():
            make_folder(temporary)
        return path.exists()

    def finish() -> None:
        with _refused(path):
            save_policy(policy, temporary / MODEL)
            content = {"files": _sizes(temporary / _STATE), "state": json.loads(told)}
        write_text(temporary / _TRAINER, json.dumps(content, ensure_ascii=False, indent=2) + "\n")
        put_in_place(temporary, path)
        for old in checkpoint_steps(run_path)[: -keep if keep else 0]:
            remove_folder(_checkpoint_path(run_path, old))

    try:
        if _first(world, begin):
            return
        with _refused(path):
            write_state(temporary / _STATE, trained.module, trained.optimizer)
        _first(world, finish)
    except ThrProbeError:
        _first(world, lambda: shutil.rmtree(temporary, ignore_errors=True))
        raise


def load_checkpoint(run_path: Path, trained: Trained, *, world: World) -> dict[str, object] | None:
    """Put the newest checkpoint into a module and its optimiser; every process calls it.

    What killed processes left behind is removed. Saved by any number of processes, a checkpoint is
    loaded by any other number.

    Returns:
        The `state` that was saved; None where there is no checkpoint.

    Raises:
        DataError: in every process, a checkpoint that is damaged or of another model.
    """

    def newest() -> int | None:
        _remove_leftovers(run_path / CHECKPOINTS)
        return max(checkpoint_steps(run_path), default=None)

    num_steps = _first(world, newest)
    if num_steps is None:
        return None
    path = _checkpoint_path(run_path, num_steps)

    def begin() -> tuple[dict[str, object], Room]:
        state = _read_trainer(path, num_steps)
        with _unreadable(path):
            return state, make_room(path / _STATE, trained.module)

    # a process that failed alone would leave the others waiting for it where all read together
    state, room = _everyone(world, begin)
    with _unreadable(path):
        read_state(path / _STATE, room, trained.optimizer)
    return state


def checkpoint_steps(run_path: Path) -> list[int]:
    """The finished steps that a run has checkpoints of, ascending."""
    names = (_NAME.fullmatch(entry.name) for entry in (run_path / CHECKPOINTS).glob("step-*"))
    return sorted(int(name.group(1)) for name in names if name)


def checkpoint_model(run_path: Path, num_steps: int) -> Path:
    """The model directory of a checkpoint.

    Raises:
        DataError: there is no such checkpoint.
    """
    path = _checkpoint_path(run_path, num_steps)
    if not path.is_dir():
        there = ", ".join(map(str, checkpoint_steps(run_path))) or "none"
        raise DataError(f"{path} is missing: there is no such checkpoint", f"there are: {there}")
    return path / MODEL


def export_model(folder: Path, policy: Policy) -> None:
    """Write a policy as a model directory, in one step; one that stands there is replaced.

    Raises:
        DataError: the operating system refused; what stood there before still does.
    """
    temporary = temporary_folder(folder)
    make_folder(folder.parent)
    remove_folder(temporary)
    try:
        with _refused(folder):
            save_policy(policy, temporary)
        put_in_place(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _checkpoint_path(run_path: Path, num_steps: int) -> Path:
    return run_path / CHECKPOINTS / f"step-{num_steps:06d}"


def _sizes(folder: Path) -> dict[str, int]:
    return {entry.name: entry.stat().st_size for entry in sorted(folder.iterdir())}


def _read_trainer(path: Path, num_steps: int) -> dict[str, object]:
    """The saved state, once what was written beside it is known to be there."""
    content = read_json_object(path / _TRAINER)
    state = content.get("state")
    with _unreadable(path):
        if not isinstance(state, dict) or state.get("num_steps") != num_steps:
            raise ValueError(f"{_TRAINER} is not what was written")
        if content.get("files") != _sizes(path / _STATE):
            raise ValueError(f"files of {_STATE}/ are missing or cut off")
    return state


def _remove_leftovers(folder: Path) -> None:
    """Remove the half-written checkpoints of processes that were killed."""
    with _refused(folder):
        remove_temporaries(folder)


def _first(world: World, action: Callable[[], Result]) -> Result:
    """Do something in the first process; its result, or its error, is every process's."""
    shared = world.share(_outcome(action) if world.is_first else None)
    if isinstance(shared, ThrProbeError):
        raise shared
    return cast("Result", shared)


def _everyone(world: World, action: Callable[[], Result]) -> Result:
    """Do something in every process; an error of one of them is every process's."""
    outcome = _outcome(action)
    failed = isinstance(outcome, ThrProbeError)
    for error in world.gather(outcome if failed else None):
        if isinstance(error, ThrProbeError):
            raise error
    return cast("Result", outcome)


def _outcome(action: Callable[[], Result]) -> Result | ThrProbeError:
    try:
        return action()
    except ThrProbeError as error:
        return error


@contextmanager
def _refused(path: Path) -> Iterator[None]:
    """Say what could not be written when the operating system refuses."""
    try:
        yield
    except OSError as error:
        raise write_error(path, error) from error


@contextmanager
def _unreadable(path: Path) -> Iterator[None]:
    """Say which checkpoint could not be read, and why."""
    try:
        yield
    except _UNREADABLE as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise DataError(f"{path} cannot be read: {reason}", _DAMAGED) from error
