"""Short training runs on the lab, and how two of them are compared."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import safe_open

from thr_probe.progress import TrainMonitor
from thr_probe.train.resolve import resolve_train

FLAGS = {
    "max_prompts": 60,
    "validation_prompts": 6,
    "eval_every": 2,
    "prompts": 4,
    "gen_prompts": 6,
    "group_size": 4,
    "max_new_tokens": 40,
    "max_gen_batches": 30,
    "mini_batch": 2,
    "steps": 3,
    "warmup_steps": 0,
    "save_every": 2,
    "trace_every": 1,
    "verify_workers": 1,
}
TIMERS = {"gen", "update", "thr", "ref", "old", "total", "wall", "seconds"}
TIMERS |= {"tokens_per_second", "peak_memory"}


def config_of(**flags):
    given = {name: value for name, value in (FLAGS | flags).items() if value is not None}
    return resolve_train(given, environment={})[0]


def words_of(**flags):
    """The same options for the command line."""
    return [f"--{name.replace('_', '-')}={value}" for name, value in (FLAGS | flags).items()]


def records(path: Path):
    """metrics.jsonl without what differs from run to run."""
    lines = (path / "metrics.jsonl").read_text().splitlines()
    return [
        {name: value for name, value in json.loads(line).items() if name not in TIMERS}
        for line in lines
    ]


def tensors(folder: Path):
    """Every tensor of the safetensors files of a folder."""
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as content:
            found |= {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
    return found


def trace(path: Path):
    return {
        str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*.parquet"))
    }


class StopAfter(TrainMonitor):
    """Asks to stop after some steps."""

    def __init__(self, steps):
        self.left = steps
        self.lines = []

    def step(self, record):
        self.left -= 1
        self.lines.append(record)

    def should_stop(self):
        return self.left <= 0
