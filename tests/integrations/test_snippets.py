"""The files that the page shows: its blocks equal them, and what they compute is THR."""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_models import tiny_policy
from torch.testing import assert_close

from thr_probe.core.advantages import group_advantages, thr_advantages
from thr_probe.lab import policy_directory
from thr_probe.policy import load_policy
from thr_probe.policy.families import known_families
from thr_probe.policy.known import REFUSED
from thr_probe.probe import score_group
from thr_probe.problems import load_problems

SNIPPETS = Path(__file__).parent / "snippets"
PAGE = Path(importlib.import_module("thr_probe.integrations").__file__).with_name("README.md")
PROMPTS = {"a": [5, 6, 7], "b": [9, 8, 7, 6, 5]}
COMPLETIONS = {
    "a": [[10, 11, 1], [20, 33, 34, 1], [40, 1], [13, 14, 15]],
    "b": [[50, 1], [60, 61, 62, 63, 1], [70, 71, 1], [80, 81]],
}
CORRECT = {"a": [True, False, True, False], "b": [False, True, False, False]}
ORDER = [("a", 0), ("b", 1), ("a", 2), ("b", 0), ("a", 1), ("a", 3), ("b", 3), ("b", 2)]
"""Rows as a trainer that shuffles would hold them."""
P = -0.1


@pytest.fixture
def snippet(monkeypatch):
    """Loads a snippet; verl itself where it is installed, else a registry like its own."""
    monkeypatch.syspath_prepend(str(SNIPPETS))
    try:
        importlib.import_module("verl.trainer.ppo.core_algos")
    except ImportError:
        for name in ("verl", "verl.trainer", "verl.trainer.ppo", "verl.trainer.ppo.core_algos"):
            monkeypatch.setitem(sys.modules, name, ModuleType(name))
        registry = {}
        stand_in = sys.modules["verl.trainer.ppo.core_algos"]
        stand_in.ADV_ESTIMATOR_REGISTRY = registry
        stand_in.register_adv_est = lambda name: lambda made: registry.setdefault(name, made)
    names = ("thr_weights", "verl_thr", "slime_thr", "trl_run")
    for name in names:
        sys.modules.pop(name, None)
    yield importlib.import_module
    sys.modules["verl.trainer.ppo.core_algos"].ADV_ESTIMATOR_REGISTRY.pop("grpo_population", None)
    for name in names:
        sys.modules.pop(name, None)


def expected_weights(policy):
    """The weight of every token, by the probe."""
    weights = {}
    for key, prompt in PROMPTS.items():
        scores = score_group(policy, prompt, COMPLETIONS[key], CORRECT[key])
        ones = torch.ones_like(scores.thr_N, dtype=torch.float64)
        found = thr_advantages(ones, scores.thr_N.double(), scores.tau, P)
        parts = found.split(scores.lengths_G.tolist())
        weights |= {(key, place): part for place, part in enumerate(parts)}
    assert any(bool((part == 0).any()) for part in weights.values())
    assert any(bool((part == 1 + P).any()) for part in weights.values())
    return weights


def packed_states(policy):
    """(1, total, D) and the offsets of rows, as a log-probability pass without padding has them."""
    states, offsets = [], [0]
    for key, place in ORDER:
        ids = torch.tensor([[*PROMPTS[key], *COMPLETIONS[key][place]]])
        states.append(policy.states(ids)[0])
        offsets.append(offsets[-1] + ids.shape[1])
    return torch.cat(states)[None], torch.tensor(offsets)


def test_weights_of_verls_packed_rows_are_those_of_the_probe(snippet):
    verl_thr = snippet("verl_thr")
    policy = tiny_policy("gemma2")
    packed, offsets = packed_states(policy)
    prompts = [len(PROMPTS[key]) for key, _ in ORDER]
    weights = verl_thr.padded_weights(
        [key for key, _ in ORDER],
        verl_thr.completion_states(packed, offsets.tolist(), prompts),
        [torch.tensor(COMPLETIONS[key][place]) for key, place in ORDER],
        [float(CORRECT[key][place]) for key, place in ORDER],
        policy.model,
        P,
        1.0,
        4,
    )
    expected = expected_weights(policy)
    assert weights.shape == (8, 5)
    for row, (key, place) in enumerate(ORDER):
        length = len(COMPLETIONS[key][place])
        assert_close(weights[row, :length], expected[key, place])
        assert not weights[row, length:].any()


