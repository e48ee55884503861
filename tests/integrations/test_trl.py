"""THR inside TRL: its loss and gradients are ours; what does not go together is refused."""

from __future__ import annotations

import copy
import json
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from torch.testing import assert_close

pytest.importorskip("trl", reason="TRL is not installed")

from datasets import Dataset
from tiny_families import small_model
from transformers import AutoModelForCausalLM
from trl import GRPOTrainer
from trl.trainer.utils import add_fused_lm_head
from trl_runs import (
    GROUP_SIZE,
    MAX_NEW,
    arguments,
    batch_of,
    lab_groups,
    lab_policy,
    loss_and_gradients,
    reward_table,
    train_alone,
    trainer_of,
)
from two_processes import run_in_processes

from thr_probe.core.advantages import dr_grpo_advantages
from thr_probe.errors import IncompleteError, PrerequisiteError, UsageError
from thr_probe.integrations.trl import THROptions, THRTrainer
from thr_probe.integrations.trl_options import check_groups, check_trainer
from thr_probe.integrations.trl_parts import check_fused_head, policy_of
from thr_probe.lab import policy_directory
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
LEARNING = {"learning_rate": 1e-3, "optim": "sgd", "lr_scheduler_type": "constant", "max_steps": 4}


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


def advantages_by_completion(inputs):
    """completion -> its tokens' advantages, whatever the order of rows."""
    found = {}
    rows = zip(
        inputs["completion_ids"], inputs["completion_mask"], inputs["advantages"], strict=True
    )
    for ids, mask, advantage in rows:
        length = int(mask.sum())
        assert not advantage[length:].any()
        found[tuple(ids[:length].tolist())] = advantage[:length]
    return found


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


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"importance_sampling_level": "sequence"}, "importance_sampling_level='sequence'"),
        ({"loss_type": "luspo", "importance_sampling_level": "token"}, "loss_type='luspo'"),
        ({"loss_type": "vespo"}, "loss_type='vespo'"),
        ({"top_entropy_quantile": 0.2}, "top_entropy_quantile=0.2"),
        (
            {"multi_objective_aggregation": "normalize_then_sum"},
            "multi_objective_aggregation='normalize_then_sum'",
        ),
        ({"cast_lm_head_to_fp32": True}, "cast_lm_head_to_fp32"),
        ({"use_transformers_continuous_batching": True}, "use_transformers_continuous_batching"),
    ],
)
def test_options_that_do_not_go_with_thr_are_refused_by_name(changes, sentence, tmp_path):
    with pytest.raises(UsageError, match=f"does not go with {sentence}") as caught:
        trainer_of(tmp_path, lab_groups()[0][:2], **changes)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("option", "value"),
    [("use_liger_kernel", True), ("fsdp", [True]), ("deepspeed", {"zero_optimization": {}})],
)
def test_options_that_need_what_is_not_installed_are_refused_before_it_is_asked_for(
    option, value, tmp_path
):
    given = arguments(tmp_path)
    object.__setattr__(given, option, value)
    with pytest.raises(UsageError, match=f"does not go with {option}"):
        THRTrainer(model="no/such", reward_funcs=[], args=given)


def test_a_group_that_would_be_split_between_processes_is_refused():
    with pytest.raises(UsageError, match=r"2 processes generates 6 .* num_generations=4") as caught:
        check_groups(6, 4, 2)
    assert "per_device_train_batch_size" in caught.value.hint


def calculator(expression: str) -> str:
    """Evaluates.

    Args:
        expression: what.

    Returns:
        The value.
    """
    return expression


@pytest.mark.parametrize(
    ("part", "value"),
    [("tools", [calculator]), ("rollout_func", print), ("environment_factories", {"a": 1})],
)
def test_tokens_of_another_source_are_refused(part, value, tmp_path):
    trainer = trainer_of(tmp_path, lab_groups()[0][:2])
    setattr(trainer, part, value)
    with pytest.raises(UsageError, match="THRTrainer does not go with"):
        check_trainer(trainer, trainer.thr, ["verified"])


def test_images_are_refused(tmp_path):
    trainer = trainer_of(tmp_path, lab_groups()[0][:2])
    trainer._is_vlm = True
    with pytest.raises(UsageError, match="does not go with a processor"):
        check_trainer(trainer, trainer.thr, ["verified"])


