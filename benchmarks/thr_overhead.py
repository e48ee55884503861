"""What THR costs beside the pass for the old log-probabilities, and whether its certificate holds.

python benchmarks/thr_overhead.py                     Qwen2.5-0.5B's shape, CPU, one thread
python benchmarks/thr_overhead.py --part certificate  only the count of violated bounds

States are drawn (`llm_states.py`), their likeness to a model's is printed. Each row is a process of
its own, for its peak memory; the truth is the full route in float64 from the same states.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from llm_states import Shape, World, calibration, group, world
from ratios import keep
from tables import number, print_table
from thr_routes import scored

from thr_probe.core.decide import Decided
from thr_probe.core.group import TokenGroup
from thr_probe.core.head import Head
from thr_probe.core.thr import dominant_mask, threshold, token_hidden_reward

QWEN = Shape(vocab=151_936, hidden=896, tokens=2048)
LAB = Shape(vocab=640, hidden=128, tokens=2000)
LAYERS = {
    "vocab_size": 1024,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
}
"""Qwen2.5-0.5B below its head; the embedding, a look-up, is kept small."""
ROWS = ("full", "group", "sparse", "pairwise")


def main() -> int:
    """Run what the command line asks for; 1 where a bound was violated."""
    arguments = _arguments()
    torch.set_num_threads(1)
    qwen = Shape(QWEN.vocab, QWEN.hidden, 512 if arguments.quick else QWEN.tokens)
    ratios: dict[str, float] = {}
    if arguments.part != "certificate":
        ratios |= overhead(qwen, repeats=1 if arguments.quick else arguments.repeats)
    violated = 0
    if arguments.part != "overhead":
        violated = certificates(*((20_000, 1000) if arguments.quick else (1_000_000, 20_000)))
    if arguments.ratios:
        keep(arguments.ratios, ratios)
    if violated:
        print(f"\nThe certificate was violated at {violated} tokens.", file=sys.stderr)
    return int(violated > 0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer tokens, one repetition")
    parser.add_argument("--repeats", type=int, default=3, help="timed calls of a row")
    parser.add_argument("--part", choices=("all", "overhead", "certificate"), default="all")
    parser.add_argument("--ratios", type=Path, help="merge the ratios into this JSON file")
    return parser.parse_args()


def overhead(shape: Shape, *, repeats: int) -> dict[str, float]:
    """The table of routes at one shape, and its ratios."""
    made = world(shape.vocab, shape.hidden)
    drawn = group(made, shape, seed=0)
    print(f"\n{shape.tokens} tokens, V {shape.vocab}, D {shape.hidden}; the states:")
    print_table(*_calibration(made, drawn))
    truth_N = exact(drawn, made.head)
    with tempfile.TemporaryDirectory() as folder:
        states = Path(folder) / "states.pt"
        store(states, made.head, drawn)
        old = row_of({"row": "old", "states": str(states)})
        layers = {"row": "layers", "states": str(states), "layers": LAYERS, "repeats": repeats}
        old |= row_of(layers, script="thr_layers.py")
        rows = {}
        for name in ROWS:
            out = Path(folder) / f"{name}.pt"
            call = {"row": name, "states": str(states), "out": str(out), "repeats": repeats}
            rows[name] = row_of(call) | _accuracy(
                torch.load(out, weights_only=True), truth_N, drawn
            )
    head = statistics.median(row["head"] for row in rows.values())
    return _print_rows(rows, head, old)


def _calibration(made: World, drawn: TokenGroup) -> tuple[list[str], list[list[str]]]:
    told = calibration(made, drawn)
    return list(told), [[number(value) for value in told.values()]]


def exact(drawn: TokenGroup, head: Head) -> torch.Tensor:
    """THR by the full route in float64 from the same states and weights."""
    double = TokenGroup(
        drawn.hidden_ND.double(), drawn.token_ids_N, drawn.rollout_index_N, drawn.correct_G
    )
    return token_hidden_reward(double, Head(head.weight_VD.double()), chunk_size=256).thr_N


def store(path: Path, head: Head, drawn: TokenGroup) -> None:
    """Write states, ids and unembedding for `row_of`."""
    torch.save(
        {
            "weight": head.weight_VD,
            "hidden": drawn.hidden_ND,
            "ids": drawn.token_ids_N,
            "index": drawn.rollout_index_N,
            "correct": drawn.correct_G,
        },
        path,
    )


def row_of(call: dict[str, Any], *, script: str = "thr_routes.py") -> dict[str, Any]:
    """What a process of its own measured."""
    print(f"  {call['row']} ...", file=sys.stderr, flush=True)
    run = subprocess.run(
        [sys.executable, str(Path(__file__).with_name(script)), json.dumps(call)],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    told: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return told


def _accuracy(thr_N: torch.Tensor, truth_N: torch.Tensor, drawn: TokenGroup) -> dict[str, float]:
    error_N = (thr_N.double() - truth_N).abs()
    dominant_N = dominant_mask(truth_N, threshold(truth_N, drawn))
    tau = threshold(thr_N.double(), drawn)
    return {
        "l2": float(error_N.norm() / truth_N.norm()),
        "dominant": float((error_N / truth_N.abs())[dominant_N].max()),
        "agree": float((dominant_mask(thr_N, tau) == dominant_N).double().mean()),
    }


def _print_rows(
    rows: dict[str, dict[str, Any]], head: float, rest: dict[str, Any]
) -> dict[str, float]:
    old = head + rest["layers"]
    print(
        f"\nOld-logprob pass: {number(old)} CPU s, of it layers {number(rest['layers'])}, head "
        f"{number(head)}; peak of the head {number(rest['memory'])} MiB."
    )
    print_table(
        (
            "route",
            "CPU s",
            "of it in the pass",
            "% of the old-logprob pass",
            "peak extra MiB",
            "relative L2 error",
            "largest of a dominant token",
            "mask agreement %",
            "open at first %",
            "undecided %",
            "sign open %",
            "columns",
        ),
        [_told(name, row, old) for name, row in rows.items()],
    )
    ratios = {f"thr_overhead.{name}_share": cost(row) / old for name, row in rows.items()}
    return ratios | {"thr_overhead.full_over_sparse": cost(rows["full"]) / cost(rows["sparse"])}


def cost(row: dict[str, Any]) -> float:
    """Processor seconds that a route adds to the old-logprob pass."""
    return float(row["pass"] + row["route"])


def _told(name: str, row: dict[str, Any], old: float) -> list[str]:
    return [
        name,
        number(cost(row)),
        number(row["pass"]),
        number(100 * cost(row) / old),
        number(row["memory"]),
        f"{row['l2']:.1e}",
        f"{row['dominant']:.1e}",
        f"{100 * row['agree']:.2f}",
        f"{100 * row['open']:.3f}",
        f"{100 * row['undecided']:.3f}",
        f"{100 * row['sign_open']:.2f}",
        str(row["columns"]),
    ]


@dataclass(slots=True)
class Count:
    """What the certificate did over many groups."""

    tokens: int = 0
    """Tokens held against the truth."""
    violated: int = 0
    """Tokens whose error is above their bound."""
    worst: float = 0.0
    """Largest error over bound."""
    opened: int = 0
    """Tokens that were open at first."""
    undecided: int = 0
    """Tokens that float32 could not decide."""
    sign_open: int = 0
    """Tokens whose own sign the bound leaves open, dominant or not."""
    wrong: int = 0
    """Tokens whose mask or, where dominant, sign differs from the truth's."""
    wrong_exact: int = 0
    """The same, with undecided tokens computed again in float64."""
    nonpositive: int = 0
    """Tokens of groups with tau <= 0, where every sign counts."""


