"""One GRPO step on one question: against plain torch, the first order, and GWHES."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from lab_runs import CONFIG
from tiny_models import tiny_policy
from torch.testing import assert_close

from thr_probe.collect import collect
from thr_probe.errors import UsageError
from thr_probe.one_step import Question, StepOptions, measure_run, one_step, run_temperature
from thr_probe.policy import load_policy
from thr_probe.progress import Monitor
from thr_probe.traces import read_run

QUESTION = Question(
    prompt_id="q",
    prompt_ids=[2, 50, 61, 7],
    completions=[[10, 11, 12, 1], [200, 1], [33, 34, 35, 10, 11, 12, 1], [99, 98, 1], [10, 7]],
    correct=[True, False, True, False, True],
)
TOKENS = 18


def likelihoods(model, temperature):
    """ln pi(y) of every completion by whole forward passes, differentiable."""
    found = []
    for completion in QUESTION.completions:
        ids = torch.tensor([[*QUESTION.prompt_ids, *completion]])
        logprob = torch.log_softmax(model(ids).logits[0] / temperature, dim=1)
        first = len(QUESTION.prompt_ids) - 1
        total = sum(logprob[first + k, token] for k, token in enumerate(completion))
        found.append(total)
    return torch.stack(found)


def plain_step(model, optimizer, temperature):
    """Equation 2 at ratio 1: its gradient is that of sum A ln pi over the question's tokens."""
    q = sum(QUESTION.correct) / len(QUESTION.correct)
    up, down = math.sqrt((1 - q) / q), -math.sqrt(q / (1 - q))
    advantage = torch.tensor(
        [up if right else down for right in QUESTION.correct], dtype=torch.float64
    )
    before = likelihoods(model, temperature)
    (-(advantage * before).sum() / TOKENS).backward()
    optimizer.step()
    with torch.no_grad():
        return likelihoods(model, temperature) - before.detach()


@pytest.mark.parametrize("family", ["qwen2", "gemma2"])
@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_the_change_is_that_of_a_plain_step_on_all_weights(family, name):
    policy = tiny_policy(family)
    lr = {"sgd": 1e-2, "adamw": 1e-4}[name]
    model = copy.deepcopy(policy.model)
    kinds = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}
    decay = {} if name == "sgd" else {"weight_decay": 0.0}
    changed = plain_step(model, kinds[name](model.parameters(), lr=lr, **decay), 0.7)
    found = one_step(policy, QUESTION, StepOptions(optimizer=name, lr=lr, temperature=0.7))
    assert found.rollout_P == (0, 2, 4)
    assert_close(
        torch.tensor(found.change_P, dtype=torch.float64), changed[[0, 2, 4]], rtol=1e-6, atol=1e-9
    )


def test_the_weights_are_the_same_to_the_bit_afterwards():
    policy = tiny_policy(dtype=torch.float32)
    before = {name: weight.clone() for name, weight in policy.model.state_dict().items()}
    first = one_step(policy, QUESTION, StepOptions(lr=0.1))
    for name, weight in policy.model.state_dict().items():
        assert_close(weight, before[name], rtol=0, atol=0)
    assert all(weight.grad is None for weight in policy.model.parameters())
    assert one_step(policy, QUESTION, StepOptions(lr=0.1)) == first


