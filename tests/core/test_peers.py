"""Advantages and losses against the public functions of verl and TRL, where they are installed.

Neither is needed to use or to test this project: without them these tests are skipped by name.
Both work on padded (B, T) matrices in which our packed tokens are the entries under the mask.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import byte_tokenizer, tiny_model

from thr_probe.core.advantages import entropy_threshold_mask, group_advantages
from thr_probe.core.losses import (
    aggregate_weights,
    clip_cov_dropped,
    clip_cov_loss,
    clipped_loss,
    covariance,
    gspo_loss,
    gspo_token_loss,
    k3,
    kl_cov_loss,
    kl_cov_penalised,
    truncated_importance_weights,
)

close = torch.testing.assert_close

# both peers warn of deprecations of their own when they are imported and when they run
pytestmark = pytest.mark.filterwarnings("ignore")

LENGTHS = torch.tensor([5, 1, 7, 3, 6, 2])
GROUPS = torch.tensor([0, 0, 0, 1, 1, 1])
WIDTH = 9
"""Of the padded matrices: more than the longest completion."""


@pytest.fixture(scope="module")
def verl():
    """Its algorithms, without its trainer."""
    return pytest.importorskip("verl.trainer.ppo.core_algos", exc_type=ImportError)


@pytest.fixture(scope="module")
def trl():
    return pytest.importorskip("trl", exc_type=ImportError)


class Batch:
    """Random log-probabilities and advantages, padded and packed."""

    def __init__(self, *, seed=0, spread=0.4, by_token=True):
        generator = torch.Generator().manual_seed(seed)
        shape = (len(LENGTHS), WIDTH)
        self.mask = (torch.arange(WIDTH) < LENGTHS[:, None]).double()
        self.old = -torch.rand(shape, generator=generator, dtype=torch.float64) * 3
        noise = spread * torch.randn(shape, generator=generator, dtype=torch.float64)
        self.logprob = (self.old + noise).requires_grad_()
        signs = torch.tensor([1.0, -1.0, 1.0, -1.0, -1.0, 1.0], dtype=torch.float64)[:, None]
        size = torch.rand(shape, generator=generator, dtype=torch.float64) + 0.5
        # a token's advantage keeps the sign of its completion, as under THR(p)
        self.advantage = signs * (size if by_token else size[:, :1].expand(shape)) * self.mask

    def packed(self, matrix):
        return matrix[self.mask.bool()]

    @property
    def rollout_index(self):
        return torch.arange(len(LENGTHS)).repeat_interleave(LENGTHS)

    @property
    def tokens(self):
        """logprob, old_logprob, advantage as our losses take them."""
        return self.packed(self.logprob), self.packed(self.old), self.packed(self.advantage)

    def total(self, loss_N, aggregate, **options):
        weight_R = aggregate_weights(LENGTHS, GROUPS, aggregate=aggregate, **options)
        return (weight_R[self.rollout_index] * loss_N).sum()

    def gradient(self, total):
        return torch.autograd.grad(total, self.logprob, retain_graph=True)[0] * self.mask


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


@pytest.fixture
def trainer(trl, tmp_path):
    """Builds TRL's own trainer around a tiny policy; its losses are methods of it."""
    datasets = pytest.importorskip("datasets", exc_type=ImportError)

    def build(**options):
        model = tiny_model("qwen2", dtype=torch.float32, initializer_range=0.1)
        # with a KL penalty it loads the reference policy by the model's name
        model.save_pretrained(tmp_path / "model")
        model.config._name_or_path = str(tmp_path / "model")
        return trl.GRPOTrainer(
            model=model,
            processing_class=byte_tokenizer(),
            reward_funcs=lambda completions, **_: [0.0] * len(completions),
            train_dataset=datasets.Dataset.from_list([{"prompt": "a"}]),
            args=trl.GRPOConfig(
                output_dir=str(tmp_path),
                use_cpu=True,
                bf16=False,
                report_to="none",
                gradient_checkpointing=False,
                per_device_train_batch_size=len(LENGTHS),
                num_generations=3,
                max_completion_length=WIDTH,
                epsilon=0.2,
                # its default weighs the KL penalty of a token by the ratio
                use_bias_correction_kl=False,
                **options,
            ),
        )

    return build


