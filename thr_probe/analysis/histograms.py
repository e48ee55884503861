"""Two passes over the tokens: the scales of THR, then sums and histograms for each stratum.

Letters of shapes: N tokens of a batch, S strata, K bins.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped

from thr_probe.analysis.concentration import MagnitudeGrid
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


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSums:
    """What the second pass adds up."""

    scalar_S: dict[str, Float[np.ndarray, " S"]]
    """`tokens`, `dominant`, `positive`, `zero`, `positive_dominant` counts; sums of |THR|: `mass`,
    `dominant_mass`, `positive_mass`."""
    linear_SK: Float[np.ndarray, "S K1"]
    """Tokens in the fine linear bins, margins included."""
    asinh_SK: Float[np.ndarray, "S K2"]
    """Tokens of THR != 0 in the bins uniform in asinh."""
    magnitude_SK: Float[np.ndarray, "S K3"]
    """Tokens in logarithmic bins of |THR|."""
    mass_SK: Float[np.ndarray, "S K3"]
    """Sum of |THR| in the same bins."""


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
        sketch.add(_values(batch, per_tau=per_tau))
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


def token_sums(stream: CompletionStream, scales: Scales, *, per_tau: bool, bins: int) -> TokenSums:
    """The second pass: sums and histograms of each stratum, all in float64.

    Args:
        stream: the same completions again.
        scales: of the first pass.
        per_tau: as there.
        bins: of the asinh histogram.
    """
    num_strata = len(stream.strata.question_S)
    grid = MagnitudeGrid(scales.max_magnitude)
    shapes = {
        "linear": len(scales.linear_edges) - 1,
        "asinh": bins,
        "magnitude": grid.num_bins,
        "mass": grid.num_bins,
    }
    histogram = {name: np.zeros((num_strata, width)) for name, width in shapes.items()}
    scalar: dict[str, np.ndarray] = {}
    for batch in stream:
        thr_N = _values(batch, per_tau=per_tau)
        strata, local_R = np.unique(batch.stratum_R, return_inverse=True)
        local_N = batch.per_token(local_R)
        for name, value_N in _scalars(batch, thr_N):
            total = scalar.setdefault(name, np.zeros(num_strata))
            total[strata] += np.bincount(local_N, weights=value_N, minlength=len(strata))
        magnitude_N = np.abs(thr_N)
        for name, bin_N, weight_N in (
            ("linear", _linear_bins(thr_N, scales), None),
            ("asinh", _asinh_bins(thr_N, scales, bins), None),
            ("magnitude", grid.bin_index(magnitude_N), None),
            ("mass", grid.bin_index(magnitude_N), magnitude_N),
        ):
            histogram[name][strata] += _histogram(
                local_N, bin_N, weight_N, shape=(len(strata), shapes[name])
            )
    return TokenSums(
        scalar_S=scalar,
        linear_SK=histogram["linear"],
        asinh_SK=histogram["asinh"],
        magnitude_SK=histogram["magnitude"],
        mass_SK=histogram["mass"],
    )


def _values(batch: Batch, *, per_tau: bool) -> Float[np.ndarray, " N"]:
    thr_N = batch.tokens["thr"].astype(np.float64)
    return thr_N / batch.per_token(batch.tau_R) if per_tau else thr_N


def _scalars(
    batch: Batch, thr_N: Float[np.ndarray, " N"]
) -> Iterator[tuple[str, Float[np.ndarray, " N"] | None]]:
    """What is counted (0 or 1) or summed of every token; None counts each."""
    dominant_N = dominant_tokens(batch)
    positive_N, magnitude_N = thr_N > 0, np.abs(thr_N)
    yield "tokens", None
    yield "dominant", dominant_N.astype(np.float64)
    yield "positive", positive_N.astype(np.float64)
    yield "zero", (thr_N == 0).astype(np.float64)
    yield "positive_dominant", (positive_N & dominant_N).astype(np.float64)
    yield "mass", magnitude_N
    yield "dominant_mass", magnitude_N * dominant_N
    yield "positive_mass", magnitude_N * positive_N


def dominant_tokens(batch: Batch) -> Shaped[np.ndarray, " N"]:
    """1[|THR| > tau], strict, as in Equations 4 and 5, in the precision of the trace."""
    mask_N: np.ndarray = np.abs(batch.tokens["thr"]) > batch.per_token(batch.tau_R)
    return mask_N


def _linear_bins(thr_N: Float[np.ndarray, " N"], scales: Scales) -> Int[np.ndarray, " N"]:
    """Bin of each token, -1 beyond the margins."""
    edges = scales.linear_edges
    position_N = np.floor((thr_N - edges[0]) / (edges[1] - edges[0]))
    inside_N = (position_N >= 0) & (position_N < len(edges) - 1)
    return np.where(inside_N, position_N, -1).astype(np.int64)


def _asinh_bins(thr_N: Float[np.ndarray, " N"], scales: Scales, bins: int) -> Int[np.ndarray, " N"]:
    """Bin of each token, -1 for a THR of exactly 0, which has no sign to be drawn with."""
    reach = np.arcsinh(scales.max_magnitude / scales.asinh_scale)
    position_N = np.arcsinh(thr_N / scales.asinh_scale) / reach * (bins / 2) + bins / 2
    index_N: np.ndarray = np.clip(np.floor(position_N), 0, bins - 1).astype(np.int64)
    # a tiny negative THR may round onto the edge at 0, whose bin is the first of positive sign
    index_N[(thr_N < 0) & (index_N >= bins // 2)] = bins // 2 - 1
    index_N[thr_N == 0] = -1
    return index_N


def _histogram(
    row_N: Int[np.ndarray, " N"],
    bin_N: Int[np.ndarray, " N"],
    weight_N: Float[np.ndarray, " N"] | None,
    *,
    shape: tuple[int, int],
) -> Shaped[np.ndarray, "rows K"]:
    """Counts, or sums of weights, by row and bin; bin -1 is left out."""
    inside_N = bin_N >= 0
    flat = (row_N * shape[1] + bin_N)[inside_N]
    weights = None if weight_N is None else weight_N[inside_N]
    total = np.bincount(flat, weights=weights, minlength=shape[0] * shape[1])
    table: np.ndarray = total.reshape(shape)
    return table
