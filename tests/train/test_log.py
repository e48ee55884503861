"""Sinks: the journal always, TensorBoard and W&B beside it, never instead of it."""

from __future__ import annotations

import json
import sys
from types import ModuleType

import pytest
from numpy.testing import assert_allclose

from thr_probe.errors import PrerequisiteError
from thr_probe.traces.metrics import truncate_metrics
from thr_probe.train.log import Sinks


class FakeWandbError(Exception):
    """What the package raises."""


class FakeWandbRun:
    """Keeps what it is given."""

    def __init__(self, options):
        self.options = options
        self.id = options["id"] or "abc123"
        self.logged = []
        self.axes = {}
        self.failing = self.finished = False

    def define_metric(self, name, step_metric=None):
        self.axes[name] = step_metric

    def log(self, values):
        if self.failing:
            raise FakeWandbError("the service is gone")
        self.logged.append(values)

    def finish(self):
        self.finished = True


@pytest.fixture
def wandb(monkeypatch):
    module = ModuleType("wandb")
    module.Error = FakeWandbError
    module.runs = []
    module.offline = True

    def init(**options):
        if not module.offline:
            raise FakeWandbError("no API key")
        module.runs.append(FakeWandbRun(options))
        return module.runs[-1]

    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def lines(run_path):
    return [json.loads(line) for line in (run_path / "metrics.jsonl").read_text().splitlines()]


def test_the_journal_holds_each_record_as_soon_as_it_is_given(tmp_path):
    sinks = Sinks(tmp_path)
    sinks.evaluated({"step": 0, "dataset": "lab:validation", "greedy_accuracy": 0.25})
    assert len(lines(tmp_path)) == 1
    sinks.step({"step": 0, "loss": 0.5})
    assert lines(tmp_path) == [
        {"kind": "eval", "step": 0, "dataset": "lab:validation", "greedy_accuracy": 0.25},
        {"kind": "step", "step": 0, "loss": 0.5},
    ]
    sinks.close()
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


@pytest.mark.parametrize(
    ("options", "extra"), [({"tensorboard": True}, "tensorboard"), ({"wandb": "mine"}, "wandb")]
)
def test_a_package_that_is_missing_is_told_before_the_first_record(
    tmp_path, monkeypatch, options, extra
):
    monkeypatch.setitem(sys.modules, extra, None)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(PrerequisiteError) as caught:
        Sinks(tmp_path, **options)
    assert f"--{extra} needs the package {extra}" in caught.value.message
    assert caught.value.hint == f'pip install "thr_probe[{extra}]"'
    assert list(tmp_path.iterdir()) == []


def test_wandb_gets_tagged_numbers_on_an_axis_of_finished_steps(tmp_path, wandb):
    run_path = tmp_path / "grpo"
    sinks = Sinks(run_path, wandb="thr", config={"p": -0.1})
    (run,) = wandb.runs
    assert {name: run.options[name] for name in ("project", "name", "dir", "config", "resume")} == {
        "project": "thr",
        "name": "grpo",
        "dir": str(run_path / "logs"),
        "config": {"p": -0.1},
        "resume": "allow",
    }
    assert run.axes == {"finished_steps": None, "*": "finished_steps"}
    sinks.step({"step": 0, "loss": 0.5, "gen": 2.0, "kl": float("nan")})
    sinks.evaluated({"step": 1, "dataset": "lab:validation", "greedy_accuracy": 0.25})
    assert run.logged == [
        {"train/loss": 0.5, "time/gen": 2.0, "finished_steps": 0},
        {"eval/lab:validation/greedy_accuracy": 0.25, "finished_steps": 1},
    ]
    sinks.close()
    assert run.finished


def test_a_resumed_run_continues_its_wandb_run(tmp_path, wandb):
    Sinks(tmp_path, wandb="thr")
    Sinks(tmp_path, wandb="thr")
    assert [run.options["id"] for run in wandb.runs] == [None, "abc123"]


def test_wandb_that_cannot_start_is_told_with_the_way_offline(tmp_path, wandb):
    wandb.offline = False
    with pytest.raises(PrerequisiteError, match="cannot start: no API key") as caught:
        Sinks(tmp_path, wandb="thr")
    assert "WANDB_MODE=offline" in (caught.value.hint or "")


def test_wandb_that_fails_later_is_left_and_the_journal_goes_on(tmp_path, wandb):
    sinks = Sinks(tmp_path, wandb="thr")
    wandb.runs[0].failing = True
    with pytest.warns(UserWarning, match="gets no more records: the service is gone"):
        sinks.step({"step": 0})
    sinks.step({"step": 1})
    sinks.close()
    assert [record["step"] for record in lines(tmp_path)] == [0, 1]


def scalars(run_path):
    module = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = module.EventAccumulator(str(run_path / "tensorboard"))
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


@pytest.mark.filterwarnings("ignore")
def test_tensorboard_shows_each_step_once_after_a_resume(tmp_path):
    pytest.importorskip("tensorboard")
    for first, last in ((0, 4), (2, 6)):
        truncate_metrics(tmp_path, first)
        sinks = Sinks(tmp_path, tensorboard=True)
        for number in range(first, last):
            sinks.step({"step": number, "loss": number / 2, "gen": 1.0})
            if number == 3:
                sinks.evaluated({"step": 4, "dataset": "d", "greedy_accuracy": 0.5})
        sinks.close()
    found = scalars(tmp_path)
    assert sorted(found) == ["eval/d/greedy_accuracy", "time/gen", "train/loss"]
    assert_allclose(found["train/loss"], [(number, number / 2) for number in range(6)])
    assert found["eval/d/greedy_accuracy"] == [(4, 0.5)]


@pytest.mark.filterwarnings("ignore")
def test_the_real_wandb_writes_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    sinks = Sinks(tmp_path, wandb="thr", config={"p": 0.1})
    sinks.step({"step": 0, "loss": 0.5})
    sinks.close()
    assert list((tmp_path / "logs" / "wandb").glob("offline-run-*/*.wandb"))
    again = Sinks(tmp_path, wandb="thr")
    again.step({"step": 1, "loss": 0.5})
    again.close()
    assert [record["step"] for record in lines(tmp_path)] == [0, 1]
