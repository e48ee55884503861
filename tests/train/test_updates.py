"""Updates: gradients of packed micro-batches against the paper's sums over full logits."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from tiny_models import tiny_policy
from torch.testing import assert_close

from thr_probe.errors import IncompleteError
from thr_probe.policy.families import unembedding
from thr_probe.processes import World
from thr_probe.train.batches import MiniBatch, Row, micro_batches
from thr_probe.train.config import TrainConfig
from thr_probe.train.module import PolicyModule
from thr_probe.train.objective import described, objective_of
from thr_probe.train.updates import Learner, run_update

ALONE = World(rank=0, size=1, local_rank=0)
PROMPTS = [[2, 50, 61], [2, 90, 91, 92, 93, 94], [2, 7]]
"""Three questions."""
COMPLETIONS = [
    [[10, 11, 12, 1], [200, 1], [33, 34, 35, 10, 11, 12, 1]],
    [[99, 98, 1], [10, 7, 8, 9], [14, 1]],
    [[40, 41, 42, 43, 44, 45, 1], [60], [61, 62, 1]],
]
SIGNS = [[1, -1, -1], [1, 1, -1], [-1, 1, -1]]
COEF = 0.3


def full_logprobs(policy, prompt, completion, temperature):
    """log pi and entropy of each token from the model's own logits, nothing packed."""
    logits = policy.model(input_ids=torch.tensor([[*prompt, *completion]])).logits[0]
    every = torch.log_softmax(logits[len(prompt) - 1 : -1] / temperature, dim=-1)
    return every.gather(1, torch.tensor(completion)[:, None])[:, 0]


def tables(policy, *, temperature, seed=0, spread=0.3):
    """For every rollout its advantage, old and reference log-probabilities, near the current."""
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for group, completions in enumerate(COMPLETIONS):
        for rollout, completion in enumerate(completions):
            with torch.no_grad():
                now = full_logprobs(policy, PROMPTS[group], completion, temperature)
            noise = [
                spread * torch.randn(len(now), generator=generator, dtype=now.dtype)
                for _ in range(2)
            ]
            size = 0.5 + torch.rand(len(now), generator=generator, dtype=now.dtype)
            made[group, rollout] = (SIGNS[group][rollout] * size, now + noise[0], now + noise[1])
    return made


def learner_of(policy, config):
    module = PolicyModule(policy.model, policy.rule)
    return Learner(
        module=module,
        optimizer=torch.optim.SGD(module.parameters(), lr=1.0),
        objective=objective_of(config),
        config=config,
        device=torch.device("cpu"),
        filler_ids=[2, 3],
        world=ALONE,
    )


def mini_batch(table, *, with_reference):
    rows = [
        Row(
            key=key,
            prompt_id=f"p{key[0]}",
            prompt_ids=PROMPTS[key[0]],
            token_ids=COMPLETIONS[key[0]][key[1]],
            advantage_N=advantage,
            old_logprob_N=old,
            ref_logprob_N=reference if with_reference else None,
            counted=len(advantage),
        )
        for key, (advantage, old, reference) in table.items()
    ]
    weight = {}
    return rows, weight


def literal_weight(aggregate, group, rollout, max_length):
    """What one token of a rollout counts, each aggregate written out."""
    lengths = [[len(completion) for completion in group] for group in COMPLETIONS]
    own = lengths[group][rollout]
    return {
        "group-token-mean": 1 / len(lengths) / sum(lengths[group]),
        "token-mean": 1 / sum(map(sum, lengths)),
        "sequence-mean": 1 / sum(map(len, lengths)) / own,
        "dr-grpo": 1 / sum(map(len, lengths)) / max_length,
    }[aggregate]


def clip(ratio, config):
    return max(1 - config.clip_low, min(1 + config.clip_high, ratio))


def literal_token_losses(config, now, old, advantage):
    """The objective at each token of one rollout, as a list of scalars with gradient."""
    if config.objective == "grpo":
        ratios = [(a - b).exp() for a, b in zip(now, old, strict=True)]
    else:
        mean = sum(a - b for a, b in zip(now, old, strict=True)) / len(now)
        if config.objective == "gspo":
            ratios = [mean.exp()] * len(now)
        else:
            ratios = [mean.detach().exp() * (a - a.detach()).exp() for a in now]
    losses = []
    for ratio, value in zip(ratios, advantage, strict=True):
        plain = ratio * value
        bounded = clip(float(ratio.detach()), config) * value
        losses.append(-plain if float(plain.detach()) <= float(bounded) else -bounded)
    return losses


