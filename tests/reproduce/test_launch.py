"""The launcher with a program that only pretends: resume, failure, lock, Ctrl-C."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import sys
import threading
import time

import pytest

from thr_probe.errors import IncompleteError, UsageError
from thr_probe.reproduce.launch import Launcher, failure_error, last_line
from thr_probe.reproduce.plan import Job, Stage
from thr_probe.reproduce.rows import row_named
from thr_probe.reproduce.settings import ReproduceConfig
from thr_probe.traces.manifest import Manifest, RunStatus, write_manifest

PROGRAM = """
import json, os, pathlib, shutil, signal, sys, time
here, words = pathlib.Path(__file__).parent, sys.argv[1:]
out = pathlib.Path(words[words.index("-o") + 1])
key = f"{out.parent.name}/{out.name}"
orders = json.loads((here / "orders.json").read_text())
kept = {name: value for name, value in os.environ.items() if name.startswith(("OMP_", "THR_PROBE"))}
with (here / "calls.jsonl").open("a") as file:
    file.write(json.dumps({"key": key, "words": words, "environment": kept}) + "\\n")
order = orders.get(key)
if order == "fail":
    print("error: no policy there")
    print("hint:  make one")
    sys.exit(4)
if order == "hang":
    def stop(*_):
        (here / "stopped").write_text(key)
        sys.exit(130)
    signal.signal(signal.SIGINT, stop)
    (here / "hanging").write_text(key)
    time.sleep(60)
if order != "nothing":
    out.mkdir(parents=True, exist_ok=True)
    shutil.copy(here / "manifest.json", out / "manifest.json")
