"""THR inside TRL: its loss and gradients are ours; which groups it takes."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.testing import assert_close

pytest.importorskip("trl", reason="TRL is not installed")

from trl import GRPOTrainer
from trl_runs import (
    GROUP_SIZE,
    LEARNING,
    MAX_NEW,
    advantages_by_completion,
    batch_of,
    lab_groups,
    lab_policy,
    loss_and_gradients,
    reward_table,
    trainer_of,
)

from thr_probe.core.advantages import dr_grpo_advantages
from thr_probe.errors import IncompleteError
from thr_probe.integrations.trl import THROptions, THRTrainer
from thr_probe.probe import ProbeOptions
from thr_probe.processes import World
from thr_probe.train.batches import mini_batches
from thr_probe.train.clock import Clock
from thr_probe.train.config import TrainConfig
from thr_probe.train.module import PolicyModule
from thr_probe.train.objective import objective_of
from thr_probe.train.rollouts import Group
from thr_probe.train.scoring import score_group, set_token_advantages
from thr_probe.train.updates import Learner, run_update

# TRL uses names that transformers has changed
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated")

ALONE = World(rank=0, size=1, local_rank=0)
AGGREGATES = {
    "grpo": "sequence-mean",
    "dapo": "token-mean",
    "bnpo": "token-mean",
    "dr_grpo": "dr-grpo",
}
FLOAT32 = {"rtol": 1e-3, "atol": 2e-6}


def trl_advantages(correct):
    """The group's deviation as TRL has it: the sample's, plus 1e-4."""
    reward = correct.double()
    return (reward - reward.mean()) / (reward.std() + 1e-4)


def our_loss_and_gradients(groups, config, base=dr_grpo_advantages):
    """The trainer's own way: score, weigh, one mini-batch, one update at a learning rate of 0."""
    policy = copy.copy(lab_policy())
    policy.model = copy.deepcopy(lab_policy().model)
    scored = []
    for order, sampled in enumerate(groups):
        parts = {
            name: getattr(sampled, name) for name in ("task", "completions", "texts", "verdicts")
        }
        advantage = base(torch.tensor(sampled.correct))
        group = Group(**parts, seed=0, order=order, advantage_G=advantage)
        scored.append(score_group(policy, group, config, Clock(torch.device("cpu")), traced=False))
    set_token_advantages(scored, config, config.p, 0, ALONE)
    (batch,) = mini_batches(scored, config, MAX_NEW, ALONE)
    module = PolicyModule(policy.model, policy.rule)
    learner = Learner(
        module=module,
        optimizer=torch.optim.SGD(module.parameters(), lr=0.0),
        objective=objective_of(config),
        config=config,
        device=torch.device("cpu"),
        filler_ids=[2, 3],
        world=ALONE,
    )
    record = run_update(learner, batch, step=0)
    named = policy.model.named_parameters()
    return record.policy_loss, {name: value.grad for name, value in named}, scored


def our_config(**changes):
    given = {"method": "thr", "kl_coef": 0.0, "vocab": "full"}
    given |= {"mini_batch": 64, "max_grad_norm": 1e9, "aggregate": "sequence-mean"}
    return TrainConfig(**(given | changes))


@pytest.mark.parametrize("loss_type", AGGREGATES)
@pytest.mark.parametrize("p", [0.0, 0.1, -0.1])
def test_loss_and_gradients_are_those_of_our_own_trainer(p, loss_type, tmp_path):
    groups = lab_groups()[0][:2]
    thr = THROptions(p=p, probe=ProbeOptions(vocab="full"))
    trainer = trainer_of(tmp_path, groups, thr=thr, loss_type=loss_type)
    loss, found = loss_and_gradients(trainer, trainer._prepare_inputs(batch_of(groups)))
    config = our_config(p=p, aggregate=AGGREGATES[loss_type])
    expected_loss, expected, _ = our_loss_and_gradients(groups, config)
    assert_close(loss, expected_loss, rtol=1e-4, atol=1e-6)
    largest = max(float(value.abs().max()) for value in expected.values())
    assert largest > 1e-3
    for name, value in expected.items():
        assert_close(found[name] / largest, value / largest, **FLOAT32, msg=name)


def test_groups_are_mixed_and_of_several_lengths():
    """What the tests above rest on: padding on both sides, and tokens of every kind."""
    groups = lab_groups()[0][:2]
    assert len({len(group.task.token_ids) for group in groups}) == 2
    assert len({len(ids) for group in groups for ids in group.token_ids}) > 2
    _, _, scored = our_loss_and_gradients(groups, our_config())
    for part in scored:
        dominant = part.scores.thr_N.abs() > part.scores.tau
        assert 0 < int(dominant.sum()) < len(dominant)