def literal_k3(now, reference):
    return [(b - a).exp() - (b - a) - 1 for a, b in zip(now, reference, strict=True)]


def literal_loss(policy, table, config, max_length=12):
    total = torch.zeros((), dtype=torch.float64)
    for (group, rollout), (advantage, old, reference) in table.items():
        completion = COMPLETIONS[group][rollout]
        now = full_logprobs(policy, PROMPTS[group], completion, config.temperature)
        weight = literal_weight(config.aggregate, group, rollout, max_length)
        total = total + weight * sum(literal_token_losses(config, now, old, advantage))
        if config.kl_coef > 0:
            total = total + config.kl_coef * weight * sum(literal_k3(now, reference))
    return total


def with_weights(rows, config, max_length=12):
    weight = {row.key: literal_weight(config.aggregate, *row.key, max_length) for row in rows}
    return MiniBatch(number=0, rows=rows, weight=weight, mean_weight=weight)


def gradients(policy):
    return {name: weight.grad.clone() for name, weight in policy.model.named_parameters()}


CASES = [
    *(("grpo", aggregate) for aggregate in ("group-token-mean", "token-mean", "sequence-mean")),
    ("grpo", "dr-grpo"),
    ("gspo-token", "sequence-mean"),
    ("gspo", "sequence-mean"),
]


@pytest.mark.parametrize("micro_batch_tokens", [1, 14, 1000])
@pytest.mark.parametrize(("objective", "aggregate"), CASES)
def test_the_gradient_of_a_mini_batch_is_that_of_the_written_out_loss(
    objective, aggregate, micro_batch_tokens
):
    policy = tiny_policy("qwen2")
    config = TrainConfig(
        preset="none",
        method="grpo",
        objective=objective,
        aggregate=aggregate,
        clip_low=0.1,
        clip_high=0.2,
        kl_coef=COEF,
        max_grad_norm=1e9,
        micro_batch_tokens=micro_batch_tokens,
        chunk_size=5,
    )
    table = tables(policy, temperature=1.0)
    loss = literal_loss(policy, table, config)
    loss.backward()
    expected = gradients(policy)
    rows, _ = mini_batch(table, with_reference=True)
    learner = learner_of(policy, config)
    record = run_update(learner, with_weights(rows, config), step=0)
    assert record.loss == pytest.approx(float(loss.detach()), rel=1e-9)
    for name, gradient in gradients(policy).items():
        assert_close(gradient, expected[name], rtol=1e-7, atol=1e-10)
    norm = math.sqrt(sum(float(gradient.square().sum()) for gradient in expected.values()))
    assert record.grad_norm == pytest.approx(norm, rel=1e-7)
    assert record.tokens == sum(len(row.token_ids) for row in rows)
    assert record.clipped > 0


@pytest.mark.parametrize(
    ("family", "options", "temperature"),
    [
        ("qwen2", {"tie_word_embeddings": True}, 1.0),
        ("llama", {"tie_word_embeddings": False}, 0.7),
        ("gemma2", {}, 1.3),
    ],
)
def test_families_with_tied_and_capped_heads_get_the_same_gradient(family, options, temperature):
    policy = tiny_policy(family, **options)
    config = TrainConfig(
        preset="none", kl_coef=COEF, max_grad_norm=1e9, temperature=temperature, chunk_size=3
    )
    table = tables(policy, temperature=temperature)
    literal_loss(policy, table, config).backward()
    expected = gradients(policy)
    rows, _ = mini_batch(table, with_reference=True)
    run_update(learner_of(policy, config), with_weights(rows, config), step=0)
    # Gemma 2 computes norms and attention in float32 whatever its weights are
    tolerance = 1e-4 if family == "gemma2" else 1e-7
    for name, gradient in gradients(policy).items():
        assert_close(gradient, expected[name], rtol=tolerance, atol=tolerance * 1e-2)


