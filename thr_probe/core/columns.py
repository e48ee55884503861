"""THR on some columns of the vocabulary, with a certificate of what the others could change.

Outside of the ids that a group's completions contain every entry of every R is -J pi: nothing there
was sampled. What a pair of tokens k, k' loses with such a column v is J pi_k(v) J pi_k'(v) <h, h'>,
small in both factors, so that a few thousand columns of 150,000 give THR to many digits.

The completions' own ids are always kept, in float64; of the others those of the largest influence
delta_v = sum_i w_i |h_i| pi_i(v), which `head_pass` gathers on its way. With theta the largest
delta_v that was left out and tail_j token j's probability outside of what was kept,

    |error_j| <= |h_j| J^2 tail_j theta + rounding_j.

`rounding_j` covers the float32 logits outside of the own ids. Those of the own ids are formed again
in float64, and share with the others only the normaliser. The bound on the rounding of one logit is
a multiple of the largest ever seen (`LOGIT_ROUNDING`), not a worst case.

Shapes: N tokens of a group; K own ids; L other columns taken at once; C tokens of a chunk.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from thr_probe.core.group import TokenGroup
from thr_probe.core.head import Head, HeadPass, Outside, chunks, head_pass, logits_and_slope
from thr_probe.errors import UsageError

Rows = Int[Tensor, " R"]

LOGIT_ROUNDING = 16.0
"""Bound on the rounding of <w_v, h>, in units of u |w_v| |h|. The largest of 10^8 seen was 10.4,
with states and weights that are all positive; 5 with signs."""
COLUMNS_AT_ONCE = 4096
"""Columns whose part of G+ is held at once."""


@dataclass(frozen=True, slots=True)
class Change:
    """d log pi of every token along a direction in W, with a bound on its error."""

    change_N: Float[Tensor, " N"]
    """The change; float64 from the restricted routes."""
    error_N: Float[Tensor, " N"]
    """Bound on |change - exact change|; 0 on the exact routes."""
    dropped_mass_N: Float[Tensor, " N"]
    """Probability that was left out; 0 on the exact routes."""


@dataclass(frozen=True, slots=True)
class Restriction:
    """The restricted route of one group, as far as it has come; numbers per token in float64."""

    group: TokenGroup
    """The rollouts."""
    head: Head
    """Weight in the accumulation dtype."""
    weight_N: Float[Tensor, " N"]
    """w of each token: 1/|y_i| where the rollout is correct, 0 elsewhere."""
    read: HeadPass
    """The pass over the vocabulary."""
    order_L: Int[Tensor, " L"]
    """The ids outside of the own ones, by falling influence."""
    logit_N: Float[Tensor, " N"]
    """Bound on |l / T| of each token: |h| times the longest row of W, scaled."""
    logit_error_N: Float[Tensor, " N"]
    """Bound on the relative rounding of exp(l / T) and its sums outside of the own ids."""
    chunk_size: int
    """Tokens per chunk."""
    normalizer_N: Float[Tensor, " N"]
    """log sum_v exp(l_v / T)."""
    change_N: Float[Tensor, " N"]
    """d log pi along G+ from the columns so far."""
    square_N: Float[Tensor, " N"]
    """|R|^2 from the columns so far."""
    taken_mass_N: Float[Tensor, " N"]
    """Probability in the columns taken besides the own ids."""
    rounding_N: Float[Tensor, " N"]
    """Bound on the error of `change_N` from rounding."""
    theta_N: Float[Tensor, " N"]
    """Largest influence among the columns that each token's change leaves out."""
    num_taken: int
    """Columns taken besides the own ids."""

    @property
    def outside(self) -> Outside:
        """Probability and influence outside of the own ids."""
        assert self.read.outside is not None, "the pass set no columns apart"
        return self.read.outside

    @property
    def num_left(self) -> int:
        """Columns that were not taken yet."""
        return len(self.order_L) - self.num_taken

    @property
    def front(self) -> float:
        """The largest influence among the columns that were not taken yet, 0 only without any."""
        left = self.order_L[self.num_taken : self.num_taken + 1]
        tiny = torch.finfo(torch.float32).tiny  # below it influences are rounded to 0
        return max(float(self.outside.influence_V[left]), tiny) if len(left) else 0.0

    @property
    def change(self) -> Change:
        """What a caller needs of it."""
        return Change(self.change_N, self.error, self.dropped_mass)

    @property
    def slope(self) -> float:
        """The largest J; a soft-cap makes it only smaller."""
        return abs(self.head.scale) / self.head.temperature

    @property
    def dropped_mass(self) -> Float[Tensor, " N"]:
        """Probability outside of the columns that were kept, from above."""
        mass_N = self.outside.mass_N.double()
        # both masses were summed from rounded logits
        tail_N = (mass_N - self.taken_mass_N).clamp_min(0) + 4 * self.logit_error_N * mass_N
        return torch.where(self.theta_N > 0, tail_N, 0.0)

    @property
    def dropped_error(self) -> Float[Tensor, " N"]:
        """The part of the bound that is due to the columns left out."""
        theta_N = self.theta_N * (1 + 4 * self.logit_error_N.max())
        return self.group.norms * self.slope**2 * self.dropped_mass * theta_N

    @property
    def error(self) -> Float[Tensor, " N"]:
        """Bound on |change - exact change| of every token."""
        return self.dropped_error + self.rounding_N

    def count_for(self, tolerance: float) -> int:
        """Columns that bring the mean of the bound below `tolerance` times the mean |change|."""
        loss_N = self.group.norms * self.slope**2 * self.outside.mass_N
        wanted, per_theta = tolerance * float(self.change_N.abs().mean()), float(loss_N.mean())
        return self.count_above(wanted / per_theta if per_theta > 0 else math.inf)

    def count_for_mean(self, eps: float) -> int:
        """Columns whose mean probability over the correct completions, |h| as weight, is above."""
        return self.count_above(eps * float((self.weight_N * self.group.norms).sum()))

    def count_above(self, theta: float) -> int:
        """Columns whose influence is above theta."""
        return int((self.outside.influence_V > theta).sum())


