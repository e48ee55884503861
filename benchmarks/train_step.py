"""One training step of thr_probe beside one of TRL's GRPOTrainer: time, tokens, memory.

python benchmarks/train_step.py                  lab policy, CPU, one thread; with TRL installed
python benchmarks/train_step.py --without-trl    thr_probe alone
python benchmarks/train_step.py --device cuda    a policy of Qwen2.5-0.5B's shape, bfloat16, alone

README.md says what is compared and how to install TRL beside thr_probe. Every row of a repetition
is a process of its own; repetitions take turns, and ratios are those of neighbours.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from ratios import keep
from step_sizes import PHASES, Report, Sizes
from tables import print_table, told

INSTALL = "pip install -c constraints.txt -e . trl==1.16.0 accelerate datasets"
OURS = ("thr", "grpo")
SCRIPTS = {
    **dict.fromkeys(OURS, "step_thr_probe.py"),
    "trl": "step_trl.py",
    "parts": "step_parts.py",
    "policy": "step_random_policy.py",
}
"""What each process runs."""
MISSING = 4
"""Exit code where a prerequisite is missing, as thr-probe's."""


def main() -> int:
    """Run what the command line asks for; the exit code."""
    arguments = _arguments()
    if arguments.device == "cuda":
        return _on_cuda(arguments)
    sizes = Sizes(steps=arguments.steps)
    has_trl = importlib.util.find_spec("trl") is not None and not arguments.without_trl
    if arguments.ratios and not has_trl:
        return _without_trl()  # there is no ratio to keep
    reports = _repetitions((*OURS, "trl") if has_trl else OURS, sizes, arguments.repeats)
    _print_steps(reports)
    _print_phases(reports)
    if not has_trl:
        return 0 if arguments.without_trl else _without_trl()
    parts = json.loads(_run("parts", sizes))
    _print_parts(parts)
    if arguments.ratios:
        keep(arguments.ratios, {**_step_ratios(reports), **_part_ratios(parts)})
    return 0


def _without_trl() -> int:
    print(
        "\nTRL is not installed beside this Python, so there is nothing to compare with. In an "
        f"environment of its own (benchmarks/README.md):\n    {INSTALL}",
        file=sys.stderr,
    )
    return MISSING


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--repeats", type=int, default=3, help="processes per row")
    parser.add_argument("--steps", type=int, default=3, help="timed steps per process")
    parser.add_argument("--quick", action="store_true", help="one process per row, one timed step")
    parser.add_argument("--ratios", help="JSON file to merge the ratios to TRL into")
    parser.add_argument("--without-trl", action="store_true", help="thr_probe's rows alone")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.repeats = arguments.steps = 1
    return arguments


def _run(side: str, sizes: Sizes) -> str:
    """The last line that a process of its own prints."""
    script = Path(__file__).resolve().with_name(SCRIPTS[side])
    call = {"side": side, "sizes": asdict(sizes)}
    command = [sys.executable, str(script), json.dumps(call)]
    path = os.pathsep.join([str(script.parent), os.environ.get("PYTHONPATH", "")])
    threads = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": path}
    print(f"running {side}, seed {sizes.seed}", file=sys.stderr)
    ran = subprocess.run(
        command, env={**os.environ, **threads}, stdout=subprocess.PIPE, text=True, check=True
    )
    return ran.stdout.splitlines()[-1]


def _repetitions(sides: Sequence[str], sizes: Sizes, repeats: int) -> dict[str, list[Report]]:
    """Reports by side; the sides take turns, and every repetition has its own draws."""
    reports: dict[str, list[Report]] = {side: [] for side in sides}
    for repeat in range(repeats):
        for side in sides:
            line = _run(side, replace(sizes, seed=repeat))
            reports[side].append(Report.from_json(line))
    return reports


