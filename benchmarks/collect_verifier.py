"""Completions verified per second, beside math-verify called as its page says."""

from __future__ import annotations

import contextlib
import functools
import logging
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow.parquet as pq
from math_verify import parse, verify
from tables import number

from thr_probe.problems import MathVerifier

CALL = 256
"""Completions that collect verifies at once: a shard of 32 problems by 8."""
FILES = (
    "gsm8k_rlvr_checkpoints_x8",
    "gsm8k_mathcoder_L70b_x3",
    "math100_qwen_x8_rm",
    "math500_r1distill_llama8b_x80",
    "mgsm_en_s1_x17",
    "aime2024_gpt4o_claude_x10",
    "aime25_longcot_6models",
)
"""Of real completions: short and long, numbers and algebra."""
MOST = 512
"""Completions of a file, from its start, so that groups stay together."""


ALGEBRA = ("\\boxed{y=-\\frac{1}{2}x+5}", "x+2y=1")
"""A completion and its gold that only a worker process can compare."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """How long both sides took."""

    HEAD: ClassVar[Sequence[str]] = (
        "number",
        "median characters",
        "start s",
        "thr_probe/s",
        "math-verify/s",
        "ratio",
        "same verdict %",
    )

    count: int
    """Completions."""
    characters: float
    """Median length."""
    start: float
    """Seconds until the worker is ready, once in a run that needs it."""
    ours: float
    """Seconds of all calls after that."""
    math_verify: float
    """Seconds of math-verify in this process, loaded before."""
    agree: float
    """Share of completions with the same verdict."""

    @property
    def ratio(self) -> float:
        """How many times as fast as math-verify, by wall time: one process waits for the other."""
        return self.math_verify / self.ours

    def cells(self) -> list[str]:
        """As a row of the table."""
        rates = [self.start, self.count / self.ours, self.count / self.math_verify]
        return [
            str(self.count),
            number(self.characters),
            *map(number, [*rates, self.ratio, 100 * self.agree]),
        ]


def verification(rows: Sequence[tuple[str, str]]) -> Rates:
    """Both sides over (completion, gold) rows, in turns of a call.

    Ours has one worker, so both have one processor; no answer is asked for twice but where the
    rows hold it twice.
    """
    ours = theirs = 0.0
    same = 0
    with MathVerifier(num_workers=1) as verifier:
        start = _timed(lambda: verifier.verify([ALGEBRA[0]], [ALGEBRA[1]]))[0]
        _math_verify(*ALGEBRA)
        for first in range(0, len(rows), CALL):
            part = rows[first : first + CALL]
            completions, golds = zip(*part, strict=True)
            taken, verdicts = _timed(functools.partial(verifier.verify, completions, golds))
            ours += taken
            taken, others = _timed(lambda part=part: [_math_verify(*row) for row in part])
            theirs += taken
            same += sum(a.correct == b for a, b in zip(verdicts, others, strict=True))
    return Rates(
        count=len(rows),
        characters=statistics.median(len(completion) for completion, _ in rows),
        start=start,
        ours=ours,
        math_verify=theirs,
        agree=same / len(rows),
    )


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    begin = time.perf_counter()
    result = work()
    return time.perf_counter() - begin, result


def _math_verify(completion: str, gold: str) -> bool:
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    with contextlib.suppress(Exception):
        return bool(verify(parse(f"${gold}$"), parse(completion)))
    return False


def real_rows(folder: Path) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """(completion, gold) of every file that is there, by its name."""
    for name in FILES:
        path = folder / "rollouts" / f"{name}.parquet"
        if path.exists():
            table = pq.read_table(path, columns=["completion", "gold"]).slice(0, MOST)
            yield name, list(zip(*table.to_pydict().values(), strict=True))
