"""Run a function in several processes that talk by gloo, as under torchrun; it can never hang."""

from __future__ import annotations

import importlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import torch.distributed as dist

from thr_probe.processes import World


def run_in_processes(module, function, folder, *, size=2, timeout=150):
    """Call `module.function(world, folder)` in `size` processes; what they print, by rank.

    The module lies in tests/. Results travel in files of the folder. A process that fails, or that
    is still there after `timeout` seconds, ends all of them and fails the test.
    """
    tests = Path(__file__).parent
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "PYTHONPATH": os.pathsep.join([str(tests), str(tests.parent)]),
        "OMP_NUM_THREADS": "1",
    }
    logs = [folder / f"rank-{rank}.log" for rank in range(size)]
    command = [sys.executable, __file__, module, function, str(folder)]
    processes = []
    try:
        for rank, log in enumerate(logs):
            ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            with log.open("w") as output:
                processes.append(
                    subprocess.Popen(
                        command, env=environment | ranks, stdout=output, stderr=subprocess.STDOUT
                    )
                )
        codes = _wait(processes, timeout)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    printed = [log.read_text() for log in logs]
    assert codes == [0] * size, f"exit codes {codes} (None: still running)\n" + "\n".join(printed)
    return printed


def _wait(processes, timeout):
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        codes = [process.poll() for process in processes]
        if None not in codes or any(codes):  # the others would wait for one that failed
            break
        time.sleep(0.05)
    return [process.poll() for process in processes]


def _main():
    module, function, folder = sys.argv[1:]
    world = World.from_environment()
    getattr(importlib.import_module(module), function)(world, Path(folder))
    dist.destroy_process_group()


if __name__ == "__main__":
    _main()
