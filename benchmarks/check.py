"""The quick forms of the benchmarks again, their ratios beside the committed ones.

python benchmarks/check.py          compare with ratios.json; exit code 1 where one is worse
python benchmarks/check.py --keep   measure and write ratios.json

Times are not compared: they are the machine's. A script whose prerequisite is not installed is
skipped by name, and so is a ratio that only one side has.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ratios import keep, read
from tables import number, print_table

HERE = Path(__file__).resolve().parent
COMMITTED = HERE / "ratios.json"
SCRIPTS = (
    "head",
    "collect",
    "startup",
    "thr_overhead",
    "thr_scaling",
    "analyze",
    "train_step",
)
MISSING = 4
"""Exit code of a script that lacks a prerequisite."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What may happen to a ratio."""

    pattern: str
    """Of its name; the first rule that fits holds."""
    lower_is_better: bool
    """Shares and overheads, unlike speeds."""
    allowed: float
    """How many times as bad it may be."""


RULES = (
    Rule("collect.overhead_with_scores", lower_is_better=True, allowed=1.75),
    Rule("collect.overhead", lower_is_better=True, allowed=2),
    Rule("collect.*", lower_is_better=False, allowed=2),
    Rule("startup.*_over_typer", lower_is_better=True, allowed=1.3),
    Rule("*share*", lower_is_better=True, allowed=1.5),
    Rule("*", lower_is_better=False, allowed=1.5),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One ratio, then and now."""

    name: str
    """Its name."""
    committed: float | None
    """Then."""
    now: float | None
    """Now."""
    rule: Rule
    """What it may do."""

    @property
    def factor(self) -> float | None:
        """How many times as bad as then: above 1 is worse; None where a side is missing."""
        if self.committed is None or self.now is None:
            return None
        worse, better = self.now, self.committed
        if not self.rule.lower_is_better:
            worse, better = better, worse
        return worse / better if better > 0 else float("inf")

    @property
    def is_worse(self) -> bool:
        """Worse than the rule allows."""
        return self.factor is not None and self.factor > self.rule.allowed


def main() -> int:
    """Run what the command line asks for; the exit code."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ratios.json"
        names = arguments.only or SCRIPTS
        failed = [name for name in names if not _ran(name, path, arguments.peers)]
        measured = read(path)
    if arguments.keep:
        keep(COMMITTED, measured)
    findings = compare(read(COMMITTED), measured)
    _print_findings(findings)
    worse = [finding.name for finding in findings if finding.is_worse]
    print(f"\nworse: {', '.join(worse) or 'none'}; failed: {', '.join(failed) or 'none'}")
    return 1 if worse or failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--keep", action="store_true", help="write ratios.json")
    parser.add_argument("--only", action="append", choices=SCRIPTS, help="only this benchmark")
    parser.add_argument(
        "--peers", action="append", default=[], help="bin folder with peers, for startup.py"
    )
    return parser.parse_args()


def _ran(name: str, path: Path, peers: Sequence[str]) -> bool:
    """Whether a benchmark ran or had a reason not to."""
    print(f"{name} ...", file=sys.stderr)
    command = [sys.executable, str(HERE / f"{name}.py"), "--quick", "--ratios", str(path)]
    if name == "startup":
        command += [part for folder in peers for part in ("--peers", folder)]
    one = dict.fromkeys(("OMP_NUM_THREADS", "POLARS_MAX_THREADS"), "1")
    ran = subprocess.run(command, env={**os.environ, **one}, stdout=subprocess.DEVNULL, check=False)
    if ran.returncode == MISSING:
        print(f"{name}: lacks what it is compared with, skipped", file=sys.stderr)
    return ran.returncode in (0, MISSING)


def compare(committed: Mapping[str, float], measured: Mapping[str, float]) -> list[Finding]:
    """Every ratio of either side, by name."""
    return [
        Finding(
            name=name, committed=committed.get(name), now=measured.get(name), rule=rule_of(name)
        )
        for name in sorted({*committed, *measured})
    ]


def rule_of(name: str) -> Rule:
    """The first rule whose pattern fits."""
    return next(rule for rule in RULES if fnmatch.fnmatchcase(name, rule.pattern))


def _print_findings(findings: Sequence[Finding]) -> None:
    rows = [
        [
            finding.name,
            *(
                "-" if value is None else number(value)
                for value in (finding.committed, finding.now)
            ),
            "lower" if finding.rule.lower_is_better else "higher",
            "-" if finding.factor is None else number(finding.factor),
            number(finding.rule.allowed),
            _verdict(finding),
        ]
        for finding in findings
    ]
    print_table(["ratio", "committed", "now", "better", "times as bad", "allowed", ""], rows)


def _verdict(finding: Finding) -> str:
    if finding.factor is None:
        return "not compared"
    return "WORSE" if finding.is_worse else "ok"


if __name__ == "__main__":
    sys.exit(main())
