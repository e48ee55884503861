"""What the processes of the comparison report, and the tables and ratios made of it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tables import print_table, told


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One side's analysis in a process of its own."""

    wall: float
    """Seconds from the opening of the trace to the last number."""
    cpu: float
    """Processor time of the same."""
    peak: float
    """Largest resident memory of the process in MiB."""
    loaded: float
    """The same before the trace was opened: Python and the libraries."""
    numbers: dict[str, list[float]]
    """The point values."""
    axes: dict[str, float]
    """Of thr_probe's density."""


Reports = dict[str, dict[str, list[Report]]]
"""By analysis, then by side: thr_probe, scan (thr_probe without its bootstrap), and the peers."""


def disagreement(
    ours: Mapping[str, Sequence[float]], theirs: Mapping[str, Sequence[float]], tolerance: float
) -> str | None:
    """What differs between the sides, None where nothing does.

    Args:
        ours: of one side.
        theirs: of the other.
        tolerance: as a share of the number. A curve may differ by a thousandth of its highest
            point: a token on the edge of a bin falls to either side by the last bit of a logarithm.
    """
    if ours.keys() != theirs.keys():
        return f"only one side has {sorted(ours.keys() ^ theirs.keys())}"
    for name, mine in ours.items():
        other = theirs[name]
        if len(mine) != len(other):
            return f"{name}: {len(mine)} values against {len(other)}"
        allowed = max(tolerance, 1e-3) if "curve" in name else tolerance
        largest = max(map(abs, mine), default=0.0)
        gaps = [abs(a - b) for a, b in zip(mine, other, strict=True)]
        # a gap that is no number is not within any bound
        wrong = [gap for gap in gaps if not gap <= allowed * largest]
        if wrong:
            return f"{name} differs by {max(wrong):.3g}, of {largest:.6g}"
    return None


def print_times(reports: Reports, peers: Sequence[str]) -> None:
    """Seconds of every side."""
    sides = ("thr_probe", "scan", *peers)
    head = ["seconds", *(f"{side}, {clock}" for clock in ("CPU", "wall") for side in sides)]
    rows = []
    for name, of in reports.items():
        cpu = [told([report.cpu for report in of[side]]) for side in sides]
        wall = [told([report.wall for report in of[side]]) for side in sides]
        rows.append([name, *cpu, *wall])
    print_table(head, rows)


def print_ratios(reports: Reports, peers: Sequence[str]) -> None:
    """Times of the peers over ours, taken within a repetition."""
    pairs = [(peer, ours) for peer in peers for ours in ("thr_probe", "scan")]
    head = ["above 1: thr_probe is faster"]
    head += [f"{peer} / {ours}, {clock}" for peer, ours in pairs for clock in ("CPU", "wall")]
    rows = []
    for name in reports:
        row = [name]
        for peer, ours in pairs:
            row += [told(_ratios(reports, name, peer, ours, clock)) for clock in ("cpu", "wall")]
        rows.append(row)
    print_table(head, rows)


def print_memory(
    reports: Reports, small: Mapping[str, float], tokens: float, peers: Sequence[str]
) -> None:
    """Peak memory; thr_probe's also of a trace of a fifth of the tokens."""
    millions = tokens / 1e6
    head = ["peak MiB", f"thr_probe, {millions / 5:g} M tokens", f"{millions:g} M tokens"]
    head += ["of it loaded before", *peers]
    rows = []
    for name, of in reports.items():
        peaks = {side: told([report.peak for report in own]) for side, own in of.items()}
        loaded = told([report.loaded for report in of["thr_probe"]])
        others = [peaks[peer] for peer in peers]
        rows.append([name, f"{small[name]:.0f}", peaks["thr_probe"], loaded, *others])
    print_table(head, rows)


def named_ratios(
    reports: Reports, small: Mapping[str, float], peers: Sequence[str]
) -> dict[str, float]:
    """Of processor times: wall time says more of what else the machine does."""
    named = {}
    for name, of in reports.items():
        for peer in peers:
            whole, scan = (
                statistics.median(_ratios(reports, name, peer, ours, "cpu"))
                for ours in ("thr_probe", "scan")
            )
            named |= {
                f"analyze.{name}_vs_{peer}": whole,
                f"analyze.{name}_scan_vs_{peer}": scan,
            }
        peak = statistics.median(report.peak for report in of["thr_probe"])
        named[f"analyze.{name}_peak_small_vs_large"] = small[name] / peak
    return named


def _ratios(reports: Reports, name: str, peer: str, ours: str, clock: str) -> list[float]:
    pairs = zip(reports[name][peer], reports[name][ours], strict=True)
    return [getattr(theirs, clock) / getattr(mine, clock) for theirs, mine in pairs]
