"""Threads that do many requests at once, and that an interruption does not wait for."""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

Result = TypeVar("Result")
Work = Callable[[threading.Event], Result]
"""Does something; the event is set once nobody waits for its result."""


class RequestPool(Generic[Result]):
    """So many threads, working in the order in which work was given.

    They are daemons: an interrupted program ends without waiting for their answers, which the
    threads of an executor would have it do.
    """

    def __init__(self, threads: int) -> None:
        self.threads, self.started = threads, 0
        self.stop = threading.Event()
        self.waiting: queue.SimpleQueue[tuple[Work[Result], Future[Result]] | None]
        self.waiting = queue.SimpleQueue()
        weakref.finalize(self, _end, self.waiting, self.stop, threads)

    def submit(self, work: Work[Result]) -> Future[Result]:
        """The result to come."""
        future: Future[Result] = Future()
        self.waiting.put((work, future))
        if self.started < self.threads:
            self.started += 1
            threading.Thread(
                target=_run, args=(self.waiting, self.stop), daemon=True, name="thr-probe-request"
            ).start()
        return future

    def abandon(self) -> None:
        """Begin nothing more; what is running finds out by its event."""
        _end(self.waiting, self.stop, self.threads)


def _run(
    waiting: queue.SimpleQueue[tuple[Work[Result], Future[Result]] | None], stop: threading.Event
) -> None:
    while (item := waiting.get()) is not None and not stop.is_set():
        work, future = item
        try:
            future.set_result(work(stop))
        except Exception as error:  # noqa: BLE001  raised again by who waits for the result
            future.set_exception(error)


def _end(
    waiting: queue.SimpleQueue[tuple[Work[Result], Future[Result]] | None],
    stop: threading.Event,
    threads: int,
) -> None:
    stop.set()
    for _ in range(threads):  # wakes those that wait for work
        waiting.put(None)