def pass_for_columns(
    group: TokenGroup, head: Head, weight_N: Float[Tensor, " N"], *, chunk_size: int
) -> HeadPass:
    """The pass over the vocabulary with all that the restricted routes need.

    Args:
        group: the rollouts.
        head: the policy's head.
        weight_N: w of each token.
        chunk_size: tokens per chunk.

    Raises:
        UsageError: matrix products of less than float32's precision, which no bound here covers.
    """
    precision = torch.get_float32_matmul_precision()
    if precision != "highest":
        raise UsageError(
            f"the bound on the error of THR needs exact float32 products, but torch's float32 "
            f"matmul precision is {precision!r}",
            hint='torch.set_float32_matmul_precision("highest"), or vocab="full" without a bound',
        )
    return head_pass(
        group.hidden_ND,
        group.token_ids_N,
        head,
        chunk_size=chunk_size,
        apart_K=torch.unique(group.token_ids_N.long()),
        weight_N=weight_N * group.norms,
    )


@torch.no_grad()
def own_columns(
    group: TokenGroup,
    head: Head,
    weight_N: Float[Tensor, " N"],
    read: HeadPass,
    *,
    chunk_size: int,
) -> Restriction:
    """The change from the completions' own ids: `vocab="group"`, and the start of `sparse`.

    Args:
        group: the rollouts.
        head: weight in the accumulation dtype.
        weight_N: w of each token.
        read: `pass_for_columns` of these tokens with these weights, or larger ones, and with the
            ids of these tokens, or more, set apart.
        chunk_size: tokens per chunk.
    """
    assert read.outside is not None, "the pass set no columns apart"
    influence_V = read.outside.influence_V
    is_own_V = torch.zeros_like(influence_V, dtype=torch.bool)
    is_own_V[read.outside.columns_K] = True
    order_V = influence_V.argsort(descending=True, stable=True)
    nothing_N = torch.zeros_like(weight_N, dtype=torch.float64)
    logit_N = _largest_logits(group, head)
    start = Restriction(
        group=group,
        head=head,
        weight_N=weight_N.double(),
        read=read,
        order_L=order_V[~is_own_V[order_V]],
        logit_N=logit_N,
        logit_error_N=_rounding(logit_N, read.outside.mass_N.dtype),
        chunk_size=chunk_size,
        normalizer_N=nothing_N,
        change_N=nothing_N,
        square_N=nothing_N,
        taken_mass_N=nothing_N,
        rounding_N=nothing_N,
        theta_N=nothing_N,
        num_taken=0,
    )
    return _with_own_ids(replace(start, theta_N=nothing_N + start.front))


def _largest_logits(group: TokenGroup, head: Head) -> Float[Tensor, " N"]:
    longest = float(torch.linalg.vector_norm(head.weight_VD, dim=1).max()) * abs(head.scale)
    bias = 0.0 if head.bias_V is None else float(head.bias_V.abs().max())
    return (group.norms * longest + bias) / head.temperature


def _rounding(logit_N: Float[Tensor, " N"], dtype: torch.dtype) -> Float[Tensor, " N"]:
    """Bound on the relative rounding of exp(l / T), and of sums of it, in a dtype."""
    return torch.finfo(dtype).eps / 2 * (LOGIT_ROUNDING * logit_N + 64)


