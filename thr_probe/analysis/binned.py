"""Sums by stratum and bin in one pass, columns of one value per completion, bins of q.

Letters of shapes: R completions, I items (tokens or completions), S strata, K bins, C resamples.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int, Shaped

from thr_probe.analysis.resampling import Drawn, ResampledSums
from thr_probe.analysis.stream import Batch, CompletionStream
from thr_probe.core.stats import Interval

_Q_BINS = 8


def completion_table(
    stream: CompletionStream, of_batch: Callable[[Batch], Mapping[str, Shaped[np.ndarray, " R"]]]
) -> dict[str, Shaped[np.ndarray, " R"]]:
    """One pass that keeps some values per completion, with its `group` and `stratum`.

    Args:
        stream: the completions.
        of_batch: the values of a batch's completions, by name.
    """
    parts: dict[str, list[np.ndarray]] = {}
    for batch in stream:
        own = {"group": batch.group_R, "stratum": batch.stratum_R, **of_batch(batch)}
        for name, value_R in own.items():
            parts.setdefault(name, []).append(value_R)
    return {name: np.concatenate(value) for name, value in parts.items()}


def stratum_totals(
    table: Mapping[str, Shaped[np.ndarray, " R"]], num_strata: int
) -> dict[str, Float[np.ndarray, " S"]]:
    """The sums of a `completion_table` over the completions of each stratum."""
    return {
        name: np.bincount(table["stratum"], weights=value_R, minlength=num_strata)
        for name, value_R in table.items()
        if name not in {"group", "stratum"}
    }


class BinnedSums:
    """What is added up by stratum and by bin of one axis, a batch at a time.

    Args:
        axis: a name, unique within an analysis.
        num_bins: K.
    """

    def __init__(self, axis: str, num_bins: int) -> None:
        self.axis, self.num_bins = axis, num_bins
        self._parts: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {"count": []}

    def add(
        self,
        stratum_I: Int[np.ndarray, " I"],
        bin_I: Int[np.ndarray, " I"],
        value_I: Mapping[str, Shaped[np.ndarray, " I"]],
    ) -> None:
        """Adds items, each to the cell of its stratum and bin; `count` counts them."""
        if not len(stratum_I):
            return
        strata, local_I = np.unique(stratum_I, return_inverse=True)
        cell_I = local_I * self.num_bins + bin_I
        size = len(strata) * self.num_bins
        shape = (len(strata), self.num_bins)
        counted = np.bincount(cell_I, minlength=size).reshape(shape).astype(np.float64)
        self._parts["count"].append((strata, counted))
        for name, value in value_I.items():
            found = np.bincount(cell_I, weights=value, minlength=size).reshape(shape)
            self._parts.setdefault(name, []).append((strata, found))

    def table(self, name: str, num_strata: int) -> Float[np.ndarray, "S K"]:
        """The sums of one value."""
        total_SK = np.zeros((num_strata, self.num_bins))
        for strata, found in self._parts[name]:
            total_SK[strata] += found
        return total_SK

    @property
    def bins(self) -> list[int]:
        """The bins with an item."""
        some_K = np.zeros(self.num_bins, dtype=bool)
        for _, counted in self._parts["count"]:
            some_K |= counted.any(axis=0)
        return np.flatnonzero(some_K).tolist()

    def columns(self, num_strata: int) -> dict[str, Float[np.ndarray, " S"]]:
        """A column for each value and each bin with an item, for `Resampler.sums`."""
        tables = {name: self.table(name, num_strata) for name in self._parts}
        return {
            self._cell(name, place): table[:, place]
            for name, table in tables.items()
            for place in self.bins
        }

    def ratios(
        self,
        sums: ResampledSums,
        numerator: str,
        denominator: str,
        chosen_S: Bool[np.ndarray, " S"],
    ) -> list[Interval]:
        """In each of `bins`, the ratio of two sums over a split, with its interval.

        Args:
            sums: of `columns`, among others.
            numerator: name of a value.
            denominator: name of another.
            chosen_S: the strata of the split.
        """
        return [
            sums.ratio(self._cell(numerator, place), self._cell(denominator, place), chosen_S)
            for place in self.bins
        ]

    def shares(
        self, sums: ResampledSums, name: str, chosen_S: Bool[np.ndarray, " S"]
    ) -> list[Interval]:
        """What part of the sum of a value lies in each of `bins`; `sums` has its total by name."""
        return [sums.ratio(self._cell(name, place), name, chosen_S) for place in self.bins]

    def running_ratios(
        self,
        sums: ResampledSums,
        numerators: Sequence[str],
        denominator: str,
        chosen_S: Bool[np.ndarray, " S"],
    ) -> list[Interval]:
        """As `ratios`, of several values added up."""

        def ratio(drawn: Drawn, place: int) -> Float[np.ndarray, " C"]:
            above = np.sum([drawn[self._cell(name, place)] for name in numerators], axis=0)
            quotient: np.ndarray = above / drawn[self._cell(denominator, place)]
            return quotient

        return [
            sums.interval(
                functools.partial(ratio, place=place), chosen_S, of=self._cell(denominator, place)
            )
            for place in self.bins
        ]

    def _cell(self, name: str, place: int) -> str:
        return f"{self.axis}.{name}.{place}"


def interval_columns(name: str, intervals: Iterable[Interval]) -> dict[str, list[float]]:
    """Columns of a curve: the values under a name, their bounds as `<name>_low`, `<name>_high`."""
    listed = list(intervals)
    return {
        name: [interval.value for interval in listed],
        f"{name}_low": [interval.low for interval in listed],
        f"{name}_high": [interval.high for interval in listed],
    }


def latex_number(interval: Interval, *, digits: int = 2) -> str:
    r"""A number with its interval, `$-0.12$ [$-0.20$, $0.01$]`; no bounds if undefined."""
    text = f"${interval.value:.{digits}f}$"
    if math.isfinite(interval.low):
        text += f" [${interval.low:.{digits}f}$, ${interval.high:.{digits}f}$]"
    return text


def latex_significant(interval: Interval) -> str:
    r"""A number of any size to three digits with its interval, `$1.5 \times 10^{-4}$`."""

    def written(value: float) -> str:
        mantissa, _, exponent = f"{value:.3g}".partition("e")
        return rf"${mantissa} \times 10^{{{int(exponent)}}}$" if exponent else f"${mantissa}$"

    text = written(interval.value)
    if math.isfinite(interval.low):
        text += f" [{written(interval.low)}, {written(interval.high)}]"
    return text


def q_bins(q_I: Float[np.ndarray, " I"]) -> tuple[Int[np.ndarray, " I"], pd.DataFrame]:
    """Bins of q = share of correct completions: each value its own where at most 8 occur.

    Otherwise eighths of [0, 1], those that hold a value. A value is known to 1e-6.

    Returns:
        index of each item's bin, and a table with a row per bin, columns `left`, `right` (equal
        where a bin is one value; an eighth holds its left end) and `mean_q` over the items.
    """
    value, place_I = np.unique(np.round(q_I.astype(np.float64), 6), return_inverse=True)
    left: np.ndarray = value
    right: np.ndarray = value
    if len(value) > _Q_BINS:
        eighth = np.minimum((value * _Q_BINS).astype(np.int64), _Q_BINS - 1)
        some, bin_of_value = np.unique(eighth, return_inverse=True)
        left, right, place_I = some / _Q_BINS, (some + 1) / _Q_BINS, bin_of_value[place_I]
    mean = np.bincount(place_I, weights=q_I) / np.bincount(place_I)
    return place_I, pd.DataFrame({"left": left, "right": right, "mean_q": mean})
