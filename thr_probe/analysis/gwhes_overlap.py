"""Whether two orders of the questions have the same ones at their ends (Deng et al. 2025, Table 1).

Letters of shapes: B resamples, C resamples of one chunk, R rows, K sizes of the sets compared.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from thr_probe.core.stats import Interval

_MOST_SIZES = 40
_DENG = (10, 15)
"""K of Deng et al.'s Table 1, of 57 and 47 questions."""

Rows = Float[np.ndarray, " R"]


def overlap_of_extremes(
    weight_CR: Float[np.ndarray, "C R"], score_R: Rows, change_R: Rows, sizes: Sequence[int]
) -> Float[np.ndarray, "C K"]:
    """Share of the K rows of largest score that are among the K of smallest change, for every K.

    Row i counts weight_i times; the last row of a set may count in part. Equal values go in the
    order of the rows.

    >>> once = np.ones((1, 4))
    >>> score, change = np.array([4.0, 3.0, 2.0, 1.0]), np.array([0.1, 0.3, 0.2, 0.4])
    >>> overlap_of_extremes(once, score, change, [1, 2, 3]).tolist()
    [[1.0, 0.5, 1.0]]
    """
    before = [_before(weight_CR, value_R) for value_R in (-score_R, change_R)]
    columns = []
    for size in sizes:
        taken = [np.clip(size - before_CR, 0, weight_CR) for before_CR in before]
        columns.append(np.minimum(*taken).sum(axis=1) / size)
    return np.column_stack(columns)


def _before(weight_CR: Float[np.ndarray, "C R"], value_R: Rows) -> Float[np.ndarray, "C R"]:
    """How many rows stand before each one in ascending order of a value."""
    order = np.argsort(value_R, kind="stable")
    ordered_CR = weight_CR[:, order]
    before_CR = np.empty_like(weight_CR)
    before_CR[:, order] = np.cumsum(ordered_CR, axis=1) - ordered_CR
    return before_CR


def chance_overlap(number: int, size: int) -> Float[np.ndarray, " X"]:
    """Probability that two random sets of K among N share x = 0 .. K (hypergeometric).

    >>> chance_overlap(4, 2).round(4).tolist()
    [0.1667, 0.6667, 0.1667]
    """
    ways = [
        math.comb(size, shared) * math.comb(number - size, size - shared)
        for shared in range(size + 1)
    ]
    total = math.comb(number, size)
    return np.array([way / total for way in ways])


def _sizes(number: int) -> list[int]:
    """K of the curve: all below N, or some of them evenly spaced with the ones reported."""
    if number - 1 <= _MOST_SIZES:
        return list(range(1, number))
    spaced = np.linspace(1, number - 1, _MOST_SIZES).round().astype(int).tolist()
    return sorted({*spaced, *reported_sizes(number)})


def reported_sizes(number: int) -> list[int]:
    """K of the summary: those of Deng et al., or a third and a half of few questions."""
    found = [size for size in _DENG if size < number]
    return found or sorted({max(1, number // 3), max(1, number // 2)})


def overlap_table(
    questions: pd.DataFrame, chunks: Iterable[Float[np.ndarray, "C R"]]
) -> pd.DataFrame:
    """The overlap for every K, or some of them, with its interval and that of random sets.

    Args:
        questions: with columns gwhes and change.
        chunks: how often each row counts, some resamples at a time.
    """
    score_R, change_R = (questions[name].to_numpy(float) for name in ("gwhes", "change"))
    number = len(questions)
    sizes = _sizes(number)
    once = np.ones((1, number))
    draws_BK = np.concatenate(
        [overlap_of_extremes(weight, score_R, change_R, sizes) for weight in chunks]
    )
    low_K, high_K = np.quantile(draws_BK, [0.025, 0.975], axis=0)
    chance = [_chance_bounds(number, size) for size in sizes]
    return pd.DataFrame(
        {
            "k": sizes,
            "overlap": overlap_of_extremes(once, score_R, change_R, sizes)[0],
            "low": low_K,
            "high": high_K,
            "chance": np.array(sizes) / number,
            "chance_low": [low for low, _ in chance],
            "chance_high": [high for _, high in chance],
        }
    )


def _chance_bounds(number: int, size: int) -> tuple[float, float]:
    """Central 95 % of the overlap of random sets."""
    summed = chance_overlap(number, size).cumsum()
    low, high = np.searchsorted(summed, [0.025, 0.975])
    return float(low) / size, float(min(high, size)) / size


def overlap_rows(overlap: pd.DataFrame, number: int) -> Iterator[tuple[str, str, Interval]]:
    """Quantity, unit and value of the reported K.

    Args:
        overlap: of `overlap_table`.
        number: of questions.
    """
    for size in reported_sizes(number):
        row = overlap[overlap["k"] == size].iloc[0]
        shared = round(float(row["overlap"]) * size)
        chance = chance_overlap(number, size)[shared:].sum()
        yield f"overlap_at_{size}", f"share of {size}", _interval(row, "overlap", "low", "high")
        yield (
            f"chance_at_{size}",
            f"share of {size}",
            _interval(row, "chance", "chance_low", "chance_high"),
        )
        none = float("nan")
        found = Interval(value=float(chance), low=none, high=none)
        yield f"chance_probability_at_{size}", "probability", found


def _interval(row: pd.Series, value: str, low: str, high: str) -> Interval:
    return Interval(value=float(row[value]), low=float(row[low]), high=float(row[high]))
