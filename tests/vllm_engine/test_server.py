"""`collect --engine openai` and a real vLLM server on the lab's policy: started, killed, resumed.

Two servers are started one after the other on the same port, the first as vLLM comes, the second
with processed log-probabilities.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from thr_probe.cli import app
from thr_probe.collect import collect
from thr_probe.config import CollectConfig
from thr_probe.errors import DataError, PrerequisiteError
from thr_probe.lab import policy_directory
from thr_probe.policy import load_policy
from thr_probe.progress import Monitor
from thr_probe.sampling.draws import sampled_logprobs
from thr_probe.traces import read_run

STARTING = 400
"""Seconds that a server may take on a busy machine."""

SMALL = {"max_prompts": 8, "group_size": 4, "shard_prompts": 1, "max_new_tokens": 100}
COLUMNS = [
    "prompt_id", "rollout_id", "text", "token_ids", "sampler_logprobs", "finish_reason",
    "ids_source",
]  # fmt: skip


class VllmServer:
    def __init__(self, port: int, log: Path, *flags: str) -> None:
        words = ["-m", "vllm.entrypoints.openai.api_server", "--model", str(policy_directory())]
        words += ["--served-model-name", "lab", "--host", "127.0.0.1", "--port", str(port)]
        words += ["--dtype", "float32", "--max-model-len", "1024", "--enforce-eager"]
        words += ["--max-num-seqs", "64", *flags]
        own = {"OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
        self.url = f"http://127.0.0.1:{port}/v1"
        self.log = log
        with log.open("w") as output:
            # a group of its own, so that the engine's process ends with the server's
            self.process = subprocess.Popen(
                [sys.executable, *words],
                env={**os.environ, **own},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait(self) -> None:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        deadline = time.monotonic() + STARTING
        while True:
            try:
                opener.open(f"{self.url}/models", timeout=5).close()
                return
            except OSError:
                assert self.process.poll() is None, self.log.read_text()[-3000:]
                assert time.monotonic() < deadline, self.log.read_text()[-3000:]
                time.sleep(0.5)

    def kill(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, 9)
        self.process.wait()


class KillsAfterOneShard(Monitor):
    def __init__(self, server: VllmServer) -> None:
        self.server = server

    def advance(self, advance) -> None:
        self.server.kill()


@pytest.fixture(scope="module")
def policy():
    return load_policy("lab", device="cpu")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def runs(place):
    """What both servers gave, made once: name -> run directory; and what the death was told as."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    first = VllmServer(port, place / "first.log")
    second = None
    try:
        first.wait()
        assert collect(config_of(first), place / "plain")
        with pytest.warns(UserWarning, match="lack the temperature"):
            assert collect(config_of(first, temperature=0.7), place / "raw")
        # one request at a time: what was begun for the next shards may still get through
        slow = config_of(first, concurrency=1)
        with pytest.raises(PrerequisiteError) as death:
            collect(slow, place / "killed", monitor=KillsAfterOneShard(first))
        kept = files_of(place / "killed" / "rollouts")
        words = ["collect", "-o", str(place / "killed"), "--resume"]
        refused = CliRunner().invoke(app, words)
        second = VllmServer(port, place / "second.log", "--logprobs-mode", "processed_logprobs")
        second.wait()
        resumed = CliRunner().invoke(app, words)
        for name, options in (
            ("cool", {"temperature": 0.7}),
            ("nucleus", {"temperature": 0.8, "top_p": 0.9}),
            ("greedy", {"temperature": 0.0}),
        ):
            assert collect(config_of(second, **options), place / name)
    finally:
        first.kill()
        if second is not None:
            second.kill()
    return {"death": death.value, "kept": kept, "refused": refused, "resumed": resumed}


def config_of(server: VllmServer, **options) -> CollectConfig:
    given = {"engine": "openai", "base_url": server.url, "score": False, "retries": 1}
    return CollectConfig(**(SMALL | given | {"device": "cpu", "verify_workers": 1} | options))


def files_of(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(path.iterdir())}


def rows_of(path: Path) -> list[dict[str, object]]:
    return [row for table in read_run(path).iter_completions(COLUMNS) for row in table.to_pylist()]


def largest_error(policy, path: Path, *, temperature: float, top_p: float) -> float:
    """Between the server's log-probabilities and the policy's in transformers."""
    prompts = {
        row.prompt_id: [int(token) for token in row.prompt_token_ids]
        for row in read_run(path).problems().itertuples()
    }
    errors = []
    for row in rows_of(path):
        prompt, ids = prompts[row["prompt_id"]], row["token_ids"]
        with torch.no_grad():
            logits = policy.model(input_ids=torch.tensor([[*prompt, *ids]])).logits[0]
        wanted = sampled_logprobs(
            logits[len(prompt) - 1 : -1], temperature=temperature, top_p=top_p
        ).gather(1, torch.tensor(ids)[:, None])[:, 0]
        found = torch.tensor(row["sampler_logprobs"], dtype=torch.float64)
        errors.append(float((found - wanted).abs().max()))
    return max(errors)


def test_sampled_ids_come_back_with_their_end_of_sequence(policy, place, runs):
    rows = rows_of(place / "plain")
    assert len(rows) == 32
    [eos] = policy.eos_ids
    for row in rows:
        assert row["ids_source"] == "sampled"
        assert row["text"] == policy.decode(row["token_ids"])
        assert (row["token_ids"][-1] == eos) == (row["finish_reason"] == "stop")
        assert eos not in row["token_ids"][:-1]
    assert {"stop"} <= {row["finish_reason"] for row in rows}
    assert len({tuple(row["token_ids"]) for row in rows}) > 16


@pytest.mark.parametrize(
    ("name", "temperature", "top_p"),
    [("plain", 1.0, 1.0), ("cool", 0.7, 1.0), ("nucleus", 0.8, 0.9), ("greedy", 1.0, 1.0)],
)
def test_logprobs_are_those_of_the_distribution_drawn_from(
    policy, place, runs, name, temperature, top_p
):
    assert largest_error(policy, place / name, temperature=temperature, top_p=top_p) < 1e-4


def test_raw_logprobs_at_another_temperature_are_left_out(place, runs):
    with pytest.raises(DataError, match="sampler_logprobs was not stored"):
        rows_of(place / "raw")


def test_a_server_killed_halfway_costs_a_shard_and_resume_completes_the_run(place, runs):
    assert "failed, 2 tries" in runs["death"].message
    assert 1 <= len(runs["kept"]) < 8
    assert runs["refused"].exit_code == PrerequisiteError.exit_code
    assert "no server answers" in runs["refused"].stderr
    assert "continue with: thr-probe" in runs["refused"].stderr
    assert runs["resumed"].exit_code == 0, runs["resumed"].output
    after = files_of(place / "killed" / "rollouts")
    assert {name: after[name] for name in runs["kept"]} == runs["kept"]
    # the same seeds give the same completions from another server process
    ids = [row["token_ids"] for row in rows_of(place / "killed")]
    assert ids == [row["token_ids"] for row in rows_of(place / "plain")]
