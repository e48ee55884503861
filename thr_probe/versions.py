"""Versions of the libraries that decide the numbers, for the record beside every output."""

from __future__ import annotations

import platform

from thr_probe import __version__
from thr_probe.engine_options import installed_version

LIBRARIES = ("torch", "transformers", "tokenizers", "numpy", "pyarrow", "math-verify", "vllm")


def library_versions() -> dict[str, str]:
    """Versions by name; libraries that are not installed are left out."""
    found = {"python": platform.python_version(), "thr_probe": __version__}
    versions = {name: installed_version(name) for name in LIBRARIES}
    return found | {name: number for name, number in versions.items() if number is not None}
