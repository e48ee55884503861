"""A sampler that is not the policy: what is weighted, what is logged, what is refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from train_runs import config_of

from thr_probe.errors import PrerequisiteError, UsageError
from thr_probe.progress import TrainMonitor
from thr_probe.sampling import Completion, FinishReason
from thr_probe.sampling.protocol import IdsSource
from thr_probe.traces import read_run
from thr_probe.train import engine, setup, updates
from thr_probe.train.engine import train
from thr_probe.train.importance import importance_weights, sampler_logprobs
from thr_probe.train.resolve import resolve_train, warnings_of


def completion(ids, logprobs, source=IdsSource.SAMPLED):
    return Completion(
        token_ids=ids, logprobs=logprobs, finish_reason=FinishReason.STOP, ids_source=source
    )


class Another:
    """Samples as the engine it wraps, and tells log-probabilities of another precision."""

    name = "another"

    def __init__(self, sampler, change):
        self.sampler, self.change = sampler, change

    def sample(self, prompts, settings):
        groups = self.sampler.sample(prompts, settings)
        if settings.temperature == 0:
            return groups
        return [[self.change(item) for item in group] for group in groups]


def shifted(item):
    """The second token of every completion is drawn a third as often, others 5 % more often."""
    told = [value + 0.05 for value in item.logprobs]
    if len(told) > 1:
        told[1] -= math.log(3) + 0.05
    return replace(item, logprobs=told)


def untold(item):
    return replace(item, logprobs=None)


@pytest.fixture
def with_sampler(monkeypatch):
    """Every sampler that a run loads is wrapped."""

    def wrap(change):
        plain = setup.load_sampler
        monkeypatch.setattr(
            setup, "load_sampler", lambda *args, **kw: Another(plain(*args, **kw), change)
        )

    return wrap


def steps_of(path):
    lines = [json.loads(text) for text in (path / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == "step"]


def literal_log_ratios(path, step):
    """log pi - log mu of every token of a step, from the trace."""
    columns = ["step", "logprob", "sampler_logprobs"]
    rows = [row for table in read_run(path).iter_completions(columns) for row in table.to_pylist()]
    return np.concatenate(
        [
            np.subtract(row["logprob"], row["sampler_logprobs"])
            for row in rows
            if row["step"] == step
        ]
    )


@pytest.mark.parametrize("correction", ["none", "tis"])
def test_what_another_engine_drew_is_logged_and_weighted(
    correction, tmp_path, with_sampler, monkeypatch
):
    with_sampler(shifted)
    seen = []
    accumulate = updates._accumulate

    def watched(learner, part, *rest):
        seen.append(part)
        return accumulate(learner, part, *rest)

    monkeypatch.setattr(updates, "_accumulate", watched)
    config = config_of(importance_correction=correction, validation="none", steps=2)
    assert train(config, tmp_path / "r")
    for record in steps_of(tmp_path / "r"):
        log_ratio = literal_log_ratios(tmp_path / "r", record["step"])
        ratio = np.exp(log_ratio)
        assert_allclose(record["sampler_kl_k1"], -log_ratio.mean(), atol=1e-6)
        assert_allclose(record["sampler_kl_k3"], (ratio - 1 - log_ratio).mean(), atol=1e-6)
        assert_allclose(record["sampler_ratio_mean"], ratio.mean(), atol=1e-6)
        assert_allclose(record["sampler_ratio_max"], 3.0, rtol=1e-4)
        assert record["sampler_truncated_share"] == (ratio > 2).mean() > 0
    if correction == "none":
        assert all(part.importance_N is None for part in seen)
        return
    assert len(seen) >= 4
    for part in seen:
        literal = [
            2.0 if place == 1 else math.exp(-0.05)
            for row in part.rows
            for place in range(len(row.token_ids))
        ]
        assert_allclose(part.importance_N.numpy(), literal, rtol=1e-4)


def test_with_the_own_sampler_the_mismatch_is_that_of_rounding(tmp_path):
    assert train(config_of(validation="none", steps=1), tmp_path / "r")
    (record,) = steps_of(tmp_path / "r")
    assert abs(record["sampler_kl_k1"]) < 1e-6
    assert 0 <= record["sampler_kl_k3"] < 1e-10
    assert_allclose(record["sampler_ratio_max"], 1.0, atol=1e-4)
    assert record["sampler_truncated_share"] == 0.0


def test_an_engine_without_log_probabilities_trains_uncorrected_only(tmp_path, with_sampler):
    with_sampler(untold)
    options = {"validation": "none", "steps": 1}
    assert train(config_of(**options), tmp_path / "plain")
    (record,) = steps_of(tmp_path / "plain")
    assert not any(name.startswith("sampler_") for name in record)
    with pytest.raises(PrerequisiteError, match=r"tis needs the sampler's .* of every token"):
        train(config_of(**options, importance_correction="tis"), tmp_path / "tis")


def test_tokens_that_were_not_drawn_have_no_log_probability():
    items = [
        completion([5, 6], [-0.5, -1.0]),
        completion([7], None),
        completion([8, 9], [-0.1, -0.2], IdsSource.RETOKENIZED),
    ]
    np.testing.assert_array_equal(sampler_logprobs(items), [-0.5, -1.0, np.nan, np.nan, np.nan])
    old_N = torch.tensor([-0.25, -2.0])
    weight_N = importance_weights(old_N, items[:1], cap=2.0, prompt_id="p")
    assert_allclose(weight_N.numpy(), [math.exp(0.25), math.exp(-1.0)], rtol=1e-6)
    with pytest.raises(PrerequisiteError, match=r"none for 3 of 5 tokens of prompt p"):
        importance_weights(torch.zeros(5), items, cap=2.0, prompt_id="p")


def test_a_cap_below_1_is_refused_before_anything_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(setup, "policy_of", lambda *_: pytest.fail("loaded"))
    config = config_of(importance_correction="tis", tis_cap=0.5)
    with pytest.raises(UsageError, match=r"tis_cap must be a number .* got 0\.5"):
        engine.train(config, tmp_path / "r", monitor=TrainMonitor())


def test_top_p_is_allowed_and_what_it_does_to_the_weights_is_told():
    flags = {"importance_correction": "tis", "top_p": 0.95}
    config = resolve_train(flags, environment={})[0]
    assert any("mass of the nucleus" in told for told in warnings_of(config))
    assert not warnings_of(resolve_train({"top_p": 0.95}, environment={})[0])