def test_the_hook_leaves_verls_own_pass_as_it_was(snippet):
    verl_thr = snippet("verl_thr")
    policy = tiny_policy()
    ids = torch.tensor([[*PROMPTS["a"], *COMPLETIONS["a"][0]]])
    with torch.no_grad():
        plain = policy.model(input_ids=ids).logits
        output, states = verl_thr.log_probs_and_states(
            policy.model, lambda: policy.model(input_ids=ids).logits
        )
    assert_close(output, plain, rtol=0, atol=0)
    assert_close(states, policy.states(ids))


def test_a_group_that_is_split_between_ranks_is_refused(snippet):
    weights = snippet("thr_weights")
    with pytest.raises(ValueError, match="prompt b: 1 of 2 completions on this rank"):
        weights.weights_by_prompt(
            ["b"], [torch.zeros(1, 4)], [torch.zeros(1).long()], [True], None, 0.0, 2
        )


def test_a_group_without_a_correct_completion_has_weights_of_0(snippet):
    weights, policy = snippet("thr_weights"), tiny_policy()
    hidden = policy.hidden(PROMPTS["a"], COMPLETIONS["a"][:2])
    found = weights.thr_weights(
        list(hidden.split([3, 4])),
        [torch.tensor(ids) for ids in COMPLETIONS["a"][:2]],
        torch.tensor([False, False]),
        policy.head(),
        P,
    )
    assert [part.tolist() for part in found] == [[0.0] * 3, [0.0] * 4]


def rewards_and_mask():
    width = max(len(COMPLETIONS[key][place]) for key, place in ORDER)
    rewards, mask = torch.zeros(len(ORDER), width), torch.zeros(len(ORDER), width)
    for row, (key, place) in enumerate(ORDER):
        length = len(COMPLETIONS[key][place])
        mask[row, :length] = 1
        rewards[row, length - 1] = float(CORRECT[key][place])
    return rewards, mask


def test_the_registered_estimator_has_the_population_deviation(snippet):
    verl_thr = snippet("verl_thr")
    registry = importlib.import_module("verl.trainer.ppo.core_algos").ADV_ESTIMATOR_REGISTRY
    assert "grpo_population" in registry
    rewards, mask = rewards_and_mask()
    index = np.array([key for key, _ in ORDER], dtype=object)
    found, returns = verl_thr.grpo_population(rewards, mask, index, config=None)
    assert_close(found, returns)
    for row, (key, place) in enumerate(ORDER):
        value = group_advantages(torch.tensor(CORRECT[key]))[place].float()
        assert_close(found[row], value * mask[row])


def test_weights_multiply_verls_advantages(snippet):
    verl_thr = snippet("verl_thr")
    batch = {"thr_weights": torch.tensor([[0.0, 0.9], [1.1, 0.0]], dtype=torch.float64)}

    def compute_advantage(data, *, adv_estimator):
        assert adv_estimator == "grpo"
        data.batch["advantages"] = torch.tensor([[2.0, 2.0], [-1.0, -1.0]])
        return data

    weighed = verl_thr.with_thr_weights(compute_advantage)
    data = weighed(SimpleNamespace(batch=batch), adv_estimator="grpo")
    assert_close(data.batch["advantages"], torch.tensor([[0.0, 1.8], [-1.1, 0.0]]))


def test_with_verl_itself_its_grpo_advantages_are_weighed(snippet):
    protocol = pytest.importorskip("verl.protocol", reason="verl is not installed")
    trainer = pytest.importorskip("verl.trainer.ppo.ray_trainer", reason="verl is not installed")
    verl_thr = snippet("verl_thr")
    rewards, mask = rewards_and_mask()
    weights = torch.rand(rewards.shape).double() * mask

    def data():
        tensors = {"token_level_rewards": rewards, "response_mask": mask, "thr_weights": weights}
        uids = np.array([key for key, _ in ORDER], dtype=object)
        return protocol.DataProto.from_dict(tensors, non_tensors={"uid": uids})

    plain = trainer.compute_advantage(data(), adv_estimator="grpo").batch["advantages"]
    weighed = verl_thr.with_thr_weights(trainer.compute_advantage)
    assert_close(weighed(data(), adv_estimator="grpo").batch["advantages"], plain * weights.float())
    named = weighed(data(), adv_estimator="grpo_population").batch["advantages"]
    assert bool((named != 0).any())


