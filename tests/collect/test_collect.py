"""From problems to a trace on the lab: what is written, and that interruptions leave no mark."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from lab_runs import CONFIG, FLAGS, StopAfter, content, rows
from transformers import AutoModelForCausalLM

from thr_probe.collect import collect
from thr_probe.config import ScoreConfig
from thr_probe.core.head import Head
from thr_probe.core.thr import TokenGroup, threshold, token_hidden_reward
from thr_probe.errors import DataError, UsageError
from thr_probe.lab import lab_problems, policy_directory
from thr_probe.policy import load_policy
from thr_probe.problems import load_problems
from thr_probe.score import score_run
from thr_probe.traces import read_run, validate_run


def test_a_run_holds_g_completions_of_every_problem(lab_run):
    run = read_run(lab_run)
    assert run.is_complete
    assert not validate_run(lab_run)
    problems = run.problems()
    assert problems["question"].tolist() == [item.question for item in lab_problems("test", 6)]
    keys = [
        (row["prompt_id"], row["rollout_id"]) for row in rows(lab_run, ["prompt_id", "rollout_id"])
    ]
    assert keys == [(prompt, index) for prompt in problems["prompt_id"] for index in range(4)]


def test_stored_numbers_are_those_of_the_model_itself(lab_run):
    """Log-probability, entropy, THR and tau again from a plain forward pass of the checkpoint."""
    model = AutoModelForCausalLM.from_pretrained(policy_directory(), dtype=torch.float32).eval()
    prompts = read_run(lab_run).problems().set_index("prompt_id")["prompt_token_ids"]
    columns = ["prompt_id", "token_ids", "correct", "logprob", "entropy", "thr", "tau"]
    stored = rows(lab_run, columns)
    groups = [stored[start : start + 4] for start in range(0, 24, 4)]
    assert any(row["correct"] for row in stored), "the check below needs a correct completion"
    for group in groups:
        prompt = list(prompts[group[0]["prompt_id"]])
        hidden, tokens, index = [], [], []
        for rollout, row in enumerate(group):
            ids = torch.tensor([[*prompt, *row["token_ids"]]])
            with torch.no_grad():
                output = model(ids, output_hidden_states=True)
            logprob = torch.log_softmax(output.logits[0, len(prompt) - 1 : -1].double(), dim=1)
            sampled = logprob.gather(1, ids[0, len(prompt) :, None])[:, 0]
            np.testing.assert_allclose(row["logprob"], sampled, atol=2e-4)
            entropy = -(logprob.exp() * logprob).sum(dim=1)
            np.testing.assert_allclose(row["entropy"], entropy, atol=2e-4)
            hidden.append(output.hidden_states[-1][0, len(prompt) - 1 : -1])
            tokens.append(ids[0, len(prompt) :])
            index += [rollout] * len(row["token_ids"])
        correct = torch.tensor([row["correct"] for row in group])
        packed = TokenGroup(torch.cat(hidden), torch.cat(tokens), torch.tensor(index), correct)
        thr_N = token_hidden_reward(packed, Head(model.lm_head.weight.detach())).thr_N
        if not correct.any():
            assert all(row["thr"] is None and row["tau"] is None for row in group)
            continue
        scale = float(thr_N.abs().max())
        together = np.concatenate([row["thr"] for row in group])
        np.testing.assert_allclose(together, thr_N, atol=1e-4 * scale, rtol=1e-3)
        np.testing.assert_allclose(group[0]["tau"], threshold(thr_N, packed), rtol=1e-3)


def test_text_tokens_and_verdicts_belong_together(lab_run):
    run = read_run(lab_run)
    texts = run.tokens().set_index("token_id")["bytes"]
    answers = run.problems().set_index("prompt_id")["answer"]
    for row in rows(lab_run, ["prompt_id", "text", "token_ids", "correct", "extracted", "reward"]):
        joined = b"".join(texts[token] for token in row["token_ids"]).decode(errors="replace")
        assert row["text"] in joined
        assert row["reward"] == float(row["correct"])
        if row["correct"]:
            assert int(row["extracted"]) == int(answers[row["prompt_id"]])


def test_the_same_options_give_the_same_bytes(lab_run, tmp_path):
    collect(CONFIG, tmp_path / "again", argv=["thr-probe"])
    assert content(tmp_path / "again") == content(lab_run)


def test_another_seed_gives_other_completions(lab_run, tmp_path):
    collect(dataclasses.replace(CONFIG, seed=1), tmp_path / "other")
    before = [row["token_ids"] for row in rows(lab_run, ["token_ids"])]
    after = [row["token_ids"] for row in rows(tmp_path / "other", ["token_ids"])]
    assert sum(x != y for x, y in zip(before, after, strict=True)) > 12


def test_a_run_that_stands_is_neither_overwritten_nor_mixed(lab_run, tmp_path):
    path = tmp_path / "run"
    shutil.copytree(lab_run, path)
    before = content(path)
    with pytest.raises(UsageError, match="holds a run already"):
        collect(CONFIG, path)
    with pytest.raises(UsageError, match="seed is 0 there, 1 here"):
        collect(dataclasses.replace(CONFIG, seed=1), path, resume=True)
    assert content(path) == before
    assert collect(CONFIG, path, resume=True)
    assert content(path) == before
    assert collect(CONFIG, path, overwrite=True, argv=["thr-probe"])
    assert content(path) == before


def test_stopping_between_shards_and_resuming_gives_the_uninterrupted_run(lab_run, tmp_path):
    path = tmp_path / "run"
    assert not collect(CONFIG, path, argv=["thr-probe"], monitor=StopAfter(1))
    assert not read_run(path).is_complete
    assert not collect(CONFIG, path, resume=True, monitor=StopAfter(2))
    assert collect(CONFIG, path, resume=True)
    assert content(path) == content(lab_run)


@pytest.mark.slow
def test_a_process_killed_at_any_moment_resumes_to_the_same_bytes(lab_run, tmp_path):
    path = tmp_path / "run"
    words = [sys.executable, "-m", "thr_probe", "collect", "-o", str(path), "--resume", *FLAGS]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    # killed with nothing written, with the run just made, within a shard, between two files of one
    for wanted in (
        "",
        "manifest.json",
        "rollouts/part-00000.parquet",
        "rollouts/part-00001.parquet",
    ):
        process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
        )
        deadline = time.monotonic() + 120
        while wanted and process.poll() is None and time.monotonic() < deadline:
            if (path / wanted).exists():
                break
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not wanted or (path / wanted).exists()
    assert not read_run(path).is_complete
    subprocess.run(words, check=True, capture_output=True, env=environment)
    assert content(path) == content(lab_run)


def test_a_full_disk_is_a_clear_error_and_loses_nothing(lab_run, tmp_path, monkeypatch):
    path = tmp_path / "run"
    collect(CONFIG, path, argv=["thr-probe"], monitor=StopAfter(1))
    before = content(path)

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(DataError, match="No space left") as error:
            collect(CONFIG, path, resume=True)
    assert "part-00001.parquet" in error.value.message
    assert content(path) == before
    assert collect(CONFIG, path, resume=True)
    assert content(path) == content(lab_run)


def test_a_run_does_not_go_on_with_other_problems(tmp_path):
    source, path = tmp_path / "p.jsonl", tmp_path / "run"
    rows = [{"question": f"What is {n} plus 4?", "answer": str(n + 4)} for n in range(10, 16)]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = dataclasses.replace(CONFIG, dataset=str(source))
    collect(config, path, monitor=StopAfter(1))
    before = content(path)
    rows[5]["question"] = "What is 15 plus 4 again?"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match=r"manifest\.json: the problems changed"):
        collect(config, path, resume=True)
    assert content(path) == before


def test_a_run_does_not_go_on_with_other_weights(checkpoint, tmp_path):
    path, folder = tmp_path / "run", tmp_path / "model"
    shutil.copytree(policy_directory(), folder)
    config = dataclasses.replace(CONFIG, model=str(folder), template="lab")
    collect(config, path, monitor=StopAfter(1))
    before = content(path)
    shutil.copy(checkpoint / "model.safetensors", folder / "model.safetensors")
    with pytest.raises(DataError, match="the weights of the policy changed"):
        collect(config, path, resume=True)
    assert content(path) == before
    shutil.copytree(policy_directory(), folder, dirs_exist_ok=True)
    assert collect(config, path, resume=True)
    scoring = ScoreConfig(model=str(folder), score_id="again")
    assert score_run(path, scoring, monitor=StopAfter(1)) is None
    shutil.copy(checkpoint / "model.safetensors", folder / "model.safetensors")
    with pytest.raises(UsageError, match="was started with model_digest"):
        score_run(path, scoring, resume=True)


def test_a_damaged_shard_is_reported_not_replaced(lab_run, tmp_path):
    path = tmp_path / "run"
    shutil.copytree(lab_run, path)
    part = path / "rollouts" / "part-00001.parquet"
    part.write_bytes(part.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"part-00001\.parquet"):
        collect(CONFIG, path, resume=True)


def test_a_deleted_shard_of_a_complete_run_is_made_again(lab_run, tmp_path):
    for name in ("rollouts/part-00001.parquet", "scores/default/part-00002.parquet"):
        path = tmp_path / name.split("/")[0]
        shutil.copytree(lab_run, path)
        (path / name).unlink()
        assert collect(CONFIG, path, resume=True)
        assert content(path) == content(lab_run)


@pytest.mark.parametrize("name", ["manifest.json", "config.toml"])
def test_a_run_that_lost_its_record_is_neither_continued_nor_replaced(lab_run, tmp_path, name):
    path = tmp_path / "run"
    shutil.copytree(lab_run, path)
    (path / name).unlink()
    before = sorted(path.rglob("*"))
    for resume in (True, False):
        with pytest.raises((DataError, UsageError)) as error:
            collect(CONFIG, path, resume=resume)
        if resume:
            assert name in error.value.message
    assert sorted(path.rglob("*")) == before


def test_every_token_is_kept_at_beta_minus_infinity(tmp_path):
    config = dataclasses.replace(CONFIG, max_prompts=2, beta=float("-inf"))
    assert collect(config, tmp_path / "run")
    assert read_run(tmp_path / "run").score_info("default")["beta"] == "-inf"
    scored = [row for row in rows(tmp_path / "run", ["tau", "retained"]) if row["tau"] is not None]
    assert scored
    assert {(row["tau"], row["retained"]) for row in scored} == {(float("-inf"), 1.0)}
    assert collect(config, tmp_path / "run", resume=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": float("nan")}, "beta must be a number"),
        ({"max_new_tokens": 100_000}, "leaves no room for a prompt"),
    ],
)
def test_options_that_cannot_work_make_no_run(tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        collect(dataclasses.replace(CONFIG, **options), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_resume_and_overwrite_exclude_each_other(tmp_path):
    with pytest.raises(UsageError, match="choose one"):
        collect(CONFIG, tmp_path / "run", resume=True, overwrite=True)


def test_problems_with_long_prompts_are_left_out_and_counted(tmp_path):
    policy = load_policy("lab")
    lengths = [
        len(policy.encode_prompt(item.prompt_text))
        for item in load_problems("lab", max_prompts=6).problems
    ]
    limit = sorted(lengths)[2]
    collect(dataclasses.replace(CONFIG, max_prompt_tokens=limit), tmp_path / "run")
    kept = sum(length <= limit for length in lengths)
    manifest = read_run(tmp_path / "run").manifest
    assert (manifest.num_prompts, manifest.counts["skipped_long_prompt"]) == (kept, 6 - kept)
    with pytest.raises(DataError, match="no problem of 6 has a prompt of at most 1 tokens"):
        collect(dataclasses.replace(CONFIG, max_prompt_tokens=1), tmp_path / "none")


@pytest.mark.slow
def test_two_processes_under_torchrun_write_the_run_of_one(lab_run, tmp_path):
    path = tmp_path / "run"
    words = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    subprocess.run(
        [*words, "-m", "thr_probe", "collect", "-o", str(path), *FLAGS],
        check=True,
        capture_output=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert content(path) == content(lab_run)
