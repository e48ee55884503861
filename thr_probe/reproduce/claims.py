"""The paper's claims against the lab: each verdict is decided by an interval, none by a wish."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import pandas as pd

from thr_probe.core.stats import Interval
from thr_probe.reproduce.estimates import CHANCE, GREEDY, OVERLAP, REFLECTION, Results, passk
from thr_probe.reproduce.rows import BASE, GRPO, row_named

MATCH_MARGIN = 0.03
"""Rows match where the whole interval of their difference lies within so much accuracy: about one
problem of AIME, the smallest step of the paper's own columns."""

LARGEST = "pass@largest"
"""Pass@K at the largest K that was sampled."""

AVERAGE = "pass@average"
"""Mean of Pass@K over K = 2, 4 ... up to the largest: does not saturate as the largest may."""

CLAIMED_OVERLAP = 0.9
"""Where the paper's density of overlaps peaks."""


class Verdict(StrEnum):
    """What became of a claim."""

    APPEARS = "appears"
    OPPOSITE = "the opposite appears"
    NOISE = "inside the noise"
    NOT_RUN = "not run"


class Sense(StrEnum):
    """What is claimed about the difference of two rows."""

    ABOVE = "above"
    BELOW = "below"
    EQUAL = "equal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One comparison of two rows."""

    text: str
    """What the paper says."""
    row: str
    """The row it is about."""
    versus: str
    """The row it is compared with."""
    quantity: str
    """What is compared; `LARGEST` and `AVERAGE` stand for Pass@K at the Ks that there are."""
    sense: Sense
    """The claimed direction."""


def _claims(
    text: str, rows: str, versus: str, quantity: str, sense: Sense = Sense.ABOVE
) -> list[Claim]:
    return [
        Claim(text=text, row=row, versus=other, quantity=quantity, sense=sense)
        for row in rows.split()
        for other in versus.split()
    ]


CLAIMS: tuple[Claim, ...] = (
    *_claims("GRPO lifts greedy accuracy", GRPO, BASE, GREEDY),
    *_claims("GRPO lifts mean accuracy at temperature 1", GRPO, BASE, passk(1)),
    *_claims("dominant tokens alone match GRPO", "thr", GRPO, GREEDY, Sense.EQUAL),
    *_claims("p > 0 raises greedy accuracy", "thr-p+0.1 thr-p+0.05 thr-p+0.2", "thr grpo", GREEDY),
    *_claims("p < 0 raises Pass@K", "thr-p-0.1 thr-p-0.05 thr-p-0.2", "grpo thr", AVERAGE),
    *_claims("p < 0 raises Pass@K at the largest K", "thr-p-0.1", "grpo thr", LARGEST),
    *_claims("p < 0 gives more Pass@K than Pass@K training", "thr-p-0.1", "passk-mixed", AVERAGE),
    *_claims("p < 0 gives more Pass@K than Cov-KL", "thr-p-0.1", "kl-cov", AVERAGE),
    *_claims("p < 0 gives more Pass@K than Clip-High", "thr-p-0.1", "clip-high", AVERAGE),
    *_claims("Pass@K-mixed training raises Pass@K", "passk-mixed passk-mixed-chen", GRPO, AVERAGE),
    *_claims("Clip-High raises Pass@K", "clip-high", GRPO, AVERAGE),
    *_claims(
        "THR(p < 0) with Pass@K-mixed falls behind THR(p < 0)",
        "thr-passk-mixed",
        "thr-p-0.1",
        AVERAGE,
        Sense.BELOW,
    ),
    *_claims(
        "the static mix does better than Pass@K-mixed beside THR(p < 0)",
        "thr-passk-static",
        "thr-passk-mixed",
        AVERAGE,
    ),
    *_claims(
        "positive advantages alone lose greedy accuracy", "pos-only", GRPO, GREEDY, Sense.BELOW
    ),
    *_claims("negative advantages alone lose Pass@K", "neg-only", GRPO, AVERAGE, Sense.BELOW),
    *_claims("p < 0 raises Pass@K under GSPO too", "gspo-thr-p-0.1", "gspo gspo-thr", AVERAGE),
    *_claims("p < 0 raises the share of reflection words", "thr-p-0.1", GRPO, REFLECTION),
)
"""In the order of the report."""


def claims_table(results: Results) -> pd.DataFrame:
    """Every claim with both values, the paired difference, the verdict and a sentence.

    Columns: claim, row, versus, quantity, value, versus_value, difference, low, high, verdict,
    sentence.
    """
    lines = [_line(results, claim) for claim in CLAIMS] + list(_overlap_lines(results))
    return pd.DataFrame(lines)


def verdict(interval: Interval, sense: Sense) -> Verdict:
    """What an interval of a difference says about a claim."""
    low, high = interval.low, interval.high
    if not (math.isfinite(low) and math.isfinite(high)):
        return Verdict.NOISE
    if sense is Sense.EQUAL:
        if low >= -MATCH_MARGIN and high <= MATCH_MARGIN:
            return Verdict.APPEARS
        return Verdict.OPPOSITE if low > 0 or high < 0 else Verdict.NOISE
    if sense is Sense.BELOW:
        low, high = -high, -low
    if low > 0:
        return Verdict.APPEARS
    return Verdict.OPPOSITE if high < 0 else Verdict.NOISE


