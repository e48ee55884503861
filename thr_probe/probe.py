"""One group and its policy: the only place where a model meets the mathematics of THR."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from thr_probe.core.advantages import group_advantages
from thr_probe.core.head import Head, head_pass
from thr_probe.core.thr import (
    InfluenceSplit,
    TokenGroup,
    check_route,
    check_threshold_options,
    dominant_mask,
    influence_split,
    threshold,
    token_hidden_reward,
)
from thr_probe.errors import DataError, UsageError
from thr_probe.policy.policy import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeOptions:
    """How groups are scored."""

    vocab: str = "full"
    """Route of THR: `full`, or `pairwise` (quadratic, exact too)."""
    chunk_size: int = 1024
    """Tokens whose logits are held at once."""
    batch_tokens: int = 16384
    """Tokens per forward pass, padding included."""
    temperature: float = 1.0
    """Of the rollouts; those sampled greedily (0) are scored at 1."""
    beta: float = 1.0
    """Factor of tau."""
    reduce: str = "min"
    """How tau joins the correct completions' means."""
    self_influence: str = "include"
    """Whether a completion's influence on itself counts in tau."""
    split: bool = False
    """Also thr_self and thr_within, the parts of THR from close by."""

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise UsageError(f"temperature must be 0 or positive, got {self.temperature}")
        if math.isnan(self.beta) or self.beta == math.inf:
            raise UsageError(f"beta must be a number, or -inf to keep every token, got {self.beta}")
        check_route(self.vocab)
        check_threshold_options(self.reduce, self.self_influence)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupScores:
    """What the probe yields for the N completion tokens of a group, packed, on the CPU."""

    logprob_N: Float[Tensor, " N"]
    """log pi of each token under the policy that scores, nats."""
    entropy_N: Float[Tensor, " N"]
    """Entropy where the token was drawn, nats."""
    thr_N: Float[Tensor, " N"]
    """THR of Corollary 4.2; NaN where no rollout is correct."""
    thr_self_N: Float[Tensor, " N"] | None
    """Part of THR from the token itself, where asked for."""
    thr_within_N: Float[Tensor, " N"] | None
    """Part of THR from its own completion, the token included, where asked for."""
    tau: float
    """Threshold of the group; NaN where no rollout is correct."""
    q: float
    """Share of correct rollouts."""
    num_correct: int
    """Correct rollouts."""
    advantage_G: Float[Tensor, " G"]
    """GRPO advantage (Equation 1, population deviation)."""
    retained_G: Float[Tensor, " G"]
    """Share of each completion's tokens with |THR| > tau; NaN where no rollout is correct."""
    lengths_G: Int[Tensor, " G"]
    """Tokens of each completion."""


def score_group(
    policy: Policy,
    prompt_token_ids: Sequence[int],
    completions: Sequence[Sequence[int]],
    correct: Sequence[bool],
    *,
    options: ProbeOptions | None = None,
    prompt_id: str | None = None,
) -> GroupScores:
    """Replay a group through the policy: log-probability, entropy and THR of every token.

    THR uses the whole distribution at the temperature of the rollouts; the sampler's top-p plays
    no part in it.

    Args:
        policy: the policy that sampled the rollouts, or another checkpoint.
        prompt_token_ids: the prompt, as sampled from.
        completions: token ids of the G completions, an emitted end-of-sequence included.
        correct: the verifier's verdict on each.
        options: routes and thresholds; the defaults are the paper's.
        prompt_id: names the prompt in errors.

    Raises:
        DataError: an empty completion, or sizes and ids that do not fit.
        UsageError: an unknown option.
    """
    options = options or ProbeOptions()
    named = "the prompt" if prompt_id is None else f"prompt {prompt_id}"
    if len(correct) != len(completions):
        raise DataError(f"{named}: {len(completions)} completions, {len(correct)} verdicts")
    for rollout, completion in enumerate(completions):
        if len(completion) == 0:
            raise DataError(
                f"{named}, rollout {rollout}: the completion is empty, it has no token to score",
                hint="drop the rollout before scoring, or keep its end-of-sequence token",
            )
    hidden_ND = policy.hidden(prompt_token_ids, completions, batch_tokens=options.batch_tokens)
    group = _packed(hidden_ND, completions, correct)
    return _scores(group, policy.head(options.temperature or 1.0), options)


def _packed(
    hidden_ND: Float[Tensor, "N D"], completions: Sequence[Sequence[int]], correct: Sequence[bool]
) -> TokenGroup:
    device = hidden_ND.device
    lengths = torch.tensor([len(completion) for completion in completions])
    ids = torch.tensor([token for completion in completions for token in completion])
    index = torch.arange(len(completions)).repeat_interleave(lengths)
    verdicts = torch.tensor([bool(verdict) for verdict in correct])
    return TokenGroup(hidden_ND, ids.to(device), index.to(device), verdicts.to(device))


def _scores(group: TokenGroup, head: Head, options: ProbeOptions) -> GroupScores:
    replay = head_pass(group.hidden_ND, group.token_ids_N, head, chunk_size=options.chunk_size)
    reward = token_hidden_reward(group, head, vocab=options.vocab, chunk_size=options.chunk_size)
    split = _split(group, head, options)
    tau = threshold(
        reward.thr_N,
        group,
        beta=options.beta,
        reduce=options.reduce,
        self_influence=options.self_influence,
        within_N=None if split is None else split.within_N,
    )
    shown = split if options.split else None
    num_correct = int(group.correct_G.sum())
    return GroupScores(
        logprob_N=replay.logprob_N.cpu(),
        entropy_N=replay.entropy_N.cpu(),
        thr_N=reward.thr_N.cpu(),
        thr_self_N=None if shown is None else shown.self_N.cpu(),
        thr_within_N=None if shown is None else shown.within_N.cpu(),
        tau=tau,
        q=num_correct / len(group.correct_G),
        num_correct=num_correct,
        advantage_G=group_advantages(group.correct_G).cpu(),
        retained_G=_retained(reward.thr_N, group, tau).cpu(),
        lengths_G=group.lengths.cpu(),
    )


def _split(group: TokenGroup, head: Head, options: ProbeOptions) -> InfluenceSplit | None:
    if not options.split and options.self_influence == "include":
        return None
    return influence_split(group, head, vocab=options.vocab, chunk_size=options.chunk_size)


def _retained(thr_N: Float[Tensor, " N"], group: TokenGroup, tau: float) -> Float[Tensor, " G"]:
    """Share of each completion's tokens that are dominant (Table 16)."""
    if not bool(group.correct_G.any()):
        return torch.full((len(group.correct_G),), torch.nan, dtype=thr_N.dtype)
    kept_N = dominant_mask(thr_N, tau).to(thr_N.dtype)
    kept_G = torch.zeros(len(group.correct_G), dtype=thr_N.dtype, device=thr_N.device)
    return kept_G.index_add_(0, group.rollout_index_N, kept_N) / group.lengths
