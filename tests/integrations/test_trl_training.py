"""Whole runs of THR inside TRL: logs, vLLM, processes, adapters."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from torch.testing import assert_close

pytest.importorskip("trl", reason="TRL is not installed")

from datasets import Dataset
from transformers import AutoModelForCausalLM
from trl_runs import (
    GROUP_SIZE,
    LEARNING,
    advantages_by_completion,
    batch_of,
    lab_groups,
    lab_policy,
    train_alone,
    trainer_of,
)
from two_processes import run_in_processes

from thr_probe.errors import PrerequisiteError
from thr_probe.integrations.trl_parts import policy_of
from thr_probe.lab import policy_directory

# TRL uses names that transformers has changed
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated")


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