def _line(results: Results, claim: Claim) -> dict[str, object]:
    quantity = _quantity(results, claim)
    line: dict[str, object] = {
        "claim": claim.text,
        "row": claim.row,
        "versus": claim.versus,
        "quantity": quantity,
    }
    values = [results.value(name, quantity) for name in (claim.row, claim.versus)]
    found = results.minus(claim.row, claim.versus, quantity)
    if found is None:
        return line | _not_run(claim, values)
    judged = verdict(found, claim.sense)
    known = [value.value for value in values if value is not None]
    numbers = {"value": known[0], "versus_value": known[1], "difference": found.value}
    numbers |= {"low": found.low, "high": found.high}
    parts = (
        f"**{judged}**: {claim.text}. {_stated(claim, quantity, known, found)}",
        _seeds(results, claim, quantity),
        _other_ks(results, claim),
        *_remarks(results, claim),
    )
    sentence = " ".join(part for part in parts if part)
    return line | numbers | {"verdict": judged.value, "sentence": sentence}


def _quantity(results: Results, claim: Claim) -> str:
    ks = results.ks() or [1]
    if claim.quantity == AVERAGE:
        return passk(*(ks[1:] or ks))
    return passk(ks[-1]) if claim.quantity == LARGEST else claim.quantity


def _not_run(claim: Claim, values: Sequence[Interval | None]) -> dict[str, object]:
    names = zip((claim.row, claim.versus), values, strict=True)
    missing = " and ".join(row_named(name).title for name, value in names if value is None)
    sentence = f"**{Verdict.NOT_RUN}**: {claim.text} (missing: {missing})."
    return {"verdict": Verdict.NOT_RUN.value, "sentence": sentence}


def _stated(claim: Claim, quantity: str, values: Sequence[float], found: Interval) -> str:
    digits = _digits(quantity)
    first, second = (f"{100 * value:.{digits}f} %" for value in values)
    titles = [row_named(name).title for name in (claim.row, claim.versus)]
    return (
        f"{_named(quantity)}: {titles[0]} {first}, {titles[1]} {second}; "
        f"{points(found, digits=digits)}"
    )


def points(interval: Interval, *, digits: int = 1) -> str:
    """A difference in percentage points with its interval."""
    return _scaled(interval, "points", f"+.{digits}f")


def _digits(quantity: str) -> int:
    return 3 if quantity == REFLECTION else 1


def _named(quantity: str) -> str:
    if quantity == GREEDY:
        return "Greedy accuracy"
    if not quantity.startswith("pass@"):
        return "Reflection ratio"
    first, *others = quantity.removeprefix("pass@").split("+")
    return f"Mean of Pass@{first} to Pass@{others[-1]}" if others else f"Pass@{first}"


def _seeds(results: Results, claim: Claim, quantity: str) -> str:
    """The differences seed by seed, which the interval over questions does not hold."""
    by_seed = results.by_seed(claim.row, claim.versus, quantity)
    if not by_seed:
        return "(no seed in common)."
    digits = _digits(quantity)
    listed = ", ".join(f"{100 * value:+.{digits}f}" for value in by_seed.values())
    named = ", ".join(map(str, by_seed))
    return f"({'seed' if len(by_seed) == 1 else 'seeds'} {named}: {listed})."


def _other_ks(results: Results, claim: Claim) -> str:
    if claim.quantity != AVERAGE:
        return ""
    ks = results.ks()
    found = [results.minus(claim.row, claim.versus, passk(k)) for k in ks]
    judged = [Verdict.NOT_RUN if item is None else verdict(item, claim.sense) for item in found]
    return (
        f"Of the {len(ks)} values of K from {min(ks)} to {max(ks)} it appears at "
        f"{judged.count(Verdict.APPEARS)}, the opposite at {judged.count(Verdict.OPPOSITE)}."
    )


def _remarks(results: Results, claim: Claim) -> Iterator[str]:
    for name in (claim.row, claim.versus):
        if results.is_inactive(name):
            yield f"The mechanism of {row_named(name).title} was inactive."
    if claim.sense is Sense.EQUAL:
        margin = f"{100 * MATCH_MARGIN:.0f} points"
        yield f"Rows match where the whole interval lies within {margin} of 0."


def _overlap_lines(results: Results) -> Iterator[dict[str, object]]:
    text = "dominant tokens overlap with those of highest entropy, with a peak near 90 %"
    for name in (BASE, GRPO, "thr"):
        line: dict[str, object] = {"claim": text, "row": name, "versus": "", "quantity": "peak"}
        peak = next((item.peak for item in results.of(name) if item.peak is not None), None)
        mean, chance = results.value(name, OVERLAP), results.value(name, CHANCE)
        title = row_named(name).title
        if peak is None or mean is None or chance is None:
            sentence = f"**{Verdict.NOT_RUN}**: {text} ({title} missing)."
            yield line | {"verdict": Verdict.NOT_RUN.value, "sentence": sentence}
            continue
        judged = peak_verdict(peak)
        sentence = (
            f"**{judged}**: {text}. In {title} the density of overlaps peaks at {_percent(peak)}; "
            f"their mean is {_percent(mean)}, by chance it would be {_percent(chance)}."
        )
        numbers = {"value": peak.value, "low": peak.low, "high": peak.high}
        yield line | numbers | {"verdict": judged, "sentence": sentence}


def peak_verdict(peak: Interval) -> str:
    """Whether the peak lies near 90 %, below or above."""
    if not math.isfinite(peak.low):
        return Verdict.NOISE.value
    if peak.low <= CLAIMED_OVERLAP <= peak.high:
        return Verdict.APPEARS.value
    return "the peak lies " + ("higher" if peak.low > CLAIMED_OVERLAP else "lower")


def _percent(interval: Interval) -> str:
    return _scaled(interval, "%", ".1f")


def _scaled(interval: Interval, unit: str, style: str) -> str:
    """A hundred times the value, and the bounds where there are any."""
    low, value, high = (
        f"{100 * number:{style}}" for number in (interval.low, interval.value, interval.high)
    )
    return f"{value} {unit}" + (f" [{low}, {high}]" if math.isfinite(interval.low) else "")
