"""Why a row is refused, when reading it fails."""

from __future__ import annotations

UNEXPECTED = (ValueError, TypeError, AttributeError, LookupError)
"""What reading a row raises where a field is not what it should be."""


def reason_of(error: Exception) -> str:
    """Its words where an importer chose them, else what kind of damage it is.

    >>> reason_of(ValueError("several turns")), reason_of(KeyError("id"))
    ('several turns', "a field is missing or of another kind: KeyError('id')")
    """
    if type(error) is ValueError:
        return str(error)
    return f"a field is missing or of another kind: {error!r}"