def _on_cuda(arguments: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as folder:
        sizes = Sizes(
            prompts=32,
            updates=2,
            max_new_tokens=1024,
            chunk_size=1024,
            steps=arguments.steps,
            lr=5e-7,
            model=folder,
            device="cuda",
            dtype="bfloat16",
            verifier="step_coin:coin",
        )
        _run("policy", sizes)
        reports = _repetitions(OURS, sizes, arguments.repeats)
    _print_steps(reports)
    _print_phases(reports)
    return 0


def _wall(report: Report) -> float:
    return statistics.mean(step.seconds for step in report.steps)


def _cpu(report: Report) -> float:
    return statistics.mean(step.cpu for step in report.steps)


def _wall_per_token(report: Report) -> float:
    return sum(step.seconds for step in report.steps) / sum(step.tokens for step in report.steps)


def _cpu_per_token(report: Report) -> float:
    return sum(step.cpu for step in report.steps) / sum(step.tokens for step in report.steps)


def _thr_share(report: Report) -> float:
    return sum(step.phases["thr"] for step in report.steps) / sum(
        sum(step.phases.values()) for step in report.steps
    )


COLUMNS: Mapping[str, Callable[[Report], float]] = {
    "wall s/step": _wall,
    "CPU s/step": _cpu,
    "tokens/s, wall": lambda report: 1 / _wall_per_token(report),
    "tokens/s, CPU": lambda report: 1 / _cpu_per_token(report),
    "THR share %": lambda report: 100 * _thr_share(report),
    "peak MiB": lambda report: report.peak / 2**20,
    "of it before the steps": lambda report: report.loaded / 2**20,
}

RATIOS: Mapping[str, Callable[[Report], float]] = {
    "steps/s to TRL, wall": _wall,
    "steps/s to TRL, CPU": _cpu,
    "tokens/s to TRL, wall": _wall_per_token,
    "tokens/s to TRL, CPU": _cpu_per_token,
}


def _print_steps(reports: Mapping[str, Sequence[Report]]) -> None:
    rows = []
    for side, own in reports.items():
        row = [side, *(told([read(report) for report in own]) for read in COLUMNS.values())]
        if "trl" in reports:
            pairs = list(zip(reports["trl"], own, strict=True))
            row += [
                told([read(trl) / read(mine) for trl, mine in pairs]) for read in RATIOS.values()
            ]
        rows.append(row)
    print_table(["row", *COLUMNS, *(RATIOS if "trl" in reports else ())], rows)


def _step_ratios(reports: Mapping[str, Sequence[Report]]) -> dict[str, float]:
    """Processor time of TRL's step over ours: wall time says more of the machine than of either."""
    pairs = {side: list(zip(reports["trl"], reports[side], strict=True)) for side in OURS}
    return {
        f"train_step.{side}_vs_trl": statistics.median(_cpu(trl) / _cpu(mine) for trl, mine in own)
        for side, own in pairs.items()
    }


def _part_ratios(parts: Mapping[str, Sequence[tuple[float, float]]]) -> dict[str, float]:
    return {
        f"train_step.{name}_vs_trl": statistics.median(trl / ours for ours, trl in turns)
        for name, turns in parts.items()
    }


def _print_phases(reports: Mapping[str, Sequence[Report]]) -> None:
    rows = []
    for side, own in reports.items():
        totals = [sum(sum(step.phases.values()) for step in report.steps) for report in own]
        row = [side]
        for phase in PHASES:
            spent = [sum(step.phases[phase] for step in report.steps) for report in own]
            row.append(told([100 * a / b for a, b in zip(spent, totals, strict=True)]))
        rows.append(row)
    print_table(["% of a step", *PHASES], rows)


def _print_parts(parts: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    rows = [
        [
            name,
            told([ours for ours, _ in turns]),
            told([trl for _, trl in turns]),
            told([trl / ours for ours, trl in turns]),
        ]
        for name, turns in parts.items()
    ]
    print_table(["same completions, CPU s", "thr_probe", "TRL", "speed ratio"], rows)


if __name__ == "__main__":
    sys.exit(main())
