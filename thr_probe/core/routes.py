"""The routes to d log pi along a direction of W: full, pairwise, and restricted to some columns.

Shapes: N completion tokens of a group, packed; C tokens of a chunk; V vocabulary; D hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from thr_probe.core.columns import Change, Restriction, more_columns, own_columns, pass_for_columns
from thr_probe.core.group import TokenGroup
from thr_probe.core.head import (
    Head,
    HeadPass,
    accumulation_dtype,
    check_tokens,
    chunks,
    directional_derivatives,
    distribution,
    in_accumulation_dtype,
    residuals,
)
from thr_probe.errors import UsageError

ROUTES = ("sparse", "full", "group", "pairwise")


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """How THR is computed."""

    vocab: str = "full"
    """`full`: the whole vocabulary, linear in the tokens. `sparse`: the columns that matter, with
    a certified bound on the error. `group`: the completions' own ids alone, the restriction of the
    original authors, with its bound. `pairwise`: the whole vocabulary, quadratic."""
    chunk_size: int = 1024
    """Tokens per chunk."""
    tolerance: float = 1e-3
    """Of `sparse`: mean bound on the error, relative to the mean |THR|; chooses eps."""
    eps: float | None = None
    """Of `sparse`, in place of `tolerance`: columns whose mean probability over the correct
    completions (|h| as weight) exceeds it are kept."""
    exact: bool = False
    """Of `sparse`: tokens that only the rounding of float32 leaves open are computed again from
    the whole vocabulary in float64, which costs many times what the route does."""

    def __post_init__(self) -> None:
        if self.vocab not in ROUTES:
            raise UsageError(f"unknown vocab {self.vocab!r}; choose {', '.join(ROUTES)}")
        if not self.tolerance > 0:
            raise UsageError(f"tolerance must be positive, got {self.tolerance}")
        if self.eps is not None and not self.eps >= 0:
            raise UsageError(f"eps must be 0 or positive, got {self.eps}")
        for name, given in (("eps", self.eps is not None), ("exact", self.exact)):
            if given and self.vocab != "sparse":
                raise UsageError(f"{name} does nothing with vocab {self.vocab!r}; sparse takes it")

    @property
    def is_restricted(self) -> bool:
        """Whether columns of the vocabulary are left out."""
        return self.vocab in {"sparse", "group"}


def likelihood_gradient(
    group: TokenGroup, head: Head, weight_N: Float[Tensor, " N"], *, chunk_size: int
) -> Float[Tensor, "V D"]:
    """G+ = sum_i 1/|y_i| sum_k R_{i,k} h_{i,k}^T over the correct rollouts i.

    It is the gradient of sum_i (1/|y_i|) log pi(y_i) with respect to W, hidden states held fixed.

    Args:
        group: the rollouts.
        head: the policy's head, weight in the accumulation dtype.
        weight_N: 1/|y_i| for the tokens of correct rollouts, 0 elsewhere.
        chunk_size: tokens per chunk.
    """
    counted = weight_N.nonzero()[:, 0]
    influence_VD = torch.zeros_like(head.weight_VD)
    for chunk in chunks(len(counted), chunk_size):
        rows = counted[chunk]
        hidden_CD = group.hidden_ND[rows].to(influence_VD.dtype)
        residual_CV = residuals(hidden_CD, group.token_ids_N[rows].long(), head)
        influence_VD.addmm_(residual_CV.T, hidden_CD * weight_N[rows, None])
        del residual_CV  # else two chunks are held while the next is formed
    return influence_VD


def likelihood_change(
    group: TokenGroup, head: Head, influence_VD: Float[Tensor, "V D"], *, chunk_size: int
) -> Float[Tensor, " N"]:
    """d log pi(y_{j,k'}) as W moves along G+, <R h^T, G+>: THR but for its sign 2 r_j - 1."""
    change_N = influence_VD.new_empty(len(group.token_ids_N))
    for chunk in chunks(len(change_N), chunk_size):
        hidden_CD = group.hidden_ND[chunk].to(influence_VD.dtype)
        ids = group.token_ids_N[chunk].long()
        along_CV = hidden_CD @ influence_VD.T
        change_N[chunk] = directional_derivatives(hidden_CD, ids, head, along_CV)
        del along_CV  # else two chunks are held while the next is formed
    return change_N


def pairwise_change(
    group: TokenGroup, head: Head, weight_N: Float[Tensor, " N"], *, chunk_size: int
) -> Float[Tensor, " N"]:
    """The same change as Definition 4.1's sum over token pairs, alpha_{k,k'} <h_k, h_k'>.

    alpha = <R_k, R_k'> splits into 1[y = y'] - pi_k(y') - pi_k'(y) + <pi_k, pi_k'>, each with its
    slope J. Quadratic in the tokens: the second witness of the linear route.
    """
    counted = weight_N.nonzero()[:, 0]
    change_N = torch.zeros_like(weight_N)
    for chunk in chunks(len(change_N), chunk_size):
        hidden_CD, ids, tilt_CV, top_C = _tilted(group, head, torch.arange(len(change_N))[chunk])
        for other in chunks(len(counted), chunk_size):
            hidden_KD, other_ids, tilt_KV, top_K = _tilted(group, head, counted[other])
            alpha_CK = (
                (ids[:, None] == other_ids) * top_C[:, None] * top_K
                - top_C[:, None] * tilt_KV[:, ids].T
                - top_K * tilt_CV[:, other_ids]
                + tilt_CV @ tilt_KV.T
            )
            kernel_CK = alpha_CK * (hidden_CD @ hidden_KD.T)
            change_N[chunk] += kernel_CK @ weight_N[counted[other]]
    return change_N


def weighted_change(
    group: TokenGroup,
    head: Head,
    weight_N: Float[Tensor, " N"],
    route: Route,
    read: HeadPass | None = None,
) -> Change:
    """d log pi of every token along sum_k weight_k R_k h_k^T, by the route asked for.

    Args:
        group: the tokens.
        head: weight in the accumulation dtype.
        weight_N: of each token; none negative.
        route: which one.
        read: for the restricted routes, `pass_for_columns`, where it was made already.
    """
    if route.is_restricted:
        return restricted_change(group, head, weight_N, route, read).change
    weight_N = weight_N.to(head.weight_VD.dtype)
    if route.vocab == "pairwise":
        change_N = pairwise_change(group, head, weight_N, chunk_size=route.chunk_size)
    else:
        influence_VD = likelihood_gradient(group, head, weight_N, chunk_size=route.chunk_size)
        change_N = likelihood_change(group, head, influence_VD, chunk_size=route.chunk_size)
    return Change(change_N, torch.zeros_like(change_N), torch.zeros_like(change_N))


def restricted_change(
    group: TokenGroup,
    head: Head,
    weight_N: Float[Tensor, " N"],
    route: Route,
    read: HeadPass | None = None,
) -> Restriction:
    """The same by `group` or `sparse`, which can be carried on with `more_columns`.

    Args: as `weighted_change`.
    """
    if read is None:
        read = pass_for_columns(group, head, weight_N, chunk_size=route.chunk_size)
    found = own_columns(group, head, weight_N, read, chunk_size=route.chunk_size)
    if route.vocab == "group":
        return found
    if route.eps is None:
        return more_columns(found, found.count_for(route.tolerance))
    return more_columns(found, found.count_for_mean(route.eps))


def _tilted(
    group: TokenGroup, head: Head, rows: Int[Tensor, " C"]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Hidden states, ids, J * pi and J at the sampled token of some tokens."""
    rows = rows.to(group.token_ids_N.device)
    hidden_CD = group.hidden_ND[rows].to(head.weight_VD.dtype)
    ids = group.token_ids_N[rows].long()
    pi = distribution(hidden_CD, head)
    slope_CV = torch.as_tensor(pi.slope, dtype=hidden_CD.dtype, device=ids.device)
    slope_CV = slope_CV.expand_as(pi.pi_CV)
    return hidden_CD, ids, pi.pi_CV * slope_CV, slope_CV.gather(1, ids[:, None])[:, 0]


def prepared(
    group: TokenGroup, head: Head, *, bias_gradient: bool = False
) -> tuple[TokenGroup, Head, Tensor]:
    """Checked group, head in the accumulation dtype, 1/|y_i| (float64) where y_i is correct."""
    check_tokens(group.hidden_ND, group.token_ids_N, head)
    dtype = accumulation_dtype(group.hidden_ND)
    head = in_accumulation_dtype(head, dtype)
    if bias_gradient:
        group, head = _with_bias_as_weight(group, head)
    return group, head, group.likelihood_weights


def _with_bias_as_weight(group: TokenGroup, head: Head) -> tuple[TokenGroup, Head]:
    """The bias as one more column of W behind a constant state: <h, h'> gains 1/scale^2."""
    if head.bias_V is None:
        raise UsageError(
            "bias_gradient: this head has no bias", hint="leave bias_gradient off for it"
        )
    bias_V1 = head.bias_V.to(head.weight_VD.dtype)[:, None]
    hidden_ND = group.hidden_ND.to(head.weight_VD.dtype)  # bfloat16 would round the constant
    constant_N1 = hidden_ND.new_full((len(hidden_ND), 1), 1 / head.scale)
    widened = TokenGroup(
        torch.cat([hidden_ND, constant_N1], dim=1),
        group.token_ids_N,
        group.rollout_index_N,
        group.correct_G,
    )
    weight_VD = torch.cat([head.weight_VD, bias_V1], dim=1)
    return widened, replace(head, weight_VD=weight_VD, bias_V=None)