"""


class Fake:
    """The pretended program, what it is told to do and what it was asked."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()
        (folder / "program.py").write_text(PROGRAM)
        manifest = Manifest(
            status=RunStatus.COMPLETE,
            dataset="lab",
            sampler="fake",
            verifier="fake",
            seed=0,
            num_prompts=1,
            group_size=1,
        )
        write_manifest(folder, manifest)
        self.order({})

    @property
    def words(self):
        return [sys.executable, str(self.folder / "program.py")]

    def order(self, orders):
        (self.folder / "orders.json").write_text(json.dumps(orders))

    @property
    def calls(self):
        lines = (self.folder / "calls.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    @property
    def keys(self):
        return [call["key"] for call in self.calls]


@pytest.fixture
def fake(tmp_path):
    return Fake(tmp_path / "fake")


@pytest.fixture
def told():
    return []


@pytest.fixture
def launcher(tmp_path, fake, told):
    config = ReproduceConfig(workers=2)
    return Launcher(tmp_path / "root", config, tell=told.append, program=fake.words)


JOBS = [Job(row=row_named(name), seed=0) for name in ("base", "grpo")]
EVERYTHING = {
    *("greedy/base-s0", "sampled/base-s0", "scored/base-s0"),
    *("runs/grpo-s0", "greedy/grpo-s0", "sampled/grpo-s0", "scored/grpo-s0"),
}


def test_every_stage_is_done_in_order_with_one_thread_and_no_options_of_the_environment(
    launcher, fake, monkeypatch
):
    monkeypatch.setenv("THR_PROBE_STEPS", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert launcher.run(JOBS) == []
    assert set(fake.keys) == EVERYTHING
    own = [key for key in fake.keys if "grpo" in key]
    assert own == ["runs/grpo-s0", "greedy/grpo-s0", "sampled/grpo-s0", "scored/grpo-s0"]
    for call in fake.calls:
        assert call["environment"] == {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
        assert call["words"][-1] == "--resume"
    costs = (launcher.root / "costs.jsonl").read_text().splitlines()
    assert len(costs) == len(EVERYTHING)
    assert all(json.loads(line)["exit_code"] == 0 for line in costs)


def test_what_is_done_stays_done(launcher, fake, told):
    launcher.run(JOBS)
    before = len(fake.calls)
    assert launcher.run(JOBS) == []
    assert len(fake.calls) == before
    assert sorted(told[-2:]) == ["base-s0: done before", "grpo-s0: done before"]


def test_a_failed_stage_ends_its_job_alone_and_is_tried_again(launcher, fake):
    fake.order({"greedy/grpo-s0": "fail"})
    (failure,) = launcher.run(JOBS)
    assert (failure.job, failure.stage, failure.exit_code) == ("grpo-s0", Stage.GREEDY, 4)
    assert failure.reason == "error: no policy there"
    assert "sampled/grpo-s0" not in fake.keys
    assert "scored/base-s0" in fake.keys
    told = failure_error([failure])
    assert isinstance(told, IncompleteError)
    assert told.exit_code == 5
    assert "grpo-s0 (greedy): error: no policy there" in told.message
    fake.order({})
    before = len(fake.calls)
    assert launcher.run(JOBS) == []
    assert fake.keys[before:] == ["greedy/grpo-s0", "sampled/grpo-s0", "scored/grpo-s0"]


def test_a_program_that_ends_well_without_a_run_has_failed(launcher, fake):
    fake.order({"runs/grpo-s0": "nothing"})
    (failure,) = launcher.run(JOBS[1:])
    assert failure.exit_code == 0
    assert failure.reason.startswith("$ thr-probe train")


def test_a_job_that_another_process_holds_is_left_to_it(launcher, fake, told):
    locks = launcher.root / "locks"
    locks.mkdir(parents=True)
    with (locks / "grpo-s0").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert launcher.run(JOBS) == []
    assert "grpo-s0: another process is at it, left to it" in told
    assert not any("grpo" in key for key in fake.keys)
    assert launcher.run(JOBS) == []
    assert set(fake.keys) == EVERYTHING


def test_other_options_in_the_same_folder_are_refused(launcher, fake, told):
    launcher.run(JOBS[:1])
    other = Launcher(
        launcher.root, ReproduceConfig(samples=2), tell=told.append, program=fake.words
    )
    with pytest.raises(UsageError, match="--samples"):
        other.run(JOBS)


def test_ctrl_c_stops_the_running_processes_and_begins_no_other(launcher, fake, told):
    fake.order({"runs/grpo-s0": "hang"})
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    watcher = threading.Thread(target=_interrupt_once, args=(fake.folder / "hanging",))
    watcher.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            launcher.run(JOBS[1:])
    finally:
        signal.signal(signal.SIGINT, before)
        watcher.join()
    assert (fake.folder / "stopped").read_text() == "runs/grpo-s0"
    assert fake.keys == ["runs/grpo-s0"]
    assert any("train stopped after" in line for line in told)
    fake.order({})
    again = Launcher(launcher.root, launcher.config, tell=told.append, program=fake.words)
    assert again.run(JOBS[1:]) == []
    assert fake.keys[1:] == [key for key in fake.keys[1:] if "grpo" in key]
    assert len(fake.keys) == 5


def _interrupt_once(sign):
    for _ in range(300):
        if sign.exists():
            os.kill(os.getpid(), signal.SIGINT)
            return
        time.sleep(0.1)


def test_the_reason_of_a_failure_is_its_error_line(tmp_path):
    log = tmp_path / "log"
    log.write_text("step 1\nerror: it broke\nhint:  mend it\n\n")
    assert last_line(log) == "error: it broke"
    log.write_text("Traceback\nValueError: no\n")
    assert last_line(log) == "ValueError: no"
    log.write_text("")
    assert last_line(log) == "nothing was said"


def test_a_run_that_was_removed_is_made_again(launcher, fake):
    launcher.run(JOBS)
    shutil.rmtree(launcher.root / "sampled" / "base-s0")
    before = len(fake.calls)
    assert launcher.run(JOBS) == []
    assert fake.keys[before:] == ["sampled/base-s0"]
