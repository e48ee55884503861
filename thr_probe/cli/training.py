"""What `thr-probe train` shows: a live table on a terminal, one line per step elsewhere."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

from rich.live import Live
from rich.table import Table

from thr_probe.cli.shell import stderr
from thr_probe.progress import TrainMonitor

TIMERS = ("gen", "update", "thr", "ref", "old", "total")
SHOWN_STEPS = 12
"""Rows of the live table: the newest steps."""

PHASES = {"gen": "generating", "old": "scoring", "ref": "reference", "update": "updating"}
PHASES |= {"eval": "evaluating", "save": "saving"}


class TrainView(TrainMonitor):
    """Step, reward, accuracy, entropy, length, retained share and timers; stops on Ctrl-C."""

    def __init__(self) -> None:
        self.console = stderr()
        self.records: list[Mapping[str, object]] = []
        self.accuracy: float | None = None
        self.steps = self.done = 0
        self.doing = "starting"
        self.stopping = False
        self.live: Live | None = None

    def begin(self, num_steps: int, done: int = 0) -> None:
        """Start counting; opens the live table on a terminal."""
        self.steps, self.done = num_steps, done
        if done:
            self.console.print(f"going on after {done} of {num_steps} steps")
        if self.console.is_terminal:
            self.live = Live(self._table(), console=self.console, refresh_per_second=2)
            self.live.start()

    def phase(self, name: str) -> None:
        """Say what is being done."""
        self.doing = PHASES.get(name, name)
        self._refresh()

    def step(self, record: Mapping[str, object]) -> None:
        """A row of the table, or a line."""
        self.done = int(str(record["step"])) + 1
        self.records.append(record)
        if self.live is None:
            self.console.print(step_line(record, self.steps))
        self._refresh()

    def evaluated(self, record: Mapping[str, object]) -> None:
        """The accuracy on the validation set."""
        self.accuracy = float(str(record["greedy_accuracy"]))
        if self.live is None:
            self.console.print(
                f"after {record['step']}/{self.steps}  {record['dataset']}  greedy accuracy "
                f"{self.accuracy:.1%} of {record['num_prompts']}"
            )
        self._refresh()

    def should_stop(self) -> bool:
        """Whether Ctrl-C was pressed."""
        return self.stopping

    def end(self) -> None:
        """Leave the table as it stands."""
        if self.live is not None:
            self.doing = "done" if self.done >= self.steps else "stopped"
            self._refresh()
            self.live.stop()

    def on_interrupt(self, number: int, frame: FrameType | None) -> None:
        """First Ctrl-C: a checkpoint after this step. Second: at once."""
        del number, frame
        if self.stopping:
            raise KeyboardInterrupt
        self.stopping = True
        self.console.print(
            "stopping after this step, with a checkpoint; press Ctrl-C again to stop at once"
        )

    def _refresh(self) -> None:
        if self.live is not None:
            self.live.update(self._table())

    def _table(self) -> Table:
        accuracy = "" if self.accuracy is None else f"  greedy accuracy {self.accuracy:.1%}"
        table = Table(
            title=f"step {self.done}/{self.steps}  {self.doing}{accuracy}",
            box=None,
            padding=(0, 1, 0, 0),  # eleven columns in a window of 80
            title_justify="left",
        )
        for name in ("step", "reward", "entropy", "length", "retained", *TIMERS):
            table.add_column(name, justify="right")
        for record in self.records[-SHOWN_STEPS:]:
            table.add_row(*cells(record))
        return table


def cells(record: Mapping[str, object]) -> list[str]:
    """A record as the table shows it; the seconds of the phases last."""
    shown = [
        str(int(str(record["step"])) + 1),
        _text(record, "reward_generated", ".3f"),
        _text(record, "entropy", ".3f"),
        _text(record, "length_mean", ".0f"),
        _text(record, "retained_share", ".1%"),
    ]
    return [*shown, *(_text(record, name, ".2f") for name in TIMERS)]


def step_line(record: Mapping[str, object], steps: int) -> str:
    """One step in one line."""
    timers = " ".join(f"{name} {_text(record, name, '.2f')}" for name in TIMERS)
    return (
        f"step {int(str(record['step'])) + 1}/{steps}  "
        f"reward {_text(record, 'reward_generated', '.3f')} "
        f"(kept {_text(record, 'reward_kept', '.3f')})  loss {_text(record, 'loss', '.4f')}  "
        f"grad {_text(record, 'grad_norm', '.3g')}  entropy {_text(record, 'entropy', '.3f')}  "
        f"length {_text(record, 'length_mean', '.0f')}  "
        f"retained {_text(record, 'retained_share', '.1%')}  s: {timers}"
    )


def _text(record: Mapping[str, object], name: str, style: str) -> str:
    value = record.get(name)
    return "-" if value is None else format(float(str(value)), style)


@contextmanager
def train_view() -> Iterator[TrainView]:
    """A view that owns Ctrl-C and SIGTERM while the block runs."""
    view = TrainView()
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, view.on_interrupt) for number in signals]
    try:
        yield view
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
        view.end()
