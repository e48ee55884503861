"""Do the dominant tokens have the highest entropy? Their overlap per completion (paper Fig. 3)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from thr_probe.analysis.captions import overlap_caption
from thr_probe.analysis.histograms import dominant_tokens
from thr_probe.analysis.kernel import gaussian_weights, scott_bandwidth
from thr_probe.analysis.resampling import Drawn, ResampledSums, Resampler
from thr_probe.analysis.result import (
    Analysis,
    counted,
    empty_analysis,
    summary_row,
    summary_table,
)
from thr_probe.analysis.stream import Batch, CompletionStream
from thr_probe.core.stats import quotient
from thr_probe.traces.reader import Run

_FINE_BINS = 400
_DRAWN_BINS = 20
_MIN_BANDWIDTH = 0.01  # Scott's rule gives 0 for equal overlaps
_GRID = np.linspace(0, 1, 401)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Completions:
    """One entry per completion with at least one dominant token."""

    overlap_R: Float[np.ndarray, " R"]
    """Share of the dominant tokens that are among as many tokens of highest entropy."""
    chance_R: Float[np.ndarray, " R"]
    """n_j / T_j, the overlap expected of as many tokens drawn at random."""
    question_R: Int[np.ndarray, " R"]
    """Index of the question."""

    def chosen(self, chosen_R: Bool[np.ndarray, " R"]) -> _Completions:
        """Some of them."""
        return _Completions(
            overlap_R=self.overlap_R[chosen_R],
            chance_R=self.chance_R[chosen_R],
            question_R=self.question_R[chosen_R],
        )

    @property
    def bandwidth(self) -> float:
        """Scott's, of the normal kernel of the density."""
        return max(scott_bandwidth(self.overlap_R), _MIN_BANDWIDTH)


def thr_entropy_overlap(
    run: Run, *, groups: str = "mixed", seed: int = 0, score_id: str | None = None
) -> Analysis:
    """Overlap of the dominant tokens with as many tokens of highest entropy (Fig. 3).

    Per completion j, n_j = #{|THR| > tau}; overlap_j = share of these among its n_j tokens of
    highest entropy, ties in favour of the earlier position. Completions with n_j = 0 are left out
    and counted; groups of tau <= 0, whose overlap is trivially 1, are counted and kept apart.
    Memory grows with the completions (some 40 bytes each), not with the tokens.

    Args:
        run: the trace.
        groups: `mixed` (groups with correct and incorrect completions) or `has-correct`.
        seed: of the bootstrap over questions.
        score_id: which scores; the only ones by default.

    Returns:
        summary, by split: `median_overlap`, `mean_overlap`, `peak_overlap` (mode of the density),
        `mean_chance` (of n_j / T_j). Splits named "..., tau > 0" leave out groups of tau <= 0 and
        are present where there are such groups; `facts["drawn_split"]` is the one to quote.
        curves: `density` and `histogram` of the drawn split, and of its correct and incorrect
        completions; `completions`, how many are drawn, and how many are not and why.
    """
    stream = CompletionStream(run, ["thr", "entropy"], groups=groups, score_id=score_id)
    found, stratum_R, num_none = _collect(stream)
    facts = stream.facts() | {"num_completions_none_dominant": num_none}
    reason = stream.empty_reason()
    drawn = "all" if not facts["num_groups_tau_nonpositive"] else "all, tau > 0"
    splits = stream.strata.splits()
    chosen = {name: found.chosen(mask_S[stratum_R]) for name, mask_S in splits.items()}
    if reason is None and len(chosen[drawn].overlap_R) == 0:
        reason = _nothing_to_compare(stream, num_none)
    if reason is not None:
        return empty_analysis("overlap", reason, facts)
    resampler = Resampler(stream.strata, stream.num_questions, seed=seed)
    sums = resampler.sums(_stratum_sums(found, stratum_R, len(stream.strata.question_S)))
    num_drawn = len(chosen[drawn].overlap_R)
    num_apart = len(found.overlap_R) - num_drawn
    facts |= {
        "drawn_split": drawn,
        "num_completions_drawn": num_drawn,
        "num_completions_apart": num_apart,
        "bandwidth": chosen[drawn].bandwidth,
        "kernel": "normal, Scott's bandwidth of at least 0.01, reflected at 0 and 1",
        "exclusions": stream.exclusion_sentence(),
        **resampler.facts,
    }
    analysis = Analysis(
        name="overlap",
        summary=summary_table(
            row
            for name, split in chosen.items()
            if len(split.overlap_R)
            for row in _rows(name, split, splits[name], sums, resampler)
        ),
        curves=_curves(chosen, drawn, splits, sums)
        | {"completions": _outside_table(num_drawn, num_apart, num_none)},
        facts=facts,
        caption="",
    )
    return replace(analysis, caption=overlap_caption(analysis))


