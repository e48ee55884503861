"""How soon `--help` is there: thr-probe beside lm_eval, inspect and trl.

python benchmarks/startup.py --peers FOLDER [--peers FOLDER ...]

A peer is looked for in the given bin folders of environments, then on PATH; one that is nowhere is
left out by name. The commands take turns.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from clocks import Seconds, now
from ratios import keep
from tables import print_table, told

HELP, ANALYZE, BARE = "thr-probe --help", "thr-probe analyze --help", "import typer"
PEERS = ("lm_eval", "inspect", "trl")
Runs = Mapping[str, Sequence[Seconds]]


def main() -> int:
    """Run what the command line asks for; the exit code."""
    arguments = _arguments()
    commands = _commands(arguments.peers)
    missing = [peer for peer in PEERS if f"{peer} --help" not in commands]
    if missing:
        print(f"not found, left out: {', '.join(missing)}", file=sys.stderr)
    runs: dict[str, list[Seconds]] = {name: [] for name in commands}
    for repeat in range(1 + arguments.repeats):
        for name, command in commands.items():
            taken = _timed(command)
            if repeat:  # the first reads the files from disk
                runs[name].append(taken)
    _print_runs(runs)
    if arguments.ratios:
        keep(arguments.ratios, _ratios(runs))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument(
        "--peers", action="append", default=[], help="bin folder of an environment with peers"
    )
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--quick", action="store_true", help="five repetitions")
    parser.add_argument("--ratios", help="JSON file to merge the ratios into")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.repeats = 5
    return arguments


def _commands(folders: Sequence[str]) -> dict[str, list[str]]:
    """Command lines by name, ours first; `import typer` is the floor for any help made with it."""
    ours = str(Path(sys.executable).parent / "thr-probe")
    commands = {
        HELP: [ours, "--help"],
        ANALYZE: [ours, "analyze", "--help"],
        BARE: [sys.executable, "-c", "import typer, typer.rich_utils"],
    }
    path = os.pathsep.join([*folders, os.environ.get("PATH", os.defpath)])
    for peer in PEERS:
        found = shutil.which(peer, path=path)
        if found is not None:
            commands[f"{peer} --help"] = [found, "--help"]
    return commands


def _timed(command: Sequence[str]) -> Seconds:
    """One run.

    Raises:
        subprocess.CalledProcessError: it failed, so that its time means nothing.
    """
    begin = now()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return now() - begin


def _print_runs(runs: Runs) -> None:
    rows = []
    for name, own in runs.items():
        row = [name, told([each.wall for each in own]), told([each.cpu for each in own])]
        for base in (HELP, ANALYZE):
            pairs = list(zip(own, runs[base], strict=True))
            row.append(told([each.wall / ours.wall for each, ours in pairs]))
            row.append(told([each.cpu / ours.cpu for each, ours in pairs]))
        rows.append(row)
    against = [f"over {base}, {clock}" for base in (HELP, ANALYZE) for clock in ("wall", "CPU")]
    print_table(["command", "wall s", "CPU s", *against], rows)


def _ratios(runs: Runs) -> dict[str, float]:
    def median(over: str, under: str) -> float:
        pairs = zip(runs[over], runs[under], strict=True)
        return statistics.median(a.cpu / b.cpu for a, b in pairs)

    peers = [peer for peer in PEERS if f"{peer} --help" in runs]
    return {
        "startup.help_over_typer": median(HELP, BARE),
        "startup.analyze_help_over_typer": median(ANALYZE, BARE),
        **{f"startup.{peer}_over_help": median(f"{peer} --help", HELP) for peer in peers},
    }


if __name__ == "__main__":
    sys.exit(main())
