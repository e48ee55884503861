"""The no-grad pass of a step: old log-probabilities, THR, and the advantage of every token.

A group's hidden states live from its forward pass to its THR and no longer. Mask and weights are
fixed here for all updates of the step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from thr_probe import score
from thr_probe.core.advantages import (
    check_entropy_share,
    entropy_threshold_mask,
    kept_entropy_advantages,
    negative_only,
    nthr_advantages,
    nthr_selected,
    positive_only,
    random_control,
    thr_advantages,
    top_entropy_mask,
)
from thr_probe.core.decide import decided
from thr_probe.core.nthr import unit_weights
from thr_probe.core.routes import prepared
from thr_probe.core.steering import Steering, steering
from thr_probe.core.thr import dominant_mask, threshold
from thr_probe.policy import Policy
from thr_probe.probe import (
    Direction,
    GroupScores,
    ProbeOptions,
    Replay,
    likelihood_direction,
    replay_group,
    replay_scores,
)
from thr_probe.processes import World
from thr_probe.train.clock import Clock
from thr_probe.train.config import TrainConfig
from thr_probe.train.importance import importance_weights
from thr_probe.train.rollouts import Group

Tokens = Float[Tensor, " N"]
Mask = Bool[Tensor, " N"]


@dataclass(slots=True, kw_only=True)
class ScoredGroup:
    """A group after the no-grad pass; packed tokens, on the CPU."""

    group: Group
    """The rollouts."""
    lengths_G: Int[Tensor, " G"]
    """Tokens of each completion."""
    old_logprob_N: Tokens
    """log pi of each token under the snapshot, nats."""
    entropy_N: Tokens
    """Entropy where the token was drawn, nats."""
    base_N: Tokens
    """The completion's advantage at each of its tokens."""
    incorrect_N: Mask
    """Tokens of incorrect completions."""
    scores: GroupScores | None = None
    """THR, where the method or the trace needs it."""
    nthr_score_N: Tokens | None = None
    """Influence without 1/|y|, for NTHR and its control."""
    nthr_tau: float = 0.0
    """NTHR's own threshold."""
    ref_logprob_N: Tokens | None = None
    """log pi of each token under the reference policy."""
    importance_N: Tokens | None = None
    """Weight of each token's loss, where the sampler is corrected for."""
    advantage_N: Tokens | None = None
    """What the loss uses."""
    counted_G: Int[Tensor, " G"] | None = None
    """Tokens that count in the loss's divisor; all of them by default."""

    @property
    def q(self) -> float:
        """Share of correct completions."""
        return sum(self.group.correct) / len(self.group.correct)


def probe_options(config: TrainConfig) -> ProbeOptions:
    """The probe's part of the options, with the threshold where it is given."""
    tau = None if config.tau == "auto" else float(config.tau)
    return replace(score.probe_options(config, config.temperature), tau=tau)


def score_group(
    policy: Policy, group: Group, config: TrainConfig, clock: Clock, *, traced: bool
) -> ScoredGroup:
    """One forward pass of a group under the snapshot, then THR where it is needed.

    Args:
        policy: the snapshot that sampled the group.
        group: the rollouts.
        config: method and threshold.
        clock: `old` is the forward pass, `thr` what the method adds.
        traced: whether the trace of this step wants THR although the method may not.
    """
    options = probe_options(config)
    with clock.measure("old"):
        replay = replay_group(
            policy,
            group.task.token_ids,
            group.token_ids,
            group.correct,
            options=options,
            prompt_id=group.task.problem.prompt_id,
            direction=_direction(config, traced=traced),
        )
    with clock.measure("thr"):
        index_N = replay.group.rollout_index_N.cpu()
        scored = ScoredGroup(
            group=group,
            lengths_G=replay.group.lengths.cpu(),
            old_logprob_N=replay.read.logprob_N.cpu(),
            entropy_N=replay.read.entropy_N.cpu(),
            base_N=group.advantage_G[index_N],
            incorrect_N=~torch.tensor(group.correct)[index_N],
        )
        if config.importance_correction == "tis":
            scored.importance_N = importance_weights(
                scored.old_logprob_N,
                group.completions,
                cap=config.tis_cap,
                prompt_id=group.task.problem.prompt_id,
            )
        if config.method == "thr":
            scored.scores = replay_scores(replay, options)
        if config.method in {"nthr", "random"}:
            _add_nthr(scored, replay, config)
    if traced and scored.scores is None:
        # for the trace alone: no part of the method's cost
        scored.scores = replay_scores(replay, options)
    return scored


def set_ref_logprobs(
    policy: Policy, groups: Sequence[ScoredGroup], config: TrainConfig, clock: Clock
) -> None:
    """Fill `ref_logprob_N`: one forward pass of every group under the initial policy."""
    with clock.measure("ref"):
        for scored in groups:
            replay = replay_group(
                policy,
                scored.group.task.token_ids,
                scored.group.token_ids,
                scored.group.correct,
                options=probe_options(config),
                direction=None,
            )
            scored.ref_logprob_N = replay.read.logprob_N.cpu()


def _direction(config: TrainConfig, *, traced: bool) -> Direction | None:
    """The direction whose change the step asks for; NTHR's weights are no smaller than THR's."""
    if config.method in {"nthr", "random"}:
        return lambda group: unit_weights(group.likelihood_weights)
    return likelihood_direction if config.method == "thr" or traced else None


def _add_nthr(scored: ScoredGroup, replay: Replay, config: TrainConfig) -> None:
    """NTHR's score and its own threshold, by the same route as THR."""
    group, head, weight_N = prepared(replay.group, replay.head)
    found = decided(
        group,
        head,
        unit_weights(weight_N),
        probe_options(config).route,
        sign_N=torch.ones_like(weight_N),
        tau_of=lambda score_N: threshold(score_N, group, beta=config.beta, reduce=config.reduce),
        read=replay.read,
    )
    scored.nthr_tau, scored.nthr_score_N = found.tau, found.score_N.cpu()


