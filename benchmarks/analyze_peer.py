"""A peer's side: one query of `analyze_duckdb.py` or `analyze_polars.py`.

Called by analyze.py with a line of JSON; prints one.
"""

from __future__ import annotations

import importlib
import json
import sys

import analyze_numbers
from analyze_measure import measured


def main() -> None:
    """Run what the command line's JSON asks for."""
    call = json.loads(sys.argv[1])
    # only the peer that is asked for need be installed
    query = getattr(importlib.import_module(f"analyze_{call['side']}"), call["analysis"])
    is_density = call["analysis"] == "density"
    options = [analyze_numbers.axes_of(**call["axes"])] if is_density else []
    report, found = measured(lambda: query(call["trace"], *options))
    print(json.dumps({**report, "numbers": found, "axes": {}}))


if __name__ == "__main__":
    main()
