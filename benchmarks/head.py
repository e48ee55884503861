"""The chunked head beside the whole matrix of logits and beside fused linear cross-entropies.

python benchmarks/head.py                  CPU, one thread: the lab's shape and Qwen2.5-0.5B's
python benchmarks/head.py --device cuda    Qwen2.5-1.5B's and 7B's, bfloat16

Every call is a process of its own, so that its peak memory is; rows take turns. Rows whose package
is not installed are left out by name. All rows must find the same before a time is told.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ratios import keep
from tables import print_table, told

OURS, WHOLE = "thr_probe", "log_softmax"
SHAPES = {
    "cpu": {
        "lab": {"V": 640, "D": 128, "N": 16_384},
        "qwen-0.5b": {"V": 151_936, "D": 896, "N": 2048},
    },
    "cuda": {
        "qwen-1.5b": {"V": 151_936, "D": 1536, "N": 8192},
        "qwen-7b": {"V": 152_064, "D": 3584, "N": 8192},
    },
}
PACKAGES = {
    "cpu": {
        OURS: "torch",
        WHOLE: "torch",
        "cross_entropy": "torch",
        "linear_cross_entropy": "torch",
        "cut-cross-entropy compiled": "cut_cross_entropy",
    },
}
PACKAGES["cuda"] = {
    **PACKAGES["cpu"],
    "cut-cross-entropy": "cut_cross_entropy",
    "Liger": "liger_kernel",
}
"""Rows and the package that each needs."""
TOLERANCE = {"cpu": 1e-3, "cuda": 5e-2}
"""Relative to the largest value, of float32 and of bfloat16."""
Call = Mapping[str, Any]


def main() -> int:
    """Run what the command line asks for; the exit code."""
    arguments = _arguments()
    missing = sorted(set(PACKAGES[arguments.device]) - set(_rows(arguments.device)))
    if missing:
        print(f"not installed, left out: {', '.join(missing)}", file=sys.stderr)
    ratios: dict[str, float] = {}
    for name, shape in SHAPES[arguments.device].items():
        for backward in (False, True):
            plan = _plan(arguments, name)
            calls = _repetitions(plan, shape, arguments.device, backward=backward)
            assert_same(calls, TOLERANCE[arguments.device])
            _print_calls(calls, name, shape, backward=backward)
            ratios |= _ratios(calls, f"{name}.{'backward' if backward else 'forward'}")
    if arguments.ratios:
        keep(arguments.ratios, ratios)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--device", choices=tuple(SHAPES), default="cpu")
    parser.add_argument("--repeats", type=int, default=3, help="processes per row")
    parser.add_argument(
        "--quick", action="store_true", help="one process per row at the larger shape, no fused row"
    )
    parser.add_argument("--ratios", help="JSON file to merge the ratios into")
    return parser.parse_args()


def _rows(device: str) -> list[str]:
    """The rows that can run here."""
    packages = PACKAGES[device].items()
    return [row for row, package in packages if importlib.util.find_spec(package) is not None]


def _plan(arguments: argparse.Namespace, shape: str) -> list[str]:
    """The rows of every repetition, one repetition after the other."""
    rows = [OURS, WHOLE] if arguments.quick else _rows(arguments.device)
    once = arguments.quick and shape != "lab"
    return rows * (1 if once else arguments.repeats)


def _repetitions(
    plan: Sequence[str], shape: Mapping[str, int], device: str, *, backward: bool
) -> dict[str, list[Call]]:
    calls: dict[str, list[Call]] = {row: [] for row in plan}
    for row in plan:
        print(f"{row}, {shape}{', backward' if backward else ''}", file=sys.stderr)
        call = {"row": row, "shape": shape, "backward": backward, "device": device}
        calls[row].append(json.loads(_run(call)))
    return calls


def _run(call: Mapping[str, object]) -> str:
    script = Path(__file__).with_name("head_call.py")
    command = [sys.executable, str(script), json.dumps(call)]
    threads = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    ran = subprocess.run(
        command, env={**os.environ, **threads}, stdout=subprocess.PIPE, text=True, check=True
    )
    return ran.stdout.splitlines()[-1]


def assert_same(calls: Mapping[str, Sequence[Call]], tolerance: float) -> None:
    """Every row found what the whole matrix gives, in all that it found.

    Raises:
        AssertionError: naming what differs.
    """
    for row, own in calls.items():
        for name, wanted in calls[WHOLE][0]["found"].items():
            found = own[0]["found"].get(name)
            if found is None:
                continue
            scale = float(np.abs(wanted).max())
            message = f"{row}: {name}"
            np.testing.assert_allclose(found, wanted, 0, tolerance * scale, err_msg=message)


def _print_calls(
    calls: Mapping[str, Sequence[Call]], name: str, shape: Mapping[str, int], *, backward: bool
) -> None:
    what = "forward and backward" if backward else "forward"
    rows = []
    for row, own in calls.items():
        pairs = list(zip(calls[WHOLE], own, strict=True))
        cells = [
            told([call["wall"] for call in own]),
            told([call["cpu"] for call in own]),
            told([call["extra"] / 2**20 for call in own]),
            told([whole["wall"] / call["wall"] for whole, call in pairs]),
            told([whole["cpu"] / call["cpu"] for whole, call in pairs]),
            told([call["extra"] / whole["extra"] for whole, call in pairs]),
        ]
        yields = "gradients" if backward else _yields(own[0])
        rows.append([row, yields, *cells])
    head = ["wall s", "CPU s", "extra MiB", "speed, wall", "speed, CPU", "memory"]
    sizes = ", ".join(f"{letter} {size}" for letter, size in shape.items())
    print_table([f"{name} ({sizes}), {what}", "yields", *head], rows)


def _yields(call: Call) -> str:
    return "log pi, entropy" if call["found"]["entropy"] is not None else "log pi"


def _ratios(calls: Mapping[str, Sequence[Call]], name: str) -> dict[str, float]:
    pairs = list(zip(calls[WHOLE], calls[OURS], strict=True))
    speed = statistics.median(whole["cpu"] / ours["cpu"] for whole, ours in pairs)
    memory = statistics.median(ours["extra"] / whole["extra"] for whole, ours in pairs)
    return {f"head.{name}.speed": speed, f"head.{name}.memory_share": memory}


if __name__ == "__main__":
    sys.exit(main())
