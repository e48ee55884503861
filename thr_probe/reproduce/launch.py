"""Does the jobs: a process per stage, several jobs at a time, each resumed where it stopped."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from thr_probe.config import ENVIRONMENT_PREFIX
from thr_probe.errors import IncompleteError
from thr_probe.reproduce.kept import keep_settings
from thr_probe.reproduce.plan import Job, Stage, commands
from thr_probe.reproduce.settings import ReproduceConfig
from thr_probe.traces.atomic import make_folder

COSTS_NAME = "costs.jsonl"
_PROGRAM = (sys.executable, "-m", "thr_probe")
_LOG_TAIL = 2000  # bytes of a log that may hold the reason of a failure
_POLL = 0.5  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A stage that ended with an error; what stood on disk before is kept."""

    job: str
    """The job."""
    stage: Stage
    """Which of its stages."""
    exit_code: int
    """How the process ended; negative for a signal."""
    reason: str
    """The last line it wrote."""
    log: Path
    """All that it wrote."""


class Launcher:
    """Runs stages as processes of their own and can stop them all.

    Args:
        root: the folder of the replication.
        config: its options.
        tell: receives a line at each start and end of a stage.
        program: what stands before the words of a command.
    """

    def __init__(
        self,
        root: Path,
        config: ReproduceConfig,
        *,
        tell: Callable[[str], None],
        program: Sequence[str] = _PROGRAM,
    ) -> None:
        self.root, self.config, self.tell = root, config, tell
        self._program = tuple(program)
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        self._stopping = threading.Event()
        self._guard = threading.Lock()

    def run(self, jobs: Sequence[Job]) -> list[Failure]:
        """Do all stages of all jobs that are not done; a failed job does not stop the others.

        Ctrl-C is handed on to the running processes, which finish their step; a second one kills
        them.

        Returns:
            The stages that failed.

        Raises:
            UsageError: options other than those of the earlier pieces.
        """
        keep_settings(self.root, self.config)
        for name in ("logs", "locks"):
            make_folder(self.root / name)
        failures: list[Failure] = []
        with ThreadPoolExecutor(max_workers=self.config.workers) as pool:
            futures: list[Future[None]] = []
            try:
                futures += (pool.submit(self._do, job, failures) for job in jobs)
                self._wait(futures)
            except KeyboardInterrupt:
                self._stop(futures, signal.SIGINT)
                self._wait_or_kill(futures)
                raise
        for future in futures:
            future.result()
        return failures

    def _wait(self, futures: Sequence[Future[None]]) -> None:
        # waking up now and then lets the main thread see Ctrl-C
        while wait(futures, timeout=_POLL).not_done:
            pass

    def _wait_or_kill(self, futures: Sequence[Future[None]]) -> None:
        try:
            self._wait(futures)
        except KeyboardInterrupt:
            self._stop(futures, signal.SIGKILL)

    def _stop(self, futures: Sequence[Future[None]], with_signal: signal.Signals) -> None:
        self._stopping.set()
        for future in futures:
            future.cancel()
        with self._guard:
            for process in self._running.values():
                with contextlib.suppress(ProcessLookupError):  # it ended just now
                    os.killpg(process.pid, with_signal)

    def _do(self, job: Job, failures: list[Failure]) -> None:
        missing = [stage for stage in job.stages if not job.is_done(self.root, stage)]
        if not missing:
            self.tell(f"{job.name}: done before")
            return
        with _lock(self.root / "locks" / job.name) as lock:
            if lock is None:
                self.tell(f"{job.name}: another process is at it, left to it")
                return
            for stage, words in commands(job, self.root, self.config):
                if job.is_done(self.root, stage):
                    continue
                failure = self._stage(job, stage, words, lock)
                if failure is not None:
                    failures.append(failure)
                if failure is not None or self._stopping.is_set():
                    return

    def _stage(self, job: Job, stage: Stage, words: Sequence[str], lock: int) -> Failure | None:
        log = self.root / "logs" / f"{job.name}-{stage.value}.log"
        self.tell(f"{job.name}: {stage.name.lower()}, told in {log}")
        started = time.monotonic()
        # a folder without a run in it, or with a part of one: both go on with --resume
        command = [*self._program, *words, "--resume"]
        with log.open("ab") as file:
            file.write(f"$ thr-probe {shlex.join(command[len(self._program) :])}\n".encode())
            file.flush()
            ended = self._process(command, file.fileno(), lock)
        if ended is None:
            return None
        exit_code, cpu_seconds = ended
        seconds = time.monotonic() - started
        self._record(job, stage, exit_code, cpu_seconds, seconds)
        done = exit_code == 0 and job.is_done(self.root, stage)
        ending = "done" if done else "stopped" if self._stopping.is_set() else "FAILED"
        self.tell(f"{job.name}: {stage.name.lower()} {ending} after {seconds:.0f} s")
        if ending != "FAILED":
            return None
        return Failure(
            job=job.name, stage=stage, exit_code=exit_code, reason=last_line(log), log=log
        )

    def _process(self, command: Sequence[str], log: int, lock: int) -> tuple[int, float] | None:
        """Run to the end; the exit code, and the CPU seconds of the process and its children.

        None where everything was stopped before it began.
        """
        with self._guard:
            # under the guard: whoever stops the others sees this process, or is seen here
            if self._stopping.is_set():
                return None
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_environment(),
                start_new_session=True,  # Ctrl-C reaches it through this process, once
                pass_fds=(lock,),  # held until the last of them has ended, even without us
            )
            self._running[process.pid] = process
        _, status, usage = os.wait4(process.pid, 0)
        with self._guard:
            del self._running[process.pid]
        process.returncode = os.waitstatus_to_exitcode(status)
        return process.returncode, usage.ru_utime + usage.ru_stime

    def _record(
        self, job: Job, stage: Stage, exit_code: int, cpu_seconds: float, seconds: float
    ) -> None:
        record = {
            "job": job.name,
            "stage": stage.name.lower(),
            "exit_code": exit_code,
            "cpu_seconds": round(cpu_seconds, 2),
            "wall_seconds": round(seconds, 2),
        }
        with self._guard, (self.root / COSTS_NAME).open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


def failure_error(failures: Sequence[Failure]) -> IncompleteError:
    """One error that names every stage that failed."""
    told = "; ".join(f"{item.job} ({item.stage.name.lower()}): {item.reason}" for item in failures)
    return IncompleteError(f"failed: {told}", f"all that was said is in {failures[0].log.parent}")


def last_line(log: Path) -> str:
    """The last line of a log that says something, the one of an error message before its hint."""
    data = log.read_bytes()[-_LOG_TAIL:].decode(errors="replace")
    lines = [line.strip() for line in data.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error:")]
    return (errors or lines or ["nothing was said"])[-1]


def _environment() -> dict[str, str]:
    """One thread; no options from the environment: a row is what its command says."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(ENVIRONMENT_PREFIX)
    }
    return kept | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


@contextmanager
def _lock(path: Path) -> Iterator[int | None]:
    """Holds a job for this process and the ones it starts; None where another has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        yield descriptor
    finally:
        os.close(descriptor)
