"""Versions of the libraries that decide the numbers, for the record beside every output."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from thr_probe import __version__

LIBRARIES = ("torch", "transformers", "tokenizers", "numpy", "pyarrow", "math-verify")


def library_versions() -> dict[str, str]:
    """Versions by name; libraries that are not installed are left out."""
    found = {"python": platform.python_version(), "thr_probe": __version__}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
