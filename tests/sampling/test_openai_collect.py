"""`collect` and `eval` over a server: the trace, a server that dies, Ctrl-C, limits, the key."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time

import pytest
from fake_server import FakeModel, FakeServer, error, fails, is_real
from typer.testing import CliRunner

from thr_probe.cli import app
from thr_probe.collect import collect
from thr_probe.config import CollectConfig
from thr_probe.errors import PrerequisiteError
from thr_probe.policy import load_policy
from thr_probe.sampling import server as server_module
from thr_probe.sampling.openai import request_seed
from thr_probe.traces import RunStatus, read_manifest, read_run

COLUMNS = [
    "prompt_id", "rollout_id", "text", "token_ids", "sampler_logprobs", "finish_reason",
    "ids_source", "correct",
]  # fmt: skip
KEY = "sk-0123456789-this-is-secret"


@pytest.fixture(scope="module")
def lab():
    return load_policy("lab")


@pytest.fixture
def fake(lab, monkeypatch):
    for name in ("OPENAI_API_KEY", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(server_module, "FIRST_PAUSE", 0.01)
    [eos] = lab.eos_ids
    with FakeServer(FakeModel(lab.tokenizer, eos_id=eos, end_logit=0.0)) as server:
        server.name = "lab"
        yield server


def config_of(fake, **options):
    small = {"max_prompts": 6, "group_size": 3, "shard_prompts": 2, "max_new_tokens": 12}
    small |= {"verify_workers": 1, "score": False, "retries": 2, "concurrency": 4}
    small |= {"engine": "openai", "base_url": fake.url}
    return CollectConfig(**(small | options))


def words_of(fake, path, *more):
    words = ["collect", "-o", path, "--engine", "openai", "--base-url", fake.url]
    words += ["--max-prompts", 6, "-n", 3, "--shard-prompts", 2, "--max-new-tokens", 12]
    words += ["--verify-workers", 1, "--no-score", "--retries", 2, *more]
    return [str(word) for word in words]


def rows_of(path):
    return [row for table in read_run(path).iter_completions(COLUMNS) for row in table.to_pylist()]


def files_of(path):
    return {
        file.relative_to(path): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }


def test_the_trace_holds_what_the_server_drew(fake, lab, tmp_path):
    assert collect(config_of(fake, score=True), tmp_path / "run")
    run = read_run(tmp_path / "run")
    assert run.manifest.sampler == "openai"
    prompts = {
        row.prompt_id: [int(token) for token in row.prompt_token_ids]
        for row in run.problems().itertuples()
    }
    rows = rows_of(tmp_path / "run")
    assert len(rows) == 18
    for row in rows:
        ids = prompts[row["prompt_id"]]
        seed = request_seed(0, row["prompt_id"], 0) + row["rollout_id"]
        drawn, reason = fake.model.draw(ids, seed=seed, max_tokens=12, temperature=1.0, top_p=1.0)
        shares = fake.model.distribution(ids)
        assert row["token_ids"] == drawn
        assert row["finish_reason"] == reason
        assert row["ids_source"] == "sampled"
        assert row["text"] == lab.decode(drawn)
        wanted = [math.log(shares[token]) for token in drawn]
        assert row["sampler_logprobs"] == pytest.approx(wanted, rel=1e-6)
    assert list(run.score_ids) == ["default"]


def test_a_server_that_dies_costs_one_shard_and_resume_goes_on(fake, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert collect(config_of(fake), whole)
    two_requests = len([body for body in fake.bodies if is_real(body)]) // 3
    assert two_requests == 2

    def dies(handler):
        fake.faults.extend([fails(500, error("engine dead"))] * 30)
        handler.answer(500, error("engine dead"))

    # the first shard and half of the second get through
    fake.faults.extend([_goes_well(fake)] * 3 + [dies])
    result = CliRunner().invoke(app, words_of(fake, broken, "--concurrency", 1))
    assert result.exit_code == PrerequisiteError.exit_code
    assert "status 500: engine dead" in result.stderr
    assert "what is finished is kept; continue with: thr-probe" in result.stderr
    assert "--resume" in result.stderr
    assert read_manifest(broken).status is RunStatus.INCOMPLETE
    kept = files_of(broken / "rollouts")
    assert len(kept) == 1

    fake.faults.clear()
    result = CliRunner().invoke(app, ["collect", "-o", str(broken), "--resume"])
    assert result.exit_code == 0, result.output
    after = files_of(broken / "rollouts")
    assert {name: after[name] for name in kept} == kept
    assert rows_of(broken) == rows_of(whole)


def _goes_well(fake):
    return lambda handler: handler.answer(*fake.completion(fake.bodies[-1]))


def test_a_run_may_be_resumed_at_another_address(fake, tmp_path):
    fake.faults.extend([fails(400, error("no more"))])
    path = tmp_path / "run"
    with pytest.raises(PrerequisiteError, match="no more"):
        collect(config_of(fake), path)
    with FakeServer(fake.model) as other:
        other.name = "lab"
        assert collect(config_of(other, concurrency=2), path, resume=True)
    assert len(rows_of(path)) == 18


def test_a_missing_server_leaves_what_stands_there_alone(fake, tmp_path):
    path = tmp_path / "run"
    assert collect(config_of(fake), path)
    before = files_of(path)
    config = config_of(fake, base_url="http://127.0.0.1:9/v1")
    with pytest.raises(PrerequisiteError, match="no server answers"):
        collect(config, path, overwrite=True)
    assert files_of(path) == before
    with pytest.raises(PrerequisiteError, match="no server answers"):
        collect(config, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_the_key_is_sent_and_written_nowhere(fake, tmp_path, monkeypatch):
    fake.key = KEY
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    path = tmp_path / "run"
    fake.faults.append(fails(500, error(f"bad day for {KEY}")))
    result = CliRunner().invoke(app, words_of(fake, path))
    assert result.exit_code == 0, result.output
    assert {headers.get("authorization") for headers in fake.headers} == {f"Bearer {KEY}"}
    fake.faults.extend([fails(500, error(f"bad day for {KEY}"))] * 50)
    failed = CliRunner().invoke(app, words_of(fake, tmp_path / "failed"))
    assert failed.exit_code == PrerequisiteError.exit_code
    assert "bad day for ***" in failed.stderr
    assert KEY not in result.output + failed.output
    for folder in (path, tmp_path / "failed"):
        found = files_of(folder)
        assert found
        assert not any(KEY.encode() in data for data in found.values())


def test_collect_keeps_to_a_limit_of_five_requests_a_second(fake, tmp_path):
    fake.per_second = 5
    assert collect(config_of(fake, max_prompts=12, shard_prompts=6, retries=1), tmp_path / "run")
    assert len(rows_of(tmp_path / "run")) == 36
    # 12 groups and 2 requests of introduction: two full seconds of waiting
    assert fake.times[-1] - fake.times[0] >= 1.9
    assert fake.refused < 14


def test_eval_runs_over_a_server(fake, tmp_path):
    words = ["eval", "lab", "-o", tmp_path / "eval", "--engine", "openai", "--base-url", fake.url]
    words += ["--max-prompts", 3, "--samples", 4, "--max-new-tokens", 8, "--format", "json"]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    many = [body for body in fake.bodies if body["max_tokens"] == 8]
    asked = sorted((body["temperature"], body["n"]) for body in many)
    assert asked == [(0.0, 1)] * 3 + [(1.0, 4)] * 3


def test_an_eval_whose_server_dies_says_how_to_go_on(fake, tmp_path):
    words = ["eval", "lab", "--engine", "openai", "--base-url", fake.url, "--max-prompts", 3]
    words += ["--samples", 4, "--max-new-tokens", 8, "--shard-prompts", 1, "--retries", 0]
    words = [str(word) for word in [*words, "--concurrency", 1, "--format", "json", "-o"]]
    whole = CliRunner().invoke(app, [*words, str(tmp_path / "whole")])
    assert whole.exit_code == 0, whole.output
    fake.faults.extend([_goes_well(fake)] * 3 + [fails(500, error("engine dead"))] * 30)
    broken = [*words, str(tmp_path / "broken")]
    result = CliRunner().invoke(app, broken)
    assert result.exit_code == PrerequisiteError.exit_code
    assert "what is finished is kept; continue with: thr-probe" in result.stderr
    fake.faults.clear()
    resumed = CliRunner().invoke(app, [*broken, "--resume"])
    assert resumed.exit_code == 0, resumed.output
    assert json.loads(resumed.stdout) == json.loads(whole.stdout)


def test_the_second_interrupt_ends_at_once_even_while_a_server_hangs(fake, tmp_path):
    fake.delay = 0.0
    command = [sys.executable, "-m", "thr_probe", *words_of(fake, tmp_path / "run")]
    environment = {name: value for name, value in os.environ.items() if "PROXY" not in name.upper()}
    fake.faults.extend([lambda handler: time.sleep(60)] * 9)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        deadline = time.monotonic() + 60
        while len([body for body in fake.bodies if is_real(body)]) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert process.poll() is None  # waits for the shard
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=40)
    finally:
        process.kill()
    assert process.returncode == 130
    assert time.monotonic() - began < 20  # a busy machine; the server would hang for 60
    assert "press Ctrl-C again" in told
    assert "Traceback" not in told
