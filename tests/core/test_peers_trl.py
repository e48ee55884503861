"""Losses against those of TRL, where it is installed; on padded matrices as in test_peers.py."""

from __future__ import annotations

import pytest
import torch
from peer_batches import LENGTHS, WIDTH, Batch, close
from tiny_models import byte_tokenizer, tiny_model

from thr_probe.core.advantages import entropy_threshold_mask, group_advantages
from thr_probe.core.losses import (
    clipped_loss,
    gspo_loss,
    gspo_token_loss,
    k3,
    truncated_importance_weights,
)

# both peers warn of deprecations of their own when they are imported and when they run
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def trl():
    return pytest.importorskip("trl", exc_type=ImportError)


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
