"""What a method does to each saved group: sums per group, from which everything is made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from thr_probe.core.advantages import entropy_threshold_mask, group_advantages, nthr_selected
from thr_probe.core.losses import aggregate_weights, covariance, kl_cov_penalised
from thr_probe.core.steering import Steering
from thr_probe.preview.groups import SavedSteps
from thr_probe.preview.options import PreviewOptions
from thr_probe.processes import World
from thr_probe.train.scoring import (
    ScoredGroup,
    dominant,
    group_steering,
    set_token_advantages,
)

MASKS = ("THR", "entropy", "KL-Cov", "NTHR")
"""The sets of tokens that are compared, in their order."""

_ALONE = World(rank=0, size=1, local_rank=0)
_WEIGHT_DECIMALS = 9  # weights are products of a few factors: beyond this they differ by rounding


@dataclass(slots=True, kw_only=True)
class Setting:
    """Sums of one value of p (or of a method without p), a list entry per group."""

    sums: list[dict[str, float]] = field(default_factory=list)
    """By name, see `_setting_sums`."""
    weights: list[dict[float, int]] = field(default_factory=list)
    """How many tokens have which |weight| relative to GRPO."""

    def column(self, name: str) -> Float[np.ndarray, " groups"]:
        """A sum of every group."""
        return np.array([row[name] for row in self.sums], dtype=np.float64)


@dataclass(slots=True, kw_only=True)
class Measured:
    """Everything that is read off the trace, an entry per group that has an advantage."""

    groups: list[int] = field(default_factory=list)
    """Index of the group in the stream."""
    shared: list[dict[str, float]] = field(default_factory=list)
    """What does not depend on p: q, tau, tokens, THR's first order, sizes of masks."""
    settings: dict[str, Setting] = field(default_factory=dict)
    """By the name of the row, such as `p = -0.1`."""

    def column(self, name: str) -> Float[np.ndarray, " groups"]:
        """A shared number of every group."""
        return np.array([row[name] for row in self.shared], dtype=np.float64)


def measured(steps: SavedSteps) -> Measured:
    """One pass over the run, a step at a time."""
    options = steps.options
    found = Measured(settings={name: Setting() for name in options.settings})
    for number, step in enumerate(steps):
        groups = [scored for _, scored in step]
        found.groups += [index for index, _ in step]
        for name, p in options.settings.items():
            # the trainer's own rule, over the step as a whole
            set_token_advantages(groups, options.config, p, number, _ALONE)
            for scored in groups:
                sums, weights = _setting_sums(scored, options)
                found.settings[name].sums.append(sums)
                found.settings[name].weights.append(weights)
        masks = _masks(groups, options)
        for place, scored in enumerate(groups):
            found.shared.append(_shared(scored, options))
            found.shared[-1] |= _mask_sums({name: parts[place] for name, parts in masks.items()})
    return found