@dataclass(frozen=True, slots=True)
class _Own:
    """Some tokens at the own ids, in float64."""

    hidden_CD: Float[Tensor, "C D"]
    """Their states."""
    tilt_CK: Float[Tensor, "C K"]
    """J pi."""
    residual_CK: Float[Tensor, "C K"]
    """R = J (e_y - pi)."""
    normalizer_C: Float[Tensor, " C"]
    """log sum exp over the whole vocabulary."""
    mass_C: Float[Tensor, " C"]
    """Probability of all other ids."""


def _at_own_ids(route: Restriction, head_K: Head, rows: Rows) -> _Own:
    group, columns_K = route.group, route.outside.columns_K
    hidden_CD = group.hidden_ND[rows].double()
    logits_CK, slope = logits_and_slope(hidden_CD, head_K)
    others_C = route.outside.mass_N[rows].double().log() + route.read.normalizer_N[rows]
    normalizer_C = torch.logaddexp(logits_CK.logsumexp(dim=1), others_C)
    pi_CK, mass_C = (logits_CK - normalizer_C[:, None]).exp(), (others_C - normalizer_C).exp()
    place_C1 = torch.searchsorted(columns_K, group.token_ids_N[rows].long())[:, None]
    slope_CK = torch.as_tensor(slope, dtype=pi_CK.dtype, device=pi_CK.device).expand_as(pi_CK)
    # 1 - pi(y) as the sum of the others, which keeps its digits for a sure token
    rest_C = pi_CK.scatter(1, place_C1, 0.0).sum(dim=1) + mass_C
    residual_CK = -pi_CK * slope_CK
    residual_CK.scatter_(1, place_C1, rest_C[:, None] * slope_CK.gather(1, place_C1))
    return _Own(hidden_CD, pi_CK * slope_CK, residual_CK, normalizer_C, mass_C)


def _some_columns(head: Head, ids_L: Int[Tensor, " L"], dtype: torch.dtype) -> Head:
    """The head with some rows of W only."""
    bias_L = None if head.bias_V is None else head.bias_V[ids_L].to(dtype)
    return replace(head, weight_VD=head.weight_VD[ids_L].to(dtype), bias_V=bias_L)


def _with_own_ids(route: Restriction) -> Restriction:
    """G+ at the own ids, and the change of every token along it.

    The mass of the other ids is rounded by a factor 1 + e, |e| <= logit_error: pi at the own ids
    then moves by -e mass pi, and R, whose sampled entry holds 1 - pi(y), by e mass J pi.
    """
    group, num_ids = route.group, len(route.outside.columns_K)
    norm_N, hidden_size = group.norms, group.hidden_ND.shape[1]
    influence_KD = norm_N.new_zeros((num_ids, hidden_size))
    rounding_K = norm_N.new_zeros(num_ids)
    unit = 4 * float(_rounding(route.logit_N, torch.float64).max())
    head_K = _some_columns(route.head, route.outside.columns_K, torch.float64)
    for rows in _chunks_of(route.weight_N.nonzero()[:, 0], route.chunk_size):
        own = _at_own_ids(route, head_K, rows)
        influence_KD.addmm_(own.residual_CK.T, own.hidden_CD * route.weight_N[rows, None])
        moved_CK = own.tilt_CK.abs() * (route.logit_error_N[rows] * own.mass_C)[:, None]
        moved_CK += unit * own.residual_CK.abs()
        rounding_K += moved_CK.T @ (route.weight_N[rows] * norm_N[rows])
    parts = []
    for rows in _chunks_of(torch.arange(len(norm_N), device=norm_N.device), route.chunk_size):
        own = _at_own_ids(route, head_K, rows)
        along_CK = own.hidden_CD @ influence_KD.T
        moved_C = torch.linalg.vecdot(own.tilt_CK, along_CK).abs()
        rounding_C = route.logit_error_N[rows] * own.mass_C * moved_C
        rounding_C += norm_N[rows] * (own.residual_CK.abs() @ rounding_K)
        change_C = torch.linalg.vecdot(own.residual_CK, along_CK)
        square_C = own.residual_CK.square().sum(dim=1)
        parts.append((own.normalizer_C, change_C, square_C, rounding_C))
    normalizer_N, change_N, square_N, rounding_N = (
        torch.cat(one) for one in zip(*parts, strict=True)
    )
    return replace(
        route,
        normalizer_N=normalizer_N,
        change_N=change_N,
        square_N=square_N,
        rounding_N=rounding_N,
    )


