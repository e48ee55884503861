"""From the hidden state to log-probability, entropy and residual.

The only place that knows how logits come from W h.

Shapes: N completion tokens of a group, packed; C tokens of one chunk; V vocabulary; D hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from thr_probe.errors import DataError

BLOCK_ENTRIES = {"cpu": 2**18, "cuda": 2**27}
"""Logits that are worked on at once: on a CPU what its cache holds, so that they are fetched from
memory once; on a GPU what keeps it busy."""


@dataclass(frozen=True, slots=True)
class Head:
    """How a policy turns the state before its unembedding into a distribution.

    z = scale * W h + bias;  l = softcap * tanh(z / softcap) where the family soft-caps;
    pi = softmax(l / temperature).
    """

    weight_VD: Float[Tensor, "V D"]
    """The unembedding W."""
    bias_V: Float[Tensor, " V"] | None = None
    """Bias of the unembedding; it enters pi, and the influence only with `bias_gradient`."""
    scale: float = 1.0
    """Factor on W h (Cohere's logit_scale, the inverse of Granite's logits_scaling)."""
    softcap: float | None = None
    """c of c * tanh(z / c) (Gemma 2)."""
    temperature: float = 1.0
    """Sampling temperature of the rollouts; score greedy rollouts at 1."""

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise DataError(
                f"Head: temperature must be positive, got {self.temperature}",
                hint="rollouts sampled greedily (T = 0) are scored at temperature 1",
            )
        if self.softcap is not None and not self.softcap > 0:
            raise DataError(f"Head: softcap must be positive or None, got {self.softcap}")
        if self.scale == 0:
            raise DataError("Head: a scale of 0 makes every distribution uniform")


@dataclass(frozen=True, slots=True)
class HeadPass:
    """What one pass over the unembedding yields for every completion token."""

    logprob_N: Float[Tensor, " N"]
    """log pi of the token that was sampled, nats, at the head's temperature."""
    entropy_N: Float[Tensor, " N"]
    """Entropy of pi, nats, at the head's temperature."""
    normalizer_N: Float[Tensor, " N"]
    """log sum_v exp(l_v / T): what turns a logit into a log-probability."""
    outside: Outside | None = None
    """What lies outside the columns that were set apart, where there were any."""

    def of_rows(self, rows: Int[Tensor, " R"]) -> HeadPass:
        """The same of some of the tokens; the influence stays that of all."""
        outside = self.outside
        if outside is not None:
            outside = replace(outside, mass_N=outside.mass_N[rows])
        return HeadPass(
            self.logprob_N[rows], self.entropy_N[rows], self.normalizer_N[rows], outside
        )


@dataclass(frozen=True, slots=True)
class Outside:
    """The vocabulary outside of a set of columns, as one pass sees it on its way."""

    columns_K: Int[Tensor, " K"]
    """The ids that were set apart, ascending."""
    mass_N: Float[Tensor, " N"]
    """sum of pi over the other ids, of every token; summed, not taken from 1."""
    influence_V: Float[Tensor, " V"]
    """sum_k weight_k pi_k of every other id; 0 at those that were set apart."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """pi of some tokens and how it moves with W h."""

    pi_CV: Float[Tensor, "C V"]
    """pi over the full vocabulary."""
    slope: float | Float[Tensor, "C V"]
    """J = d(l / T) / d(W h), per vocabulary entry; one number where nothing soft-caps."""

    def residual(
        self, token_ids_C: Int[Tensor, " C"], *, out: Float[Tensor, "C V"] | None = None
    ) -> Float[Tensor, "C V"]:
        """R = d log pi(y) / d(W h) = J (e_y - pi); Definition 4.1's e_y - pi for a plain head."""
        index = token_ids_C[:, None]
        residual_CV = torch.neg(self.pi_CV, out=out)
        residual_CV.scatter_(1, index, 0.0)
        # 1 - pi(y) as the sum of the others: for a sure token 1 - exp(log pi) has no correct digit
        residual_CV.scatter_(1, index, -residual_CV.sum(dim=1, keepdim=True))
        return residual_CV if self._is_plain else residual_CV.mul_(self.slope)

    def directional_derivative(
        self, change_CV: Float[Tensor, "C V"], token_ids_C: Int[Tensor, " C"]
    ) -> Float[Tensor, " C"]:
        """d log pi(y) when W h moves along `change`: <R, change> in the centred form.

        With w = J * change this is sum_v pi_v (w_y - w_v): the terms of <R, change> = w_y - <pi, w>
        cancel before they are added up, which keeps the sign of tokens the policy is sure of.
        """
        moved_CV = change_CV if self._is_plain else change_CV * self.slope
        sampled_C1 = moved_CV.gather(1, token_ids_C[:, None])
        change_C: Tensor = torch.linalg.vecdot(self.pi_CV, sampled_C1 - moved_CV)
        return change_C

    @property
    def _is_plain(self) -> bool:
        return isinstance(self.slope, float) and self.slope == 1


