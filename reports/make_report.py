"""Rewrites reports/lab/: figures, tables and report of the committed trace (`make report`).

The trace itself is collected only where it is missing: another processor may round a logit
differently and flip a token, and the numbers of the figures are those of the committed trace.
"""

from __future__ import annotations

import sys
from pathlib import Path

from thr_probe.collect import collect
from thr_probe.config import CollectConfig
from thr_probe.report.build import ReportOptions, write_report

LAB = Path("reports/lab")
COMMAND = "thr-probe report reports/lab/run -o reports/lab/report.html --keep reports/lab/figures"
OPTIONS = CollectConfig(max_prompts=40, group_size=16, shard_prompts=40, split=True, thr_error=True)


def main() -> int:
    """Collect where needed, then analyze and bind; prints what could not be drawn."""
    run_path = LAB / "run"
    if not (run_path / "manifest.json").exists():
        argv = (
            "thr-probe collect -o reports/lab/run --max-prompts 40 -n 16 --shard-prompts 40 "
            "--split --thr-error"
        )
        collect(OPTIONS, run_path, argv=argv.split())
    options = ReportOptions(command=COMMAND)
    reported = write_report([run_path], LAB / "report.html", options, keep=LAB / "figures")
    sys.stderr.write("".join(f"{note}\n" for note in reported.notes))
    return 1 if reported.notes else 0


if __name__ == "__main__":
    raise SystemExit(main())
