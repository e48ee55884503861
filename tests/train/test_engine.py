"""Whole runs on the lab's policy: every method, resuming, two processes, what goes wrong."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time

import pytest
from numpy.testing import assert_allclose
from torch.testing import assert_close
from train_runs import StopAfter, config_of, records, tensors, trace, words_of

from thr_probe.errors import DataError, IncompleteError, PrerequisiteError, UsageError
from thr_probe.gallery import ANALYSES, analyze
from thr_probe.lab import policy_directory
from thr_probe.policy import load_policy
from thr_probe.traces import RunStatus, read_manifest, read_run
from thr_probe.train import engine
from thr_probe.train.checkpoint import checkpoint_steps
from thr_probe.train.engine import train
from thr_probe.train.rollouts import draw_seed

pytestmark = pytest.mark.filterwarnings("ignore:--objective gspo.*hardly ever clips")

EVERY = [
    {"p": 0.0},
    {"p": -0.2},
    {"p": 0.2},
    {"keep_entropy": 0.2},
    {"tau": "0.5", "p": 0.1},
    {"self_influence": "exclude", "reduce": "mean"},
    {"method": "grpo"},
    {"method": "grpo", "adv_std": "sample", "aggregate": "token-mean", "dual_clip": 3.0},
    {"method": "pos-only"},
    {"method": "neg-only"},
    {"method": "nthr"},
    {"method": "random"},
    {"method": "entropy-top", "aggregate": "dr-grpo"},
    {"pass_at_k": "pure", "k": 2, "method": "grpo"},
    {"pass_at_k": "mixed", "k": 2, "p": -0.1},
    {"pass_at_k": "mixed", "mix": "chen", "k": 2, "method": "grpo"},
    {"pass_at_k": "static", "k": 2, "p": -0.1},
    {"advantage": "pkpo", "k": 2, "method": "grpo"},
    {"advantage": "dr-grpo", "method": "grpo", "renorm": "selected"},
    {"objective": "gspo-token"},
    {"objective": "gspo", "method": "grpo"},
    {"cov": "kl-cov", "method": "grpo"},
    {"cov": "clip-cov", "method": "grpo", "cov_low": 0.0, "cov_scope": "micro-batch"},
    {"method": "grpo", "clip_high": 0.28, "mini_batch_unit": "rollouts", "mini_batch": 8},
    {"method": "grpo", "kl_coef": 0.0, "entropy_coef": 0.001, "trace_every": 0},
    {"adaptive_p": "schedule", "p": 0.2, "p_final": -0.2},
    {"adaptive_p": "entropy", "p": 0.0},
]


@pytest.mark.parametrize("flags", EVERY, ids=lambda flags: "-".join(map(str, flags.values())))
def test_three_steps_of_every_method(flags, tmp_path):
    config = config_of(**flags, validation="none")
    assert train(config, tmp_path / "r")
    steps = records(tmp_path / "r")
    assert [record["step"] for record in steps] == [0, 1, 2]
    for record in steps:
        assert record["num_updates"] == 2
        assert record["prompts_kept"] == 4
        for name in ("loss", "grad_norm", "kl", "entropy", "ratio_min", "ratio_max"):
            assert math.isfinite(record[name]), name
        assert record["grad_norm"] > 0
    before = tensors(policy_directory())
    after = tensors(tmp_path / "r" / "model")
    assert any((after[name].float() - before[name].float()).abs().max() > 0 for name in after)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Four steps of THR in one go."""
    path = tmp_path_factory.mktemp("train") / "whole"
    assert train(config_of(steps=4, p=-0.1), path)
    return path


