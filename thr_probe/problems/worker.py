"""The far end of a pool: a process that calls one function on pairs of strings to the end.

It reads frames (four bytes of length, JSON) with a batch of pairs and answers one frame per pair.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import resource
import signal
import struct
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

GRACE_S = 2.0
"""Behind the limit: a worker whose parent is gone ends itself."""


def main(settings: Mapping[str, Any]) -> None:
    """Serve settings["function"] ("module:name") on standard input and output.

    settings: limit_s; memory_bytes the calls may take beyond what loading took (0: no limit);
    warm_up, pairs to call the function on before it is ready, so that no item pays for first use.
    """
    source, sink = _take_channels()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    logging.disable(logging.WARNING)  # math-verify warns that the limit is ours to keep
    try:
        call = resolve(settings["function"])
        for first, second in settings["warm_up"]:
            call(first, second)
    except Exception as error:  # noqa: BLE001  a user's module may raise anything while it loads
        send(sink, ["refused", _describe(error)])
        return
    _limit_memory(settings["memory_bytes"])
    send(sink, ["ready"])
    while (batch := receive(source)) is not None:
        for first, second in batch:
            signal.setitimer(signal.ITIMER_REAL, settings["limit_s"] + GRACE_S)
            outcome = _outcome(call, first, second)
            signal.setitimer(signal.ITIMER_REAL, 0)
            send(sink, outcome)


def resolve(function: str) -> Callable[[str, str], Any]:
    """The function that "module:name" means."""
    module, _, name = function.partition(":")
    found = getattr(importlib.import_module(module), name)
    if not callable(found):
        raise TypeError(f"{name} is not a function")
    # what it returns is checked at every call
    return cast("Callable[[str, str], Any]", found)


def send(sink: BinaryIO, message: object) -> None:
    """Write one frame."""
    payload = json.dumps(message).encode("ascii")
    sink.write(struct.pack(">I", len(payload)) + payload)
    sink.flush()


def receive(source: BinaryIO) -> Any | None:
    """Read one frame; None at the end of the input."""
    header = source.read(4)
    if len(header) < 4:
        return None
    return json.loads(source.read(struct.unpack(">I", header)[0]))


def _outcome(call: Callable[[str, str], Any], first: str, second: str) -> list[object]:
    try:
        value = call(first, second)
        return ["ok", value if isinstance(value, str) else float(value)]
    except MemoryError:
        return ["died", "out of memory"]
    except Exception as error:  # noqa: BLE001  a user's function may raise anything
        return ["raised", _describe(error)]


def _describe(error: Exception) -> str:
    traceback = error.__traceback__
    place = ""
    while traceback is not None:
        place = f" ({Path(traceback.tb_frame.f_code.co_filename).name}:{traceback.tb_lineno})"
        traceback = traceback.tb_next
    return f"{type(error).__name__}: {error}{place}"


def _limit_memory(memory_bytes: int) -> None:
    """Let the address space grow by that much and no further (where the system tells its size)."""
    pages = Path("/proc/self/statm")
    if memory_bytes and pages.exists():
        now = int(pages.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + memory_bytes, now + memory_bytes))


def _take_channels() -> tuple[BinaryIO, BinaryIO]:
    """Keep the pipes to ourselves: what a function prints goes to standard error."""
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return source, sink
