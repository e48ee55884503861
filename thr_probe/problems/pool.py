"""Worker processes under a time limit: each item gets its seconds, who overruns is replaced."""

from __future__ import annotations

import json
import os
import selectors
import struct
import subprocess
import sys
import time
import weakref
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import TracebackType

from thr_probe.errors import PrerequisiteError, UsageError

BATCH = 8
START_LIMIT_S = 120.0
"""A worker must be ready by then; a plug-in may load a model while it starts."""
_LAUNCH = (
    "import json, sys; settings = json.loads(sys.argv[1]); sys.path[:] = settings['path'];"
    "from thr_probe.problems.worker import main;"
    "main(settings)"
)
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # one core per worker


class Ending(StrEnum):
    """How the work on one item ended."""

    OK = "ok"
    TIMEOUT = "timeout"
    DIED = "died"
    RAISED = "raised"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one item."""

    ending: Ending
    """How it ended."""
    value: float | str = ""
    """What the function returned, or what it raised."""


@dataclass(slots=True, kw_only=True)
class _Worker:
    process: subprocess.Popen[bytes]
    deadline: float
    ready: bool = False
    items: deque[int] = field(default_factory=deque)
    buffer: bytearray = field(default_factory=bytearray)

    @property
    def output(self) -> int:
        assert self.process.stdout is not None
        return self.process.stdout.fileno()


class WorkerPool:
    """Calls "module:function" on pairs of strings in separate processes, in the order given.

    The processes are plain `python -c` children (nothing is forked, so torch and CUDA do not
    matter), start when first needed, and are killed by `close`, at exit, on Ctrl-C and when
    the pool is garbage.
    """

    def __init__(
        self,
        function: str,
        *,
        num_workers: int,
        limit_s: float,
        memory_bytes: int = 0,
        warm_up: Sequence[tuple[str, str]] = (),
        quiet: bool = False,
    ) -> None:
        if num_workers < 1 or not limit_s > 0:
            raise UsageError(f"need num_workers >= 1 and limit_s > 0, got {num_workers}, {limit_s}")
        self.function = function
        self.limit_s = limit_s
        self._num_workers = num_workers
        self._stderr = subprocess.DEVNULL if quiet else None
        self._settings = json.dumps(
            {
                "function": function,
                "limit_s": limit_s,
                "memory_bytes": memory_bytes,
                "warm_up": list(warm_up),
                # the current folder last: plug-ins lie there and should hide nothing installed
                "path": [*filter(None, sys.path), str(Path.cwd())],
            }
        )
        self._workers: list[_Worker] = []
        self._finalizer = weakref.finalize(self, _stop_all, self._workers, os.getpid())

    def map(self, pairs: Sequence[tuple[str, str]]) -> list[Outcome]:
        """The outcome for every pair, in order."""
        outcomes: list[Outcome | None] = [None] * len(pairs)
        waiting = deque(range(len(pairs)))
        finished = False
        try:
            while waiting or any(worker.items for worker in self._workers):
                self._hand_out(waiting, pairs)
                self._collect(waiting, outcomes)
            finished = True
        finally:
            if not finished:
                self.close()
        return [outcome for outcome in outcomes if outcome is not None]

    def start(self) -> None:
        """Bring one worker up, so that a function that does not load is known at once."""
        try:
            if not self._workers:
                self._launch()
            while not any(worker.ready for worker in self._workers):
                self._collect(deque(), [])
                if not self._workers:
                    self._launch()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Kill the workers and wait for each; the pool can be used again afterwards."""
        _stop_all(self._workers, os.getpid())

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _launch(self) -> None:
        command = [sys.executable, "-P", "-c", _LAUNCH, self._settings]
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=_ENVIRONMENT | os.environ,
        )
        self._workers.append(_Worker(process=process, deadline=time.monotonic() + START_LIMIT_S))

    def _hand_out(self, waiting: deque[int], pairs: Sequence[tuple[str, str]]) -> None:
        """Start workers while there is work for them; give every idle one a batch."""
        idle = [worker for worker in self._workers if worker.ready and not worker.items]
        starting = sum(not worker.ready for worker in self._workers)
        wanted = -(-len(waiting) // BATCH) - len(idle) - starting
        for _ in range(min(wanted, self._num_workers - len(self._workers))):
            self._launch()
        share = max(1, min(BATCH, len(waiting) // self._num_workers))
        for worker in idle:
            batch = [waiting.popleft() for _ in range(min(share, len(waiting)))]
            if batch and not self._give(worker, batch, pairs):
                waiting.extendleft(reversed(batch))

    def _give(self, worker: _Worker, batch: list[int], pairs: Sequence[tuple[str, str]]) -> bool:
        """Send a batch, which a worker reads whole before it begins: the write does not block."""
        payload = json.dumps([pairs[index] for index in batch]).encode("ascii")
        assert worker.process.stdin is not None
        try:
            worker.process.stdin.write(struct.pack(">I", len(payload)) + payload)
            worker.process.stdin.flush()
        except BrokenPipeError:
            self._drop(worker)
            return False
        worker.items.extend(batch)
        worker.deadline = time.monotonic() + self.limit_s
        return True

    def _collect(self, waiting: deque[int], outcomes: list[Outcome | None]) -> None:
        """Wait for answers until the nearest deadline; take them in; stop who is over it."""
        active = [worker for worker in self._workers if worker.items or not worker.ready]
        if not active:
            return
        with selectors.DefaultSelector() as selector:
            for worker in active:
                selector.register(worker.output, selectors.EVENT_READ, worker)
            nearest = min(worker.deadline for worker in active)
            events = selector.select(max(0.0, nearest - time.monotonic()))
        for key, _ in events:
            if not self._take_in(key.data, outcomes):
                self._lose(key.data, Outcome(ending=Ending.DIED), waiting, outcomes)
        now = time.monotonic()
        for worker in [worker for worker in active if worker in self._workers]:
            if now >= worker.deadline and (worker.items or not worker.ready):
                self._lose(worker, Outcome(ending=Ending.TIMEOUT), waiting, outcomes)

    def _take_in(self, worker: _Worker, outcomes: list[Outcome | None]) -> bool:
        """Read what a worker has to say; False when it has ended."""
        data = os.read(worker.output, 1 << 16)
        worker.buffer.extend(data)
        while len(worker.buffer) >= 4:
            length = struct.unpack(">I", worker.buffer[:4])[0]
            if len(worker.buffer) < 4 + length:
                break
            message = json.loads(worker.buffer[4 : 4 + length])
            del worker.buffer[: 4 + length]
            self._handle(worker, message, outcomes)
        return bool(data)

    def _handle(
        self, worker: _Worker, message: list[str | float], outcomes: list[Outcome | None]
    ) -> None:
        if message[0] == "ready":
            worker.ready = True
        elif message[0] == "refused":
            raise UsageError(
                f"the verifier {self.function!r} does not load: {message[1]}",
                hint="--verifier takes module:function; the module must be importable from here",
            )
        else:
            outcomes[worker.items.popleft()] = Outcome(
                ending=Ending(str(message[0])), value=message[1]
            )
            worker.deadline = time.monotonic() + self.limit_s

    def _lose(
        self,
        worker: _Worker,
        outcome: Outcome,
        waiting: deque[int],
        outcomes: list[Outcome | None],
    ) -> None:
        """Kill a worker; the item it was at gets the outcome, the rest of its batch goes back."""
        if worker not in self._workers:
            return
        self._drop(worker)
        if not worker.ready:
            raise PrerequisiteError(
                f"a process for the verifier {self.function!r} "
                + ("ended" if outcome.ending is Ending.DIED else "was not ready in time")
                + f" while it started (Python: {sys.executable})",
                hint='check the installation: pip install "thr_probe" in this environment',
            )
        if worker.items:
            outcomes[worker.items.popleft()] = outcome
        waiting.extendleft(reversed(worker.items))
        worker.items.clear()
        self._launch()  # at once, so that the next item does not wait for the start

    def _drop(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        _stop(worker)


def _stop_all(workers: list[_Worker], owner: int) -> None:
    while workers and os.getpid() == owner:  # a forked copy of us owns no workers
        _stop(workers.pop())


def _stop(worker: _Worker) -> None:
    process = worker.process
    process.kill()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            try:
                pipe.close()
            except BrokenPipeError:
                continue  # unsent bytes of a worker that is gone
    process.wait()
