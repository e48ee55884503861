"""Journals of training runs with plain numbers, for the analyses of training."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

METRICS = "metrics.jsonl"


def step_record(step: int, **values: Any) -> dict[str, Any]:
    """A step whose quantities all depend on its number; timers as of Table 10's first row."""
    timers = {"gen": 347.0, "update": 210.0, "thr": 37.0, "ref": 120.0, "old": 120.0}
    record = {
        "kind": "step",
        "step": step,
        "prompts_generated": 40,
        "prompts_kept": 32,
        "reward_kept": 0.4 + 0.01 * step,
        "reward_generated": 0.3 + 0.02 * step,
        "length_mean": 200.0 - 5 * step,
        "entropy": 0.9 - 0.03 * step,
        "retained_share": 0.18 + 0.001 * step,
        **timers,
        "total": sum(timers.values()),
        "wall": 850.0,
    }
    return record | values


def eval_record(step: int, dataset: str = "lab:validation", **values: Any) -> dict[str, Any]:
    """A validation that gets better by the step, with an interval of 0.1 to each side."""
    accuracy = 0.25 + 0.02 * step
    record = {
        "kind": "eval",
        "step": step,
        "dataset": dataset,
        "num_prompts": 64,
        "greedy_accuracy": accuracy,
        "greedy_low": accuracy - 0.1,
        "greedy_high": accuracy + 0.1,
    }
    return record | values


def training_records(num_steps: int, *, eval_every: int = 0) -> list[dict[str, Any]]:
    """All records of a run; validations before it and after every so many steps."""
    records = [eval_record(0)] if eval_every else []
    for step in range(num_steps):
        records.append(step_record(step))
        if eval_every and (step + 1) % eval_every == 0:
            records.append(eval_record(step + 1))
    return records


def write_journal(path: Path, records: Sequence[Mapping[str, Any]]) -> Path:
    """A training run's folder that holds nothing but its journal."""
    path.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (path / METRICS).write_text(lines)
    return path