@torch.no_grad()
def more_columns(route: Restriction, count: int, rows: Rows | None = None) -> Restriction:
    """The next `count` columns of the largest influence, for all tokens or some.

    Args:
        route: as far as it has come.
        count: columns; at most `num_left`.
        rows: the tokens whose change they are added to, all of them with the columns so far; the
            bound of the others stays.
    """
    group = route.group
    if rows is None:
        rows = torch.arange(len(route.change_N), device=route.change_N.device)
    assert bool((route.theta_N[rows] == route.front).all()), "a token lacks earlier columns"
    change_N, square_N = route.change_N.clone(), route.square_N.clone()
    mass_N, rounding_N = route.taken_mass_N.clone(), route.rounding_N.clone()
    taken_L = route.order_L[route.num_taken : route.num_taken + count]
    norm_N, worst = group.norms, route.logit_error_N.max()
    for block in chunks(len(taken_L), COLUMNS_AT_ONCE):
        ids_L = taken_L[block]
        head_L = _some_columns(route.head, ids_L, route.outside.mass_N.dtype)
        influence_LD = _influence(route, head_L)
        bound_L = route.slope * route.outside.influence_V[ids_L].double()
        for part in _chunks_of(rows, route.chunk_size):
            hidden_CD, pi_CL, tilt_CL = _at_columns(route, head_L, part)
            mass_N[part] += pi_CL.sum(dim=1, dtype=torch.float64)
            square_N[part] += tilt_CL.square().sum(dim=1, dtype=torch.float64)
            along_CL = hidden_CD @ influence_LD.T
            change_N[part] += torch.linalg.vecdot(tilt_CL, along_CL).double()
            loss_C = norm_N[part] * (tilt_CL.abs() @ bound_L.to(tilt_CL.dtype)).double()
            rounding_N[part] += 2 * (route.logit_error_N[part] + worst) * loss_C
    taken = replace(
        route,
        change_N=change_N,
        square_N=square_N,
        taken_mass_N=mass_N,
        rounding_N=rounding_N,
        num_taken=route.num_taken + len(taken_L),
    )
    theta_N = route.theta_N.clone()
    theta_N[rows] = taken.front
    return replace(taken, theta_N=theta_N)


def _at_columns(route: Restriction, head_L: Head, rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
    """States, pi and J pi of some tokens at some columns outside of the own ids."""
    hidden_CD = route.group.hidden_ND[rows].to(head_L.weight_VD.dtype)
    logits_CL, slope = logits_and_slope(hidden_CD, head_L)
    pi_CL = (logits_CL - route.normalizer_N[rows, None].to(logits_CL.dtype)).exp_()
    return hidden_CD, pi_CL, pi_CL * slope


def _influence(route: Restriction, head_L: Head) -> Float[Tensor, "L D"]:
    """-G+ at some columns outside of the own ids, where every R is -J pi."""
    influence_LD = torch.zeros_like(head_L.weight_VD)
    for rows in _chunks_of(route.weight_N.nonzero()[:, 0], route.chunk_size):
        hidden_CD, _, tilt_CL = _at_columns(route, head_L, rows)
        influence_LD.addmm_(tilt_CL.T, hidden_CD * route.weight_N[rows, None].to(hidden_CD.dtype))
    return influence_LD


@torch.no_grad()
def every_column(route: Restriction, rows: Rows) -> Restriction:
    """The change of some tokens from the whole vocabulary, all of it in float64.

    What is left of the error is the rounding of float64. The tokens' mass outside of the own ids
    is summed again, which needs one more pass of the correct rollouts and of these tokens.

    Args:
        route: any of this group.
        rows: the tokens; the numbers of others are not to be used.
    """
    counted_N = route.weight_N > 0
    counted_N[rows] = True
    mass_N = route.outside.mass_N.to(torch.float64, copy=True)
    doubled = replace(route.outside, mass_N=mass_N)
    read = replace(route.read, normalizer_N=route.read.normalizer_N.double(), outside=doubled)
    route = replace(route, read=read, normalizer_N=read.normalizer_N)
    mass_N[counted_N] = 0.0
    for block in chunks(len(route.order_L), COLUMNS_AT_ONCE):
        head_L = _some_columns(route.head, route.order_L[block], torch.float64)
        for part in _chunks_of(counted_N.nonzero()[:, 0], route.chunk_size):
            mass_N[part] += _at_columns(route, head_L, part)[1].sum(dim=1)
    start = own_columns(route.group, route.head, route.weight_N, read, chunk_size=route.chunk_size)
    return more_columns(start, start.num_left, rows)


def _chunks_of(rows: Rows, chunk_size: int) -> Iterator[Rows]:
    for chunk in chunks(len(rows), chunk_size):
        yield rows[chunk]