def _collect(stream: CompletionStream) -> tuple[_Completions, Int[np.ndarray, " R"], int]:
    """Overlap, chance and stratum of every kept completion; how many had no dominant token."""
    overlaps, chances, strata = [np.empty(0)], [np.empty(0)], [np.empty(0, dtype=np.int64)]
    for batch in stream:
        overlap_R, chance_R = completion_overlaps(batch)
        some_R = ~np.isnan(overlap_R)
        overlaps.append(overlap_R[some_R])
        chances.append(chance_R[some_R])
        strata.append(batch.stratum_R[some_R])
    stratum_R = np.concatenate(strata)
    found = _Completions(
        overlap_R=np.concatenate(overlaps),
        chance_R=np.concatenate(chances),
        question_R=stream.strata.question_S[stratum_R],
    )
    return found, stratum_R, stream.num_completions - len(stratum_R)


def completion_overlaps(
    batch: Batch,
) -> tuple[Float[np.ndarray, " R"], Float[np.ndarray, " R"]]:
    """Overlap with the tokens of highest entropy, and n_j / T_j; NaN where n_j = 0."""
    dominant_N = dominant_tokens(batch)
    num_dominant_R = batch.count(dominant_N)
    falling_N = _falling_order(batch.tokens["entropy"])
    cut_R, left_R = _cuts(batch, falling_N, num_dominant_R)
    cut_N = batch.per_token(cut_R)
    num_both_R = batch.count(dominant_N & (falling_N < cut_N))
    num_both_R += _first_ties(batch, dominant_N, falling_N == cut_N, left_R)
    chance_R = quotient(num_dominant_R.astype(float), batch.lengths.astype(float))
    return quotient(num_both_R.astype(float), num_dominant_R.astype(float)), chance_R


def _falling_order(value_N: Float[np.ndarray, " N"]) -> Int[np.ndarray, " N"]:
    """Whole numbers in the opposite order of float32 values, from 0 to 2^32 - 1."""
    # the bits of a float, read as a whole number, rise with it, and fall where the sign bit is set;
    # adding 0 turns the zero of negative sign into the other
    bits_N = (np.asarray(value_N, dtype=np.float32) + np.float32(0)).view(np.int32)
    rising_N = np.where(bits_N < 0, bits_N ^ np.int32(0x7FFFFFFF), bits_N).astype(np.int64)
    return np.int64(0x7FFFFFFF) - rising_N


def _cuts(
    batch: Batch, falling_N: Int[np.ndarray, " N"], number_R: Int[np.ndarray, " R"]
) -> tuple[Int[np.ndarray, " R"], Int[np.ndarray, " R"]]:
    """The value of the last of the first `number` tokens in order, and how many of them have it."""
    # one sort of whole numbers for all completions: the index above, the value below
    sorted_N = falling_N + batch.per_token(np.arange(len(number_R)) << 32)
    sorted_N.sort()
    some_R = number_R > 0
    cut_R, left_R = np.full(len(number_R), -1, dtype=np.int64), np.zeros_like(number_R)
    first = batch.offsets[:-1][some_R]
    last = sorted_N[first + number_R[some_R] - 1]
    cut_R[some_R] = last & 0xFFFFFFFF
    left_R[some_R] = number_R[some_R] - (np.searchsorted(sorted_N, last) - first)
    return cut_R, left_R


def _first_ties(
    batch: Batch,
    dominant_N: Bool[np.ndarray, " N"],
    tied_N: Bool[np.ndarray, " N"],
    left_R: Int[np.ndarray, " R"],
) -> Int[np.ndarray, " R"]:
    """Dominant ones among the first `left` tied tokens of each completion: the earlier wins."""
    place = np.flatnonzero(tied_N)
    row = np.searchsorted(batch.offsets, place, side="right") - 1
    number_R = np.bincount(row, minlength=len(left_R))
    nth = np.arange(len(place)) - np.repeat(np.cumsum(number_R) - number_R, number_R)
    counted = dominant_N[place] & (nth < left_R[row])
    first_R: np.ndarray = np.bincount(row[counted], minlength=len(left_R))
    return first_R


