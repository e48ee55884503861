"""Progress of a long command on stderr: a bar on a terminal, a line per interval elsewhere."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from thr_probe.cli.shell import stderr
from thr_probe.progress import Advance, Monitor

SECONDS_BETWEEN_LINES = 10.0


class ShellMonitor(Monitor):
    """Prompts done, tokens per second, pass rate and time left; stops between shards on Ctrl-C."""

    def __init__(self) -> None:
        self.console = stderr()
        self.stopping = False
        self.current = True
        """Whether the last line printed still says how far it is."""
        self.total = self.done = self.resumed = 0
        self.completions = self.correct = self.tokens = self.undecided = 0
        self.started = self.printed = time.monotonic()
        self.bar: Progress | None = None
        self.task: TaskID | None = None

    def begin(self, num_prompts: int) -> None:
        """Start counting; draws the bar on a terminal."""
        self.total = num_prompts
        self.started = self.printed = time.monotonic()
        if self.console.is_terminal:
            self.bar = Progress(
                TextColumn("prompts"),
                BarColumn(),
                TextColumn("{task.completed}/{task.total}  {task.description}"),
                TimeRemainingColumn(),
                console=self.console,
            )
            self.task = self.bar.add_task("", total=num_prompts)
            self.bar.start()

    def advance(self, advance: Advance) -> None:
        """Add a shard."""
        self.done += advance.prompts
        self.resumed += advance.prompts if advance.resumed else 0
        self.completions += advance.completions
        self.correct += advance.correct
        self.tokens += advance.tokens
        self.undecided += advance.undecided
        if self.bar is not None and self.task is not None:
            self.bar.update(self.task, completed=self.done, description=self.rates())
        elif self.done >= self.total or self._is_due():
            self.print_line()
        else:
            self.current = False

    def _is_due(self) -> bool:
        return time.monotonic() - self.printed >= SECONDS_BETWEEN_LINES

    def should_stop(self) -> bool:
        """Whether Ctrl-C was pressed."""
        return self.stopping

    def rates(self) -> str:
        """Tokens per second and pass rate of what this process did."""
        seconds = max(time.monotonic() - self.started, 1e-9)
        share = f"{self.correct / self.completions:.1%}" if self.completions else "-"
        return f"{self.tokens / seconds:,.0f} tokens/s  {share} correct"

    def print_line(self) -> None:
        """One line of progress with the time that is left."""
        self.printed, self.current = time.monotonic(), True
        fresh = self.done - self.resumed
        spent = self.printed - self.started
        left = spent / fresh * (self.total - self.done) if fresh else 0.0
        time_text = f"about {left:,.0f} s left" if left else f"{spent:,.0f} s"
        self.console.print(f"prompts {self.done}/{self.total}  {self.rates()}  {time_text}")

    def end(self) -> None:
        """Take the bar away, or print the last line; tell of tokens that were left open."""
        if self.bar is not None:
            self.bar.stop()
        elif self.done and not self.current:
            self.print_line()
        if self.undecided:
            self.console.print(
                f"the bound on THR leaves {self.undecided:,} of {self.tokens:,} tokens open "
                "(dominant or not, or of which sign); --vocab sparse --exact decides them"
            )

    def on_interrupt(self, number: int, frame: FrameType | None) -> None:
        """First Ctrl-C: stop after this shard. Second: at once."""
        del number, frame
        if self.stopping:
            raise KeyboardInterrupt
        self.stopping = True
        self.console.print("stopping after this shard; press Ctrl-C again to stop at once")


@contextmanager
def shell_monitor(kind: type[ShellMonitor] = ShellMonitor) -> Iterator[ShellMonitor]:
    """A monitor that owns Ctrl-C while the block runs."""
    monitor = kind()
    before = signal.signal(signal.SIGINT, monitor.on_interrupt)
    try:
        yield monitor
    finally:
        signal.signal(signal.SIGINT, before)
        monitor.end()
