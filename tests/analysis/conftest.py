"""A random run with heavy-tailed THR, and its whole table read by another route."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest


def _groups(num_groups: int, *, seed: int = 0) -> list[dict[str, Any]]:
    """Groups of 4 completions of 5 to 40 tokens: mixed ones, and every fifth all correct or wrong.

    Every seventh group has a threshold below 0, every eleventh one above all of its |THR|.
    """
    rng = np.random.default_rng(seed)
    groups = []
    for index in range(num_groups):
        labels = [rng.random() < 0.5 for _ in range(4)]
        labels[:2] = [True, False]
        if index % 5 == 3:
            labels = [bool(index % 2)] * 4
        completions = []
        for correct in labels:
            length = int(rng.integers(5, 41))
            thr = rng.lognormal(-2, 2, length) * rng.choice([-1, 1], length, p=[0.3, 0.7])
            thr[rng.random(length) < 0.05] = 0.0
            # whole multiples of 0.1, so that equal entropies occur
            entropy = np.round(np.abs(thr) ** 0.5 + rng.random(length), 1)
            completions.append(
                {
                    "correct": correct,
                    "thr": np.float32(thr).tolist() if any(labels) else None,
                    "entropy": np.float32(entropy).tolist(),
                }
            )
        group: dict[str, Any] = {"prompt_id": f"q{index:03d}", "completions": completions}
        if any(labels):
            tau = float(np.float32(rng.uniform(0.05, 0.8)))
            group["tau"] = -tau if index % 7 == 2 else 1e6 if index % 11 == 5 else tau
        groups.append(group)
    return groups


@pytest.fixture(scope="session")
def random_group_list() -> list[dict[str, Any]]:
    return _groups(40)


@pytest.fixture(scope="session")
def random_run(
    tmp_path_factory: pytest.TempPathFactory,
    make_run: Callable[..., Path],
    random_group_list: list[dict[str, Any]],
) -> Path:
    return make_run(tmp_path_factory.mktemp("random") / "run", random_group_list, groups_per_part=7)


@pytest.fixture(scope="session")
def finely_cut_run(
    tmp_path_factory: pytest.TempPathFactory,
    make_run: Callable[..., Path],
    random_group_list: list[dict[str, Any]],
) -> Path:
    """The same completions in parts of two groups, as a stream of many small tables."""
    return make_run(tmp_path_factory.mktemp("cut") / "run", random_group_list, groups_per_part=2)


@pytest.fixture(scope="session")
def random_tokens(random_run: Path) -> pd.DataFrame:
    """Every token of the mixed groups of `random_run`, one row each, straight from the files."""
    parts = sorted((random_run / "scores" / "default").glob("part-*.parquet"))
    scores = pd.concat([pd.read_parquet(part) for part in parts], ignore_index=True)
    rollouts = pd.concat(
        [
            pd.read_parquet(random_run / "rollouts" / part.name, columns=["correct"])
            for part in parts
        ],
        ignore_index=True,
    )
    table = scores.assign(correct=rollouts["correct"])
    table = table[table["num_correct"].between(1, 3)]
    table = table[["prompt_id", "rollout_id", "correct", "tau", "thr", "entropy"]]
    tokens = table.explode(["thr", "entropy"], ignore_index=True)
    return tokens.astype({"thr": "float32", "entropy": "float32", "tau": "float32"})
