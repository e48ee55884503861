"""Whole commands with --engine vllm: collect, eval, train. Each starts an engine of its own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from lab_runs import StopAfter
from transformers import LlamaConfig, LlamaForCausalLM

from thr_probe.collect import collect
from thr_probe.config import CollectConfig
from thr_probe.engine import load_engine
from thr_probe.errors import PrerequisiteError
from thr_probe.evaluate.run import evaluate
from thr_probe.evaluate.settings import EvalConfig
from thr_probe.policy import UnloadedPolicy, load_policy
from thr_probe.processes import World
from thr_probe.traces import read_run
from thr_probe.train.config import TrainConfig
from thr_probe.train.engine import train

ONE = World(rank=0, size=1, local_rank=0)
CONFIG = CollectConfig(
    engine="vllm",
    device="cpu",
    max_prompts=6,
    group_size=4,
    shard_prompts=3,
    max_new_tokens=60,
    verify_workers=1,
)
COLUMNS = ["prompt_id", "rollout_id", "text", "token_ids", "finish_reason", "sampler_logprobs"]


def rows(path, *columns):
    tables = [table.to_pylist() for table in read_run(path).iter_completions(list(columns))]
    return [row for table in tables for row in table]


def assert_same_rollouts(found, expected):
    """What was read before (cached prompts, another batch) moves the last bits of logits."""
    found, expected = rows(found, *COLUMNS), rows(expected, *COLUMNS)
    for row, other in zip(found, expected, strict=True):
        logprobs = row.pop("sampler_logprobs"), other.pop("sampler_logprobs")
        assert row == other
        np.testing.assert_allclose(*logprobs, atol=1e-4)


def test_a_run_is_collected_and_scored_and_the_probe_agrees_with_the_engine(engine, tmp_path):
    path = tmp_path / "run"
    assert collect(CONFIG, path, load=lambda: engine)
    run = read_run(path)
    assert run.manifest.sampler == "vllm"
    assert "vllm" in run.manifest.versions
    found = rows(path, *COLUMNS, "logprob", "ids_source")
    assert len(found) == 24
    for row in found:
        assert row["text"] == engine.policy.decode(row["token_ids"])
        assert row["ids_source"] == "sampled"
        ends = row["token_ids"][-1] in engine.policy.eos_ids
        assert row["finish_reason"] == ("stop" if ends else "length")
        np.testing.assert_allclose(row["sampler_logprobs"], row["logprob"], atol=1e-4)


def test_an_interrupted_run_ends_as_one_that_was_not(engine, tmp_path):
    config = replace(CONFIG, score=False)
    assert collect(config, tmp_path / "whole", load=lambda: engine)
    assert not collect(config, tmp_path / "cut", load=lambda: engine, monitor=StopAfter(1))
    assert collect(config, tmp_path / "cut", resume=True, load=lambda: engine)
    assert_same_rollouts(tmp_path / "cut", tmp_path / "whole")


def test_sampling_alone_reads_no_weight_with_transformers(engine, tmp_path):
    config = replace(CONFIG, score=False)
    alone = load_engine(config, ONE, scores=False)
    assert isinstance(alone.policy, UnloadedPolicy)
    assert collect(config, tmp_path / "alone", load=lambda: alone)
    alone.sampler.close()
    assert collect(config, tmp_path / "beside", load=lambda: engine)
    assert_same_rollouts(tmp_path / "alone", tmp_path / "beside")
    digests = {read_run(tmp_path / name).manifest.model_digest for name in ("alone", "beside")}
    assert len(digests) == 1


def test_greedy_accuracy_is_that_of_the_transformers_engine(tmp_path):
    config = EvalConfig(device="cpu", max_prompts=8, samples=0, verify_workers=1)
    found = evaluate("lab", replace(config, engine="vllm"), tmp_path / "vllm")
    expected = evaluate("lab", config, tmp_path / "transformers")
    assert found is not None
    assert expected is not None
    assert found.rows == expected.rows


def test_training_samples_with_the_weights_of_every_step(tmp_path):
    path = tmp_path / "run"
    config = TrainConfig(
        engine="vllm",
        device="cpu",
        dataset="lab:train",
        max_prompts=24,
        steps=2,
        prompts=4,
        mini_batch=2,
        group_size=4,
        max_new_tokens=80,
        lr=1e-3,
        kl_coef=0.0,
        max_gen_batches=0,
        verify_workers=1,
        preset="none",
    )
    assert train(config, path)
    steps = {}
    for table in read_run(path).iter_completions(["step", "sampler_logprobs", "logprob"]):
        for row in table.to_pylist():
            np.testing.assert_allclose(row["sampler_logprobs"], row["logprob"], atol=1e-4)
            steps.setdefault(row["step"], []).append(row)
    assert sorted(steps) == [0, 1]
    before, after = load_policy("lab", device="cpu"), load_policy(str(path / "model"), device="cpu")
    moved = [
        float((new - old).abs().max())
        for old, new in zip(before.model.parameters(), after.model.parameters(), strict=True)
    ]
    assert max(moved) > 1e-4


def test_a_model_that_vllm_does_not_run_is_told_in_a_sentence(tmp_path):
    # heads of 8 numbers: transformers takes them, vLLM's attention on a CPU does not
    policy = load_policy("lab", device="cpu")
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=640,
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=256,
            eos_token_id=1,
        )
    )
    model.save_pretrained(tmp_path / "odd")
    policy.tokenizer.save_pretrained(tmp_path / "odd")
    config = replace(CONFIG, model=str(tmp_path / "odd"), template="lab", score=False)
    with pytest.raises(PrerequisiteError, match="vLLM cannot run"):
        collect(config, tmp_path / "run")
