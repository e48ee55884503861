"""Rewrites reports/lab/: the figures and tables of the committed trace (`make report`).

The trace itself is collected only where it is missing: another processor may round a logit
differently and flip a token, and the numbers of the figures are those of the committed trace.
"""

from __future__ import annotations

import sys
from pathlib import Path

from thr_probe.collect import collect
from thr_probe.config import CollectConfig
from thr_probe.gallery import analyze_all
from thr_probe.traces import read_run

LAB = Path("reports/lab")
COMMAND = "thr-probe analyze all reports/lab/run -o reports/lab/figures"
OPTIONS = CollectConfig(max_prompts=40, group_size=16, shard_prompts=40)


def main() -> int:
    """Collect where needed, then analyze; prints what could not be drawn."""
    run_path = LAB / "run"
    if not (run_path / "manifest.json").exists():
        argv = "thr-probe collect -o reports/lab/run --max-prompts 40 -n 16 --shard-prompts 40"
        collect(OPTIONS, run_path, argv=argv.split())
    outcomes = analyze_all(read_run(run_path), LAB / "figures", command=COMMAND)
    notes = [f"{outcome.name}: {outcome.note}" for outcome in outcomes if outcome.note]
    sys.stderr.write("".join(f"{note}\n" for note in notes))
    return 1 if notes else 0


if __name__ == "__main__":
    raise SystemExit(main())
