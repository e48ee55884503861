"""How far the sampler's distribution is from the policy's at the tokens that the sampler drew.

mu is the distribution that a token was drawn from, pi the policy's own. With r = log pi - log mu,
KL(mu || pi) = E_mu[-r] has two estimators per token (Schulman 2020, "Approximating KL divergence"):
k1 = -r and k3 = exp(r) - 1 - r.

Shapes: N tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

LARGEST_LOG_RATIO = 20.0
"""Ratios are capped at e^20: engines write -9999 for a token that should have been impossible."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenMismatch:
    """The log-ratio of every token, and what is made of it."""

    log_ratio_N: Float[np.ndarray, " N"]
    """r = log pi - log mu, nats."""

    @property
    def k1(self) -> Float[np.ndarray, " N"]:
        """-r: unbiased for KL(mu || pi), of either sign."""
        return -self.log_ratio_N

    @property
    def k3(self) -> Float[np.ndarray, " N"]:
        """exp(r) - 1 - r, never negative; unbiased where mu draws whatever pi may.

        Under top-p it does not: E_mu[exp(r)] is then the mass of pi inside the nucleus, and the
        mean of k3 is smaller than that of k1 by the mass outside.
        """
        capped_N = self.log_ratio_N.clip(max=LARGEST_LOG_RATIO)
        k3_N: np.ndarray = np.expm1(capped_N) - capped_N
        return k3_N

    @property
    def gap(self) -> Float[np.ndarray, " N"]:
        """|r|, nats."""
        gap_N: np.ndarray = np.abs(self.log_ratio_N)
        return gap_N

    @property
    def ratio(self) -> Float[np.ndarray, " N"]:
        """pi / mu, the importance weight of the token."""
        ratio_N: np.ndarray = np.exp(self.log_ratio_N.clip(max=LARGEST_LOG_RATIO))
        return ratio_N

    def truncated(self, cap: float) -> Bool[np.ndarray, " N"]:
        """Tokens whose ratio truncated importance sampling would cut down to `cap`."""
        truncated_N: np.ndarray = self.log_ratio_N > np.log(cap)
        return truncated_N


def token_mismatch(
    logprob_N: Float[np.ndarray, " N"], sampler_logprob_N: Float[np.ndarray, " N"]
) -> TokenMismatch:
    """The mismatch at each token, in float64.

    Args:
        logprob_N: log pi of the tokens, nats.
        sampler_logprob_N: log mu of them, nats.

    >>> found = token_mismatch(np.log([0.5, 0.2]), np.log([0.4, 0.25]))
    >>> found.ratio.round(6).tolist(), (found.k3 >= 0).tolist()
    ([1.25, 0.8], [True, True])
    """
    log_ratio_N = logprob_N.astype(np.float64) - sampler_logprob_N.astype(np.float64)
    return TokenMismatch(log_ratio_N=log_ratio_N)