def test_slimes_advantages_are_its_rewards_times_the_weights(snippet):
    slime_thr, policy = snippet("slime_thr"), tiny_policy()
    expected = expected_weights(policy)
    index_of = {
        (key, place): 4 * number + place for number, key in enumerate("ab") for place in range(4)
    }
    packed, _ = packed_states(policy)
    sizes = [(len(PROMPTS[key]), len(COMPLETIONS[key][place])) for key, place in ORDER]

    def rows():
        return [
            (index_of[row], prompt + length, length)
            for row, (prompt, length) in zip(ORDER, sizes, strict=True)
        ]

    layer = policy.model.lm_head
    handle = slime_thr.watch(layer, rows)
    layer(packed[0][:, None])  # Megatron's (tokens, 1, D)
    handle.remove()
    rewards = [float(group_advantages(torch.tensor(CORRECT[key]))[place]) for key, place in ORDER]
    data = {
        "response_lengths": [length for _, length in sizes],
        "sample_indices": [index_of[row] for row in ORDER],
        "tokens": [[*PROMPTS[key], *COMPLETIONS[key][place]] for key, place in ORDER],
        "rewards": rewards,
        "kl": [torch.zeros(length) for _, length in sizes],
    }
    args = SimpleNamespace(
        n_samples_per_prompt=4,
        rollout_temperature=1.0,
        thr_p=P,
        thr_unembedding=layer.weight.detach(),
    )
    slime_thr.thr_advantages(args, data)
    assert not slime_thr.STATES
    for row, found in zip(ORDER, data["advantages"], strict=True):
        value = rewards[ORDER.index(row)] * expected[row]
        assert_close(found, value.float())
    assert data["returns"] is data["advantages"]


def blocks():
    """Code blocks of the page, by the file they are named after."""
    found = re.findall(
        r"`tests/integrations/snippets/(\w+\.py)`\n+```python\n(.*?)```", PAGE.read_text(), re.S
    )
    return dict(found)


@pytest.mark.parametrize("path", sorted(SNIPPETS.glob("*.py")), ids=lambda path: path.name)
def test_the_page_shows_the_files_that_are_tested(path):
    assert blocks()[path.name] == path.read_text()


def test_every_block_of_the_page_is_a_file():
    assert PAGE.read_text().count("```python") == len(blocks()) == len(list(SNIPPETS.glob("*.py")))


def families_table():
    """The list of the page, made from what the code knows."""
    lines = [f"- {rule}: {', '.join(names)}." for rule, names in known_families().items()]
    refused = "; ".join(f"{name} ({reason})" for name, reason in REFUSED.items())
    return "\n".join([*lines, f"- refused: {refused}."])


def test_the_list_of_families_is_that_of_the_code():
    shown = re.search(r"<!-- families -->\n(.*?)\n<!-- end -->", PAGE.read_text(), re.S)
    assert shown is not None
    assert shown.group(1) == families_table()


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated")
def test_the_script_for_trl_trains(snippet, tmp_path):
    pytest.importorskip("trl", reason="TRL is not installed")
    policy = load_policy("lab", device="cpu")
    problems = load_problems(
        "lab:train", template="lab", max_prompts=40, tokenizer=policy.tokenizer
    ).problems
    data = tmp_path / "problems.jsonl"
    lines = [
        json.dumps({"prompt": problem.prompt_text, "answer": problem.accepted_answers[0]})
        for problem in problems
    ]
    data.write_text("\n".join(lines))
    trainer = snippet("trl_run").main(
        model=str(policy_directory()),
        data=str(data),
        output_dir=str(tmp_path / "run"),
        num_generations=4,
        gradient_accumulation_steps=1,
        max_completion_length=40,
        max_steps=1,
        logging_steps=1,
        num_completions_to_print=0,
        model_init_kwargs={"dtype": "float32"},
        use_cpu=True,
        bf16=False,
        report_to="none",
        save_strategy="no",
        seed=5,
    )
    assert any("thr/retained" in line for line in trainer.state.log_history)
    assert list((tmp_path / "run" / "completions").glob("*.parquet"))
