"""Files and folders, whole or absent: temporary name, fsync, rename, fsync of the folder."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
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


def write_error(path: Path, error: OSError, hint: str | None = None) -> DataError:
    """The error to raise when the operating system refused to write `path`.

    Args:
        path: what was to be written.
        error: what the operating system said.
        hint: of a command that has no --resume, which the advice is about otherwise.
    """
    reason = error.strerror or str(error)
    default = "repair the cause, then run the command again with --resume"
    advice = hint or _HINTS.get(error.errno or 0, default)
    return DataError(f"could not write {path}: {reason}", advice)


def make_folder(path: Path) -> None:
    """Create a folder, and those above it, so that they survive a power cut."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        for folder in missing:
            _sync(folder.parent)
    except OSError as error:
        raise write_error(path, error) from error


def write_atomically(
    path: Path, write: Callable[[BinaryIO], None], *, hint: str | None = None
) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in place in one step.

    At no moment is a half-written file visible under `path`. When the operating system refuses
    (a full disk, say), the temporary file is removed and what stood at `path` before still does;
    `hint` is the advice then, where the command has no --resume.
    """
    # the process id keeps the processes of a sharded run apart
    temporary = path.with_name(f".{path.name}.{os.getpid()}{_TEMPORARY_SUFFIX}")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync(path.parent)
    except OSError as error:
        raise write_error(path, error, hint) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_result(path: Path, content: bytes) -> None:
    """Puts a file in place in one step, and makes its folder: for commands that do not resume.

    Raises:
        DataError: it cannot be written.
    """

    def write(file: BinaryIO) -> None:
        file.write(content)

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, write)
    except (OSError, DataError) as error:
        # the hint of a DataError is about --resume, which writing a result does not have
        cause = error.__cause__ if isinstance(error, DataError) else error
        reason = getattr(cause, "strerror", None) or cause
        raise DataError(
            f"cannot write {path}: {reason}",
            hint="check the folder, its permissions and the free space, or choose another with -o",
        ) from cause


def write_streamed(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """As `write_result`, of a result too large for memory: `write` fills the file piece by piece.

    Raises:
        DataError: it cannot be written; what `write` raises itself comes as it is.
    """
    hint = "check the folder, its permissions and the free space, or choose another with -o"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(path, error, hint) from error
    write_atomically(path, write, hint=hint)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""

    def write(file: BinaryIO) -> None:
        file.write(text.encode())

    write_atomically(path, write)


def temporary_folder(path: Path) -> Path:
    """The hidden folder beside `path` that is filled first; `put_in_place` gives it its name."""
    return path.with_name(f".{path.name}{_TEMPORARY_SUFFIX}")


def put_in_place(temporary: Path, path: Path) -> None:
    """Give a filled folder its name in one step, all that is in it being on disk by then.

    A folder that stands at `path` makes room for it and is removed; where the new one cannot take
    its name it comes back. A power cut between the two renames leaves neither under the name.
    """
    try:
        for entry in [*temporary.rglob("*"), temporary]:
            _sync(entry)
        former = _set_aside(path)
        try:
            temporary.replace(path)
        except OSError:
            if former.exists():
                former.replace(path)
            raise
        _sync(path.parent)
    except OSError as error:
        raise write_error(path, error) from error
    shutil.rmtree(former, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Remove a folder, if it is there, so that half of it is never seen under its name."""
    if not path.exists():
        return
    try:
        aside = _set_aside(path)
        _sync(path.parent)
    except OSError as error:
        raise write_error(path, error) from error
    shutil.rmtree(aside, ignore_errors=True)


def remove_temporaries(folder: Path) -> list[Path]:
    """Remove what killed processes left half-written in a folder; returns what was there."""
    leftovers = sorted(folder.glob(f".*{_TEMPORARY_SUFFIX}"))
    for leftover in leftovers:
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink(missing_ok=True)
    return leftovers


def _set_aside(path: Path) -> Path:
    aside = path.with_name(f".{path.name}.{os.getpid()}{_TEMPORARY_SUFFIX}")
    if path.exists():
        shutil.rmtree(aside, ignore_errors=True)  # of an earlier try
        path.replace(aside)
    return aside


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
