"""Errors at the edge: a sentence and a hint on stderr, and an exit code."""

from __future__ import annotations

import errno
import os
import shlex
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

from thr_probe.errors import DataError, ThrProbeError

INTERRUPTED = 130


class ThrGroup(TyperGroup):
    """Catches the package's own errors once, for every command."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command; a ThrProbeError becomes its message, hint and exit code."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except ThrProbeError as error:
            print_error(error)
            raise typer.Exit(error.exit_code) from error
        except OSError as error:
            if error.errno == errno.EPIPE:  # the reader of a pipe went away: typer ends quietly
                raise
            print_error(DataError(f"cannot read or write: {error}"))
            raise typer.Exit(DataError.exit_code) from error
        except KeyboardInterrupt as error:
            stderr().print("interrupted", style="bold")
            raise typer.Exit(INTERRUPTED) from error


def stderr() -> Console:
    """Where progress, warnings and hints go."""
    return Console(stderr=True, highlight=False, soft_wrap=True, markup=False)


@contextmanager
def told_warnings() -> Iterator[None]:
    """Warnings as sentences on stderr, each once."""
    told: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
        text = str(message)
        if issubclass(category, UserWarning) and text not in told:
            told.add(text)
            stderr().print(f"warning: {text}")

    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = show
        yield


def print_error(error: ThrProbeError) -> None:
    """An error as the user reads it."""
    console = stderr()
    console.print(Text.assemble(("error: ", "bold red"), error.message))
    if error.hint:
        console.print(Text.assemble(("hint:  ", "bold"), error.hint))


def command_line() -> list[str]:
    """The command as typed, the program by its name."""
    return ["thr-probe", *sys.argv[1:]]


def quoted(words: list[str]) -> str:
    """A command that can be pasted into a shell."""
    return shlex.join(words)


def resume_command() -> str:
    """The command as typed, to be run again."""
    words = [word for word in command_line() if word not in {"--resume", "--overwrite"}]
    return quoted([*words, "--resume"])


def limit_threads() -> None:
    """Two threads at most unless the user says otherwise: more were slower on shared machines."""
    if "OMP_NUM_THREADS" not in os.environ:
        os.environ["OMP_NUM_THREADS"] = str(min(2, os.cpu_count() or 1))
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
