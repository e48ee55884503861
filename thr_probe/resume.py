"""What a run must be to be continued: the same options and inputs, and which shards it has."""

from __future__ import annotations

from pathlib import Path

from thr_probe.config import CollectConfig, Options, differences, from_saved
from thr_probe.engine_options import MAY_CHANGE
from thr_probe.errors import DataError, UsageError
from thr_probe.traces import (
    Manifest,
    RunStatus,
    completed_parts,
    read_config,
    read_manifest,
)
from thr_probe.traces.layout import CONFIG_NAME
from thr_probe.traces.manifest import MANIFEST_NAME

SCORE_ID = "default"
"""The score set that collecting writes."""


def check_same_options(run_path: Path, config: Options) -> None:
    """A run is resumed with the options that it was started with, but for how fast and where.

    Raises:
        UsageError: naming every option that differs.
    """
    path = run_path / CONFIG_NAME
    saved = from_saved(type(config), read_config(run_path), path)
    changed = differences(saved, config, but=MAY_CHANGE)
    if changed:
        raise UsageError(
            f"{path}: the run was started with other options: {'; '.join(changed)}",
            "resume with the same options, or start another run with another -o",
        )


def check_same_inputs(run_path: Path, wanted: Manifest) -> None:
    """A run is resumed with the problems, the policy and the tokenizer it was started with.

    Raises:
        DataError: naming what is not what it was.
    """
    saved = read_manifest(run_path)
    meanings = {
        "dataset_digest": "the problems",
        "model_digest": "the weights of the policy",
        "tokenizer_digest": "the tokenizer",
        "revision": "the revision of the policy",
        "num_prompts": "the number of problems",
    }
    changed = [
        meaning
        for name, meaning in meanings.items()
        if getattr(saved, name) not in {None, getattr(wanted, name)}
    ]
    if any(saved.counts.get(name) != count for name, count in wanted.counts.items()):
        changed.append("the limits or the rows left out")
    if changed:
        raise DataError(
            f"{run_path / MANIFEST_NAME}: {', '.join(changed)} changed since the run was started",
            "restore them, or start another run with another -o",
        )


def is_whole(run_path: Path, config: CollectConfig) -> bool:
    """Whether a run was finished and still has all its shards."""
    manifest = read_manifest(run_path)
    num_shards = -(-manifest.num_prompts // config.shard_prompts)
    done = finished_shards(run_path, scored=config.score)
    return manifest.status is RunStatus.COMPLETE and done == list(range(num_shards))


def has_manifest(run_path: Path) -> bool:
    """Whether there is anything to continue."""
    # a process killed before the manifest stood left nothing to continue
    return (run_path / MANIFEST_NAME).exists()


def finished_shards(run_path: Path, *, scored: bool) -> list[int]:
    """Shards whose rollouts and, in a run that is scored, scores stand.

    One without the other is done again, whole.
    """
    rollouts = completed_parts(run_path, "rollouts")
    if not scored:
        return rollouts
    scores = completed_parts(run_path, f"scores/{SCORE_ID}")
    return sorted(set(rollouts) & set(scores))
