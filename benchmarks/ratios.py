"""The file of ratios that the benchmarks share: one number per name, merged run by run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path


def keep(path: Path | str, ratios: Mapping[str, float]) -> None:
    """Merge ratios, each named "script.what", into a JSON file; three significant digits."""
    path = Path(path)
    merged = {**read(path), **{name: float(f"{value:.3g}") for name, value in ratios.items()}}
    path.write_text(json.dumps(merged, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read(path: Path | str) -> dict[str, float]:
    """The ratios that a file holds; none where there is no file."""
    path = Path(path)
    if not path.exists():
        return {}
    return {name: float(value) for name, value in json.loads(path.read_text("utf-8")).items()}
