"""Hidden states, an unembedding and sampled ids whose distributions look like a language model's.

The unembedding: random unit rows, plus a direction common to all that holds the log-frequencies of
a Zipf vocabulary. A state: the common direction, one target and a dozen alternatives at a margin
that differs from context to context, and noise. Completions of a group visit the same contexts, as
those to one question do; ids are drawn from pi. `calibration` tells how like a model that is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from thr_probe.core.group import TokenGroup
from thr_probe.core.head import Head, chunks, head_pass

ALTERNATIVES = 12
MARGIN = 13.6
"""Largest margin of a target over its alternatives: median entropy below 0.1, mean 0.3 to 0.6."""
COMMON = 30.0
"""Length of the states along the direction they share; a squared cosine of about 0.3."""
NOISE = 0.5


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a group."""

    vocab: int
    """V."""
    hidden: int
    """D."""
    tokens: int
    """N, of eight completions."""

    @property
    def contexts(self) -> int:
        """Different situations that the completions of the group are in."""
        return max(400, self.tokens // 5)


@dataclass(frozen=True, slots=True)
class World:
    """An unembedding and the frequencies of its ids."""

    head: Head
    """W, float32."""
    common_D: Tensor
    """The shared direction."""
    rows_VD: Tensor
    """The part of W that is each id's own, unit length."""
    log_frequency_V: Tensor
    """Zipf, not normalised."""


def world(vocab: int, hidden: int, *, seed: int = 0) -> World:
    """An unembedding with a Zipf vocabulary."""
    generator = torch.Generator().manual_seed(seed)
    common_D = torch.randn(hidden, generator=generator)
    common_D /= common_D.norm()
    rows_VD = torch.randn(vocab, hidden, generator=generator) / math.sqrt(hidden)
    rows_VD -= (rows_VD @ common_D)[:, None] * common_D
    log_frequency_V = torch.empty(vocab)
    ranks_V = torch.arange(1, vocab + 1, dtype=torch.float32)
    log_frequency_V[torch.randperm(vocab, generator=generator)] = -ranks_V.log()
    weight_VD = rows_VD + (log_frequency_V / COMMON)[:, None] * common_D
    return World(Head(weight_VD), common_D, rows_VD, log_frequency_V)


def group(world: World, shape: Shape, *, seed: int) -> TokenGroup:
    """Eight completions, every other one correct, with ids drawn from the states' distributions."""
    generator = torch.Generator().manual_seed(1000 + seed)
    contexts_MD = _contexts(world, shape.contexts, generator)
    visited_N = torch.randint(shape.contexts, (shape.tokens,), generator=generator)
    noise_ND = torch.randn(shape.tokens, shape.hidden, generator=generator)
    hidden_ND = contexts_MD[visited_N] + COMMON * world.common_D + NOISE * noise_ND
    index_N = torch.arange(shape.tokens) * 8 // shape.tokens
    ids_N = torch.empty(shape.tokens, dtype=torch.long)
    for chunk in chunks(shape.tokens, 256):
        pi_CV = (hidden_ND[chunk] @ world.head.weight_VD.T).softmax(dim=1)
        ids_N[chunk] = torch.multinomial(pi_CV, 1, generator=generator)[:, 0]
    return TokenGroup(hidden_ND, ids_N, index_N, torch.arange(8) % 2 == 0)


def _contexts(world: World, count: int, generator: torch.Generator) -> Tensor:
    frequency_V = world.log_frequency_V.exp()
    targets_M = torch.multinomial(frequency_V, count, replacement=True, generator=generator)
    others_MA = torch.multinomial(
        frequency_V.sqrt(), count * ALTERNATIVES, replacement=True, generator=generator
    ).view(count, ALTERNATIVES)
    margin_M = MARGIN * torch.rand(count, generator=generator).sqrt()
    spread_MA = 4 * torch.rand(count, ALTERNATIVES, generator=generator)
    # logits level with the most frequent ids, whatever an id's own frequency
    target_M = margin_M + 2 - world.log_frequency_V[targets_M]
    other_MA = spread_MA - world.log_frequency_V[others_MA]
    states_MD = target_M[:, None] * world.rows_VD[targets_M]
    for place in range(ALTERNATIVES):
        states_MD += other_MA[:, place, None] * world.rows_VD[others_MA[:, place]]
    return states_MD


def calibration(world: World, group: TokenGroup) -> dict[str, float]:
    """Of what one checks against a model: entropies, mass of rare ids, likeness of the states."""
    read = head_pass(group.hidden_ND, group.token_ids_N, world.head)
    unit_ND = torch.nn.functional.normalize(group.hidden_ND, dim=1)
    return {
        "median entropy": float(read.entropy_N.median()),
        "mean entropy": float(read.entropy_N.mean()),
        "90th percentile": float(read.entropy_N.quantile(0.9)),
        "median 1 - pi(y)": float((-read.logprob_N.expm1()).median()),
        "distinct ids": float(len(torch.unique(group.token_ids_N))),
        "mean cosine of two states": float(unit_ND.mean(dim=0).square().sum()),
        "mean length of a state": float(group.norms.mean()),
    }
