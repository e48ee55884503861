"""How time and memory of THR grow with the tokens of a group.

python benchmarks/thr_scaling.py      V 8,192 up to 32k tokens, V 151,936 up to 8k; one thread

full is linear in the tokens, sparse where the vocabulary is large; pairwise is quadratic and stops
at 4k. Each row is a process of its own; processor time of the route with the pass over the
vocabulary that sparse needs.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from llm_states import Shape, World, group, world
from ratios import keep
from tables import number, print_table
from thr_overhead import row_of, store


@dataclass(frozen=True, slots=True)
class Series:
    """A vocabulary and the group sizes that are run with it."""

    name: str
    """In the ratios."""
    vocab: int
    """V."""
    hidden: int
    """D."""
    tokens: tuple[int, ...]
    """N of the linear routes."""
    pairwise: int
    """Largest N of the quadratic one."""

    def routes(self, tokens: int) -> tuple[str, ...]:
        """The routes that are run at a size."""
        return ("full", "sparse", "pairwise") if tokens <= self.pairwise else ("full", "sparse")


SMALL = Series("v8k", 8192, 256, (1024, 2048, 4096, 8192, 16_384, 32_768), 4096)
LARGE = Series("v152k", 151_936, 896, (1024, 2048, 4096, 8192), 0)
QUICK = Series("v8k", 8192, 256, (1024, 4096), 0)


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the small vocabulary, two sizes")
    parser.add_argument("--ratios", type=Path, help="merge the ratios into this JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    ratios: dict[str, float] = {}
    for series in (QUICK,) if arguments.quick else (SMALL, LARGE):
        ratios |= measured(series)
    if arguments.ratios:
        keep(arguments.ratios, ratios)


def measured(series: Series) -> dict[str, float]:
    """The table of one series, and how much faster than linear its times grow."""
    made = world(series.vocab, series.hidden)
    found: dict[tuple[str, int], dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for tokens in series.tokens:
            found |= _of_size(series, tokens, made, Path(folder) / "states.pt")
    print(f"\nV {series.vocab}, D {series.hidden}:")
    print_table(
        ("tokens", "route", "CPU s", "us per token", "peak extra MiB", "of it N x D", "columns"),
        [_told(series, name, tokens, row) for (name, tokens), row in found.items()],
    )
    first, last = series.tokens[0], series.tokens[-1]
    growth = {
        name: seconds(found[name, last]) / seconds(found[name, first])
        for name in ("full", "sparse")
    }
    for name, ratio in growth.items():
        print(f"\n{name}: time({last}) / time({first}) = {number(ratio)}, linear {last // first}")
    return {
        f"thr_scaling.{series.name}_{name}_share_of_linear": ratio * first / last
        for name, ratio in growth.items()
    }


def _of_size(
    series: Series, tokens: int, made: World, states: Path
) -> dict[tuple[str, int], dict[str, Any]]:
    drawn = group(made, Shape(series.vocab, series.hidden, tokens), seed=tokens)
    store(states, made.head, drawn)
    return {
        (name, tokens): row_of({"row": name, "states": str(states), "repeats": 1})
        for name in series.routes(tokens)
    }


def seconds(row: dict[str, Any]) -> float:
    """Processor seconds of a route, with the pass where it needs one."""
    in_pass = row["head"] + row["pass"] if row["columns"] < row["vocab"] else 0.0
    return float(row["route"] + in_pass)


def _told(series: Series, name: str, tokens: int, row: dict[str, Any]) -> list[str]:
    return [
        str(tokens),
        name,
        number(seconds(row)),
        number(1e6 * seconds(row) / tokens),
        number(row["memory"]),
        number(tokens * series.hidden * 4 / 2**20),
        str(row["columns"]),
    ]


if __name__ == "__main__":
    main()
