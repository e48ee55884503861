"""The processes of one command: one, or several under torchrun, each with its own shards."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar, cast

import torch
import torch.distributed as dist

from thr_probe.errors import IncompleteError

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Which of how many processes this is."""

    rank: int
    """0 .. size - 1."""
    size: int
    """Processes of the command; 1 without torchrun."""
    local_rank: int
    """Rank on this machine: the number of its GPU."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> World:
        """Read torchrun's variables and join the other processes, if there are any."""
        variables = os.environ if environment is None else environment
        world = cls(
            rank=int(variables.get("RANK", 0)),
            size=int(variables.get("WORLD_SIZE", 1)),
            local_rank=int(variables.get("LOCAL_RANK", 0)),
        )
        if world.size > 1 and not dist.is_initialized():
            # votes and counts travel by gloo; only a trainer's weights need NCCL
            backend = "gloo"
            if torch.cuda.is_available():
                torch.cuda.set_device(world.local_rank)
                backend = "cpu:gloo,cuda:nccl"
            patience = timedelta(days=7)  # the last shard of another process may take hours
            dist.init_process_group(
                backend, rank=world.rank, world_size=world.size, timeout=patience
            )
        return world

    @property
    def is_first(self) -> bool:
        """Whether this process writes what is written once."""
        return self.rank == 0

    def owns(self, shard: int) -> bool:
        """Whether a shard is this process's to do."""
        return shard % self.size == self.rank

    def device(self, asked: str) -> str:
        """The device of this process: under torchrun the GPU of its local rank."""
        if self.size > 1 and asked in {"auto", "cuda"} and torch.cuda.is_available():
            return f"cuda:{self.local_rank}"
        return asked

    def share(self, value: Value) -> Value:
        """The first process's value, in every process."""
        if self.size == 1:
            return value
        carried = [value]
        dist.broadcast_object_list(carried, src=0)
        return carried[0]

    def gather(self, value: Value) -> list[Value]:
        """Every process's value in the order of their ranks, in every process."""
        if self.size == 1:
            return [value]
        carried: list[Value | None] = [None] * self.size
        dist.all_gather_object(carried, value)
        return cast("list[Value]", carried)

    @contextmanager
    def told(self) -> Iterator[None]:
        """Say in a sentence that another process is gone, where this one has to wait for it.

        Raises:
            IncompleteError: in place of the errors of torch's collectives.
        """
        try:
            yield
        except RuntimeError as error:
            is_theirs = isinstance(error, dist.DistError) or "gloo" in str(error)
            if self.size == 1 or not is_theirs:
                raise
            raise IncompleteError(
                "another process of this run ended: this one cannot go on alone",
                "what it said stands above; go on from the last checkpoint with --resume",
            ) from error

    def wait(self) -> None:
        """Return once every process has come here."""
        if self.size > 1:
            dist.barrier()