def mask_pairs(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Every pair of masks once, in their order."""
    return combinations(names, 2)


def _setting_sums(
    scored: ScoredGroup, options: PreviewOptions
) -> tuple[dict[str, float], dict[float, int]]:
    """Sums over a group's tokens of what the loss would use, and its weights."""
    advantage_N, thr_N = _advantage(scored), _thr(scored)
    plain_N = _plain(scored)
    weight_N = (advantage_N.abs() / plain_N.abs()).round(decimals=_WEIGHT_DECIMALS)
    values, counts = torch.unique(weight_N, return_counts=True)
    size_N = advantage_N.abs() * _loss_weights(scored, options)
    sums = {
        "weight": float(weight_N.sum()),
        "unweighted": float((advantage_N == 0).sum()),
        "gradient": float(size_N.sum()),
        "correct": float(size_N[~scored.incorrect_N].sum()),
        "incorrect": float(size_N[scored.incorrect_N].sum()),
        "thr_positive": float(size_N[thr_N > 0].sum()),
        "thr_negative": float(size_N[thr_N < 0].sum()),
        "drift": _drift(advantage_N, scored),
    }
    return sums, dict(zip(values.tolist(), counts.tolist(), strict=True))


def _loss_weights(scored: ScoredGroup, options: PreviewOptions) -> Float[Tensor, " N"]:
    """What the loss multiplies each token's |A| by, but for a factor that all groups share.

    Equation 2 divides by the tokens of the group, masked ones included: a group of long
    completions has no larger gradient. What `--renorm` divides by instead is not looked at.
    """
    if options.config.aggregate in {"token-mean", "dr-grpo"}:
        return torch.ones(len(scored.base_N), dtype=torch.float64)
    weight_G = aggregate_weights(
        scored.lengths_G,
        torch.zeros_like(scored.lengths_G),
        aggregate=options.config.aggregate,
    )
    return weight_G.repeat_interleave(scored.lengths_G)


def _drift(advantage_N: Float[Tensor, " N"], scored: ScoredGroup) -> float:
    """dF of a step with these advantages: sum of A (2r - 1) THR (METHOD 2.2)."""
    sign_N = 1.0 - 2.0 * scored.incorrect_N.double()
    return float((advantage_N * sign_N * _thr(scored)).sum())


def _shared(scored: ScoredGroup, options: PreviewOptions) -> dict[str, float]:
    """Numbers of a group that are the same for every p."""
    assert scored.scores is not None
    steered = _steering(scored, options)
    return {
        "q": scored.q,
        "tau": scored.scores.tau,
        "tokens": float(scored.lengths_G.sum()),
        "groups": 1.0,
        "plain_gradient": float((_plain(scored).abs() * _loss_weights(scored, options)).sum()),
        "plain_drift": _drift(_plain(scored), scored),
        "net": steered.net,
        "slope": steered.slope,
        "total": steered.total,
        "captured": _captured(scored, options),
    }


def _steering(scored: ScoredGroup, options: PreviewOptions) -> Steering:
    """Of THR(p) the trainer's; another method has a drift, and no p to steer by."""
    steered = group_steering(scored)
    if options.config.method == "thr":
        return steered
    return Steering(net=_drift(_advantage(scored), scored), slope=0.0, total=steered.total)


def _captured(scored: ScoredGroup, options: PreviewOptions) -> float:
    """sum of |A| |THR| over the tokens that carry the method's signal."""
    kept_N = dominant(scored) if options.config.method == "thr" else _advantage(scored) != 0
    return float((scored.base_N.abs() * _thr(scored).abs())[kept_N].sum())


def _masks(
    groups: Sequence[ScoredGroup], options: PreviewOptions
) -> dict[str, list[Bool[Tensor, " N"]]]:
    """Each method's tokens, group by group; NTHR's only where its score is there."""
    config = options.config
    sizes = [len(scored.base_N) for scored in groups]
    entropy_N = torch.cat([scored.entropy_N for scored in groups])
    masks = {
        "THR": [dominant(scored) for scored in groups],
        "entropy": list(
            torch.split(entropy_threshold_mask(entropy_N, config.entropy_share), sizes)
        ),
        "KL-Cov": [],
    }
    for start in range(0, len(groups), config.mini_batch_prompts):
        batch = groups[start : start + config.mini_batch_prompts]
        covariance_N = covariance(
            torch.cat([scored.base_N for scored in batch]),
            torch.cat([scored.old_logprob_N for scored in batch]),
        )
        chosen_N = kl_cov_penalised(covariance_N, options.cov_share)
        masks["KL-Cov"] += torch.split(chosen_N, [len(scored.base_N) for scored in batch])
    if options.needs_nthr:
        masks["NTHR"] = [
            nthr_selected(scored.nthr_score_N, scored.incorrect_N, scored.nthr_tau)
            for scored in groups
            if scored.nthr_score_N is not None
        ]
    return masks


def _mask_sums(masks: dict[str, Bool[Tensor, " N"]]) -> dict[str, float]:
    """Sizes of the masks, and of what every two of them share and have together."""
    sums = {f"mask {name}": float(mask_N.sum()) for name, mask_N in masks.items()}
    for one, other in mask_pairs(list(masks)):
        sums[f"both {one} {other}"] = float((masks[one] & masks[other]).sum())
        sums[f"either {one} {other}"] = float((masks[one] | masks[other]).sum())
    return sums


def _plain(scored: ScoredGroup) -> Float[Tensor, " N"]:
    """GRPO's advantage (Equation 1, population deviation) at every token: never 0 where mixed."""
    plain_G = group_advantages(torch.tensor(scored.group.correct))
    return plain_G.repeat_interleave(scored.lengths_G)


def _advantage(scored: ScoredGroup) -> Float[Tensor, " N"]:
    assert scored.advantage_N is not None
    return scored.advantage_N


def _thr(scored: ScoredGroup) -> Float[Tensor, " N"]:
    assert scored.scores is not None
    return scored.scores.thr_N.double()
