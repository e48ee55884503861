"""A small replication on disk: seven rows whose numbers are known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from thr_probe.reproduce.plan import Job, Stage
from thr_probe.reproduce.rows import row_named
from thr_probe.traces.metrics import append_metrics

KINDS = ("chain", "product", "equation", "series")
TOKENS = {1: " wait", 2: " 3", 3: " =", 4: " 4"}

JOBS = (
    ("base", 0, 0.2),
    ("grpo", 0, 0.5),
    ("grpo", 1, 0.54),
    ("thr", 0, 0.5),
    ("thr-p+0.1", 0, 0.6),
    ("thr-p-0.1", 0, 0.56),
    ("thr-p-0.2", 0, 0.58),
    ("kl-cov", 0, 0.5),
)
"""Rows, seeds, and the share of completions that are correct."""


def step_record(step: int, **others: Any) -> dict[str, Any]:
    times = {"gen": 4.0, "update": 3.0, "thr": 0.5, "ref": 1.0, "old": 1.5, "total": 10.0}
    return {
        "kind": "step",
        "step": step,
        "prompts_generated": 48,
        "prompts_kept": 32,
        "reward_generated": 0.2 + 0.01 * step,
        "reward_kept": 0.5,
        "length_mean": 40.0 + step,
        "entropy": 0.5,
        "clip_fraction": 0.001,
        "kl": 0.01,
        "ratio_min": 0.8,
        "ratio_max": 1.1,
        "active_updates": 2,
        "num_updates": 4,
        "masked_share": 0.7,
        "penalised_tokens": 0,
        "wall": 11.0,
        **times,
        **others,
    }


def _groups(num: int, size: int, share: float, seed: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    hardness = np.random.default_rng(7).random(num)
    groups = []
    for index in range(num):
        chance = np.clip(share + 0.5 * (hardness[index] - 0.5), 0.02, 0.98)
        completions = [
            {
                "correct": bool(rng.random() < chance),
                "token_ids": [1 + int(rng.integers(4)) for _ in range(6)],
                "entropy": np.float32(rng.random(6)).tolist(),
            }
            for _ in range(size)
        ]
        for item in completions:
            item["thr"] = np.float32(rng.normal(size=6) + 0.3).tolist()
        if not any(item["correct"] for item in completions):
            for item in completions:
                item["thr"] = None
        level = f"{KINDS[index % 4]} 1"
        groups.append(
            {"prompt_id": f"q{index:03d}", "level": level, "tau": 0.4, "completions": completions}
        )
        if completions[0]["thr"] is None:
            groups[-1]["tau"] = None
    return groups


@pytest.fixture(scope="session")
def make_job(make_run: Callable[..., Path]) -> Callable[..., Job]:
    """All runs of a job, as the commands would leave them."""

    def make(root: Path, name: str, seed: int, share: float, **record: Any) -> Job:
        job = Job(row=row_named(name), seed=seed)
        code = sum(map(ord, name)) + seed
        sizes = {Stage.GREEDY: (24, 1), Stage.SAMPLED: (12, 8), Stage.SCORED: (12, 8)}
        for stage, (num, size) in sizes.items():
            groups = _groups(num, size, share, code)
            scored = stage is Stage.SCORED
            make_run(job.folder(root, stage), groups, tokens=TOKENS, scored=scored)
        if job.row.is_trained:
            folder = job.folder(root, Stage.TRAIN)
            make_run(folder, _groups(2, 2, 0.5, code), tokens=TOKENS)
            for step in range(6):
                append_metrics(folder, step_record(step, **record))
        return job

    return make


@pytest.fixture(scope="session")
def fake_root(tmp_path_factory: pytest.TempPathFactory, make_job: Callable[..., Job]) -> Path:
    root = tmp_path_factory.mktemp("replication")
    for name, seed, share in JOBS:
        make_job(root, name, seed, share)
    costs = '{"job": "grpo-s0", "stage": "train", "exit_code": 0, "cpu_seconds": 3600.0, '
    (root / "costs.jsonl").write_text(f'{costs}"wall_seconds": 7200.0}}\n{{"job": "torn')
    return root
