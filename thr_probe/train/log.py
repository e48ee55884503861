"""Where the records of a training run go: `metrics.jsonl`, and on request TensorBoard and W&B.

`metrics.jsonl` is the record; the others mirror it. TensorBoard's file is written anew from it
whenever a process starts, so that a resumed run has each step once.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from thr_probe.errors import PrerequisiteError
from thr_probe.traces.atomic import make_folder, write_text
from thr_probe.traces.metrics import EVAL, STEP, append_metrics, plain_record, read_metrics

TENSORBOARD = "tensorboard"
WANDB_ID = "wandb-run-id.txt"
TIMERS = ("gen", "update", "thr", "ref", "old", "total", "wall")


class Mirror(Protocol):
    """A second place for the records."""

    def add(self, values: Mapping[str, float], step: int) -> None:
        """Values by their tags, after so many finished steps."""

    def close(self) -> None:
        """Nothing more comes."""


class Sinks:
    """The places that records go to. One process makes it, after a resumed run was truncated.

    Args:
        run_path: the run directory.
        tensorboard: whether to write RUN/tensorboard.
        wandb: project of Weights & Biases, or None.
        config: the resolved options, for Weights & Biases.

    Raises:
        PrerequisiteError: a package is not installed, or Weights & Biases cannot start.
    """

    def __init__(
        self,
        run_path: Path,
        *,
        tensorboard: bool = False,
        wandb: str | None = None,
        config: Mapping[str, object] | None = None,
    ) -> None:
        self.run_path = run_path
        self.mirrors: list[Mirror] = []
        if tensorboard:
            self.mirrors.append(TensorBoard(run_path))
        if wandb is not None:
            self.mirrors.append(WeightsAndBiases(run_path, wandb, config or {}))

    def step(self, record: Mapping[str, object]) -> None:
        """Write the record of a step."""
        self._write({"kind": STEP, **record})

    def evaluated(self, record: Mapping[str, object]) -> None:
        """Write the record of an evaluation."""
        self._write({"kind": EVAL, **record})

    def _write(self, record: Mapping[str, object]) -> None:
        plain = plain_record(record)
        append_metrics(self.run_path, plain)
        for mirror in self.mirrors:
            mirror.add(tagged(plain), int(str(plain["step"])))

    def close(self) -> None:
        """Finish the mirrors."""
        for mirror in self.mirrors:
            mirror.close()


def tagged(record: Mapping[str, object]) -> dict[str, float]:
    """The numbers of a record under the tags of the mirrors: train/, time/ and eval/<dataset>/.

    >>> tagged({"kind": "step", "step": 3, "loss": 0.5, "gen": 2.0})
    {'train/loss': 0.5, 'time/gen': 2.0}
    >>> tagged({"kind": "eval", "step": 4, "dataset": "lab:validation", "greedy_accuracy": 0.25})
    {'eval/lab:validation/greedy_accuracy': 0.25}
    """
    values = {}
    for name, value in record.items():
        if name == "step" or not isinstance(value, int | float):
            continue
        room = "time" if name in TIMERS else "train"
        if record["kind"] == EVAL:
            room = f"eval/{record['dataset']}"
        values[f"{room}/{name}"] = float(value)
    return values


class TensorBoard:
    """Scalars in RUN/tensorboard, always exactly those of `metrics.jsonl`."""

    def __init__(self, run_path: Path) -> None:
        self.run_path = run_path
        self.package = _package("torch.utils.tensorboard", TENSORBOARD, "--tensorboard")
        self.writer: Any = None

    def add(self, values: Mapping[str, float], step: int) -> None:
        """Write values; the first call writes everything that the journal holds."""
        if self.writer is None:
            self._start()  # the journal holds these values already
            return
        for tag, value in values.items():
            self.writer.add_scalar(tag, value, step)
        self.writer.flush()

    def _start(self) -> None:
        folder = self.run_path / TENSORBOARD
        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
        self.writer = self.package.SummaryWriter(str(folder))
        for kind, table in zip((STEP, EVAL), read_metrics(self.run_path), strict=True):
            for row in table.to_dict("records"):
                record = {str(name): value for name, value in row.items() if not pd.isna(value)}
                for tag, value in tagged({"kind": kind, **record}).items():
                    self.writer.add_scalar(tag, value, row["step"])
        self.writer.flush()

    def close(self) -> None:
        """Close the file."""
        if self.writer is not None:
            self.writer.close()


class WeightsAndBiases:
    """A run of Weights & Biases; its files, also of offline runs, lie in RUN/logs/wandb."""

    def __init__(self, run_path: Path, project: str, config: Mapping[str, object]) -> None:
        self.package = _package("wandb", "wandb", "--wandb")
        logs = run_path / "logs"
        make_folder(logs)
        known = logs / WANDB_ID
        try:
            self.run = self.package.init(
                project=project,
                name=run_path.resolve().name,
                dir=str(logs),
                config=dict(config),
                id=known.read_text(encoding="utf-8").strip() if known.exists() else None,
                resume="allow",
            )
        except self.package.Error as error:
            raise PrerequisiteError(
                f"Weights & Biases cannot start: {error}",
                hint="wandb login; or set WANDB_MODE=offline, and upload later with wandb sync "
                f"{logs / 'wandb'}/offline-run-*",
            ) from error
        write_text(known, f"{self.run.id}\n")
        # an axis of our own: W&B refuses to go back, which a resumed run does
        self.run.define_metric("finished_steps")
        self.run.define_metric("*", step_metric="finished_steps")

    def add(self, values: Mapping[str, float], step: int) -> None:
        """Send values; a failure ends the mirror, not the training."""
        self._attempt(lambda run: run.log({**values, "finished_steps": step}))

    def close(self) -> None:
        """Wait until everything is sent."""
        self._attempt(lambda run: run.finish())

    def _attempt(self, send: Callable[[Any], object]) -> None:
        if self.run is None:
            return
        try:
            send(self.run)
        except (self.package.Error, OSError) as error:
            self.run = None
            warnings.warn(
                f"Weights & Biases failed and gets no more records: {error}; metrics.jsonl is "
                "whole, and what was sent lies in logs/wandb",
                stacklevel=3,
            )


def _package(module: str, extra: str, option: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise PrerequisiteError(
            f"{option} needs the package {extra}, which is not installed",
            hint=f'pip install "thr_probe[{extra}]"',
        ) from error