def test_a_run_leaves_trace_metrics_checkpoints_and_a_model(finished):
    run = read_run(finished)
    assert run.is_complete
    assert run.num_completions == 4 * 4 * 4
    rows = [
        row
        for table in run.iter_completions(
            ["step", "seed", "token_ids", "correct", "thr", "tau", "advantage"]
        )
        for row in table.to_pylist()
    ]
    assert sorted({row["step"] for row in rows}) == [0, 1, 2, 3]
    assert all(len(row["thr"]) == len(row["token_ids"]) for row in rows)
    assert all(row["advantage"] != 0 for row in rows)
    for row in rows:  # the seed of the draws, another in every round of every step
        assert row["seed"] in {draw_seed(0, row["step"], number) for number in range(5)}
    lines = records(finished)
    assert [line["step"] for line in lines if line["kind"] == "eval"] == [0, 2, 4]
    steps = [line for line in lines if line["kind"] == "step"]
    for line in steps:
        own = [row for row in rows if row["step"] == line["step"]]
        dominant = sum(abs(value) > row["tau"] for row in own for value in row["thr"])
        tokens = sum(len(row["thr"]) for row in own)
        # tau rests in the trace as float32
        assert abs(line["retained_share"] - dominant / tokens) <= 2 / tokens
        assert line["length_mean"] == tokens / len(own)
        assert line["reward_kept"] == sum(row["correct"] for row in own) / len(own)
        assert line["p"] == -0.1
    assert checkpoint_steps(finished) == [2, 4]
    assert run.score_info("default")["objective"].startswith("grpo clip 0.2/0.2; thr(p=-0.1)")
    policy = load_policy(str(finished / "model"))
    last = load_policy(str(finished / "checkpoints" / "step-000004" / "model"))
    assert policy.weights_digest == last.weights_digest
    assert policy.weights_digest != run.manifest.model_digest


def test_timers_add_up_and_are_in_every_line(finished):
    lines = [json.loads(text) for text in (finished / "metrics.jsonl").read_text().splitlines()]
    for line in (item for item in lines if item["kind"] == "step"):
        parts = [line[name] for name in ("gen", "update", "thr", "ref", "old")]
        assert_allclose(sum(parts), line["total"])
        assert min(parts) > 0
        assert line["wall"] >= line["total"]


def test_every_analysis_of_a_collected_run_works_on_a_training_run(finished, tmp_path):
    for name in ("density", "overlap", "retention", "reflection", "passk", "wordcloud"):
        assert name in ANALYSES
        analysis, _ = analyze(name, read_run(finished), tmp_path / name)
        assert analysis.empty_reason is None, name


def same_run(one, other):
    assert records(one) == records(other)
    assert trace(one) == trace(other)
    for folder in ("model", "checkpoints/step-000004/state"):
        mine, theirs = tensors(one / folder), tensors(other / folder)
        assert mine.keys() == theirs.keys()
        for name, value in mine.items():
            assert_close(value, theirs[name], rtol=0, atol=0)


@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_run_that_was_stopped_and_resumed_equals_one_that_was_not(finished, after, tmp_path):
    config = config_of(steps=4, p=-0.1)
    path = tmp_path / "r"
    assert not train(config, path, monitor=StopAfter(after))
    assert checkpoint_steps(path)[-1] == after
    assert read_manifest(path).status is RunStatus.INCOMPLETE
    assert train(config, path, resume=True)
    same_run(path, finished)