def set_token_advantages(
    groups: Sequence[ScoredGroup], config: TrainConfig, p: float, step: int, world: World
) -> None:
    """Fill `advantage_N` (and `counted_G`) by the method, after all groups were scored.

    Thresholds on entropy are taken over the kept groups of the whole step, all processes.
    """
    tops = _entropy_masks(groups, config, world)
    rule = METHODS[config.method]
    for scored, top_N in zip(groups, tops, strict=True):
        scored.advantage_N = rule(scored, Rule(config=config, p=p, step=step, top_N=top_N))
        if config.method == "entropy-top":
            scored.counted_G = _counts(top_N, scored.lengths_G)
        elif config.renorm == "selected":
            scored.counted_G = _counts(scored.advantage_N != 0, scored.lengths_G)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What a method may look at besides the group."""

    config: TrainConfig
    """Its options."""
    p: float
    """Of this step."""
    step: int
    """Keys the random control."""
    top_N: Mask
    """Tokens of high entropy within the step; none where the method does not ask."""


def _thr(scored: ScoredGroup, rule: Rule) -> Tokens:
    """Equations 4 and 5; with `keep_entropy` as for the small models (App. B)."""
    scores = _required(scored)
    weighted_N = thr_advantages(scored.base_N, scores.thr_N.double(), scores.tau, rule.p)
    if rule.config.keep_entropy == 0:
        return weighted_N
    return kept_entropy_advantages(scored.base_N, weighted_N, dominant(scored), rule.top_N)


def _grpo(scored: ScoredGroup, rule: Rule) -> Tokens:
    del rule
    return scored.base_N


def _positive(scored: ScoredGroup, rule: Rule) -> Tokens:
    del rule
    return positive_only(scored.base_N)


def _negative(scored: ScoredGroup, rule: Rule) -> Tokens:
    del rule
    return negative_only(scored.base_N)


def _nthr(scored: ScoredGroup, rule: Rule) -> Tokens:
    del rule
    score_N = _influence(scored)
    return nthr_advantages(scored.base_N, score_N, scored.incorrect_N, scored.nthr_tau, scored.q)


def _random(scored: ScoredGroup, rule: Rule) -> Tokens:
    """As many random incorrect tokens without advantage as NTHR would select."""
    selected_N = nthr_selected(_influence(scored), scored.incorrect_N, scored.nthr_tau)
    generator = np.random.default_rng((rule.config.seed, rule.step, scored.group.order))
    return random_control(scored.base_N, scored.incorrect_N, int(selected_N.sum()), generator)


def _entropy_top(scored: ScoredGroup, rule: Rule) -> Tokens:
    return torch.where(rule.top_N, scored.base_N, torch.zeros_like(scored.base_N))


METHODS: dict[str, Callable[[ScoredGroup, Rule], Tokens]] = {
    "thr": _thr,
    "grpo": _grpo,
    "pos-only": _positive,
    "neg-only": _negative,
    "nthr": _nthr,
    "entropy-top": _entropy_top,
    "random": _random,
}


def check_token_rule(config: TrainConfig) -> None:
    """Refuse what the method would refuse once a step is generated and scored.

    Raises:
        UsageError: a share of tokens that selects none.
    """
    if config.method == "entropy-top":
        check_entropy_share(config.entropy_share)


def dominant(scored: ScoredGroup) -> Mask:
    """1[|THR| > tau]."""
    scores = _required(scored)
    return dominant_mask(scores.thr_N, scores.tau)


def group_steering(scored: ScoredGroup) -> Steering:
    """First-order drift of the correct completions' likelihood and its slope in p (METHOD 2.2)."""
    assert scored.advantage_N is not None
    scores = _required(scored)
    return steering(scored.base_N, scores.thr_N.double(), dominant(scored), scored.advantage_N != 0)


def _required(scored: ScoredGroup) -> GroupScores:
    assert scored.scores is not None, "THR was not computed"
    return scored.scores


def _influence(scored: ScoredGroup) -> Tokens:
    assert scored.nthr_score_N is not None, "NTHR's score was not computed"
    return scored.nthr_score_N


def _entropy_masks(groups: Sequence[ScoredGroup], config: TrainConfig, world: World) -> list[Mask]:
    """The step's high-entropy tokens, group by group; none where the method does not ask."""
    if config.method == "entropy-top":
        return _masks_of_step(groups, entropy_threshold_mask, config.entropy_share, world)
    if config.keep_entropy > 0:
        return _masks_of_step(groups, top_entropy_mask, config.keep_entropy, world)
    return [torch.zeros_like(scored.incorrect_N) for scored in groups]


def _masks_of_step(
    groups: Sequence[ScoredGroup],
    select: Callable[[Tokens, float], Mask],
    share: float,
    world: World,
) -> list[Mask]:
    own = [(scored.group.order, scored.entropy_N) for scored in groups]
    # in the step's order, so that ties fall the same way for any number of processes
    listed = sorted((item for part in world.gather(own) for item in part), key=lambda item: item[0])
    chosen_N = select(torch.cat([entropy_N for _, entropy_N in listed]), share)
    parts = chosen_N.split([len(entropy_N) for _, entropy_N in listed])
    by_order = {order: part for (order, _), part in zip(listed, parts, strict=True)}
    return [by_order[scored.group.order] for scored in groups]


def _counts(mask_N: Mask, lengths_G: Int[Tensor, " G"]) -> Int[Tensor, " G"]:
    return torch.stack([part.sum() for part in mask_N.split(lengths_G.tolist())])
