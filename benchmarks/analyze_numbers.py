"""What every side of the comparison yields: the point values of an analysis, by name.

A peer's query ends in sums by stratum (correct, tau above 0), by question or by token type; the
few steps from those sums to the point values are taken here, for both peers alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from thr_probe.analysis.concentration import gini, top_share
from thr_probe.analysis.histograms import MARGIN_BINS, NUM_LINEAR_BINS, Scales
from thr_probe.analysis.kernel import gaussian_weights
from thr_probe.analysis.reflection import REFLECTION_WORDS

Numbers = dict[str, list[float]]
"""Point values by name; a name may hold a whole curve."""
Columns = Mapping[str, np.ndarray]
"""A peer's result, column by column."""

WORDS = tuple(sorted(REFLECTION_WORDS, key=len, reverse=True))
PATTERN = rf"\b(?:{'|'.join(WORDS)})\b"
TOP = 50
DRAWN_BINS = 20
QUANTILES = {"q10": 0.1, "q25": 0.25, "median": 0.5, "q75": 0.75, "q90": 0.9}
MAGNITUDE_BINS = 640
BINS_PER_OCTAVE = 16
ASINH_BINS = 80
SMOOTHING = 0.005
"""Of the paper curve, as a share of its axis."""
_TOP_SHARES = {"top_1_mass": 0.01, "top_5_mass": 0.05, "top_20_mass": 0.2}
_DENSITY_RATIOS = {
    "dominant_share": ("dominant", "tokens"),
    "positive_share": ("positive", "tokens"),
    "zero_share": ("zero", "tokens"),
    "positive_share_of_dominant": ("positive_dominant", "dominant"),
    "dominant_mass": ("dominant_mass", "mass"),
    "positive_mass": ("positive_mass", "mass"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Axes:
    """Where the bins of the density lie: thr_probe's own, so that the bins can be compared."""

    left: float
    """Where the linear axis begins, margin included."""
    step: float
    """Width of its bins."""
    scale: float
    """The |THR| around which the asinh axis turns."""
    reach: float
    """The asinh of its end."""
    floor: float
    """Upper end of the |THR| that the first logarithmic bin takes in."""

    @property
    def linear_bins(self) -> int:
        """Bins of the linear axis, margins included."""
        return NUM_LINEAR_BINS + 2 * MARGIN_BINS

    def kernel(self) -> np.ndarray:
        """What the share of each linear bin adds to the curve at each of its points."""
        center = self.left + (np.arange(self.linear_bins) + 0.5) * self.step
        at = center[MARGIN_BINS:-MARGIN_BINS]
        return gaussian_weights(at, center, SMOOTHING * NUM_LINEAR_BINS * self.step)


def axes_of(low: float, high: float, scale: float, largest: float) -> Axes:
    """The axes from the facts of thr_probe's analysis."""
    scales = Scales(max_magnitude=largest, linear_low=low, linear_high=high, asinh_scale=scale)
    edges = scales.linear_edges
    return Axes(
        left=float(edges[0]),
        step=float(edges[1] - edges[0]),
        scale=scale,
        reach=float(np.arcsinh(largest / scale)),
        floor=largest * 2.0 ** -(MAGNITUDE_BINS // BINS_PER_OCTAVE),
    )


def density_numbers(tables: Mapping[str, Columns], *, axes: Axes, median_tau: float) -> Numbers:
    """Shares, concentration and both curves.

    Args:
        tables: `sums`: correct, positive_tau, and what is added up, by stratum; `magnitude`: tokens
            and mass by stratum and bin of |THR|; `linear`, `asinh`: tokens by correct and bin.
        axes: of the bins.
        median_tau: over groups of tau > 0.
    """
    sums, magnitudes = tables["sums"], tables["magnitude"]
    linear, asinh = tables["linear"], tables["asinh"]
    numbers = {"median_tau of all": [float(median_tau)]} | _ratios(sums, _DENSITY_RATIOS)
    for split, chosen in _splits(magnitudes).items():
        held = [
            np.bincount(
                magnitudes["bin"][chosen], magnitudes[name][chosen], minlength=MAGNITUDE_BINS
            )[None]
            for name in ("tokens", "mass")
        ]
        numbers[f"gini of {split}"] = [float(gini(*held)[0])]
        tops = top_share(*held, np.array(list(_TOP_SHARES.values())))[0]
        for name, top in zip(_TOP_SHARES, tops, strict=True):
            numbers[f"{name} of {split}"] = [float(top)]
    for label, wanted in (("correct", True), ("incorrect", False)):
        total = sums["tokens"][sums["correct"] == wanted].sum()
        fraction = _histogram(asinh, ASINH_BINS, wanted=wanted) / total
        numbers[f"diagnostic curve of {label}"] = fraction.tolist()
        share = _histogram(linear, axes.linear_bins, wanted=wanted) / total
        numbers[f"paper curve of {label}"] = (share @ axes.kernel()).tolist()
    return numbers


def _histogram(table: Columns, bins: int, *, wanted: bool) -> np.ndarray:
    chosen = table["correct"] == wanted
    return np.bincount(table["bin"][chosen], table["tokens"][chosen], minlength=bins)


def overlap_numbers(rows: Columns) -> Numbers:
    """Averages by split, and the histogram of groups of tau > 0.

    Args:
        rows: correct, positive_tau, overlap and chance of each completion with a dominant token.
    """
    numbers: Numbers = {}
    for split, chosen in _splits(rows).items():
        numbers[f"median_overlap of {split}"] = [float(np.median(rows["overlap"][chosen]))]
        numbers[f"mean_overlap of {split}"] = [float(rows["overlap"][chosen].mean())]
        numbers[f"mean_chance of {split}"] = [float(rows["chance"][chosen].mean())]
    drawn = rows["overlap"][rows["positive_tau"]]
    place = np.minimum((drawn * DRAWN_BINS + 1e-9).astype(np.int64), DRAWN_BINS - 1)
    share = np.bincount(place, minlength=DRAWN_BINS) * DRAWN_BINS / len(drawn)
    return numbers | {"histogram of all": share.tolist()}


def retention_numbers(rows: Columns) -> Numbers:
    """Averages and quantiles over questions by split, and the share of every question.

    Args:
        rows: prompt_id, correct, positive_tau; tokens, dominant, completions, share.
    """
    ratios = {"retained_share": ("dominant", "tokens"), "retained_mean": ("share", "completions")}
    numbers = _ratios(rows, ratios)
    names, question = np.unique(rows["prompt_id"], return_inverse=True)
    for split, chosen in _splits(rows).items():
        tokens, dominant = (
            np.bincount(question[chosen], rows[name][chosen], minlength=len(names))
            for name in ("tokens", "dominant")
        )
        shares = dominant[tokens > 0] / tokens[tokens > 0]
        if split == "all":
            numbers["shares of questions"] = np.sort(shares).tolist()
        for name, value in QUANTILES.items():
            numbers[f"retained_{name} of {split}"] = [float(np.quantile(shares, value))]
    return numbers


def reflection_numbers(rows: Columns, words: Columns) -> Numbers:
    """Rates by split, and of each word.

    Args:
        rows: correct; completions, reflecting, matches, tokens.
        words: correct, word, count.
    """
    ratios = {
        "reflection_ratio": ("matches", "tokens"),
        "reflecting_completions": ("reflecting", "completions"),
        "matches_per_completion": ("matches", "completions"),
    }
    numbers = _ratios({**rows, "positive_tau": np.ones(len(rows["correct"]), bool)}, ratios)
    count = {
        (str(word), bool(correct)): int(number)
        for word, correct, number in zip(
            words["word"], words["correct"], words["count"], strict=True
        )
    }
    for label, wanted in (("correct", True), ("incorrect", False)):
        numbers[f"words of {label}"] = [float(count.get((word, wanted), 0)) for word in WORDS]
    return numbers


def wordcloud_numbers(types: Columns) -> Numbers:
    """Count, mean and share of the mass of the token types at both ends.

    Args:
        types: word (None without a letter), tokens, thr and mass.
    """
    whole = float(types["mass"].sum())
    spelled = types["word"].astype(str) != "None"
    words, tokens, thr, mass = (types[name][spelled] for name in ("word", "tokens", "thr", "mass"))
    mean = thr / tokens
    numbers: Numbers = {}
    for sign, factor in (("positive", 1), ("negative", -1)):
        order = np.lexsort((words.astype(str), -tokens, -factor * mean))
        order = order[factor * mean[order] > 0][:TOP]
        numbers[f"count of {sign}"] = tokens[order].astype(float).tolist()
        numbers[f"mean of {sign}"] = mean[order].tolist()
        numbers[f"mass share of {sign}"] = (mass[order] / whole).tolist()
    return numbers


def _ratios(rows: Columns, ratios: Mapping[str, tuple[str, str]]) -> Numbers:
    return {
        f"{name} of {split}": [float(rows[above][chosen].sum() / rows[below][chosen].sum())]
        for split, chosen in _splits(rows).items()
        for name, (above, below) in ratios.items()
    }


def _splits(rows: Columns) -> dict[str, np.ndarray]:
    """Rows of each reported split, as thr_probe names them."""
    correct, positive = rows["correct"].astype(bool), rows["positive_tau"].astype(bool)
    by_label = {"all": np.ones_like(correct), "correct": correct, "incorrect": ~correct}
    if positive.all():
        return by_label
    return by_label | {f"{name}, tau > 0": mask & positive for name, mask in by_label.items()}


def summary_numbers(rows: Sequence[Mapping[str, object]]) -> Numbers:
    """The point values of thr_probe's summary table."""
    return {f"{row['quantity']} of {row['split']}": [float(str(row["value"]))] for row in rows}
