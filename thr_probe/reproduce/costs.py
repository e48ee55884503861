"""What the replication took: the processor and wall time of every stage, as the launcher noted."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from thr_probe.reproduce.launch import COSTS_NAME

_COLUMNS = ["job", "stage", "exit_code", "cpu_seconds", "wall_seconds"]
_HOUR = 3600.0


def read_costs(root: Path) -> pd.DataFrame:
    """Every stage that was begun, also those that failed or were stopped; a torn line is left out.

    Returns:
        Columns job, stage, exit_code, cpu_seconds, wall_seconds.
    """
    path = root / COSTS_NAME
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    records = [record for line in lines if (record := _record(line)) is not None]
    return pd.DataFrame(records, columns=_COLUMNS)


def _record(line: str) -> dict[str, object] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and set(_COLUMNS) <= set(found) else None


def hours_sentence(costs: pd.DataFrame) -> str:
    """The hours of all stages together, and of training."""
    if costs.empty:
        return "How long it took was not recorded."
    cpu, wall = (costs[f"{name}_seconds"].sum() / _HOUR for name in ("cpu", "wall"))
    training = costs.loc[costs["stage"] == "train", "wall_seconds"].sum() / _HOUR
    stopped = int((costs["exit_code"] != 0).sum())
    again = f"; {stopped} of the processes failed or were stopped, and count" if stopped else ""
    return (
        f"It took {cpu:.2f} hours of processor time; the processes, each with one thread, ran "
        f"for {wall:.2f} hours added up, {training:.2f} of these for training{again}."
    )
