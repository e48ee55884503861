"""The objective of a run as functions of a micro-batch, chosen once from the options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from thr_probe.core.losses import (
    TokenLoss,
    check_clip,
    check_tis_cap,
    clip_cov_dropped,
    clip_cov_loss,
    clipped_loss,
    covariance,
    gspo_loss,
    gspo_token_loss,
    kl_cov_loss,
    kl_cov_penalised,
)
from thr_probe.train.batches import MicroBatch
from thr_probe.train.config import TrainConfig

Tokens = Float[Tensor, " N"]
Mask = Bool[Tensor, " N"]
SelectTokens = Callable[[Tokens, Tokens, Tokens, np.random.Generator], Mask]
LossOfTokens = Callable[[Tokens, MicroBatch, Mask | None], TokenLoss]


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """What is minimised at every token."""

    loss: LossOfTokens
    """From the current log-probabilities, the batch and the selected tokens (None: none needed)."""
    select: SelectTokens | None
    """KL-Cov, Clip-Cov: from log-probabilities, old ones and advantages of all tokens in scope, the
    tokens that are penalised or dropped."""


def objective_of(config: TrainConfig) -> Objective:
    """The objective that the options name, with the weights that correct for the sampler."""
    objective = _uncorrected(config)
    if config.importance_correction == "none":
        return objective
    return replace(objective, loss=_weighted(objective.loss))


def _weighted(loss_of: LossOfTokens) -> LossOfTokens:
    """Every token's loss times its importance weight."""

    def loss(logprob_N: Tokens, batch: MicroBatch, selected_N: Mask | None) -> TokenLoss:
        found = loss_of(logprob_N, batch, selected_N)
        if not batch.rows:  # a filler
            return found
        assert batch.importance_N is not None
        return replace(found, loss_N=batch.importance_N * found.loss_N)

    return loss


def _uncorrected(config: TrainConfig) -> Objective:
    clip = {"clip_low": config.clip_low, "clip_high": config.clip_high}
    if config.cov == "kl-cov":
        return Objective(loss=_kl_cov(config), select=_kl_cov_selection(config))
    if config.cov == "clip-cov":
        return Objective(loss=_clip_cov(config), select=_clip_cov_selection(config))
    if config.objective == "grpo":
        return Objective(
            loss=lambda logprob_N, batch, _: clipped_loss(
                logprob_N,
                batch.old_logprob_N,
                batch.advantage_N,
                dual_clip=config.dual_clip,
                **clip,
            ),
            select=None,
        )
    sequence = gspo_loss if config.objective == "gspo" else gspo_token_loss
    return Objective(
        loss=lambda logprob_N, batch, _: sequence(
            logprob_N, batch.old_logprob_N, batch.advantage_N, batch.rollout_index_N, **clip
        ),
        select=None,
    )


def _kl_cov(config: TrainConfig) -> LossOfTokens:
    def loss(logprob_N: Tokens, batch: MicroBatch, penalised_N: Mask | None) -> TokenLoss:
        assert penalised_N is not None
        return kl_cov_loss(
            logprob_N,
            batch.old_logprob_N,
            batch.advantage_N,
            penalised_N,
            coef=config.cov_coef,
        )

    return loss


def _kl_cov_selection(config: TrainConfig) -> SelectTokens:
    def select(
        logprob_N: Tokens, old_N: Tokens, advantage_N: Tokens, generator: np.random.Generator
    ) -> Mask:
        del old_N, generator
        return kl_cov_penalised(covariance(advantage_N, logprob_N), config.effective_cov_share)

    return select


def _clip_cov(config: TrainConfig) -> LossOfTokens:
    def loss(logprob_N: Tokens, batch: MicroBatch, dropped_N: Mask | None) -> TokenLoss:
        assert dropped_N is not None
        return clip_cov_loss(
            logprob_N,
            batch.old_logprob_N,
            batch.advantage_N,
            dropped_N,
            clip_low=config.clip_low,
            clip_high=config.clip_high,
        )

    return loss


def _clip_cov_selection(config: TrainConfig) -> SelectTokens:
    def select(
        logprob_N: Tokens, old_N: Tokens, advantage_N: Tokens, generator: np.random.Generator
    ) -> Mask:
        plain = clipped_loss(
            logprob_N,
            old_N,
            advantage_N,
            clip_low=config.clip_low,
            clip_high=config.clip_high,
        )
        return clip_cov_dropped(
            covariance(advantage_N, logprob_N),
            ~plain.clipped_N,
            config.effective_cov_share,
            low=config.cov_low,
            high=config.cov_high,
            generator=generator,
        )

    return select


def check_objective(config: TrainConfig) -> None:
    """Refuse what the first update would refuse, on one token.

    Raises:
        UsageError: an impossible clip range, share or band of covariances, or cap of weights.
    """
    check_clip(config.clip_low, config.clip_high, config.dual_clip)
    check_tis_cap(config.tis_cap)
    select = objective_of(config).select
    if select is not None:
        one_N = torch.zeros(1)
        select(one_N, one_N, one_N, update_generator(config, 0, 0))


def described(config: TrainConfig) -> str:
    """The objective in use, in one line, for the trace's metadata.

    >>> described(TrainConfig(p=-0.1))
    'grpo clip 0.2/0.2; thr(p=-0.1); group-token-mean; k3 0.0001'
    """
    parts = [_objective_told(config), _method_told(config)]
    if config.importance_correction == "tis":
        parts[0] += f", tis {config.tis_cap:g}"
    if config.advantage != "grpo":
        parts.append(f"advantage {config.advantage}")
    elif config.adv_std != "population":
        parts.append(f"{config.adv_std} deviation")
    if config.pass_at_k != "none":
        detail = {"mixed": f" ({config.mix})", "static": f" (chi {config.chi:g})"}
        parts.append(f"pass@{config.k} {config.pass_at_k}{detail.get(config.pass_at_k, '')}")
    over = "" if config.renorm == "none" else f" over {config.renorm} tokens"
    parts += [config.aggregate + over, f"k3 {config.kl_coef:g}"]
    if config.entropy_coef != 0:
        parts.append(f"entropy bonus {config.entropy_coef:g}")
    return "; ".join(parts)


def _objective_told(config: TrainConfig) -> str:
    clip = f"{config.objective} clip {config.clip_low:g}/{config.clip_high:g}"
    if config.cov != "none":
        clip = "no clip" if config.cov == "kl-cov" else clip
        return f"{config.cov} {config.effective_cov_share:g} ({config.cov_scope}), {clip}"
    return clip if config.dual_clip is None else f"{clip}, dual clip {config.dual_clip:g}"


def _method_told(config: TrainConfig) -> str:
    if config.method != "thr":
        return config.method
    steered = f"p={config.p:g}"
    if config.adaptive_p != "none":
        steered = f"p from {config.p:g} by {config.adaptive_p}"
    kept = f", keep-entropy {config.keep_entropy:g}" if config.keep_entropy else ""
    return f"thr({steered}{kept})"


def update_generator(config: TrainConfig, step: int, update: int) -> np.random.Generator:
    """Draws of one update, the same on every process."""
    return np.random.default_rng((config.seed, step, update))
