"""Errors that speak to the user, each with the exit code the shell ends with.

ThrProbeError
├── UsageError           2  an option, name or combination that does not exist
├── DataError            3  a file, row or column that is not what it should be (also ValueError)
├── PrerequisiteError    4  something to install or provide first: an extra, a GPU, a model
└── IncompleteError      5  the work ended with failures; what succeeded is kept
"""

from __future__ import annotations


class ThrProbeError(Exception):
    """What was given, what was expected; `hint` says what to do next."""

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[type[ThrProbeError], tuple[str, str | None]]:
        # worker processes send errors back pickled; the default would lose the hint
        return type(self), (self.message, self.hint)


class UsageError(ThrProbeError):
    """An option, name or combination that does not exist."""

    exit_code = 2


class DataError(ThrProbeError, ValueError):
    """A file, row, column or tensor that is not what it should be."""

    exit_code = 3


class PrerequisiteError(ThrProbeError):
    """Something has to be installed or provided first."""

    exit_code = 4


class IncompleteError(ThrProbeError):
    """The work ended with failures; what succeeded is kept."""

    exit_code = 5
