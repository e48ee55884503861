"""Kernel density estimates from a fixed histogram, so that memory does not grow with the data."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def gaussian_weights(
    at_X: Float[np.ndarray, " X"],
    center_K: Float[np.ndarray, " K"],
    bandwidth: float,
    *,
    reflect_at: tuple[float, ...] = (),
) -> Float[np.ndarray, "K X"]:
    """What one value in each bin adds to the density at each point: a normal curve of that width.

    Args:
        at_X: where the density is wanted.
        center_K: middles of the bins.
        bandwidth: standard deviation of the kernel.
        reflect_at: bounds of the values; what the kernel puts beyond one is folded back, so that
            the density keeps its mass and does not sag there (Silverman 1986, section 2.10).
    """
    distance_KX = (at_X - center_K[:, None]) / bandwidth
    weight_KX: np.ndarray = np.exp(-0.5 * distance_KX**2)
    for bound in reflect_at:
        mirrored_KX = (at_X - (2 * bound - center_K)[:, None]) / bandwidth
        weight_KX += np.exp(-0.5 * mirrored_KX**2)
    weight_KX /= bandwidth * np.sqrt(2 * np.pi)
    return weight_KX


def scott_bandwidth(values: Float[np.ndarray, " values"]) -> float:
    """Scott's rule in one dimension, sd n^(-1/5); 0 where all values are equal."""
    if len(values) < 2:
        return 0.0
    return float(np.std(values, ddof=1) * len(values) ** -0.2)
