"""The same work on many things at once, in threads that an interruption does not wait for."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, as_completed
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


def run_jobs(
    jobs: Sequence[Job],
    work: Callable[[Job, threading.Event], Result],
    *,
    threads: int,
) -> list[Result]:
    """The result of every job, in their order; the first failure ends all.

    The threads are daemons: an interrupted program ends without waiting for their answers, which
    those of an executor would.

    Args:
        jobs: done in this order, `threads` at a time.
        work: one job; the event is set once nobody waits for its result.
        threads: at most.

    Raises:
        Whatever `work` raised first.
    """
    stop = threading.Event()
    futures: list[Future[Result]] = [Future() for _ in jobs]
    waiting: queue.SimpleQueue[tuple[Job, Future[Result]]] = queue.SimpleQueue()
    for pair in zip(jobs, futures, strict=True):
        waiting.put(pair)
    for _ in range(min(threads, len(jobs))):
        threading.Thread(
            target=_run, args=(waiting, work, stop), daemon=True, name="thr-probe-request"
        ).start()
    try:
        for future in as_completed(futures):
            future.result()
    finally:
        stop.set()
    return [future.result() for future in futures]


def _run(
    waiting: queue.SimpleQueue[tuple[Job, Future[Result]]],
    work: Callable[[Job, threading.Event], Result],
    stop: threading.Event,
) -> None:
    while not stop.is_set():
        try:
            job, future = waiting.get_nowait()
        except queue.Empty:
            return
        try:
            future.set_result(work(job, stop))
        except Exception as error:  # noqa: BLE001  raised again by who waits for the result
            future.set_exception(error)
