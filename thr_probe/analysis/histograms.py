"""Two passes over the tokens: the scales of THR, then sums and histograms for each stratum.

Letters of shapes: N tokens of a batch, S strata, K bins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped

from thr_probe.analysis.concentration import MagnitudeGrid
from thr_probe.analysis.float_bins import Binning, looked_up
from thr_probe.analysis.resampling import ResampledSums
from thr_probe.analysis.sketch import QuantileSketch
from thr_probe.analysis.stream import Batch, CompletionStream

CLIP = (0.005, 0.995)
"""Quantiles of THR between which the linear axis lies."""
NUM_LINEAR_BINS = 400
"""Bins of the linear axis, finer than what is drawn."""
MARGIN_BINS = 12
"""More of them beyond either end, so that smoothing does not sag there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scales:
    """What the first pass finds, from which the bins of the second are made."""

    max_magnitude: float
    """The largest |THR|."""
    linear_low: float
    """Where the linear axis begins."""
    linear_high: float
    """Where it ends."""
    asinh_scale: float
    """The |THR| around which the asinh axis turns from linear to logarithmic."""

    @property
    def linear_edges(self) -> Float[np.ndarray, " edges"]:
        """Edges of the fine linear bins, margins included."""
        step = (self.linear_high - self.linear_low) / NUM_LINEAR_BINS
        index = np.arange(-MARGIN_BINS, NUM_LINEAR_BINS + MARGIN_BINS + 1)
        return self.linear_low + index * step

    def asinh_edges(self, bins: int) -> Float[np.ndarray, " edges"]:
        """Edges uniform in asinh(THR / scale), from the largest |THR| on either side."""
        reach = np.arcsinh(self.max_magnitude / self.asinh_scale)
        return self.asinh_scale * np.sinh(np.linspace(-reach, reach, bins + 1))


def survey(stream: CompletionStream, *, per_tau: bool) -> Scales:
    """The first pass: largest |THR|, ends of the linear axis, scale of the asinh axis.

    The scale is 1/100 of the median tau over groups of tau > 0, so that one run's figure can be
    read like another's; without such a group, the median |THR|.

    Args:
        stream: the completions, its thr read.
        per_tau: whether THR is divided by the tau of its group.
    """
    sketch = QuantileSketch()
    for batch in stream:
        sketch.add(_values(batch) if per_tau else batch.tokens["thr"])
    positive = stream.tau[stream.tau > 0]
    tau = float(np.median(positive)) if len(positive) else 0.0
    tau = 1.0 if per_tau else tau
    low, high = (sketch.quantile(share) for share in CLIP)
    low, high = min(low, -1.5 * tau), max(high, 1.5 * tau)  # the lines at +-tau are to be seen
    if low == high:
        low, high = low - sketch.max_magnitude, high + sketch.max_magnitude
    scale = tau / 100 or sketch.magnitude_quantile(0.5) or sketch.max_magnitude
    return Scales(
        max_magnitude=sketch.max_magnitude, linear_low=low, linear_high=high, asinh_scale=scale
    )


def add_tokens(
    stream: CompletionStream, scales: Scales, sums: ResampledSums, *, per_tau: bool, bins: int
) -> None:
    """The second pass: sums and histograms of each stratum, all in float64.

    Added are `tokens`, `dominant`, `positive`, `zero`, `positive_dominant` (counts), `mass`,
    `dominant_mass`, `positive_mass` (sums of |THR|), and by bin: `linear` (fine bins, margins
    included), `asinh` (THR != 0), `magnitude` (logarithmic bins of |THR|) and in the same bins
    `magnitude_mass`.

    Args:
        stream: the same completions again.
        scales: of the first pass.
        sums: what is added to.
        per_tau: as there.
        bins: of the asinh histogram.
    """
    sizes, binnings = _binnings(scales, bins)
    if not per_tau:
        binnings = {
            name: looked_up(exact, scales.max_magnitude) for name, exact in binnings.items()
        }
    for batch in stream:
        thr_N = _values(batch) if per_tau else batch.tokens["thr"]
        magnitude_N = np.abs(thr_N, dtype=np.float64)
        strata, local_R = np.unique(batch.stratum_R, return_inverse=True)
        found = {
            name: np.bincount(local_R, value_R, minlength=len(strata))
            for name, value_R in _scalars(batch, thr_N, magnitude_N).items()
        }
        for name, binning in binnings.items():
            shape = (len(strata), sizes[name] + 1)
            cell_N = batch.per_token(local_R * shape[1]) + binning(thr_N)
            found[name] = _histogram(cell_N, None, shape)
            if name == "magnitude":
                found["magnitude_mass"] = _histogram(cell_N, magnitude_N, shape)
        sums.add(strata, found)