def command(*words, processes=1, **flags):
    program = [sys.executable, "-m", "thr_probe"]
    if processes > 1:
        launch = ["-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
        program = [sys.executable, *launch, "--standalone", "-m", "thr_probe"]
    return [*program, "train", *words, *words_of(**flags)]


def wait_for(path, text, process, seconds=240):
    """Until a file holds a text, or the process ends."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        if path.exists() and text in path.read_text():
            return
        time.sleep(0.02)
    raise AssertionError(f"{path} never held {text!r}")


@pytest.mark.slow
@pytest.mark.parametrize("moment", ['"step": 0,', '"step": 2,'])
def test_kill_9_loses_nothing(finished, moment, tmp_path):
    path = tmp_path / "r"
    words = command("-o", str(path), steps=4, p=-0.1)
    process = subprocess.Popen(words, stderr=subprocess.PIPE, start_new_session=True)
    wait_for(path / "metrics.jsonl", f'"kind": "step", {moment}', process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    subprocess.run([*words, "--resume"], check=True, capture_output=True)
    same_run(path, finished)


def test_keeping_every_token_with_p_0_is_grpo_bit_for_bit(tmp_path):
    shared = {"validation": "none"}
    train(config_of(beta=-math.inf, p=0.0, **shared), tmp_path / "thr")
    train(config_of(method="grpo", **shared), tmp_path / "grpo")
    thr, grpo = records(tmp_path / "thr"), records(tmp_path / "grpo")
    for one, other in zip(thr, grpo, strict=True):
        for name in ("loss", "grad_norm", "kl", "ratio_max", "reward_generated", "entropy"):
            assert one[name] == other[name], name
        assert one["retained_share"] == 1.0
        assert one["masked_share"] == 0.0
    mine, theirs = tensors(tmp_path / "thr" / "model"), tensors(tmp_path / "grpo" / "model")
    for name, value in mine.items():
        assert_close(value, theirs[name], rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags",
    [
        {"p": -0.1, "keep_entropy": 0.2},
        {"method": "grpo", "cov": "kl-cov", "cov_share": 0.02},
        {"objective": "gspo-token", "p": 0.1},
        {"importance_correction": "tis"},
    ],
    ids=["thr", "kl-cov", "gspo-token", "tis"],
)
def test_two_processes_take_the_same_steps_as_one(flags, tmp_path):
    # an odd number of groups per mini-batch: one process has fewer rows than the other
    sizes = {"steps": 2, "prompts": 5, "mini_batch": 3, "lr": 1e-5}
    alone, both = tmp_path / "one", tmp_path / "two"
    train(config_of(**sizes, **flags), alone)
    ran = subprocess.run(
        command("-o", str(both), processes=2, **sizes, **flags),
        check=False, capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-3000:]
    one, two = records(alone), records(both)
    assert len(one) == len(two)
    for mine, theirs in zip(one, two, strict=True):
        assert mine.keys() == theirs.keys()
    # the first step's numbers agree to rounding: gradients are sums in another order
    first = [next(line for line in lines if line["kind"] == "step") for lines in (one, two)]
    for name, value in first[0].items():
        if isinstance(value, float):
            assert_allclose(first[1][name], value, rtol=2e-4, atol=2e-6, err_msg=name)
        else:
            assert first[1][name] == value, name
    assert_rollouts_of_the_first_step_equal(alone, both)


def assert_rollouts_of_the_first_step_equal(alone, both):
    for one, two in zip(
        read_run(alone).iter_completions(["step", "prompt_id", "rollout_id", "token_ids"]),
        read_run(both).iter_completions(["step", "prompt_id", "rollout_id", "token_ids"]),
        strict=True,
    ):
        rows = [[row for row in table.to_pylist() if row["step"] == 0] for table in (one, two)]
        assert rows[0] == rows[1]


@pytest.mark.slow
def test_a_dead_process_ends_the_run_and_leaves_the_checkpoint(tmp_path):
    path = tmp_path / "r"
    words = command("-o", str(path), processes=2, steps=50, save_every=1)
    process = subprocess.Popen(
        words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    wait_for(path / "metrics.jsonl", '"kind": "step", "step": 1,', process)
    children = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True
    ).stdout.split()
    os.kill(int(children[-1]), signal.SIGKILL)
    _, told = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "error: another process of this run ended" in told
    assert "--resume" in told
    assert checkpoint_steps(path)
    last = checkpoint_steps(path)[-1]
    assert tensors(path / "checkpoints" / f"step-{last:06d}" / "state")


def test_a_loss_that_is_not_a_number_stops_with_the_last_checkpoint(tmp_path, monkeypatch):
    config, path = config_of(steps=4, save_every=1, trace_every=0), tmp_path / "r"
    real = engine.score_group
    calls = []

    def broken(*arguments, **options):
        scored = real(*arguments, **options)
        calls.append(scored)
        if len(calls) > 4:  # in the second step
            scored.old_logprob_N[0] = math.nan
        return scored

    monkeypatch.setattr(engine, "score_group", broken)
    with pytest.raises(
        IncompleteError, match=r"step 1, update 0: the loss of prompt \w+, rollout 0"
    ):
        train(config, path)
    assert checkpoint_steps(path) == [1]
    monkeypatch.setattr(engine, "score_group", real)
    assert train(config, path, resume=True)


def test_groups_that_all_agree_end_in_an_error_with_counts(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "wrong_verifier.py").write_text("def wrong(completion, answer):\n    return 0.0\n")
    config = config_of(verifier="wrong_verifier:wrong", max_gen_batches=2)
    with pytest.raises(IncompleteError, match="0 of the 4 groups needed have an advantage"):
        train(config, tmp_path / "r")


NOWHERE = {"model": "./nowhere", "preset": "lab"}


@pytest.mark.parametrize(
    ("flags", "error", "words"),
    [
        (NOWHERE, PrerequisiteError, "no model directory"),
        ({"dataset": "lab:nothing"}, UsageError, "no split"),
        ({"prompts": 61}, UsageError, "more questions per step than the 60"),
        ({"dtype": "bfloat16"}, UsageError, "needs a GPU"),
        (NOWHERE | {"clip_high": -0.1}, UsageError, "clip_high must not be negative"),
        (NOWHERE | {"dual_clip": 1.0}, UsageError, "dual_clip must be greater than 1"),
        (NOWHERE | {"method": "entropy-top", "entropy_share": 0.0}, UsageError, "share of tokens"),
        (NOWHERE | {"cov": "kl-cov", "cov_share": 0.0}, UsageError, "cov_share must lie in"),
        (NOWHERE | {"cov": "clip-cov", "cov_low": 5.0}, UsageError, "cov_low must be smaller"),
    ],
)
def test_bad_input_is_told_before_anything_is_written(flags, error, words, tmp_path):
    with pytest.raises(error, match=words):
        train(config_of(**flags), tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_a_dataset_without_answers_is_told(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text('{"question": "1+1?"}\n')
    with pytest.raises(DataError, match="no answer column"):
        train(config_of(dataset=str(path)), tmp_path / "r")


def test_a_run_that_stands_there_is_not_overwritten(finished, tmp_path):
    with pytest.raises(UsageError, match="holds a run already"):
        train(config_of(), finished)
    with pytest.raises(UsageError, match="steps is 4 there, 5 here"):
        train(config_of(steps=5, p=-0.1), finished, resume=True)
    before = trace(finished)
    assert train(config_of(steps=4, p=-0.1), finished, resume=True)
    assert trace(finished) == before


def test_adaptive_p_moves_and_is_recorded(tmp_path):
    shared = {"validation": "none"}
    train(config_of(adaptive_p="schedule", p=0.2, p_final=-0.2, **shared), tmp_path / "s")
    assert_allclose([line["p"] for line in records(tmp_path / "s")], [0.2, 0.0, -0.2], atol=1e-12)
    flags = {"adaptive_p": "entropy", "target_entropy": 0.1, "p_gain": 0.5}
    train(config_of(**flags, **shared), tmp_path / "e")
    lines = records(tmp_path / "e")
    assert lines[0]["p"] == 0.0
    # the entropy is above the target: p grows, which exploits
    assert_allclose(lines[1]["p"], 0.5 * (lines[0]["entropy"] - 0.1))
    assert lines[2]["p"] == min(0.5, lines[1]["p"] + 0.5 * (lines[1]["entropy"] - 0.1))