def test_a_stream_of_prompts_is_refused_for_dynamic_sampling_alone(tmp_path):
    trainer = trainer_of(tmp_path, lab_groups()[0][:2])
    trainer.train_dataset = iter([])
    with pytest.raises(UsageError, match="this one is a stream"):
        check_trainer(trainer, THROptions(), ["verified"])
    check_trainer(trainer, THROptions(dynamic_sampling=False), ["verified"])


def test_a_reward_function_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"correct_by='format' is none of .*: verified"):
        trainer_of(tmp_path, lab_groups()[0][:2], thr=THROptions(correct_by="format"))


def test_another_version_of_trl_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("trl.__version__", "1.17.0")
    with pytest.raises(PrerequisiteError, match=r"TRL 1[.]16[.]x .* TRL 1[.]17[.]0") as caught:
        trainer_of(tmp_path, lab_groups()[0][:2])
    assert caught.value.hint == 'pip install "trl>=1.16,<1.17"'


@pytest.mark.parametrize("family", ["xlstm", "recurrent_gemma", "inkling_text"])
def test_a_family_whose_logits_trl_does_not_know_is_refused(family):
    model = small_model(family)
    add_fused_lm_head(model, temperature=1.0)
    policy = policy_of(model, lab_policy().tokenizer)
    with pytest.raises(PrerequisiteError, match=f"log-probabilities of family '{family}' d"):
        check_fused_head(policy, 1.0)


@pytest.mark.parametrize("family", ["qwen2", "gemma2", "cohere", "granite", "minicpm3", "phi"])
def test_trl_and_thr_read_the_same_distribution(family):
    model = small_model(family)
    add_fused_lm_head(model, temperature=0.7)
    check_fused_head(policy_of(model, lab_policy().tokenizer), 0.7)


def test_a_run_trains_and_logs_thr_beside_trls_own_numbers(tmp_path):
    groups = [*lab_groups()[0][:4], *lab_groups()[1][:4]]
    trainer = trainer_of(
        tmp_path,
        groups,
        **(LEARNING | {"max_steps": 2}),
        logging_strategy="steps",
        logging_steps=1,
        log_completions=True,
        num_completions_to_print=0,
        eval_strategy="steps",
        eval_steps=1,
        per_device_eval_batch_size=GROUP_SIZE,
        eval_dataset=Dataset.from_list([{"prompt": groups[0].task.problem.prompt_text}]),
    )
    trainer.train()
    logs = [line for line in trainer.state.log_history if "thr/retained" in line]
    assert len(logs) == 2
    for line in logs:
        assert 0 < line["thr/retained"] < 1
        assert 0 <= line["thr/positive"] <= 1
        assert line["thr/tau"] > 0
        assert 0 < line["thr/groups_useful"] <= 1
        assert "entropy" in line
    evaluated = [line for line in trainer.state.log_history if "eval_reward" in line]
    assert len(evaluated) == 2
    tables = sorted((tmp_path / "completions").glob("*.parquet"))
    shown = pd.read_parquet(tables[0])
    assert {"prompt", "completion", "advantage", "thr_tau", "thr_retained"} <= set(shown)
    assert shown["thr_retained"].dropna().between(0, 1).all()
    assert json.dumps(trainer.state.log_history)


def test_a_run_with_the_policys_own_sampler_and_bfloat16(tmp_path):
    problems = lab_groups()[0][:4]
    trainer = trainer_of(
        tmp_path,
        problems,
        rewards=[lambda completion_ids, **_: [float(len(ids) % 2) for ids in completion_ids]],
        **(LEARNING | {"max_steps": 2, "bf16": True}),
    )
    del trainer._generate_single_turn
    trainer.train()
    assert trainer.state.global_step == 2


class StandInVLLM:
    """The calls that TRL makes of its vLLM engine."""

    def __init__(self, **_):
        info = {"model_config": {"logprobs_mode": "processed_logprobs"}}
        self.vllm_client = SimpleNamespace(get_server_info=lambda: info)
        self.groups = {tuple(g.task.token_ids): g.token_ids for g in lab_groups()[0][:2]}
        self.synced = 0

    def sync_weights(self):
        self.synced += 1

    def generate(self, prompts, num_generations, **_):
        assert num_generations == GROUP_SIZE
        drawn = [ids for prompt in prompts[::num_generations] for ids in self.groups[tuple(prompt)]]
        return prompts, drawn, [[[-1.0]] * len(ids) for ids in drawn], None


