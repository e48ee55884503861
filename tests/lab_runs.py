"""Short runs of the lab, and how two of them are compared."""

from __future__ import annotations

import json

from thr_probe.config import CollectConfig
from thr_probe.progress import Monitor
from thr_probe.traces import read_run

CONFIG = CollectConfig(max_prompts=6, group_size=4, max_new_tokens=48, shard_prompts=2)
FLAGS = ["--max-prompts=6", "-n4", "--max-new-tokens=48", "--shard-prompts=2"]


def rows(path, columns, **options):
    tables = read_run(path).iter_completions(columns, **options)
    return [row for table in tables for row in table.to_pylist()]


def content(path):
    """Every file of a run but its logs; the manifest without the command line."""
    files = {
        str(item.relative_to(path)): item.read_bytes()
        for item in sorted(path.rglob("*"))
        if item.is_file() and "logs" not in item.parts
    }
    manifest = json.loads(files.pop("manifest.json"))
    manifest.pop("argv")
    return files, manifest


class StopAfter(Monitor):
    """Asks to stop after some shards."""

    def __init__(self, shards):
        self.left = shards

    def advance(self, advance):
        self.left -= 1

    def should_stop(self):
        return self.left <= 0
