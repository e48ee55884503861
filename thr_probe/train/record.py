"""What a step leaves in `metrics.jsonl`: one flat record, over all processes."""

from __future__ import annotations

import math
import resource
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from thr_probe.core.pass_at_k import pass_at_k
from thr_probe.processes import World
from thr_probe.sampling import FinishReason
from thr_probe.train.config import TrainConfig
from thr_probe.train.importance import group_mismatch
from thr_probe.train.rollouts import Harvest, Vote
from thr_probe.train.scoring import ScoredGroup, dominant, group_steering
from thr_probe.train.updates import UpdateRecord


@dataclass(slots=True, kw_only=True)
class TokenCounts:
    """Sums over the kept groups of one process."""

    lengths: list[int] = field(default_factory=list)
    """Tokens of each completion."""
    truncated: int = 0
    """Completions that were cut off."""
    entropy: float = 0.0
    """Sum over tokens, nats."""
    weighted: int = 0
    """Tokens of completions that have an advantage."""
    masked: int = 0
    """Those of them whose own advantage is 0."""
    scored: int = 0
    """Tokens with THR."""
    retained: int = 0
    """Dominant tokens."""
    kept_entropy: int = 0
    """Tokens that are not dominant and were kept for their entropy."""
    taus: list[float] = field(default_factory=list)
    """Threshold of each group."""
    empty_masks: int = 0
    """Groups without a dominant token."""
    recomputed: int = 0
    undecided: int = 0
    """Tokens that the certificate left open at first."""
    net: float = 0.0
    """Sum of net drifts (METHOD 2.2)."""
    slope: float = 0.0
    """Sum of steering slopes."""
    influence: float = 0.0
    """Sum of |A||THR| over all tokens."""
    sampled: int = 0
    """Tokens whose log-probability the sampler told."""
    sampler_k1: float = 0.0
    """Sum over them of k1 of KL(sampler || policy)."""
    sampler_k3: float = 0.0
    """Sum of k3."""
    sampler_ratio: float = 0.0
    """Sum of pi / mu."""
    sampler_ratio_maxima: list[float] = field(default_factory=list)
    """Largest pi / mu of each group."""
    sampler_truncated: int = 0
    """Tokens whose ratio is above the cap of truncated importance sampling."""


def token_counts(groups: Sequence[ScoredGroup], *, tis_cap: float) -> TokenCounts:
    """Count the tokens of this process's kept groups."""
    counts = TokenCounts()
    for scored in groups:
        assert scored.advantage_N is not None
        counts.lengths += scored.lengths_G.tolist()
        completions = scored.group.completions
        counts.truncated += sum(item.finish_reason is FinishReason.LENGTH for item in completions)
        counts.entropy += float(scored.entropy_N.double().sum())
        has_advantage_N = scored.base_N != 0
        counts.weighted += int(has_advantage_N.sum())
        counts.masked += int((has_advantage_N & (scored.advantage_N == 0)).sum())
        _count_mismatch(counts, scored, tis_cap)
        if scored.scores is not None:
            _count_thr(counts, scored)
    return counts


def _count_mismatch(counts: TokenCounts, scored: ScoredGroup, tis_cap: float) -> None:
    found = group_mismatch(scored.old_logprob_N, scored.group.completions)
    counts.sampled += len(found.log_ratio_N)
    counts.sampler_k1 += float(found.k1.sum())
    counts.sampler_k3 += float(found.k3.sum())
    counts.sampler_ratio += float(found.ratio.sum())
    counts.sampler_ratio_maxima += found.ratio.max(initial=0, keepdims=True).tolist()
    counts.sampler_truncated += int(found.truncated(tis_cap).sum())


def _count_thr(counts: TokenCounts, scored: ScoredGroup) -> None:
    assert scored.scores is not None
    assert scored.advantage_N is not None
    dominant_N = dominant(scored)
    counts.scored += len(dominant_N)
    counts.retained += int(dominant_N.sum())
    counts.kept_entropy += int(((scored.advantage_N != 0) & ~dominant_N).sum())
    counts.taus.append(scored.scores.tau)
    counts.empty_masks += int(not bool(dominant_N.any()))
    counts.recomputed += scored.scores.num_recomputed
    counts.undecided += scored.scores.num_undecided
    steered = group_steering(scored)
    counts.net += steered.net
    counts.slope += steered.slope
    counts.influence += steered.total


def joined(parts: Sequence[TokenCounts]) -> TokenCounts:
    """The counts of all processes."""
    whole = TokenCounts()
    for part in parts:
        for name in TokenCounts.__dataclass_fields__:
            setattr(whole, name, getattr(whole, name) + getattr(part, name))
    return whole