def covariances(policy, table):
    """(A - mean A)(log pi - mean log pi) over every token of the mini-batch, by key."""
    now = {}
    for key in table:
        with torch.no_grad():
            now[key] = full_logprobs(policy, PROMPTS[key[0]], COMPLETIONS[key[0]][key[1]], 1.0)
    logprobs = torch.cat([now[key] for key in sorted(table)])
    advantages = torch.cat([table[key][0] for key in sorted(table)])
    value = (advantages - advantages.mean()) * (logprobs - logprobs.mean())
    lengths = [len(table[key][0]) for key in sorted(table)]
    return dict(zip(sorted(table), value.split(lengths), strict=True))


@pytest.mark.parametrize("micro_batch_tokens", [1, 1000])
def test_kl_cov_penalises_the_largest_covariances_of_the_whole_mini_batch(micro_batch_tokens):
    policy = tiny_policy("qwen2")
    config = TrainConfig(
        preset="none",
        method="grpo",
        cov="kl-cov",
        cov_share=0.1,
        cov_coef=0.7,
        kl_coef=0.0,
        max_grad_norm=1e9,
        micro_batch_tokens=micro_batch_tokens,
    )
    table = tables(policy, temperature=1.0)
    value = covariances(policy, table)
    listed = sorted(float(entry) for part in value.values() for entry in part)
    count = int(0.1 * len(listed))
    least = listed[-count]
    loss = torch.zeros((), dtype=torch.float64)
    for key, (advantage, old, _) in table.items():
        now = full_logprobs(policy, PROMPTS[key[0]], COMPLETIONS[key[0]][key[1]], 1.0)
        weight = literal_weight(config.aggregate, *key, 12)
        loss = loss + weight * (-(now - old).exp() * advantage).sum()
        loss = loss + weight * 0.7 * ((value[key] >= least) * (now - old).abs()).sum()
    loss.backward()
    expected = gradients(policy)
    rows, _ = mini_batch(table, with_reference=False)
    record = run_update(learner_of(policy, config), with_weights(rows, config), step=0)
    assert record.selected == count
    assert record.loss == pytest.approx(float(loss.detach()), rel=1e-9)
    for name, gradient in gradients(policy).items():
        assert_close(gradient, expected[name], rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("cov_scope", ["mini-batch", "micro-batch"])
def test_clip_cov_drops_the_gradient_of_some_tokens_alone(cov_scope):
    policy = tiny_policy("qwen2")
    options = {"preset": "none", "method": "grpo", "kl_coef": 0.0, "max_grad_norm": 1e9}
    band = {"cov_low": 0.01, "cov_high": 100.0, "cov_share": 0.2, "cov_scope": cov_scope}
    config = TrainConfig(cov="clip-cov", **band, **options)
    table = tables(policy, temperature=1.0)
    rows, _ = mini_batch(table, with_reference=False)
    record = run_update(learner_of(policy, config), with_weights(rows, config), step=0)
    tokens = sum(len(row.token_ids) for row in rows)
    assert record.selected == int(0.2 * tokens)
    changed = gradients(policy)
    run_update(learner_of(policy, TrainConfig(**options)), with_weights(rows, config), step=0)
    plain = gradients(policy)
    assert any((plain[name] - changed[name]).abs().max() > 1e-6 for name in plain)


@pytest.mark.parametrize("column", [0, 1, 2], ids=["advantage", "old", "reference"])
def test_a_loss_that_is_not_a_number_names_the_rollout_and_leaves_the_weights(column):
    policy = tiny_policy("qwen2")
    config = TrainConfig(preset="none")
    table = tables(policy, temperature=1.0)
    table[1, 2][column][0] = math.nan
    rows, _ = mini_batch(table, with_reference=True)
    before = unembedding(policy.model).weight.detach().clone()
    with pytest.raises(IncompleteError, match=r"step 7, update 0: .* prompt p1, rollout 2 is not"):
        run_update(learner_of(policy, config), with_weights(rows, config), step=7)
    assert_close(unembedding(policy.model).weight.detach(), before, rtol=0, atol=0)


def with_importance(rows, seed=3):
    """The rows with an importance weight of every token, some at the cap."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for row in rows:
        drawn = torch.randn(len(row.token_ids), generator=generator, dtype=torch.float64)
        made.append(replace(row, importance_N=drawn.exp().clamp(max=2.0)))
    return made


@pytest.mark.parametrize("micro_batch_tokens", [1, 14, 1000])
@pytest.mark.parametrize(("objective", "aggregate"), CASES)
def test_importance_weights_multiply_the_objective_of_each_token_and_nothing_else(
    objective, aggregate, micro_batch_tokens
):
    policy = tiny_policy("qwen2")
    config = TrainConfig(
        preset="none",
        method="grpo",
        objective=objective,
        aggregate=aggregate,
        importance_correction="tis",
        clip_low=0.1,
        kl_coef=COEF,
        max_grad_norm=1e9,
        micro_batch_tokens=micro_batch_tokens,
    )
    table = tables(policy, temperature=1.0)
    rows = with_importance(mini_batch(table, with_reference=True)[0])
    loss = torch.zeros((), dtype=torch.float64)
    for row in rows:
        now = full_logprobs(policy, row.prompt_ids, row.token_ids, 1.0)
        weight = literal_weight(aggregate, *row.key, 12)
        losses = literal_token_losses(config, now, row.old_logprob_N, row.advantage_N)
        penalties = literal_k3(now, row.ref_logprob_N)
        for factor, value, penalty in zip(
            row.importance_N.tolist(), losses, penalties, strict=True
        ):
            loss = loss + weight * (factor * value + COEF * penalty)
    loss.backward()
    expected = gradients(policy)
    record = run_update(learner_of(policy, config), with_weights(rows, config), step=0)
    assert record.loss == pytest.approx(float(loss.detach()), rel=1e-9)
    for name, gradient in gradients(policy).items():
        assert_close(gradient, expected[name], rtol=1e-7, atol=1e-10)


def test_weights_of_1_change_no_bit_of_an_update():
    made = []
    for correction in ("none", "tis"):
        policy = tiny_policy("qwen2")
        config = TrainConfig(preset="none", kl_coef=COEF, importance_correction=correction)
        rows, _ = mini_batch(tables(policy, temperature=1.0), with_reference=True)
        if correction == "tis":
            rows = [replace(row, importance_N=torch.ones_like(row.advantage_N)) for row in rows]
        record = run_update(learner_of(policy, config), with_weights(rows, config), step=0)
        made.append((record.loss, [weight.detach() for weight in policy.model.parameters()]))
    assert made[0][0] == made[1][0]
    for left, right in zip(made[0][1], made[1][1], strict=True):
        assert_close(left, right, rtol=0, atol=0)


def test_micro_batches_hold_every_row_once_and_respect_the_budget():
    policy = tiny_policy("qwen2")
    rows, _ = mini_batch(tables(policy, temperature=1.0), with_reference=False)
    batch = with_weights(rows, TrainConfig(preset="none"))
    for budget in (1, 10, 25, 10_000):
        parts = micro_batches(batch, budget, [2, 3], torch.device("cpu"), ALONE)
        keys = list(itertools.chain(*([row.key for row in part.rows] for part in parts)))
        assert sorted(keys) == sorted(row.key for row in rows)
        for part in parts:
            assert len(part.rows) == 1 or part.input_ids_BL.numel() <= budget


def test_much_shorter_rows_wait_for_a_micro_batch_of_their_own():
    policy = tiny_policy("qwen2")
    rows, _ = mini_batch(tables(policy, temperature=1.0), with_reference=False)
    batch = with_weights(rows, TrainConfig(preset="none"))

    def lengths(budget):
        parts = micro_batches(batch, budget, [2, 3], torch.device("cpu"), ALONE)
        return [[row.length for row in part.rows] for part in parts]

    # a sixteenth of this budget is 8 tokens: less than the longest row has
    assert lengths(128) == [[9, 9, 8, 8, 7], [6, 4], [4, 2]]
    # and of this one more than all rows together
    assert len(lengths(10_000)) == 1


def test_the_objective_in_use_is_told_in_one_line():
    told = described(TrainConfig(preset="none", cov="kl-cov", method="grpo"))
    assert told == "kl-cov 0.002 (mini-batch), no clip; grpo; group-token-mean; k3 0.0001"
    options = {"dual_clip": 3.0, "adv_std": "sample", "renorm": "selected", "entropy_coef": 0.001}
    assert described(TrainConfig(preset="none", **options)) == (
        "grpo clip 0.2/0.2, dual clip 3; thr(p=0); sample deviation; group-token-mean over "
        "selected tokens; k3 0.0001; entropy bonus 0.001"
    )
    corrected = TrainConfig(preset="none", importance_correction="tis", tis_cap=3.0)
    assert described(corrected) == (
        "grpo clip 0.2/0.2, tis 3; thr(p=0); group-token-mean; k3 0.0001"
    )
