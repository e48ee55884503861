"""Validation: greedy, cut off is wrong, the same for any number of processes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from lab_runs import rows
from rank_threads import StartsWith, on_threads
from tiny_models import tiny_policy

from thr_probe.collect import collect
from thr_probe.config import CollectConfig
from thr_probe.policy import load_policy
from thr_probe.problems import Problem, load_problems, load_verifier
from thr_probe.processes import World
from thr_probe.prompts import TokenizedProblem, tokenized
from thr_probe.sampling import Completion, FinishReason
from thr_probe.sampling.hf import TransformersSampler
from thr_probe.train import validation
from thr_probe.train.validation import validate

ALONE = World(rank=0, size=1, local_rank=0)
POLICY = tiny_policy()
[FIRST_DIGIT] = POLICY.tokenizer.encode("0")
CONFIG = CollectConfig(dataset="lab:validation", max_prompts=20, max_new_tokens=60)


class ListSampler:
    """Answers the prompt whose first id is n with the nth completion; counts its calls."""

    name = "list"

    def __init__(self, completions):
        self.completions = completions
        self.calls = []

    def sample(self, prompts, settings):
        self.calls.append(([prompt.token_ids[0] for prompt in prompts], settings))
        return [[self.completions[prompt.token_ids[0]]] for prompt in prompts]


def task(number, answer):
    problem = Problem(
        prompt_id=f"p{number}",
        dataset="list",
        level=None,
        question=f"{number}?",
        prompt_text=f"{number}?",
        answer=answer,
    )
    return TokenizedProblem(problem=problem, token_ids=[number])


def completion(text, length, *, cut=False):
    return Completion(
        token_ids=(FIRST_DIGIT + text, *[FIRST_DIGIT] * (length - 1)),
        logprobs=(0.0,) * length,
        finish_reason=FinishReason.LENGTH if cut else FinishReason.STOP,
    )


def on_ranks(size, *arguments, **options):
    """The same call in `size` threads that share the work."""
    return on_threads(size, lambda world: validate(*arguments, world=world, **options))


def without_time(result):
    assert result["seconds"] >= 0
    return {name: value for name, value in result.items() if name != "seconds"}


def test_right_wrong_and_cut_off_answers_are_counted_by_hand():
    sampler = ListSampler([completion(5, 3), completion(5, 7), completion(5, 20, cut=True)])
    tasks = [task(0, "5"), task(1, "6"), task(2, "5")]
    result = validate(POLICY, sampler, StartsWith(), tasks, max_new_tokens=20, world=ALONE)
    assert result["num_prompts"] == 3
    assert result["greedy_accuracy"] == pytest.approx(1 / 3)
    assert result["length_mean"] == 10.0
    assert result["truncated_share"] == pytest.approx(1 / 3)
    # of three questions, one right: the mean of a resample is 0, 1/3, 2/3 or 1, 0 in 8/27 of them
    assert (result["greedy_low"], result["greedy_high"]) == (0.0, 1.0)
    [(prompts, settings)] = sampler.calls
    assert prompts == [0, 1, 2]
    assert (settings.group_size, settings.temperature, settings.max_new_tokens) == (1, 0.0, 20)


def test_one_question_has_no_interval():
    sampler = ListSampler([completion(5, 3)])
    result = validate(POLICY, sampler, StartsWith(), [task(0, "5")], max_new_tokens=20, world=ALONE)
    assert "greedy_low" not in result
    assert "greedy_high" not in result
    assert result["greedy_accuracy"] == 1.0


@pytest.mark.parametrize("size", [2, 3, 5])
def test_processes_without_work_and_with_more_agree_on_every_number(size, monkeypatch):
    monkeypatch.setattr(validation, "BLOCK_PROMPTS", 4)
    generator = np.random.default_rng(0)
    completions = [
        completion(int(generator.integers(2)), int(generator.integers(1, 9)), cut=number % 5 == 0)
        for number in range(13)
    ]
    tasks = [task(number, "1") for number in range(13)]
    alone, shared = ListSampler(completions), ListSampler(completions)
    expected = validate(POLICY, alone, StartsWith(), tasks, max_new_tokens=9, world=ALONE)
    results = on_ranks(size, POLICY, shared, StartsWith(), tasks, max_new_tokens=9)
    assert [without_time(result) for result in results] == [without_time(expected)] * size
    assert sorted(prompts for prompts, _ in shared.calls) == [prompts for prompts, _ in alone.calls]


@pytest.fixture(scope="module")
def lab():
    """The lab's policy with its sampler and some validation problems."""
    policy = load_policy("lab")
    problems = load_problems(CONFIG.dataset, max_prompts=CONFIG.max_prompts, default_template="lab")
    tasks, _ = tokenized(problems, policy, max_prompt_tokens=200, max_new_tokens=60)
    return policy, TransformersSampler(policy=policy), tasks


def test_it_agrees_with_a_greedy_run_of_collect(lab, tmp_path):
    policy, sampler, tasks = lab
    with load_verifier("math") as verifier:
        result = validate(policy, sampler, verifier, tasks, max_new_tokens=60, world=ALONE)
    collect(replace(CONFIG, group_size=1, temperature=0.0), tmp_path / "run")
    collected = rows(tmp_path / "run", ["correct", "finish_reason", "token_ids"])
    right = [row["correct"] and row["finish_reason"] == "stop" for row in collected]
    assert 0 < sum(right) < len(right)
    assert result["greedy_accuracy"] == sum(right) / len(right)
    assert result["length_mean"] == np.mean([len(row["token_ids"]) for row in collected])
    cut = [row["finish_reason"] == "length" for row in collected]
    assert result["truncated_share"] == np.mean(cut)
    assert result["greedy_low"] < result["greedy_accuracy"] < result["greedy_high"]


def test_the_lab_policy_gets_the_same_numbers_on_two_ranks(lab, monkeypatch):
    monkeypatch.setattr(validation, "BLOCK_PROMPTS", 5)
    policy, sampler, tasks = lab
    with load_verifier("math") as verifier:
        alone = validate(policy, sampler, verifier, tasks, max_new_tokens=60, world=ALONE)
    torch.manual_seed(1)  # greedy answers draw nothing
    with load_verifier("math") as first:
        results = on_ranks(2, policy, sampler, first, tasks, max_new_tokens=60)
    assert [without_time(result) for result in results] == [without_time(alone)] * 2