def test_they_are_put_back_when_the_step_fails(monkeypatch):
    policy = tiny_policy()
    before = {name: weight.clone() for name, weight in policy.model.state_dict().items()}

    def broken(self, closure=None):
        for group in self.param_groups:
            for weight in group["params"]:
                weight.data.fill_(0.0)
        raise RuntimeError("out of memory")

    monkeypatch.setattr(torch.optim.SGD, "step", broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        one_step(policy, QUESTION, StepOptions())
    for name, weight in policy.model.state_dict().items():
        assert_close(weight, before[name], rtol=0, atol=0)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_small_step_changes_what_the_gradient_says(name):
    # a family that computes in float64 throughout: others have norms in float32
    found = one_step(tiny_policy("gpt2"), QUESTION, StepOptions(optimizer=name, lr=1e-8))
    assert np.mean(found.change_P) == pytest.approx(found.first_order, rel=1e-3)
    assert found.gradient_norm > 0


@pytest.mark.parametrize("family", ["qwen2", "granite"])
def test_a_step_on_the_unembedding_alone_changes_what_gwhes_says(family):
    policy = tiny_policy(family, tie_word_embeddings=False)
    head = policy.model.get_output_embeddings()
    for weight in policy.model.parameters():
        weight.requires_grad_(weight is head.weight)
    lr = 1e-7
    found = one_step(policy, QUESTION, StepOptions(lr=lr))
    predicted = [-lr * score / TOKENS for score in found.gwhes_P]
    np.testing.assert_allclose(found.change_P, predicted, rtol=1e-4)


def test_one_outcome_and_16_bit_weights_are_refused():
    policy = tiny_policy()
    alike = Question(prompt_id="a", prompt_ids=[2], completions=[[3], [4]], correct=[True, True])
    with pytest.raises(UsageError, match="prompt a: all completions are right"):
        one_step(policy, alike, StepOptions())
    policy.model.to(torch.bfloat16)
    with pytest.raises(UsageError, match="16 bits"):
        one_step(policy, QUESTION, StepOptions())
    with pytest.raises(UsageError, match="unknown optimizer 'lion'"):
        StepOptions(optimizer="lion")
    with pytest.raises(UsageError, match="--lr must be positive"):
        one_step(tiny_policy(), QUESTION, StepOptions(lr=0.0))


@pytest.fixture(scope="module")
def lab_run(tmp_path_factory):
    path = tmp_path_factory.mktemp("one_step") / "run"
    assert collect(CONFIG, path)
    return read_run(path)


@pytest.fixture(scope="module")
def lab_policy():
    return load_policy("lab", device="cpu", dtype="float32")


class Stops(Monitor):
    """Asks to stop at once."""

    def should_stop(self):
        return True


def test_a_run_becomes_tables_of_its_mixed_questions(lab_run, lab_policy):
    tables = measure_run(lab_run, lab_policy, StepOptions(temperature=run_temperature(lab_run)))
    rows = [
        row
        for table in lab_run.iter_completions(["prompt_id", "token_ids", "correct"])
        for row in table.to_pylist()
    ]
    by_prompt = {}
    for row in rows:
        by_prompt.setdefault(row["prompt_id"], []).append(row)
    mixed = {
        name: group
        for name, group in by_prompt.items()
        if 0 < sum(row["correct"] for row in group) < len(group)
    }
    assert list(tables.questions["prompt_id"]) == list(mixed)
    assert tables.num_unmixed == len(by_prompt) - len(mixed)
    for question in tables.questions.to_dict("records"):
        group = mixed[question["prompt_id"]]
        assert question["tokens"] == sum(len(row["token_ids"]) for row in group)
        own = tables.completions[tables.completions["prompt_id"] == question["prompt_id"]]
        assert len(own) == question["num_correct"] == sum(row["correct"] for row in group)
        for name in ("gwhes", "change", "unembedding"):
            assert question[name] == pytest.approx(own[name].mean(), rel=1e-12)
        assert question["unembedding"] == pytest.approx(
            -1e-3 * question["gwhes"] / question["tokens"], rel=1e-9
        )


def test_what_is_not_measured_is_told(lab_run, lab_policy):
    stopped = measure_run(lab_run, lab_policy, StepOptions(), monitor=Stops())
    assert len(stopped.questions) == 0
    assert "gwhes" in stopped.questions
    assert "stopped before" in stopped.exclusion_sentence()
    with pytest.raises(UsageError, match="--max-questions must be at least 1"):
        measure_run(lab_run, lab_policy, StepOptions(), max_questions=0)
