"""The lab's policy inside TRL, with completions that are written in the test."""

from __future__ import annotations

import functools

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM
from trl import GRPOConfig, GRPOTrainer

from thr_probe.groups import sample_groups
from thr_probe.integrations.trl import THROptions, THRTrainer
from thr_probe.lab import policy_directory
from thr_probe.policy import load_policy
from thr_probe.problems import load_problems, load_verifier
from thr_probe.prompts import tokenized
from thr_probe.sampling import SamplingSettings
from thr_probe.sampling.hf import TransformersSampler

LEARNING = {"learning_rate": 1e-3, "optim": "sgd", "lr_scheduler_type": "constant", "max_steps": 4}
GROUP_SIZE = 4
MAX_NEW = 40


@functools.cache
def lab_policy():
    return load_policy("lab", device="cpu")


@functools.cache
def lab_groups():
    """Groups of the lab's policy, three of them mixed, then all that are not."""
    policy = lab_policy()
    problems = load_problems(
        "lab:train", template="lab", max_prompts=24, tokenizer=policy.tokenizer
    )
    tasks, _ = tokenized(problems, policy, max_prompt_tokens=200, max_new_tokens=MAX_NEW)
    settings = SamplingSettings(
        group_size=GROUP_SIZE, max_new_tokens=MAX_NEW, temperature=1.0, top_p=1.0, seed=1
    )
    with load_verifier("math", num_workers=1) as verifier:
        groups = sample_groups(
            policy, TransformersSampler(policy=policy), verifier, tasks, settings
        )
    mixed = [group for group in groups if 0 < sum(group.correct) < GROUP_SIZE]
    same = [group for group in groups if group not in mixed]
    return mixed, same


def rows_of(groups):
    """The dataset's rows: the problems once each."""
    return [{"prompt": group.task.problem.prompt_text} for group in groups]


def batch_of(groups):
    """What TRL's loader hands over: every row once per completion."""
    return [row for row in rows_of(groups) for _ in range(GROUP_SIZE)]


def reward_table(groups):
    """(prompt, completion) -> the verifier's reward."""
    return {
        (group.task.problem.prompt_text, tuple(ids)): float(correct)
        for group in groups
        for ids, correct in zip(group.token_ids, group.correct, strict=True)
    }


def reward_of(table):
    def verified(prompts, completion_ids, **_):
        return [
            table[prompt, tuple(ids)] for prompt, ids in zip(prompts, completion_ids, strict=True)
        ]

    return verified


def arguments(folder, **changes):
    given = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 2 * GROUP_SIZE,
        "num_generations": GROUP_SIZE,
        "max_completion_length": MAX_NEW,
        "loss_type": "grpo",
        "scale_rewards": "none",
        "gradient_checkpointing": False,
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
        "logging_strategy": "no",
        "save_strategy": "no",
        "disable_tqdm": True,
        "seed": 3,
    }
    return GRPOConfig(**(given | changes))


def trainer_of(folder, groups, *, kind=THRTrainer, thr=None, rewards=None, **changes):
    """A trainer whose sampler hands out the groups' completions, in their order."""
    torch.manual_seed(0)
    others = {} if kind is GRPOTrainer else {"thr": thr or THROptions()}
    if "eval_dataset" in changes:
        others["eval_dataset"] = changes.pop("eval_dataset")
    trainer = kind(
        model=changes.pop("model", None)
        or AutoModelForCausalLM.from_pretrained(policy_directory(), dtype=torch.float32),
        reward_funcs=rewards or reward_of(reward_table(groups)),
        args=arguments(folder, **changes),
        train_dataset=Dataset.from_list(rows_of(groups)),
        processing_class=lab_policy().tokenizer,
        **others,
    )
    hand_out(trainer, groups)
    trainer.model.train()
    return trainer


def hand_out(trainer, groups):
    """Replace the sampler: each prompt's completions one after another, again and again."""
    texts = {tuple(group.task.token_ids): group.token_ids for group in groups}
    given = dict.fromkeys(texts, 0)

    def generate(prompt_ids, *_):
        drawn = []
        for prompt in map(tuple, prompt_ids):
            drawn.append(list(texts[prompt][given[prompt] % GROUP_SIZE]))
            given[prompt] += 1
        return drawn, None

    trainer._generate_single_turn = generate


def loss_and_gradients(trainer, inputs):
    trainer.model.zero_grad(set_to_none=True)
    trainer.current_gradient_accumulation_steps = 1
    loss = trainer.compute_loss(trainer.model, inputs)
    loss.backward()
    named = trainer.model.named_parameters()
    return float(loss.detach()), {name: value.grad.clone() for name, value in named}


def train_alone(folder, *, processes=1):
    """One step on two groups; weights and log."""
    trainer = trainer_of(
        folder,
        lab_groups()[0][:2],
        thr=THROptions(p=-0.1),
        per_device_train_batch_size=2 * GROUP_SIZE // processes,
        max_steps=1,
        learning_rate=1e-2,
        optim="sgd",
        lr_scheduler_type="constant",
        logging_strategy="steps",
        logging_steps=1,
        ddp_backend="gloo" if processes > 1 else None,
    )
    trainer.train()
    (line,) = [line for line in trainer.state.log_history if "thr/retained" in line]
    weights = {name: value.detach() for name, value in trainer.model.named_parameters()}
    return {"weights": weights, "logs": {name: line[name] for name in line if "thr/" in name}}


def train_together(world, folder):
    """The same in several processes, and a batch of which the last has nothing; two_processes."""
    found = train_alone(folder / f"together{world.rank}", processes=world.size)
    mixed, same = lab_groups()
    groups = [mixed[0], same[0], *mixed[1:3]]
    trainer = trainer_of(
        folder / f"again{world.rank}",
        groups,
        per_device_train_batch_size=GROUP_SIZE,
        ddp_backend="gloo",
    )
    inputs = trainer._prepare_inputs(batch_of([groups[world.rank]]))
    found["again"] = {name: inputs[name] for name in ("completion_ids", "num_items_in_batch")}
    found["tokens"] = int(inputs["completion_mask"].sum())
    found["rounds"] = trainer._metrics["train"]["thr/rounds"]
    found["useful"] = trainer._metrics["train"]["thr/groups_useful"]
    torch.save(found, folder / f"rank{world.rank}.pt")


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