def certificates(lab_tokens: int, qwen_tokens: int) -> int:
    """Count violated bounds at the lab's shape and at Qwen2.5-0.5B's."""
    counts = {}
    for name, shape, tokens in (("lab", LAB, lab_tokens), ("qwen-0.5b", QWEN, qwen_tokens)):
        size = Shape(shape.vocab, shape.hidden, min(2000, tokens))
        made = world(shape.vocab, shape.hidden)
        counts[name] = Count()
        for seed in range(tokens // size.tokens):
            print(f"  certificate {name} {seed} ...", file=sys.stderr, flush=True)
            _count(counts[name], group(made, size, seed=1 + seed), made.head)
    print("\nThe certificate of `sparse`, against float64:")
    print_table(
        (
            "shape",
            "tokens",
            "violated",
            "largest error / bound",
            "open at first %",
            "undecided %",
            "sign open %",
            "wrong mask or sign",
            "with --exact",
            "tokens with tau <= 0",
        ),
        [
            [
                name,
                str(count.tokens),
                str(count.violated),
                number(count.worst),
                f"{100 * count.opened / count.tokens:.3f}",
                f"{100 * count.undecided / count.tokens:.4f}",
                f"{100 * count.sign_open / count.tokens:.2f}",
                str(count.wrong),
                str(count.wrong_exact),
                str(count.nonpositive),
            ]
            for name, count in counts.items()
        ],
    )
    return sum(count.violated for count in counts.values())


def _count(count: Count, drawn: TokenGroup, head: Head) -> None:
    truth_N = exact(drawn, head)
    tau = threshold(truth_N, drawn)
    dominant_N = dominant_mask(truth_N, tau)
    found = scored(drawn, head, "sparse", None)
    again = scored(drawn, head, "sparse", None, exact=True) if found.undecided_N.any() else found
    for scores in (found, again):
        ratio_N = (scores.score_N - truth_N).abs() / scores.error_N
        count.violated += int((ratio_N > 1).sum())
        count.worst = max(count.worst, float(ratio_N.max()))
    count.tokens += len(truth_N)
    count.opened += int(found.open_N.sum())
    count.sign_open += int((found.score_N.abs() <= found.error_N).sum())
    count.undecided += int(found.undecided_N.sum())
    count.wrong += _wrong(found, truth_N, dominant_N)
    count.wrong_exact += _wrong(again, truth_N, dominant_N)
    count.nonpositive += len(truth_N) if tau <= 0 else 0


def _wrong(found: Decided, truth_N: torch.Tensor, dominant_N: torch.Tensor) -> int:
    mask_N = dominant_mask(found.score_N, found.tau)
    other_sign_N = (found.score_N.sign() != truth_N.sign()) & dominant_N
    return int(((mask_N != dominant_N) | other_sign_N).sum())


if __name__ == "__main__":
    sys.exit(main())