@pytest.mark.parametrize("mode", ["server", "colocate"])
def test_with_vllm_the_weights_of_tokens_are_the_same(mode, tmp_path, monkeypatch):
    """The engine is a stand-in: what is tested is that THR goes with TRL's own corrections."""
    groups = lab_groups()[0][:2]
    plain = trainer_of(tmp_path, groups)
    monkeypatch.setattr("trl.trainer.grpo_trainer.VLLMGeneration", StandInVLLM)
    trainer = trainer_of(
        tmp_path,
        groups,
        use_vllm=True,
        vllm_mode=mode,
        vllm_importance_sampling_mode="token_truncate",
    )
    del trainer._generate_single_turn
    found = trainer._prepare_inputs(batch_of(groups))
    expected = advantages_by_completion(plain._prepare_inputs(batch_of(groups)))
    for ids, advantage in advantages_by_completion(found).items():
        assert_close(advantage, expected[ids], rtol=1e-4, atol=1e-6)
    assert "importance_sampling_ratio" in found


@pytest.mark.slow
def test_two_processes_train_as_one_on_their_own_groups(tmp_path):
    """Neither THR nor the gradient depends on how groups are dealt out."""
    run_in_processes("trl_runs", "train_together", tmp_path, timeout=400)
    alone = train_alone(tmp_path / "alone")
    found = [torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2)]
    for name, value in alone["weights"].items():
        assert_close(found[0]["weights"][name], found[1]["weights"][name], rtol=0, atol=0, msg=name)
        assert_close(found[0]["weights"][name], value, rtol=1e-4, atol=1e-6, msg=name)
    for name, value in alone["logs"].items():
        assert found[0]["logs"][name] == pytest.approx(value, rel=1e-4), name
    # one process had a group that taught nothing: both took part in another round
    assert [part["rounds"] for part in found] == [[2], [2]]
    assert [part["useful"] for part in found] == [[0.5], [0.5]]
    total = sum(part["tokens"] for part in found)
    assert [int(part["again"]["num_items_in_batch"]) for part in found] == [total, total]
    shown = [{tuple(row.tolist()) for row in part["again"]["completion_ids"]} for part in found]
    dropped = {tuple(ids) for ids in lab_groups()[1][0].token_ids}
    assert not any(row[: len(ids)] == ids for part in shown for row in part for ids in dropped)


def test_an_adapter_is_part_of_the_policy(tmp_path):
    peft = pytest.importorskip("peft", reason="PEFT is not installed")
    groups = lab_groups()[0][:2]
    adapted = with_adapter(peft)
    merged = with_adapter(peft).merge_and_unload()
    batches = []
    for model in (adapted, merged):
        trainer = trainer_of(tmp_path, groups, model=model, gradient_checkpointing=True)
        batches.append(advantages_by_completion(trainer._prepare_inputs(batch_of(groups))))
    plain = trainer_of(tmp_path, groups)
    unadapted = advantages_by_completion(plain._prepare_inputs(batch_of(groups)))
    for ids, advantage in batches[1].items():
        assert_close(batches[0][ids], advantage, rtol=1e-4, atol=1e-5)
    assert any(bool((batches[0][ids] != unadapted[ids]).any()) for ids in unadapted)


def with_adapter(peft, **changes):
    """The lab's policy with an adapter that does something."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(policy_directory(), dtype=torch.float32)
    config = peft.LoraConfig(**({"r": 4, "target_modules": ["q_proj", "v_proj"]} | changes))
    adapted = peft.get_peft_model(model, config)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(std=0.1)
    return adapted


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"target_modules": ["q_proj", "lm_head"]}, "changes the unembedding itself"),
        ({"modules_to_save": ["lm_head"]}, "changes the unembedding itself"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_an_adapter_on_the_unembedding_is_refused(changes, sentence, tmp_path):
    peft = pytest.importorskip("peft", reason="PEFT is not installed")
    model = with_adapter(peft, **changes)
    with pytest.raises(PrerequisiteError, match=sentence):
        policy_of(model, lab_policy().tokenizer)


def test_an_adapter_that_learns_a_prompt_is_refused():
    peft = pytest.importorskip("peft", reason="PEFT is not installed")
    model = AutoModelForCausalLM.from_pretrained(policy_directory(), dtype=torch.float32)
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    with pytest.raises(PrerequisiteError, match="learns a prompt"):
        policy_of(peft.get_peft_model(model, config), lab_policy().tokenizer)