def trl_inputs(batch, seed=0):
    """A batch as TRL's trainer passes it to its loss: one advantage per completion."""
    generator = torch.Generator().manual_seed(seed)
    rows = len(LENGTHS)
    return {
        "prompt_ids": torch.randint(3, 200, (rows, 4), generator=generator),
        "prompt_mask": torch.ones(rows, 4, dtype=torch.long),
        "completion_ids": torch.randint(3, 200, (rows, WIDTH), generator=generator),
        "completion_mask": batch.mask.long(),
        "advantages": batch.advantage[:, 0].float(),
        "num_items_in_batch": batch.mask.sum().float(),
    }


def own_logprobs(model, inputs):
    """Log-probability and entropy of the completions through the model's plain forward."""
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
    logits = model(input_ids=ids).logits[:, -WIDTH - 1 : -1]
    every = torch.log_softmax(logits, dim=-1)
    entropy = -(every.exp() * every).sum(dim=-1)
    return every.gather(-1, inputs["completion_ids"][..., None])[..., 0], entropy


def parameter_gradient(model, loss):
    parts = torch.autograd.grad(loss, list(model.parameters()))
    return torch.cat([part.flatten() for part in parts])


def compare_with_trl(trainer, our_loss, *, spread=0.4, beta=0.0, **given):
    """TRL's loss of a batch and its gradient in the weights, beside ours from the same model."""
    batch, model = Batch(spread=spread, by_token=False), trainer.model.eval()
    trainer.current_gradient_accumulation_steps = 1
    inputs = trl_inputs(batch) | given
    logprob, entropy = own_logprobs(model, inputs)
    # old and reference log-probabilities a random way off the current ones
    drift = (batch.logprob - batch.old).detach().float()
    inputs["old_per_token_logps"] = logprob.detach() - drift
    inputs["ref_per_token_logps"] = logprob.detach() + drift.flip(0)
    theirs = trainer.compute_loss(model, inputs)
    tokens = [batch.packed(part) for part in (logprob, inputs["old_per_token_logps"])]
    tokens.append(batch.packed(batch.advantage).float())
    loss_N, aggregate = our_loss(batch, *tokens, batch.packed(entropy).detach())
    if beta:
        loss_N = loss_N + beta * k3(tokens[0], batch.packed(inputs["ref_per_token_logps"]))
    ours = batch.total(loss_N, aggregate, max_length=WIDTH)
    close(ours.float(), theirs, rtol=1e-4, atol=1e-6)
    expected = parameter_gradient(model, theirs)
    actual = parameter_gradient(model, ours)
    assert expected.abs().max() > 1e-3
    close(actual, expected, rtol=1e-3, atol=float(1e-5 * expected.abs().max()))


@pytest.mark.parametrize("num_correct", range(1, 8))
def test_sample_deviations_are_trls(trl, num_correct):
    nanstd = pytest.importorskip("trl.trainer.utils", exc_type=ImportError).nanstd
    correct_G = torch.arange(8) < num_correct
    reward_G = correct_G.double()
    close(
        group_advantages(correct_G, std="sample"),
        (reward_G - reward_G.mean()) / nanstd(reward_G),
        # its Bessel correction is a float32 quotient of two counts
        rtol=1e-7,
        atol=1e-12,
    )


@pytest.mark.parametrize(
    ("loss_type", "aggregate"),
    [("grpo", "sequence-mean"), ("bnpo", "token-mean"), ("dapo", "token-mean"), ("dr_grpo",) * 2],
)
@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_the_clipped_loss_with_kl_is_trls(trainer, loss_type, aggregate, beta):
    def ours(_batch, logprob_N, old_N, advantage_N, _entropy_N):
        loss = clipped_loss(logprob_N, old_N, advantage_N, clip_low=0.2, clip_high=0.28)
        assert bool(loss.clipped_N.any())
        return loss.loss_N, aggregate.replace("_", "-")

    built = trainer(loss_type=loss_type, beta=beta, epsilon_high=0.28)
    compare_with_trl(built, ours, beta=beta)


