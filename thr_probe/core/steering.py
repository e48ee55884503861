"""How a THR(p) step moves the likelihood of the correct completions, to first order."""

from __future__ import annotations

import math
from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Steering:
    """dF(p) = net + p slope, per unit of step size, for a step on this question alone.

    All NaN where no rollout is correct, which leaves THR undefined.
    """

    net: float
    """sum of |A| THR over the tokens that count in the loss: dF at p = 0."""
    slope: float
    """sum of |A| |THR| over the dominant tokens; never negative."""
    total: float
    """sum of |A| |THR| over all tokens."""

    @property
    def p_zero(self) -> float:
        """The p at which dF vanishes, -net / slope; NaN without a slope."""
        return -self.net / self.slope if self.slope else math.nan

    @property
    def influence_captured(self) -> float:
        """The dominant tokens' share of sum |A| |THR|; NaN where that is 0."""
        return self.slope / self.total if self.total else math.nan


def steering(
    advantage_N: Float[Tensor, " N"],
    thr_N: Float[Tensor, " N"],
    dominant_N: Bool[Tensor, " N"],
    counted_N: Bool[Tensor, " N"],
) -> Steering:
    """First-order drift of F, sum over correct i of 1/|y_i| log pi(y_i), under THR(p).

    With hidden states held fixed and the ratio at 1, a gradient step on W changes F by
    sum |A| THR over its tokens; Equation 5 turns that into net + p slope.

    Args:
        advantage_N: the completion's advantage at each of its tokens, before any reweighing.
        thr_N: THR of each token.
        dominant_N: tokens that are reweighed by 1 + sign(THR) p.
        counted_N: tokens whose base advantage counts: the dominant ones and those kept for their
            entropy.

    >>> import torch
    >>> thr_N = torch.tensor([2.0, -1.0, 0.5])
    >>> found = steering(torch.ones(3), thr_N, thr_N.abs() > 0.7, thr_N.abs() > 0.7)
    >>> found.net, found.slope, round(found.p_zero, 3), round(found.influence_captured, 3)
    (1.0, 3.0, -0.333, 0.857)
    """
    if bool(thr_N.isnan().any()):
        return Steering(net=math.nan, slope=math.nan, total=math.nan)
    drift_N = advantage_N.double().abs() * thr_N.double()
    return Steering(
        net=float(drift_N[counted_N].sum()),
        slope=float(drift_N[dominant_N].abs().sum()),
        total=float(drift_N.abs().sum()),
    )
