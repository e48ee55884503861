"""Pass@K, the probability that at least one of K completions is correct."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from thr_probe.errors import UsageError


def pass_at_k(
    num_samples: int | ArrayLike, num_correct: int | ArrayLike, k: int
) -> Float[np.ndarray, "..."]:
    """Unbiased Pass@K per question, 1 - C(n - c, k) / C(n, k) (Chen et al. 2021, arXiv 2107.03374).

    Evaluated as 1 - prod_{i<k} (n - c - i) / (n - i), which neither overflows nor cancels.

    Args:
        num_samples: n, completions drawn per question; scalar or array.
        num_correct: c, how many of them are correct; broadcasts against `num_samples`.
        k: completions a user would draw, 1 <= k <= n.

    Returns:
        The estimate for each question, float64, of the broadcast shape.

    Raises:
        UsageError: k < 1, k > n, or c outside 0..n.

    >>> float(pass_at_k(8, 2, 4).round(6))
    0.785714
    """
    n, c = np.broadcast_arrays(np.asarray(num_samples), np.asarray(num_correct))
    if k < 1 or (n.size and k > n.min()):
        fewest = int(n.min()) if n.size else 0
        raise UsageError(
            f"Pass@{k} needs at least {max(k, 1)} completions per question, got {fewest}",
            hint="sample more completions per question, or ask for a smaller k",
        )
    if np.any((c < 0) | (c > n)):
        raise UsageError("Pass@K: the number of correct completions must lie between 0 and n")
    miss = np.ones(n.shape)
    for i in range(k):
        # fewer than i wrong completions are left: every draw of k contains a correct one
        miss = miss * np.maximum(n - c - i, 0) / (n - i)
    return np.asarray(1.0 - miss)