def step_record(
    harvest: Harvest,
    groups: Sequence[ScoredGroup],
    updates: Sequence[UpdateRecord],
    *,
    config: TrainConfig,
    world: World,
) -> dict[str, int | float]:
    """The numbers of a step, the same in every process; what does not apply is left out.

    Args:
        harvest: all processes' votes.
        groups: this process's kept groups, scored.
        updates: of all processes.
        config: decides which numbers about THR apply; the cap of importance weights.
        world: the processes.
    """
    counts = joined(world.gather(token_counts(groups, tis_cap=config.tis_cap)))
    record = {**_generation(harvest), **_completions(counts), **_updates(updates)}
    record["masked_share"] = counts.masked / max(1, counts.weighted)
    if counts.scored:
        record |= _thr(counts)
    if counts.sampled:
        record |= _mismatch(counts)
    if config.method == "thr":
        record["kept_entropy_share"] = counts.kept_entropy / max(1, counts.scored)
    return record


def _generation(harvest: Harvest) -> dict[str, int | float]:
    generated, kept = harvest.generated, harvest.kept
    size = generated[0].size
    right = np.array([vote.num_correct for vote in generated])
    record = {
        "rounds": harvest.rounds,
        "prompts_generated": len(generated),
        "prompts_kept": len(kept),
        "dropped_share": sum(not vote.is_useful for vote in generated) / len(generated),
        "dropped_all_correct": sum(vote.num_correct == vote.size for vote in generated),
        "dropped_all_wrong": sum(vote.num_correct == 0 for vote in generated),
        "reward_generated": _mean_reward(generated),
        "reward_kept": _mean_reward(kept),
        "tokens": sum(vote.tokens for vote in generated),
    }
    powers = sorted({*(2**power for power in range(size.bit_length())), size})
    for k in powers:
        estimates = pass_at_k(np.full(len(right), size), right, k)
        record[f"pass_at_{k}"] = float(np.mean(estimates))
    return record


def _mean_reward(votes: Sequence[Vote]) -> float:
    return sum(vote.reward for vote in votes) / len(votes)


def _completions(counts: TokenCounts) -> dict[str, int | float]:
    tokens = sum(counts.lengths)
    return {
        "length_mean": tokens / len(counts.lengths),
        "length_p50": statistics.median(counts.lengths),
        "length_max": max(counts.lengths),
        "truncated_share": counts.truncated / len(counts.lengths),
        "entropy": counts.entropy / tokens,
    }


def _updates(updates: Sequence[UpdateRecord]) -> dict[str, int | float]:
    tokens = sum(update.tokens for update in updates)
    return {
        "loss": statistics.fmean(update.loss for update in updates),
        "policy_loss": statistics.fmean(update.policy_loss for update in updates),
        "grad_norm": statistics.fmean(update.grad_norm for update in updates),
        "clip_fraction": sum(update.clipped for update in updates) / tokens,
        "penalised_tokens": sum(update.selected for update in updates),
        "kl": sum(update.kl_sum for update in updates) / tokens,
        "ratio_min": min(update.ratio_min for update in updates),
        "ratio_max": max(update.ratio_max for update in updates),
        "active_updates": sum(update.clipped > 0 for update in updates),
        "num_updates": len(updates),
    }


def _mismatch(counts: TokenCounts) -> dict[str, int | float]:
    return {
        "sampler_kl_k1": counts.sampler_k1 / counts.sampled,
        "sampler_kl_k3": counts.sampler_k3 / counts.sampled,
        "sampler_ratio_mean": counts.sampler_ratio / counts.sampled,
        "sampler_ratio_max": max(counts.sampler_ratio_maxima),
        "sampler_truncated_share": counts.sampler_truncated / counts.sampled,
    }


def _thr(counts: TokenCounts) -> dict[str, int | float]:
    return {
        "retained_share": counts.retained / counts.scored,
        "tau_mean": statistics.fmean(counts.taus),
        "tau_median": statistics.median(counts.taus),
        "tau_nonpositive": sum(tau <= 0 for tau in counts.taus),
        "empty_masks": counts.empty_masks,
        "recomputed_share": counts.recomputed / counts.scored,
        "undecided_share": counts.undecided / counts.scored,
        "net_drift": counts.net,
        "steering_slope": counts.slope,
        "influence_captured": counts.slope / counts.influence if counts.influence else math.nan,
    }


def peak_memory(device: torch.device) -> int:
    """Bytes at the most since the process began: of the GPU's allocator, else resident memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