def _binnings(scales: Scales, bins: int) -> tuple[dict[str, int], dict[str, Binning]]:
    """How many bins each histogram has, and the bin of a THR, one beyond the last for none."""
    grid = MagnitudeGrid(scales.max_magnitude)
    sizes = {
        "linear": len(scales.linear_edges) - 1,
        "asinh": bins,
        "magnitude": grid.num_bins,
    }
    return sizes, {
        "linear": lambda thr_N: _linear_bins(thr_N, scales),
        "asinh": lambda thr_N: _asinh_bins(thr_N, scales, bins),
        "magnitude": lambda thr_N: grid.bin_index(np.abs(thr_N)),
    }


def _values(batch: Batch) -> Float[np.ndarray, " N"]:
    """THR over the tau of its group."""
    relative_N: np.ndarray = batch.tokens["thr"].astype(np.float64) / batch.per_token(batch.tau_R)
    return relative_N


def _scalars(
    batch: Batch, thr_N: Float[np.ndarray, " N"], magnitude_N: Float[np.ndarray, " N"]
) -> dict[str, Shaped[np.ndarray, " R"]]:
    """What is counted or summed of each completion, by name."""
    dominant_N, positive_N = dominant_tokens(batch), thr_N > 0
    return {
        "tokens": batch.lengths,
        "dominant": batch.count(dominant_N),
        "positive": batch.count(positive_N),
        "zero": batch.count(thr_N == 0),
        "positive_dominant": batch.count(positive_N & dominant_N),
        "mass": batch.sum(magnitude_N),
        "dominant_mass": batch.sum(magnitude_N * dominant_N),
        "positive_mass": batch.sum(magnitude_N * positive_N),
    }


def dominant_tokens(batch: Batch) -> Shaped[np.ndarray, " N"]:
    """1[|THR| > tau], strict, as in Equations 4 and 5, in the precision of the trace."""
    mask_N: np.ndarray = np.abs(batch.tokens["thr"]) > batch.per_token(batch.tau_R)
    return mask_N


def _linear_bins(thr_N: Float[np.ndarray, " N"], scales: Scales) -> Int[np.ndarray, " N"]:
    """Bin of each token, one beyond the last outside of the margins."""
    edges = scales.linear_edges
    num_bins = len(edges) - 1
    position_N = np.floor((thr_N - edges[0]) / (edges[1] - edges[0]))
    inside_N = (position_N >= 0) & (position_N < num_bins)
    return np.where(inside_N, position_N, num_bins).astype(np.int64)


def _asinh_bins(thr_N: Float[np.ndarray, " N"], scales: Scales, bins: int) -> Int[np.ndarray, " N"]:
    """Bin of each token, one beyond the last for a THR of 0, which has no sign to be drawn with."""
    reach = np.arcsinh(scales.max_magnitude / scales.asinh_scale)
    position_N = np.arcsinh(thr_N / scales.asinh_scale) / reach * (bins / 2) + bins / 2
    index_N: np.ndarray = np.clip(np.floor(position_N), 0, bins - 1).astype(np.int64)
    # a tiny negative THR may round onto the edge at 0, whose bin is the first of positive sign
    index_N[(thr_N < 0) & (index_N >= bins // 2)] = bins // 2 - 1
    index_N[thr_N == 0] = bins
    return index_N


def _histogram(
    cell_N: Int[np.ndarray, " N"],
    weight_N: Float[np.ndarray, " N"] | None,
    shape: tuple[int, int],
) -> Shaped[np.ndarray, "rows K"]:
    """Counts, or sums of weights, by row and bin; the last cell of each row is left out."""
    total = np.bincount(cell_N, weights=weight_N, minlength=shape[0] * shape[1])
    table: np.ndarray = total.reshape(shape)[:, :-1]
    return table