def accumulation_dtype(tensor: Tensor) -> torch.dtype:
    """float64 stays float64; everything else is accumulated in float32."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def distribution(hidden_CD: Float[Tensor, "C D"], head: Head) -> Distribution:
    """pi and J of some states; `head.weight_VD` already has the accumulation dtype."""
    return _distribution(uncapped_logits(hidden_CD, head), head)


def _distribution(uncapped_CV: Float[Tensor, "C V"], head: Head) -> Distribution:
    logits_CV, slope = _capped_and_slope(uncapped_CV, head)
    return Distribution(torch.softmax(logits_CV, dim=1), slope)


def residuals(
    hidden_CD: Float[Tensor, "C D"], token_ids_C: Int[Tensor, " C"], head: Head
) -> Float[Tensor, "C V"]:
    """R of a chunk, formed in the memory of its logits."""
    matrix_CV = uncapped_logits(hidden_CD, head)
    for block in _blocks(matrix_CV):
        logits_BV = matrix_CV[block]
        _distribution(logits_BV, head).residual(token_ids_C[block], out=logits_BV)
    return matrix_CV


def directional_derivatives(
    hidden_CD: Float[Tensor, "C D"],
    token_ids_C: Int[Tensor, " C"],
    head: Head,
    change_CV: Float[Tensor, "C V"],
) -> Float[Tensor, " C"]:
    """d log pi(y) of a chunk when W h moves along `change`."""
    matrix_CV = uncapped_logits(hidden_CD, head)
    parts = [
        _distribution(matrix_CV[block], head).directional_derivative(
            change_CV[block], token_ids_C[block]
        )
        for block in _blocks(matrix_CV)
    ]
    return torch.cat(parts)


def logits_and_slope(
    hidden_CD: Float[Tensor, "C D"], head: Head
) -> tuple[Float[Tensor, "C V"], float | Float[Tensor, "C V"]]:
    """l / T, differentiable, and J = d(l / T) / d(W h), one number where nothing soft-caps."""
    return _capped_and_slope(uncapped_logits(hidden_CD, head), head)


def _capped_and_slope(
    logits_CV: Float[Tensor, "C V"], head: Head
) -> tuple[Float[Tensor, "C V"], float | Float[Tensor, "C V"]]:
    slope: float | Tensor = head.scale / head.temperature
    if head.softcap is not None:
        argument_CV = logits_CV / head.softcap
        # 1 - tanh^2 has no correct digit where the cap saturates; 1 / cosh^2 keeps them all
        slope = slope / torch.cosh(argument_CV).square()
        # not in place: the backward pass of tanh needs its value
        logits_CV = torch.tanh(argument_CV) * head.softcap
    return (logits_CV if head.temperature == 1 else logits_CV / head.temperature), slope


def uncapped_logits(hidden_CD: Float[Tensor, "C D"], head: Head) -> Float[Tensor, "C V"]:
    """z = scale * W h + bias; `head.weight_VD` already has the accumulation dtype."""
    logits_CV = hidden_CD.to(head.weight_VD.dtype) @ head.weight_VD.T
    if head.scale != 1:
        logits_CV *= head.scale
    if head.bias_V is not None:
        logits_CV += head.bias_V.to(logits_CV.dtype)
    return logits_CV


def logits(hidden_CD: Float[Tensor, "C D"], head: Head) -> Float[Tensor, "C V"]:
    """l / T, in one matrix of its own; without gradients."""
    logits_CV = uncapped_logits(hidden_CD, head)
    if head.softcap is not None:
        logits_CV.div_(head.softcap).tanh_().mul_(head.softcap)
    return logits_CV if head.temperature == 1 else logits_CV.div_(head.temperature)


def in_accumulation_dtype(head: Head, dtype: torch.dtype) -> Head:
    """The same head with its weight in the dtype that everything is accumulated in."""
    return replace(head, weight_VD=head.weight_VD.to(dtype))


def chunks(num_tokens: int, chunk_size: int) -> Iterator[slice]:
    """Consecutive slices of at most `chunk_size` tokens.

    Raises:
        DataError: chunk_size below 1.
    """
    if chunk_size < 1:
        raise DataError(f"chunk_size must be at least 1, got {chunk_size}")
    for start in range(0, num_tokens, chunk_size):
        yield slice(start, min(start + chunk_size, num_tokens))


def check_tokens(
    hidden_ND: Float[Tensor, "N D"], token_ids_N: Int[Tensor, " N"], head: Head
) -> None:
    """States and ids must fit the unembedding.

    Raises:
        DataError: another hidden size than the unembedding's, or an id outside the vocabulary.
    """
    vocab_size, hidden_size = head.weight_VD.shape
    if hidden_ND.shape[1] != hidden_size:
        raise DataError(
            f"hidden states have size {hidden_ND.shape[1]}, the unembedding takes {hidden_size}"
        )
    if token_ids_N.numel() == 0:
        return
    low, high = (int(bound) for bound in torch.aminmax(token_ids_N))
    if low < 0 or high >= vocab_size:
        raise DataError(
            f"token ids run from {low} to {high}, the unembedding has {vocab_size} rows",
            hint="score with the policy (and tokenizer) that sampled these completions",
        )


@torch.no_grad()
def head_pass(
    hidden_ND: Float[Tensor, "N D"],
    token_ids_N: Int[Tensor, " N"],
    head: Head,
    *,
    chunk_size: int = 1024,
    apart_K: Int[Tensor, " K"] | None = None,
    weight_N: Float[Tensor, " N"] | None = None,
) -> HeadPass:
    """Log-probability and entropy of every completion token, `chunk_size` rows of logits at a time.

    The one pass over the whole vocabulary that collecting, scoring and training make. Where columns
    are set apart, it also tells what the restricted routes of THR need to know of all the others.

    Args:
        hidden_ND: input of the unembedding at the position that predicts each token.
        token_ids_N: the sampled tokens.
        head: the policy's head.
        chunk_size: tokens per chunk; peak memory is one chunk_size x V matrix and a small block.
        apart_K: distinct ids to set apart from the rest, or None.
        weight_N: of each token in `Outside.influence_V`; needed with `apart_K`.

    Raises:
        DataError: sizes or ids that do not fit the head.
    """
    check_tokens(hidden_ND, token_ids_N, head)
    dtype = accumulation_dtype(hidden_ND)
    head = in_accumulation_dtype(head, dtype)
    logprob_N = hidden_ND.new_empty(len(token_ids_N), dtype=dtype)
    entropy_N, normalizer_N = torch.empty_like(logprob_N), torch.empty_like(logprob_N)
    outside, counted_N = None, torch.zeros(0)
    if apart_K is not None and weight_N is not None:
        counted_N = (weight_N != 0).cpu()  # once, in place of a question to the device per block
        influence_V = head.weight_VD.new_zeros(len(head.weight_VD))
        outside = Outside(apart_K, torch.empty_like(logprob_N), influence_V)
    for chunk in chunks(len(token_ids_N), chunk_size):
        logits_CV = logits(hidden_ND[chunk], head)
        for block in _blocks(logits_CV):
            rows = slice(chunk.start + block.start, chunk.start + block.stop)
            read = _read_block(logits_CV[block], token_ids_N[rows].long())
            logprob_N[rows], entropy_N[rows], normalizer_N[rows], odds_BV, total_B = read
            if outside is not None and weight_N is not None:
                odds_BV.index_fill_(1, outside.columns_K, 0.0)
                torch.div(odds_BV.sum(dim=1), total_B, out=outside.mass_N[rows])
                if counted_N[rows].any():
                    outside.influence_V.addmv_(odds_BV.T, weight_N[rows].to(dtype) / total_B)
        del logits_CV  # else two chunks are held while the next is formed
    return HeadPass(logprob_N, entropy_N, normalizer_N, outside)


def _blocks(logits_CV: Float[Tensor, "C V"]) -> Iterator[slice]:
    """Rows that are worked on at once."""
    entries = BLOCK_ENTRIES.get(logits_CV.device.type, BLOCK_ENTRIES["cuda"])
    return chunks(len(logits_CV), max(1, entries // logits_CV.shape[1]))


def _read_block(
    logits_BV: Float[Tensor, "B V"], token_ids_B: Int[Tensor, " B"]
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """log pi(y), entropy, log normaliser, exp(l - max) and its sum; `logits_BV` is used up."""
    top_B1 = logits_BV.amax(dim=1, keepdim=True)
    logits_BV -= top_B1
    odds_BV = logits_BV.exp()
    total_B = odds_BV.sum(dim=1)
    log_total_B = total_B.log()
    logprob_B = logits_BV.gather(1, token_ids_B[:, None])[:, 0] - log_total_B
    entropy_B = log_total_B - torch.linalg.vecdot(odds_BV, logits_BV) / total_B
    return logprob_B, entropy_B, top_B1[:, 0] + log_total_B, odds_BV, total_B
