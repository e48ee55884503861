"""One row of thr_overhead.py or thr_scaling.py: a route on stored states, in a process of its own.

Prints one line of JSON. Called by the two scripts; processor seconds, MiB.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from thr_probe.core.columns import pass_for_columns
from thr_probe.core.decide import Decided, decided
from thr_probe.core.group import TokenGroup
from thr_probe.core.head import Head, HeadPass, head_pass
from thr_probe.core.routes import Route, prepared
from thr_probe.core.thr import threshold


def main() -> None:
    """Measure what the command line's JSON asks for."""
    call = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    stored = torch.load(call["states"], mmap=True, weights_only=True)
    group = TokenGroup(*(stored[name].clone() for name in ("hidden", "ids", "index", "correct")))
    head = Head(stored["weight"].clone())
    if call["row"] == "old":
        told = {"memory": peak_of(lambda: head_pass(group.hidden_ND, group.token_ids_N, head))}
    else:
        told = route(call, group, head)
    print(json.dumps(told))


def seconds(run: Callable[[], Any]) -> float:
    """Processor seconds of a call."""
    start = time.process_time()
    run()
    return time.process_time() - start


def peak_of(run: Callable[[], Any]) -> float:
    """MiB that a call takes at its peak beyond what was resident before."""
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    run()
    return (_status("VmHWM") - before) / 1024


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def scored(
    group: TokenGroup, head: Head, vocab: str, read: HeadPass | None, *, exact: bool = False
) -> Decided:
    """THR and tau by a route, as the probe asks for them."""
    group, head, weight_N = prepared(group, head)
    return decided(
        group,
        head,
        weight_N,
        Route(vocab=vocab, exact=exact),
        sign_N=group.signs,
        tau_of=lambda thr_N: threshold(thr_N, group),
        read=read,
    )


def route(call: dict[str, Any], group: TokenGroup, head: Head) -> dict[str, Any]:
    """Seconds and memory of a route beyond a plain pass over the vocabulary, and its numbers."""
    restricted = call["row"] in {"sparse", "group"}

    def plain() -> HeadPass:
        return head_pass(group.hidden_ND, group.token_ids_N, head)

    def passed() -> HeadPass:
        return pass_for_columns(group, head, group.likelihood_weights, chunk_size=1024)

    def first() -> None:
        nonlocal read, found
        read = passed() if restricted else None
        found = scored(group, head, call["row"], read)

    read: HeadPass | None = None
    found: Decided | None = None
    # later calls find memory that an earlier one left resident
    memory = peak_of(first)
    assert found is not None
    plains, extras, routes = [], [], []
    for _ in range(call["repeats"]):
        plains.append(seconds(plain))
        extras.append(seconds(passed) - plains[-1] if restricted else 0.0)
        routes.append(seconds(lambda: scored(group, head, call["row"], read)))
    if "out" in call:
        torch.save(found.score_N, call["out"])
    return {
        "head": statistics.median(plains),
        "pass": statistics.median(extras),
        "route": statistics.median(routes),
        "memory": memory,
        "open": _share(found.open_N),
        "undecided": _share(found.undecided_N),
        "sign_open": _share(found.score_N.abs() <= found.error_N),
        "columns": found.num_columns,
        "vocab": len(head.weight_VD),
    }


def _share(mask_N: Tensor) -> float:
    return float(mask_N.double().mean())


if __name__ == "__main__":
    main()
