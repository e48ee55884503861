"""Draws by inverse CDF, one uniform number per seed, prompt, rollout and position."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor


def uniforms(
    seed: int, prompt_id: str, rollout: int, num_positions: int
) -> Float64[np.ndarray, " T"]:
    """Uniform numbers in [0, 1) of a rollout's positions, from Philox keyed by what they are for.

    Position t gets the same number whatever else is sampled and however many positions follow.
    """
    text = f"{seed}\x00{prompt_id}\x00{rollout}"
    key = int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big")
    return np.random.Generator(np.random.Philox(key=key)).random(num_positions)


def sampled_logprobs(
    logits_BV: Float[Tensor, "B V"], *, temperature: float, top_p: float
) -> Float64[Tensor, "B V"]:
    """log of the distribution that is drawn from; -inf outside the nucleus.

    The nucleus (Holtzman et al. 2020) is the smallest set of likeliest tokens whose mass reaches
    top_p, ties in the order of ids, renormalised.
    """
    logprob_BV = torch.log_softmax(logits_BV.double() / temperature, dim=-1)
    if top_p >= 1:
        return logprob_BV
    ordered_BV, order_BV = logprob_BV.sort(dim=-1, descending=True, stable=True)
    mass_BV = ordered_BV.exp()
    # kept while the mass before a token is short of top_p: the first one always is
    late_BV = mass_BV.cumsum(dim=-1) - mass_BV >= top_p
    outside_BV = torch.zeros_like(late_BV).scatter(-1, order_BV, late_BV)
    return torch.log_softmax(logprob_BV.masked_fill(outside_BV, -torch.inf), dim=-1)


def inverse_cdf(
    logprob_BV: Float64[Tensor, "B V"], uniform_B: Float64[Tensor, " B"]
) -> Int64[Tensor, " B"]:
    """The id whose stretch of the cumulated probabilities a uniform number falls into."""
    cumulated_BV = logprob_BV.exp().cumsum(dim=-1)
    total_B1 = cumulated_BV[:, -1:]
    # strictly below the total, so that rounding never lands on an id behind it
    target_B1 = torch.minimum(
        uniform_B[:, None] * total_B1, torch.nextafter(total_B1, torch.zeros_like(total_B1))
    )
    return torch.searchsorted(cumulated_BV, target_B1, right=True)[:, 0]


def draw(
    logits_BV: Float[Tensor, "B V"],
    uniform_B: Float64[Tensor, " B"],
    *,
    temperature: float,
    top_p: float,
) -> tuple[Int64[Tensor, " B"], Float64[Tensor, " B"]]:
    """One token per row, with its log-probability in the distribution drawn from.

    Temperature 0 takes the likeliest id (the first of equals) and its log-probability at 1.
    """
    if temperature == 0:
        logprob_BV = torch.log_softmax(logits_BV.double(), dim=-1)
        ids_B = logits_BV.argmax(dim=-1)
    else:
        logprob_BV = sampled_logprobs(logits_BV, temperature=temperature, top_p=top_p)
        ids_B = inverse_cdf(logprob_BV, uniform_B)
    return ids_B, logprob_BV.gather(1, ids_B[:, None])[:, 0]
