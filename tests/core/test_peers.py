"""Advantages and losses against the public functions of verl and TRL, where they are installed.

Neither is needed to use or to test this project: without them these tests are skipped by name.
Both work on padded (B, T) matrices in which our packed tokens are the entries under the mask.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from peer_batches import GROUPS, Batch, close

from thr_probe.core.advantages import group_advantages
from thr_probe.core.losses import (
    clip_cov_dropped,
    clip_cov_loss,
    clipped_loss,
    covariance,
    gspo_token_loss,
    k3,
    kl_cov_loss,
    kl_cov_penalised,
    truncated_importance_weights,
)

# both peers warn of deprecations of their own when they are imported and when they run
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def verl():
    """Its algorithms, without its trainer."""
    return pytest.importorskip("verl.trainer.ppo.core_algos", exc_type=ImportError)


def same_value_and_gradient(batch, ours, theirs):
    # verl adds 1e-8 to every divisor
    close(ours, theirs, rtol=1e-7, atol=1e-9)
    close(batch.gradient(ours), batch.gradient(theirs), rtol=1e-7, atol=1e-9)
    assert batch.gradient(ours).abs().max() > 1e-3


# verl


def actor_config(mode="token-mean", **options):
    config = pytest.importorskip("verl.workers.config", exc_type=ImportError)
    covs = {name: options.pop(name) for name in list(options) if "cov" in name or "coef" in name}
    return config.ActorConfig(
        strategy="fsdp",
        rollout_n=8,
        ppo_micro_batch_size_per_gpu=1,
        loss_agg_mode=mode,
        policy_loss=config.PolicyLossConfig(**covs),
        **options,
    )


def verl_loss(verl, name, batch, mode="token-mean", **options):
    loss, _metrics = verl.get_policy_loss_fn(name)(
        batch.old,
        batch.logprob,
        batch.advantage,
        batch.mask,
        loss_agg_mode=mode,
        config=actor_config(mode, **options),
    )
    return loss


@pytest.mark.parametrize("num_correct", range(1, 8))
@pytest.mark.parametrize("std", ["sample", "none"])
def test_grpo_advantages_are_verls(verl, num_correct, std):
    correct_G = torch.arange(8) < num_correct
    theirs, _returns = verl.compute_grpo_outcome_advantage(
        correct_G.double()[:, None],
        torch.ones(8, 1, dtype=torch.float64),
        np.zeros(8, dtype=int),
        epsilon=0.0,
        norm_adv_by_std_in_grpo=std == "sample",
    )
    close(group_advantages(correct_G, std=std), theirs[:, 0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("spread", [0.01, 1.0, 8.0, 40.0])
def test_k3_is_verls_low_variance_kl(verl, spread):
    batch = Batch(spread=spread)
    ours = k3(batch.packed(batch.logprob), batch.packed(batch.old))
    theirs = batch.packed(verl.kl_penalty(batch.logprob, batch.old, "low_var_kl"))
    # its exp(D) - D - 1 cancels for a small D
    close(ours, theirs, rtol=1e-9, atol=1e-14)
    close(batch.gradient(ours.sum()), batch.gradient(theirs.sum()), rtol=1e-9, atol=1e-12)


AGGREGATES = {
    "token-mean": ("token-mean", {}),
    "sequence-mean": ("seq-mean-token-mean", {}),
    "dr-grpo": ("seq-mean-token-sum-norm", {"loss_scale_factor": 12}),
}


@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_aggregates_are_verls(verl, aggregate):
    batch = Batch()
    mode, options = AGGREGATES[aggregate]
    theirs = verl.agg_loss(batch.logprob, batch.mask, mode, **options)
    ours = batch.total(batch.packed(batch.logprob), aggregate, max_length=12)
    same_value_and_gradient(batch, ours, theirs)


def test_the_group_token_mean_of_one_group_is_verls_token_mean_of_it(verl):
    batch = Batch()
    means = [
        verl.agg_loss(batch.logprob[rows], batch.mask[rows], "token-mean")
        for rows in (GROUPS == 0, GROUPS == 1)
    ]
    ours = batch.total(batch.packed(batch.logprob), "group-token-mean")
    same_value_and_gradient(batch, ours, sum(means) / 2)


@pytest.mark.parametrize(("dual_clip", "constant"), [(3.0, 3.0), (1.5, 1.5), (None, 1e9)])
@pytest.mark.parametrize("clip_high", [0.2, 0.28])
def test_the_clipped_loss_is_verls_vanilla_one(verl, dual_clip, constant, clip_high):
    batch = Batch(spread=0.8)
    theirs = verl_loss(
        verl,
        "vanilla",
        batch,
        clip_ratio_low=0.2,
        clip_ratio_high=clip_high,
        clip_ratio_c=constant,
    )
    ours = clipped_loss(*batch.tokens, clip_low=0.2, clip_high=clip_high, dual_clip=dual_clip)
    assert bool(ours.clipped_N.any())
    same_value_and_gradient(batch, batch.total(ours.loss_N, "token-mean"), theirs)


@pytest.mark.parametrize("clip", [0.2, 0.01])
def test_gspo_token_is_verls_gspo(verl, clip):
    batch = Batch()
    theirs = verl_loss(
        verl,
        "gspo",
        batch,
        "seq-mean-token-mean",
        clip_ratio_low=clip,
        clip_ratio_high=clip,
    )
    ours = gspo_token_loss(*batch.tokens, batch.rollout_index, clip_low=clip, clip_high=clip)
    same_value_and_gradient(batch, batch.total(ours.loss_N, "sequence-mean"), theirs)


@pytest.mark.parametrize(("share", "count"), [(2e-3, 1), (0.1, 2), (0.5, 12)])
def test_kl_cov_is_verls(verl, share, count):
    batch = Batch()
    theirs = verl_loss(verl, "kl_cov", batch, kl_cov_ratio=share, ppo_kl_coef=0.7)
    logprob_N, old_N, advantage_N = batch.tokens
    penalised_N = kl_cov_penalised(covariance(advantage_N, logprob_N), share)
    assert int(penalised_N.sum()) == count
    ours = kl_cov_loss(logprob_N, old_N, advantage_N, penalised_N, coef=0.7)
    same_value_and_gradient(batch, batch.total(ours.loss_N, "token-mean"), theirs)


@pytest.mark.parametrize("cap", [1.0, 2.0, 5.0])
def test_truncated_importance_weights_are_verls_by_token(verl, cap):
    del verl
    corrections = pytest.importorskip("verl.trainer.ppo.rollout_corr_helper", exc_type=ImportError)
    batch = Batch(spread=1.5)
    theirs, _metrics = corrections.compute_rollout_correction_weights(
        batch.old - batch.logprob.detach(), batch.mask, "token", rollout_is_threshold=cap
    )
    ours = truncated_importance_weights(
        batch.packed(batch.old), batch.packed(batch.logprob), cap=cap
    )
    close(ours, batch.packed(theirs), rtol=1e-12, atol=0)


def test_clip_cov_is_verls_where_every_candidate_is_drawn(verl):
    batch = Batch()
    theirs = verl_loss(
        verl,
        "clip_cov",
        batch,
        clip_cov_ratio=1.0,
        clip_cov_lb=0.1,
        clip_cov_ub=1.0,
    )
    logprob_N, old_N, advantage_N = batch.tokens
    plain = clipped_loss(logprob_N, old_N, advantage_N, clip_low=0.2, clip_high=0.2)
    dropped_N = clip_cov_dropped(
        covariance(advantage_N, logprob_N),
        ~plain.clipped_N,
        1.0,
        low=0.1,
        high=1.0,
        generator=np.random.default_rng(0),
    )
    assert 0 < int(dropped_N.sum()) < len(dropped_N)
    ours = clip_cov_loss(logprob_N, old_N, advantage_N, dropped_N, clip_low=0.2, clip_high=0.2)
    same_value_and_gradient(batch, batch.total(ours.loss_N, "token-mean"), theirs)


# TRL
