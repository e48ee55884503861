"""Files that are whole or absent: temporary name, fsync, rename, fsync of the folder."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from thr_probe.errors import DataError

_TEMPORARY_SUFFIX = ".tmp"

_HINTS = {
    errno.ENOSPC: "free some space on that disk, then run the command again with --resume",
    errno.EDQUOT: "free some of your disk quota, then run the command again with --resume",
    errno.EROFS: "choose a folder on a writable disk with -o",
    errno.EACCES: "choose a folder that you may write to with -o",
    errno.EPERM: "choose a folder that you may write to with -o",
    errno.ENOTDIR: "a file stands where a folder is needed: choose another folder with -o",
    errno.EEXIST: "a file stands where a folder is needed: choose another folder with -o",
}


def write_error(path: Path, error: OSError) -> DataError:
    """The error to raise when the operating system refused to write `path`."""
    reason = error.strerror or str(error)
    default = "repair the cause, then run the command again with --resume"
    return DataError(f"could not write {path}: {reason}", _HINTS.get(error.errno or 0, default))


def make_folder(path: Path) -> None:
    """Create a folder, and those above it, so that they survive a power cut."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        for folder in missing:
            _sync_folder(folder.parent)
    except OSError as error:
        raise write_error(path, error) from error


def write_atomically(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in place in one step.

    At no moment is a half-written file visible under `path`. When the operating system refuses
    (a full disk, say), the temporary file is removed and what stood at `path` before still does.
    """
    # the process id keeps the processes of a sharded run apart
    temporary = path.with_name(f".{path.name}.{os.getpid()}{_TEMPORARY_SUFFIX}")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""

    def write(file: BinaryIO) -> None:
        file.write(text.encode())

    write_atomically(path, write)


def remove_temporaries(folder: Path) -> list[Path]:
    """Remove the temporary files that killed processes left in a folder; returns what was there."""
    leftovers = sorted(folder.glob(f".*{_TEMPORARY_SUFFIX}"))
    for leftover in leftovers:
        leftover.unlink(missing_ok=True)
    return leftovers


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
