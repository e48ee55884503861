"""Threads that stand for processes, and a verifier without processes of its own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Barrier

from thr_probe.problems import Verdict, VerifyStatus
from thr_probe.processes import World


class StartsWith:
    """Right where the completion's text begins with the gold."""

    name = "same"

    def verify(self, completions, answers):
        right = [text.startswith(golds) for text, golds in zip(completions, answers, strict=True)]
        return [
            Verdict(reward=float(is_right), correct=is_right, extracted="", status=VerifyStatus.OK)
            for is_right in right
        ]

    def close(self):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()


@dataclass(frozen=True, kw_only=True)
class Thread(World):
    """One of several threads that stand for processes."""

    board: dict
    barrier: Barrier

    def gather(self, value):
        self.board[self.rank] = value
        self.barrier.wait(60)
        values = [self.board[rank] for rank in range(self.size)]
        self.barrier.wait(60)
        return values


def on_threads(size, call):
    """What `call(world)` returns on each of `size` threads."""
    board, barrier = {}, Barrier(size)
    worlds = [
        Thread(rank=rank, size=size, local_rank=rank, board=board, barrier=barrier)
        for rank in range(size)
    ]
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(call, worlds))
