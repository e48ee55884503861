"""One group and its policy: the only place where a model meets the mathematics of THR."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from thr_probe.core.advantages import group_advantages
from thr_probe.core.columns import pass_for_columns
from thr_probe.core.decide import Decided, decided
from thr_probe.core.group import TokenGroup
from thr_probe.core.head import Head, HeadPass, head_pass
from thr_probe.core.routes import Route, prepared
from thr_probe.core.thr import (
    InfluenceSplit,
    check_threshold_options,
    dominant_mask,
    split_by,
    threshold,
)
from thr_probe.errors import DataError, UsageError
from thr_probe.policy.policy import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeOptions:
    """How groups are scored."""

    vocab: str = "sparse"
    """Route of THR, see `thr_probe.core.routes.Route`; `full` for an audit."""
    tolerance: float = 1e-3
    """Of `sparse`: mean bound on the error, relative to the mean |THR|."""
    eps: float | None = None
    """Of `sparse`, in place of `tolerance`: mean probability above which a column is kept."""
    exact: bool = False
    """Of `sparse`: float64 for the tokens that float32 cannot decide."""
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
    tau: float | None = None
    """A threshold in the unit of THR, in place of beta's."""
    split: bool = False
    """Also thr_self and thr_within, the parts of THR from close by."""
    error: bool = False
    """Also thr_error, the bound on the error of THR."""

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise UsageError(f"temperature must be 0 or positive, got {self.temperature}")
        if math.isnan(self.beta) or self.beta == math.inf:
            raise UsageError(f"beta must be a number, or -inf to keep every token, got {self.beta}")
        if self.tau is not None and math.isnan(self.tau):
            raise UsageError("tau must be a number, or None for beta's threshold")
        check_threshold_options(self.reduce, self.self_influence)
        if not self.route.is_restricted and self.error:
            raise UsageError(
                f"a bound on the error of THR and vocab {self.vocab!r}, which is exact",
                hint="leave one of the two out",
            )

    @property
    def route(self) -> Route:
        """How THR is computed."""
        return Route(
            vocab=self.vocab,
            chunk_size=self.chunk_size,
            tolerance=self.tolerance,
            eps=self.eps,
            exact=self.exact,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupScores:
    """What the probe yields for the N completion tokens of a group, packed, on the CPU."""

    logprob_N: Float[Tensor, " N"]
    """log pi of each token under the policy that scores, nats."""
    entropy_N: Float[Tensor, " N"]
    """Entropy where the token was drawn, nats."""
    thr_N: Float[Tensor, " N"]
    """THR of Corollary 4.2; NaN where no rollout is correct."""
    thr_error_N: Float[Tensor, " N"] | None
    """Bound on the error of THR, where asked for."""
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
    num_recomputed: int
    """Tokens that `sparse` left open at first, dominant or not or of which sign, and that got more
    columns."""
    num_undecided: int
    """Tokens that the bound leaves open in the end; by `sparse` those float32 cannot decide."""


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
    replay = replay_group(
        policy, prompt_token_ids, completions, correct, options=options, prompt_id=prompt_id
    )
    return replay_scores(replay, options)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """A group after one pass through the policy; holds its states, so it should not live long."""

    group: TokenGroup
    """States, tokens, verdicts, on the policy's device."""
    head: Head
    """The policy's head at the temperature of the rollouts, ready for `core`."""
    read: HeadPass
    """What the one pass over the vocabulary yields."""


Direction = Callable[[TokenGroup], Float[Tensor, " N"]]
"""The weight of each token in a sum of R h^T."""


def likelihood_direction(group: TokenGroup) -> Float[Tensor, " N"]:
    """That of THR, G+: 1/|y_i| for the tokens of correct rollouts."""
    return group.likelihood_weights


def replay_group(  # noqa: PLR0913  the last spares a pass what it does not need
    policy: Policy,
    prompt_token_ids: Sequence[int],
    completions: Sequence[Sequence[int]],
    correct: Sequence[bool],
    *,
    options: ProbeOptions,
    prompt_id: str | None = None,
    direction: Direction | None = likelihood_direction,
) -> Replay:
    """One pass of a group through the policy, without THR: states, log-probability, entropy.

    Args, Raises: as `score_group`; `direction` is the largest that will be asked for, so that the
    pass gathers what the restricted routes need of it; None where none will be.
    """
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
    head = policy.head(options.temperature or 1.0)
    if direction is not None and options.route.is_restricted:
        read = pass_for_columns(group, head, direction(group), chunk_size=options.chunk_size)
    else:
        read = head_pass(group.hidden_ND, group.token_ids_N, head, chunk_size=options.chunk_size)
    return Replay(group=group, head=head, read=read)


def _packed(
    hidden_ND: Float[Tensor, "N D"], completions: Sequence[Sequence[int]], correct: Sequence[bool]
) -> TokenGroup:
    device = hidden_ND.device
    lengths = torch.tensor([len(completion) for completion in completions])
    ids = torch.tensor([token for completion in completions for token in completion])
    index = torch.arange(len(completions)).repeat_interleave(lengths)
    verdicts = torch.tensor([bool(verdict) for verdict in correct])
    return TokenGroup(hidden_ND, ids.to(device), index.to(device), verdicts.to(device))


def replay_scores(replay: Replay, options: ProbeOptions) -> GroupScores:
    """THR, tau and dominant tokens of a group that was replayed."""
    found, split = _hidden_reward(replay, options)
    group, thr_N = replay.group, found.score_N
    shown = split if options.split else None
    num_correct = int(group.correct_G.sum())
    return GroupScores(
        logprob_N=replay.read.logprob_N.cpu(),
        entropy_N=replay.read.entropy_N.cpu(),
        thr_N=thr_N.cpu(),
        thr_error_N=found.error_N.cpu() if options.error else None,
        thr_self_N=None if shown is None else shown.self_N.cpu(),
        thr_within_N=None if shown is None else shown.within_N.cpu(),
        tau=found.tau,
        q=num_correct / len(group.correct_G),
        num_correct=num_correct,
        advantage_G=group_advantages(group.correct_G).cpu(),
        retained_G=_retained(thr_N, group, found.tau).cpu(),
        lengths_G=group.lengths.cpu(),
        num_recomputed=int(found.open_N.sum()) if options.vocab == "sparse" else 0,
        num_undecided=int(found.undecided_N.sum()),
    )


@torch.no_grad()
def _hidden_reward(replay: Replay, options: ProbeOptions) -> tuple[Decided, InfluenceSplit | None]:
    """THR with its threshold, and the parts from close by where something needs them."""
    route, read = options.route, replay.read
    group, head, weight_N = prepared(replay.group, replay.head)
    split = None
    if options.split or options.self_influence == "exclude":
        split = split_by(group, head, weight_N, route, read)
    if not bool(group.correct_G.any()):
        return Decided.undefined(weight_N), split
    found = decided(
        group,
        head,
        weight_N,
        route,
        sign_N=group.signs,
        tau_of=lambda thr_N: _tau(thr_N, group, split, options),
        read=read,
        slack_N=None if options.self_influence == "include" or split is None else split.error_N,
    )
    return found, split


def _tau(
    thr_N: Float[Tensor, " N"],
    group: TokenGroup,
    split: InfluenceSplit | None,
    options: ProbeOptions,
) -> float:
    """The threshold: beta's, or the one that was given."""
    if options.tau is not None:
        return options.tau
    return threshold(
        thr_N,
        group,
        beta=options.beta,
        reduce=options.reduce,
        self_influence=options.self_influence,
        within_N=None if split is None else split.within_N,
    )


def _retained(thr_N: Float[Tensor, " N"], group: TokenGroup, tau: float) -> Float[Tensor, " G"]:
    """Share of each completion's tokens that are dominant (Table 16)."""
    if not bool(group.correct_G.any()):
        return torch.full((len(group.correct_G),), torch.nan, dtype=thr_N.dtype)
    kept_N = dominant_mask(thr_N, tau).to(thr_N.dtype)
    kept_G = torch.zeros(len(group.correct_G), dtype=thr_N.dtype, device=thr_N.device)
    return kept_G.index_add_(0, group.rollout_index_N, kept_N) / group.lengths
