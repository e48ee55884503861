"""Weights and optimiser state on disk: torch's distributed checkpoint, in safetensors files.

Each process writes its shards, any number of processes reads them. Tensors and JSON only: loading
runs no code of the file.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import (
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.optim import Optimizer

_FILE_BYTES = 2 << 30  # a file of the state is put together in memory before it is written


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What the state on disk is read into."""

    weights: dict[str, Tensor]
    """The module's own tensors by name."""
    entries: dict[str, dict[str, Tensor]]
    """New tensors for the optimiser's state of each of them, by entry."""


def write_state(folder: Path, module: nn.Module, optimizer: Optimizer) -> None:
    """Write a module's and its optimiser's tensors; to be called by every process.

    Args:
        folder: to write into.
        module: sharded or not.
        optimizer: of its parameters; its state has to be tensors, as AdamW's is.

    Raises:
        OSError: in every process, when the operating system refused it to one of them.
    """
    weights = _module_tensors(module)
    tensors = {_weight_key(name): value.detach() for name, value in weights.items()}
    for name, value in weights.items():
        for entry, content in optimizer.state.get(value, {}).items():
            tensors[_optimizer_key(name, entry)] = content
    writer = HuggingFaceStorageWriter(
        str(folder), fqn_to_index_mapping=_files(tensors), save_distributed=True
    )
    with _dcp_failures(), _without_warning():
        save(tensors, storage_writer=writer, no_dist=not dist.is_initialized())


def make_room(folder: Path, module: nn.Module) -> Room:
    """Look at what is on disk and make room for it; each process does it for itself.

    Raises:
        ValueError: it is not the state of such a module.
    """
    saved = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    weights = _module_tensors(module)
    stored = {name for name in saved if name.startswith(_weight_key(""))}
    unmatched = sorted(stored ^ {_weight_key(name) for name in weights})
    if unmatched:
        where = "the checkpoint" if unmatched[0] in stored else "the model"
        raise ValueError(f"{unmatched[0].removeprefix(_weight_key(''))} is only in {where}")
    entries = {
        name: _optimizer_entries(_optimizer_key(name, ""), value, saved)
        for name, value in weights.items()
    }
    return Room(weights=weights, entries=entries)


def read_state(folder: Path, room: Room, optimizer: Optimizer) -> None:
    """Read a module's and its optimiser's tensors; to be called by every process.

    Raises:
        Exception: in every process, whatever torch raises in one of them for a damaged file.
    """
    # everything is read into tensors that are there: those of the module are its own
    tensors = {_weight_key(name): value.detach() for name, value in room.weights.items()}
    for name, content in room.entries.items():
        tensors |= {_optimizer_key(name, entry): value for entry, value in content.items()}
    reader = HuggingFaceStorageReader(str(folder))
    with _dcp_failures(), _without_warning():
        load(tensors, storage_reader=reader, no_dist=not dist.is_initialized())
    _restore_optimizer(optimizer, room)


def _module_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name; a tied one by the first of its names."""
    named: dict[str, Tensor] = {}
    # asked for as they are: parameters are recognised by what they are, not by their value
    for name, value in module.state_dict(keep_vars=True).items():
        if all(value is not other for other in named.values()):
            named[name] = value
    return named


def _weight_key(name: str) -> str:
    return f"module.{name}"


def _optimizer_key(name: str, entry: str) -> str:
    # no name of a weight has a slash: one weight's entries are never taken for another's
    return f"optimizer.{name}/{entry}"


def _files(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """The number of the file of each tensor, so that no file grows much beyond _FILE_BYTES."""
    files, number, filled = {}, 1, 0
    for name, value in tensors.items():
        size = value.numel() * value.element_size()
        if filled and filled + size > _FILE_BYTES:
            number, filled = number + 1, 0
        files[name], filled = number, filled + size
    return files


def _optimizer_entries(
    prefix: str, parameter: Tensor, saved: Mapping[str, object]
) -> dict[str, Tensor]:
    """Empty room for what is on disk of one parameter, sharded as the parameter is."""
    room = {}
    for key, stored in saved.items():
        if not key.startswith(prefix) or not isinstance(stored, TensorStorageMetadata):
            continue
        dtype = stored.properties.dtype
        if stored.size == parameter.shape:
            entry = torch.zeros_like(parameter, dtype=dtype, requires_grad=False)
        elif len(stored.size) == 0:  # a count of updates
            entry = torch.zeros((), dtype=dtype)
        else:
            raise ValueError(f"{key} has another shape than its weight")
        room[key.removeprefix(prefix)] = entry
    return room


def _restore_optimizer(optimizer: Optimizer, room: Room) -> None:
    entries = {id(room.weights[name]): content for name, content in room.entries.items()}
    parameters = [value for group in optimizer.param_groups for value in group["params"]]
    content = {
        index: entries[id(value)] for index, value in enumerate(parameters) if entries[id(value)]
    }
    groups = optimizer.state_dict()["param_groups"]  # learning rate and the like: the config's
    optimizer.load_state_dict({"state": content, "param_groups": groups})


@contextmanager
def _dcp_failures() -> Iterator[None]:
    """Raise, in every process, what went wrong in the first of those that failed.

    torch wraps it in an exception that no `except Exception` catches.
    """
    try:
        yield
    except CheckpointException as error:
        cause, _ = error.failures[min(error.failures)]
        raise cause from error


@contextmanager
def _without_warning() -> Iterator[None]:
    """Keep torch's own remarks about its checkpoints from the user."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        warnings.filterwarnings("ignore", message="TypedStorage is deprecated")
        yield
