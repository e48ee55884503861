"""Advantages of a group: Equations 1, 4, 5 and 6, and their mixes.

Float64 throughout: G or N numbers, cast where they meet a loss.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from thr_probe.core.thr import dominant_mask
from thr_probe.errors import UsageError


def group_advantages(
    correct_G: Bool[Tensor, " G"], *, std: str = "population"
) -> Float[Tensor, " G"]:
    """The GRPO advantage of Equation 1: sqrt((1 - q) / q) if correct, -sqrt(q / (1 - q)) if not.

    Args:
        correct_G: whether each rollout is correct.
        std: `population` is the paper's; `sample` divides by the Bessel-corrected deviation
            (verl, TRL), a factor sqrt((G - 1) / G).

    Returns:
        Advantages; all 0 where every rollout has the same outcome.

    Raises:
        UsageError: an unknown std.

    >>> group_advantages(torch.tensor([True, False, False, False])).tolist()
    [1.7320508075688772, -0.5773502691896257, -0.5773502691896257, -0.5773502691896257]
    """
    if std not in {"population", "sample"}:
        raise UsageError(f"unknown std {std!r}; choose population or sample")
    correct = correct_G.bool()
    num_correct, size = int(correct.sum()), len(correct)
    if num_correct in {0, size}:
        return torch.zeros(size, dtype=torch.float64, device=correct.device)
    q = num_correct / size
    factor = math.sqrt((size - 1) / size) if std == "sample" else 1.0
    up, down = math.sqrt((1 - q) / q), -math.sqrt(q / (1 - q))
    return down * factor + (up - down) * factor * correct.double()


def thr_advantages(
    advantage_N: Float[Tensor, " N"], thr_N: Float[Tensor, " N"], tau: float, p: float
) -> Float[Tensor, " N"]:
    """THR(p) of Equation 5, 1[|THR| > tau] (1 + sign(THR) p) A; p = 0 is Equation 4.

    Args:
        advantage_N: the completion's advantage at each of its tokens.
        thr_N: THR of each token.
        tau: the group's threshold.
        p: > 0 exploits, < 0 explores; |p| < 1, so that no advantage changes its sign.

    Raises:
        UsageError: |p| >= 1.
    """
    if not abs(p) < 1:
        raise UsageError(f"p must lie strictly between -1 and 1, got {p}")
    weighted_N = (1 + torch.sign(thr_N) * p) * advantage_N
    return torch.where(dominant_mask(thr_N, tau), weighted_N, torch.zeros_like(weighted_N))


def pass_at_k_factor(size: int, num_correct: int, k: int) -> float:
    """The factor f of Equation 6 on the GRPO advantage; 0 where N- < k.

    f = sqrt(x / (1 - x)) sqrt(q / (1 - q)) with x = C(N-, k) / C(G, k).

    Raises:
        UsageError: k outside 1..G.

    >>> round(pass_at_k_factor(8, 2, 4), 3)
    0.302
    """
    if not 1 <= k <= size:
        raise UsageError(f"k must lie in 1..{size} (the group size), got {k}")
    num_wrong = size - num_correct
    if num_correct == 0 or num_wrong < k:
        return 0.0
    miss = math.comb(num_wrong, k) / math.comb(size, k)
    return math.sqrt(miss / (1 - miss)) * math.sqrt(num_correct / num_wrong)


def pass_at_k_advantages(correct_G: Bool[Tensor, " G"], k: int) -> Float[Tensor, " G"]:
    """The Pass@K advantage of Equation 6, f A; all 0 where fewer than k rollouts are wrong.

    Raises:
        UsageError: k outside 1..G.
    """
    factor = pass_at_k_factor(len(correct_G), int(correct_G.bool().sum()), k)
    return factor * group_advantages(correct_G)


def mixed_pass_at_k_advantages(
    correct_G: Bool[Tensor, " G"], k: int, *, mix: str = "paper"
) -> Float[Tensor, " G"]:
    """Pass@K-mixed (section 6.2): the GRPO and the Pass@K advantage, weighted by q.

    Args:
        correct_G: whether each rollout is correct.
        k: of Pass@K.
        mix: `paper`, q A + (1 - q) f A, as printed; `chen`, q f A + (1 - q) A, Equation 18 of
            Chen et al. 2025 (arXiv 2508.10751), which the paper cites and which weighs the two
            the other way round.

    Raises:
        UsageError: an unknown mix, or k outside 1..G.
    """
    if mix not in {"paper", "chen"}:
        raise UsageError(f"unknown mix {mix!r}; choose paper or chen")
    q = float(correct_G.double().mean())
    weight = q if mix == "paper" else 1 - q
    return weight * group_advantages(correct_G) + (1 - weight) * pass_at_k_advantages(correct_G, k)