def test_with_trls_own_scaling_the_advantage_of_a_completion_stays_trls(tmp_path):
    groups = lab_groups()[0][:2]
    thr = THROptions(p=-0.2, probe=ProbeOptions(vocab="full"))
    trainer = trainer_of(tmp_path, groups, thr=thr, scale_rewards="group")
    loss, found = loss_and_gradients(trainer, trainer._prepare_inputs(batch_of(groups)))
    config = our_config(p=-0.2)
    expected_loss, expected, _ = our_loss_and_gradients(groups, config, trl_advantages)
    assert_close(loss, expected_loss, rtol=1e-4, atol=1e-6)
    largest = max(float(value.abs().max()) for value in expected.values())
    for name, value in expected.items():
        assert_close(found[name] / largest, value / largest, **FLOAT32, msg=name)


KEEP_ALL = THROptions(dynamic_sampling=False, probe=ProbeOptions(beta=float("-inf")))


@pytest.mark.parametrize(
    "changes",
    [
        *({"loss_type": name} for name in ("grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo")),
        {"num_iterations": 2},
        {"steps_per_generation": 2, "per_device_train_batch_size": GROUP_SIZE},
        {"gradient_accumulation_steps": 2, "per_device_train_batch_size": GROUP_SIZE},
        {"beta": 0.05, "use_bias_correction_kl": True},
        {"off_policy_mask_threshold": 0.01, "num_iterations": 2},
        {"delta": 1.5, "epsilon_high": 0.28},
        {"entropy_coef": 0.01},
        {"mask_truncated_completions": True},
        {"scale_rewards": "batch"},
        {"gradient_checkpointing": True},
        {"temperature": 0.7},
    ],
    ids=lambda changes: " ".join(changes) + " " + str(next(iter(changes.values()))),
)
def test_with_every_token_kept_training_is_plain_grpo(changes, tmp_path):
    groups = lab_groups()[0][:2]
    weights = []
    for kind in (GRPOTrainer, THRTrainer):
        trainer = trainer_of(tmp_path, groups, kind=kind, thr=KEEP_ALL, **(LEARNING | changes))
        before = {name: value.detach().clone() for name, value in trainer.model.named_parameters()}
        trainer.train()
        weights.append(dict(trainer.model.named_parameters()))
    assert any(
        float((before[name] - weights[0][name].detach()).abs().max()) > 1e-5 for name in before
    )
    for name, value in weights[0].items():
        assert_close(weights[1][name], value, rtol=0, atol=0, msg=name)


def test_weights_stay_fixed_for_all_updates_of_a_batch(tmp_path):
    groups = lab_groups()[0][:2]
    trainer = trainer_of(tmp_path, groups, num_iterations=2, **LEARNING)
    seen = []
    inner = trainer._compute_loss

    def watched(model, inputs):
        seen.append(inputs["advantages"].clone())
        return inner(model, inputs)

    trainer._compute_loss = watched
    trainer.train()
    assert_close(seen[0], seen[1], rtol=0, atol=0)
    assert seen[0].shape != seen[2].shape or bool((seen[0] != seen[2]).any())


def test_groups_that_teach_nothing_are_generated_again_until_the_batch_is_full(tmp_path):
    mixed, same = lab_groups()
    groups = [*mixed[:3], *same[:2]]
    trainer = trainer_of(tmp_path, groups, loss_type="dapo")
    inputs = trainer._prepare_inputs(batch_of([mixed[0], same[0]]))
    found = advantages_by_completion(inputs)
    assert len(inputs["advantages"]) == 2 * GROUP_SIZE
    dropped = {tuple(ids) for group in same for ids in group.token_ids}
    assert not dropped & set(found)
    assert {tuple(ids) for ids in mixed[0].token_ids} <= set(found)
    assert int(inputs["num_items_in_batch"]) == int(inputs["completion_mask"].sum())
    metrics = trainer._metrics["train"]
    assert metrics["thr/rounds"][0] >= 2
    assert metrics["thr/groups_useful"][0] == 2 / (1 + metrics["thr/rounds"][0])
    loss, gradients = loss_and_gradients(trainer, inputs)
    assert max(float(value.abs().max()) for value in gradients.values()) > 0
    kept = [group for group in mixed[:3] if {tuple(ids) for ids in group.token_ids} <= set(found)]
    expected_loss, _, _ = our_loss_and_gradients(kept, our_config(aggregate="token-mean"))
    assert_close(loss, expected_loss, rtol=1e-3, atol=1e-6)