def test_the_dual_clip_is_trls_delta(trainer):
    def ours(_batch, logprob_N, old_N, advantage_N, _entropy_N):
        loss = clipped_loss(
            logprob_N, old_N, advantage_N, clip_low=0.2, clip_high=0.2, dual_clip=1.5
        )
        return loss.loss_N, "token-mean"

    compare_with_trl(trainer(loss_type="bnpo", delta=1.5), ours, spread=0.8)


@pytest.mark.parametrize("objective", [gspo_loss, gspo_token_loss])
def test_gspo_is_trls_at_sequence_level(trainer, objective):
    def ours(batch, logprob_N, old_N, advantage_N, _entropy_N):
        loss = objective(
            logprob_N, old_N, advantage_N, batch.rollout_index, clip_low=0.2, clip_high=0.2
        )
        return loss.loss_N, "sequence-mean"

    compare_with_trl(trainer(loss_type="grpo", importance_sampling_level="sequence"), ours)


def test_high_entropy_tokens_and_their_loss_are_trls(trainer):
    # 24 tokens, 0.2: both keep the tokens whose entropy reaches the quantile
    def ours(_batch, logprob_N, old_N, advantage_N, entropy_N):
        chosen_N = entropy_threshold_mask(entropy_N.double(), 0.2)
        assert 0 < int(chosen_N.sum()) < len(chosen_N)
        loss = clipped_loss(logprob_N, old_N, advantage_N * chosen_N, clip_low=0.2, clip_high=0.2)
        return loss.loss_N, "token-mean"

    compare_with_trl(trainer(loss_type="bnpo", top_entropy_quantile=0.2), ours)


def generated(trainer, sampled):
    """What TRL makes of rollouts whose engine told these log-probabilities, sampling left out."""
    inputs = trl_inputs(Batch())
    ids, told = (
        [row[:length].tolist() for row, length in zip(rows, LENGTHS.tolist(), strict=True)]
        for rows in (inputs["completion_ids"], sampled)
    )
    prompts, texts = inputs["prompt_ids"].tolist(), ["" for _ in ids]
    trainer._generate = lambda _prompts: (prompts, ids, None, texts, told, {}, None, None)
    return trainer._generate_and_score_completions([{"prompt": "a"} for _ in ids])


@pytest.mark.parametrize("cap", [1.0, 2.0])
def test_truncated_importance_weights_are_trls_token_truncate(trainer, cap):
    built = trainer(
        loss_type="bnpo",
        vllm_importance_sampling_mode="token_truncate",
        vllm_importance_sampling_clip_max=cap,
        beta=0.3,
    )
    built.use_vllm = True  # the engine itself is not asked
    batch = Batch(by_token=False)
    sampled = own_logprobs(built.model.eval(), trl_inputs(batch))[0].detach()
    sampled = sampled + 1.5 * (batch.logprob - batch.old).detach().float()
    found = generated(built, sampled)
    told_N = found["completion_mask"].bool()
    weight_N = truncated_importance_weights(
        found["old_per_token_logps"][told_N], batch.packed(sampled), cap=cap
    )
    assert 0 < int((weight_N == cap).sum()) < len(weight_N)
    theirs = found["importance_sampling_ratio"]
    close(weight_N, theirs[told_N], rtol=1e-6, atol=0)

    def ours(_batch, logprob_N, old_N, advantage_N, _entropy_N):
        loss = clipped_loss(logprob_N, old_N, advantage_N, clip_low=0.2, clip_high=0.2)
        return weight_N * loss.loss_N, "token-mean"

    # it pads to the longest completion
    wide = torch.nn.functional.pad(theirs, (0, WIDTH - theirs.shape[1]), value=1.0)
    compare_with_trl(built, ours, beta=0.3, importance_sampling_ratio=wide)
