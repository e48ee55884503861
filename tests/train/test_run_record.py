"""What a run says of itself: its manifest after a resume, and what each process tells."""

from __future__ import annotations

import dataclasses
import warnings

import pytest
from train_runs import StopAfter, config_of

from thr_probe.processes import World
from thr_probe.progress import TrainMonitor
from thr_probe.traces import RunStatus, read_manifest
from thr_probe.traces.manifest import write_manifest
from thr_probe.train import engine
from thr_probe.train.engine import train


def test_a_resumed_run_keeps_the_record_of_how_it_was_started(tmp_path):
    config, path = config_of(steps=2, validation="none", save_every=1), tmp_path / "r"
    assert not train(config, path, argv=["first"], monitor=StopAfter(1))
    started = read_manifest(path)
    older = dataclasses.replace(started, versions=started.versions | {"torch": "1.0"})
    write_manifest(path, older)
    assert train(config, path, resume=True, argv=["second"])
    ended = read_manifest(path)
    assert (ended.argv, ended.versions) == (("first",), older.versions)
    assert ended.status is RunStatus.COMPLETE
    assert ended.counts == started.counts | {"parts": 2, "completions": 2 * 4 * 4}


class Watching(TrainMonitor):
    """Keeps the names of what it is told and asked."""

    def __init__(self):
        self.told, self.asked = set(), 0

    def begin(self, num_steps, done=0):
        self.told.add("begin")

    def phase(self, name):
        self.told.add("phase")

    def step(self, record):
        self.told.add("step")

    def evaluated(self, record):
        self.told.add("evaluated")

    def should_stop(self):
        self.asked += 1
        return False


class Later(World):
    """Does all the work of a run, but is not its first process."""

    is_first = False


@pytest.mark.parametrize("kind", [World, Later])
def test_only_the_first_process_tells_what_it_does_and_all_may_stop(kind, tmp_path, monkeypatch):
    world, is_first = kind(rank=0, size=1, local_rank=0), kind is World
    monkeypatch.setattr(engine.World, "from_environment", lambda: world)
    monkeypatch.setattr(engine, "save_checkpoint", lambda *_, **__: None)
    config, monitor = config_of(steps=2, temperature=0.9, trace_every=0), Watching()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert train(config, tmp_path / "r", monitor=monitor)
    assert monitor.told == ({"begin", "phase", "step", "evaluated"} if is_first else set())
    assert monitor.asked == 2
    assert any("--temperature 0.9" in str(item.message) for item in caught) == is_first