def test_too_few_groups_that_teach_end_the_run_with_a_sentence(tmp_path):
    mixed, same = lab_groups()
    trainer = trainer_of(tmp_path, [mixed[0], *same[:2]])
    with pytest.raises(IncompleteError, match="other prompts are needed") as caught:
        trainer._prepare_inputs(batch_of([mixed[0], same[0]]))
    assert "sometimes" in caught.value.hint
    trainer = trainer_of(tmp_path, [mixed[0], *same[:4]], thr=THROptions(max_rounds=2))
    with pytest.raises(IncompleteError, match=r"1 of 2 groups .* after 2 rounds and 3 groups"):
        trainer._prepare_inputs(batch_of([mixed[0], same[0]]))


def test_without_dynamic_sampling_they_stay_with_weights_of_0(tmp_path):
    mixed, same = lab_groups()
    groups = [mixed[0], same[0]]
    trainer = trainer_of(tmp_path, groups, thr=THROptions(dynamic_sampling=False))
    found = advantages_by_completion(trainer._prepare_inputs(batch_of(groups)))
    for ids in same[0].token_ids:
        assert not found[tuple(ids)].any()
    assert any(found[tuple(ids)].any() for ids in mixed[0].token_ids)
    assert trainer._metrics["train"]["thr/groups_useful"] == [0.5]


def test_a_truncated_completion_counts_in_thr_and_not_in_the_loss(tmp_path):
    groups = [group for group in lab_groups()[0] if truncated(group)][:2]
    plain = trainer_of(tmp_path, groups)
    masked = trainer_of(tmp_path, groups, mask_truncated_completions=True)
    batches = [trainer._prepare_inputs(batch_of(groups)) for trainer in (plain, masked)]
    shown = [rows_by_ids(batch) for batch in batches]
    assert shown[0].keys() == shown[1].keys()
    for ids, (advantage, mask) in shown[0].items():
        assert_close(shown[1][ids][0], advantage, rtol=0, atol=0)
        assert int(shown[1][ids][1].sum()) in {0, int(mask.sum())}
    assert any(int(mask.sum()) == 0 for _, mask in shown[1].values())


def truncated(group):
    return any(completion.finish_reason == "length" for completion in group.completions)


def rows_by_ids(inputs):
    keys = ("completion_ids", "advantages", "completion_mask")
    return {
        tuple(ids.tolist()): (advantage, mask)
        for ids, advantage, mask in zip(*(inputs[key] for key in keys), strict=True)
    }


def test_correct_is_what_the_threshold_or_the_named_reward_says(tmp_path):
    groups = lab_groups()[0][:2]
    table = reward_table(groups)

    def verified(prompts, completion_ids, **_):
        return [table[key] for key in zip(prompts, map(tuple, completion_ids), strict=True)]

    def short(completion_ids, **_):
        return [1.0 / len(ids) for ids in completion_ids]

    options = {"rewards": [verified, short], "reward_weights": [1.0, 10.0]}
    by_name = THROptions(correct_by="verified")
    found = []
    for thr in (by_name, THROptions(correct_above=0.4)):
        trainer = trainer_of(tmp_path, groups, thr=thr, **options)
        given = []
        inner = trainer._weighed

        def watched(rows, rewards, base, *, inner=inner, given=given):
            made = inner(rows, rewards, base)
            given.append(made.scores.num_correct)
            return made

        trainer._weighed = watched
        trainer._prepare_inputs(batch_of(groups))
        found.append(given)
    assert found[0] == [sum(group.correct) for group in groups]
    totals = [
        [
            table[group.task.problem.prompt_text, tuple(ids)] + 10 / len(ids)
            for ids in group.token_ids
        ]
        for group in groups
    ]
    assert found[1] == [sum(total > 0.4 for total in row) for row in totals]
    assert found[0] != found[1]


def test_a_completion_that_no_function_could_judge_moves_nothing(tmp_path):
    groups = lab_groups()[0][:2]
    table = reward_table(groups)
    lost = (groups[0].task.problem.prompt_text, tuple(groups[0].token_ids[0]))

    def verified(prompts, completion_ids, **_):
        keys = list(zip(prompts, map(tuple, completion_ids), strict=True))
        return [None if key == lost else table[key] for key in keys]

    trainer = trainer_of(tmp_path, groups, rewards=[verified], thr=KEEP_ALL)
    found = advantages_by_completion(trainer._prepare_inputs(batch_of(groups)))
    assert not found[lost[1]].any()