def _stratum_sums(
    found: _Completions, stratum_R: Int[np.ndarray, " R"], num_strata: int
) -> dict[str, Float[np.ndarray, "S ..."]]:
    """Per stratum: completions, sums of overlap and of chance, completions by bin of overlap."""
    # ratios of whole numbers lie on edges: a rounding error must not put them below
    bin_R = np.minimum((found.overlap_R * _FINE_BINS + 1e-9).astype(np.int64), _FINE_BINS - 1)
    cell_R = stratum_R * _FINE_BINS + bin_R
    histogram = np.bincount(cell_R, minlength=num_strata * _FINE_BINS)
    return {
        "number": np.bincount(stratum_R, minlength=num_strata).astype(float),
        "overlap": np.bincount(stratum_R, found.overlap_R, minlength=num_strata),
        "chance": np.bincount(stratum_R, found.chance_R, minlength=num_strata),
        "histogram": histogram.reshape(num_strata, _FINE_BINS).astype(np.float64),
    }


def _rows(
    name: str,
    split: _Completions,
    chosen_S: Bool[np.ndarray, " S"],
    sums: ResampledSums,
    resampler: Resampler,
) -> list[dict[str, object]]:
    kernel_KX = _kernel(split.bandwidth)
    (median,) = resampler.quantiles(split.overlap_R, split.question_R, [0.5])
    peak = sums.interval(lambda drawn: _mode(drawn["histogram"] @ kernel_KX), chosen_S, of="number")
    overlap_unit = "share of the completion's dominant tokens"
    num_questions = len(np.unique(split.question_R))
    return [
        summary_row(quantity, name, unit, interval, num_questions=num_questions)
        for quantity, unit, interval in (
            ("median_overlap", overlap_unit, median),
            ("mean_overlap", overlap_unit, sums.ratio("overlap", "number", chosen_S)),
            ("peak_overlap", overlap_unit, peak),
            (
                "mean_chance",
                "share of the completion's tokens",
                sums.ratio("chance", "number", chosen_S),
            ),
        )
    ]


def _mode(density_CX: Float[np.ndarray, "C X"]) -> Float[np.ndarray, " C"]:
    mode_C = _GRID[density_CX.argmax(axis=1)]
    return np.where(density_CX.max(axis=1) > 0, mode_C, np.nan)


def _kernel(bandwidth: float) -> Float[np.ndarray, "K X"]:
    center = (np.arange(_FINE_BINS) + 0.5) / _FINE_BINS
    return gaussian_weights(_GRID, center, bandwidth, reflect_at=(0.0, 1.0))


def _curves(
    chosen: dict[str, _Completions],
    drawn: str,
    splits: dict[str, Bool[np.ndarray, " S"]],
    sums: ResampledSums,
) -> dict[str, pd.DataFrame]:
    left = np.arange(_DRAWN_BINS) / _DRAWN_BINS
    bars = {"left": left, "right": left + 1 / _DRAWN_BINS}
    coarse_KX = _DRAWN_BINS * np.eye(_DRAWN_BINS).repeat(_FINE_BINS // _DRAWN_BINS, axis=0)
    tables: dict[str, list[pd.DataFrame]] = {"density": [], "histogram": []}
    suffix = drawn.removeprefix("all")
    for name in ("all", "correct", "incorrect"):
        split = chosen[name + suffix]
        if not len(split.overlap_R):
            continue
        kernels = {
            "density": (_kernel(split.bandwidth), {"overlap": _GRID}),
            "histogram": (coarse_KX, bars),
        }
        for curve, (kernel_KX, columns) in kernels.items():
            value, low, high = _density_band(sums, splits[name + suffix], kernel_KX)
            table = {"split": name, **columns, "density": value, "low": low, "high": high}
            tables[curve].append(pd.DataFrame(table))
    return {curve: pd.concat(parts, ignore_index=True) for curve, parts in tables.items()}


def _density_band(
    sums: ResampledSums, chosen_S: Bool[np.ndarray, " S"], kernel_KX: Float[np.ndarray, "K X"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    def density(drawn: Drawn) -> Float[np.ndarray, "C X"]:
        return quotient(drawn["histogram"] @ kernel_KX, drawn["number"][:, None])

    return sums.band(density, chosen_S, of="number")


def _outside_table(num_drawn: int, num_apart: int, num_none: int) -> pd.DataFrame:
    """How many completions are in the curve, and why the others are not."""
    counts = {"drawn": num_drawn, "tau <= 0": num_apart, "no dominant token": num_none}
    total = max(sum(counts.values()), 1)
    return pd.DataFrame(
        [
            {"completions": name, "number": number, "share": number / total}
            for name, number in counts.items()
        ]
    )


def _nothing_to_compare(stream: CompletionStream, num_none: int) -> str:
    apart = stream.num_completions - num_none
    return (
        f"No completion has a dominant token to compare: of "
        f"{counted(stream.num_completions, 'completion')}, {num_none:,} have none and {apart:,} "
        "belong to groups with a threshold of 0 or below, where every token is dominant."
    )
