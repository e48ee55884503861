"""What `thr-probe collect` costs beyond its sampler, and how many completions it verifies a second.

python benchmarks/collect.py                the lab: its policy, its problems, its completions
python benchmarks/collect.py --data FOLDER  verification of real completions too

The bare sampler and collect take turns in one process, with one policy in memory, over the same
prompts; the completions are compared before a time is told.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from clocks import Seconds
from collect_sides import PARTS, SAMPLING, Taken, collected, lab_tasks, sampled
from collect_verifier import Rates, real_rows, verification
from ratios import keep
from tables import print_table, told

from thr_probe.config import CollectConfig
from thr_probe.policy import Policy
from thr_probe.processes import World
from thr_probe.score import policy_of

BARE, PLAIN, SCORED = "sampler alone", "collect --no-score", "collect"
Turn = Mapping[str, Taken]


def main() -> int:
    """Run what the command line asks for; the exit code."""
    arguments = _arguments()
    torch.set_num_threads(1)
    config = CollectConfig(max_prompts=arguments.prompts, device="cpu")
    policy = policy_of(config, World.from_environment())
    _turn(policy, config, 0)  # the first is not counted
    turns = [_turn(policy, config, index) for index in range(arguments.repeats)]
    _print_sides(turns)
    _print_parts(turns)
    rates = {"lab": verification(_lab_rows(config, policy, turns[0]))}
    if arguments.data:
        rates |= {name: verification(rows) for name, rows in real_rows(Path(arguments.data))}
    print_table(["completions", *Rates.HEAD], [[name, *own.cells()] for name, own in rates.items()])
    if arguments.ratios:
        keep(arguments.ratios, _ratios(turns, rates))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--prompts", type=int, default=64, help="lab problems per repetition")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--data",
        default=os.environ.get("THR_PROBE_TEST_DATA"),
        help="folder with rollouts/ of real completions; unset: THR_PROBE_TEST_DATA",
    )
    parser.add_argument("--quick", action="store_true", help="half the problems, twice, lab only")
    parser.add_argument("--ratios", help="JSON file to merge the ratios into")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.prompts, arguments.repeats, arguments.data = 32, 2, None
    return arguments


def _turn(policy: Policy, config: CollectConfig, index: int) -> Turn:
    """Every side once, in an order that rotates.

    Raises:
        AssertionError: they did not draw the same completions.
    """
    print(f"repetition {index}", file=sys.stderr)
    sides: list[tuple[str, Callable[[], Taken]]] = [
        (BARE, lambda: sampled(policy, config)),
        (PLAIN, lambda: collected(policy, config, score=False)),
        (SCORED, lambda: collected(policy, config, score=True)),
    ]
    first = index % len(sides)
    turn = {name: run() for name, run in sides[first:] + sides[:first]}
    assert all(taken.completions == turn[BARE].completions for taken in turn.values())
    return turn


def _print_sides(turns: Sequence[Turn]) -> None:
    drawn = turns[0][BARE].completions
    print(f"\n{len(drawn)} completions of {sum(map(len, drawn)) / len(drawn):.0f} tokens")
    rows = []
    for side in (BARE, PLAIN, SCORED):
        own = [turn[side].whole for turn in turns]
        row = [side, told([each.wall for each in own]), told([each.cpu for each in own])]
        if side == BARE:
            row += [""] * 4
        else:
            pairs = [(turn[side].whole, turn[BARE].whole) for turn in turns]
            inside = [(turn[side].beyond_sampling, turn[side].parts[SAMPLING]) for turn in turns]
            row += [told([100 * (a.wall / b.wall - 1) for a, b in pairs])]
            row += [told([100 * (a.cpu / b.cpu - 1) for a, b in pairs])]
            row += [told([100 * a.wall / b.wall for a, b in inside])]
            row += [told([100 * a.cpu / b.cpu for a, b in inside])]
        rows.append(row)
    against = ["over the sampler alone, wall %", "CPU %"]
    within = ["outside of its own sampler, wall %", "CPU %"]
    print_table(["side", "wall s", "CPU s", *against, *within], rows)


def _print_parts(turns: Sequence[Turn]) -> None:
    parts = [part for part in PARTS if part != SAMPLING]
    rows = []
    for side in (PLAIN, SCORED):
        own = [turn[side] for turn in turns]
        row = [side, *(_share([(each.parts[part], each) for each in own]) for part in parts)]
        rows.append([*row, _share([(each.rest, each) for each in own])])
    print_table(["CPU, % of the sampling", *parts, "rest"], rows)


def _share(spans: Sequence[tuple[Seconds, Taken]]) -> str:
    return told([100 * span.cpu / taken.parts[SAMPLING].cpu for span, taken in spans])


def _lab_rows(config: CollectConfig, policy: Policy, turn: Turn) -> list[tuple[str, str]]:
    golds = [
        task.problem.answer for task in lab_tasks(policy, config) for _ in range(config.group_size)
    ]
    texts = [policy.decode(ids) for ids in turn[BARE].completions]
    return list(zip(texts, golds, strict=True))


def _ratios(turns: Sequence[Turn], rates: Mapping[str, Rates]) -> dict[str, float]:
    def overhead(side: str) -> float:
        own = [turn[side] for turn in turns]
        return statistics.median(
            each.beyond_sampling.cpu / each.parts[SAMPLING].cpu for each in own
        )

    return {
        "collect.overhead": overhead(PLAIN),
        "collect.overhead_with_scores": overhead(SCORED),
        "collect.verified_vs_math_verify": rates["lab"].ratio,
    }


if __name__ == "__main__":
    sys.exit(main())
