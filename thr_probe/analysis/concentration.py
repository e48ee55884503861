"""How much of the |THR| mass the largest tokens hold: Lorenz-type curve, top shares, Gini.

Letters of shapes: C resamples, K bins, S shares, N tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

_OCTAVES = 40
_BINS_PER_OCTAVE = 16


@dataclass(frozen=True, slots=True)
class MagnitudeGrid:
    """Logarithmic bins of |THR| from the largest value down to 2^-40 of it, 16 to an octave.

    The bins' masses are summed exactly, so the curve is exact at every edge; between edges tokens
    count as equal although they differ by up to 4 %. Everything below lies in the first bin.
    """

    max_magnitude: float
    """The largest |THR|, above 0."""

    @property
    def num_bins(self) -> int:
        """K."""
        return _OCTAVES * _BINS_PER_OCTAVE

    def bin_index(self, magnitude_N: Float[np.ndarray, " N"]) -> Int[np.ndarray, " N"]:
        """The bin of each |THR|."""
        floor = self.max_magnitude * 2.0**-_OCTAVES
        relative_N = np.maximum(magnitude_N, floor, dtype=np.float64) / floor
        index_N: np.ndarray = (np.log2(relative_N) * _BINS_PER_OCTAVE).astype(np.int64)
        np.minimum(index_N, self.num_bins - 1, out=index_N)
        return index_N


def top_share(
    count_CK: Float[np.ndarray, "C K"],
    mass_CK: Float[np.ndarray, "C K"],
    token_share_S: Float[np.ndarray, " S"],
) -> Float[np.ndarray, "C S"]:
    """Share of the mass that the given shares of tokens hold, the largest |THR| first.

    Args:
        count_CK: tokens per bin of |THR|, ascending, for each resample.
        mass_CK: sum of |THR| per bin.
        token_share_S: shares of the tokens in [0, 1].

    Returns:
        Shares of the mass, linear within bins; NaN where there is no mass.
    """
    tokens_CK, held_CK = _from_the_top(count_CK), _from_the_top(mass_CK)
    result_CS = np.full((len(count_CK), len(token_share_S)), np.nan)
    for row in np.flatnonzero(mass_CK.sum(axis=1) > 0):
        result_CS[row] = np.interp(token_share_S, tokens_CK[row], held_CK[row])
    return result_CS


def gini(
    count_CK: Float[np.ndarray, "C K"], mass_CK: Float[np.ndarray, "C K"]
) -> Float[np.ndarray, " C"]:
    """The Gini coefficient of |THR| over tokens: 0 all equal, towards 1 one token holds all.

    Twice the area between the curve of `top_share` and the diagonal; NaN where there is no mass.
    """
    tokens_CK, held_CK = _from_the_top(count_CK), _from_the_top(mass_CK)
    area_C = (np.diff(tokens_CK) * (held_CK[:, 1:] + held_CK[:, :-1])).sum(axis=1)
    return np.where(mass_CK.sum(axis=1) > 0, area_C - 1, np.nan)


def _from_the_top(amount_CK: Float[np.ndarray, "C K"]) -> Float[np.ndarray, "C bounds"]:
    """Cumulative shares of the total from the last bin down, a leading 0 included."""
    cumulative_CK = np.cumsum(amount_CK[:, ::-1], axis=1)
    total_C1 = np.maximum(cumulative_CK[:, -1:], np.finfo(np.float64).tiny)
    return np.concatenate([np.zeros((len(amount_CK), 1)), cumulative_CK / total_C1], axis=1)
