"""The phases of a step add up; time outside of them is wall time only."""

from __future__ import annotations

import pytest
import torch

from thr_probe.train import clock as clock_file
from thr_probe.train.clock import PHASES, Clock


@pytest.fixture
def now(monkeypatch):
    """A time that tests turn on by hand."""
    time = [100.0]
    monkeypatch.setattr(clock_file.time, "perf_counter", lambda: time[0])
    return time


def test_phases_are_those_of_table_10_and_add_up_to_the_total(now):
    clock = Clock(torch.device("cpu"))
    for phase, seconds in (("gen", 3.0), ("thr", 0.5), ("update", 2.0), ("update", 4.0)):
        now[0] += 0.25
        with clock.measure(phase):
            now[0] += seconds
    record = clock.record()
    assert list(record) == [*PHASES, "total", "wall"]
    assert record == {
        "gen": 3.0,
        "update": 6.0,
        "thr": 0.5,
        "ref": 0.0,
        "old": 0.0,
        "total": 9.5,
        "wall": 10.5,
    }


def test_an_unknown_phase_is_a_mistake(now):
    with pytest.raises(KeyError), Clock(torch.device("cpu")).measure("lunch"):
        now[0] += 1.0


def test_a_phase_that_fails_is_not_counted(now):
    clock = Clock(torch.device("cpu"))
    with pytest.raises(ValueError, match="no"), clock.measure("gen"):
        raise ValueError("no")
    assert clock.record()["total"] == 0.0


@pytest.mark.gpu
def test_on_cuda_a_phase_ends_when_its_kernels_have():
    device = torch.device("cuda")
    clock = Clock(device)
    with clock.measure("update"):
        torch.cuda._sleep(200_000_000)
    assert clock.seconds["update"] > 0.02
