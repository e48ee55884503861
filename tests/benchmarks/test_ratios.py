"""The guard of the benchmarks: ratios are kept by name and compared in the right direction."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def ratios(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("ratios")


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("check")


def test_ratios_are_merged_sorted_and_rounded(ratios: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "ratios.json"
    ratios.keep(path, {"b.speed": 1.23456, "a.share": 0.0123456})
    ratios.keep(path, {"b.speed": 2345.6, "c.speed": 1})
    assert list(json.loads(path.read_text()).items()) == [
        ("a.share", 0.0123),
        ("b.speed", 2350.0),
        ("c.speed", 1.0),
    ]
    assert ratios.read(path)["a.share"] == 0.0123


def test_no_file_holds_no_ratio(ratios: ModuleType, tmp_path: Path) -> None:
    assert ratios.read(tmp_path / "none.json") == {}


@pytest.mark.parametrize(
    ("name", "committed", "now", "is_worse"),
    [
        ("head.lab.forward.speed", 3.0, 2.1, False),
        ("head.lab.forward.speed", 3.0, 1.9, True),
        ("head.lab.forward.speed", 3.0, 9.0, False),
        ("head.lab.forward.memory_share", 0.1, 0.16, True),
        ("head.lab.forward.memory_share", 0.1, 0.01, False),
        ("collect.overhead", 0.02, 0.035, False),
        ("collect.overhead", 0.02, 0.045, True),
        ("startup.help_over_typer", 1.5, 2.0, True),
    ],
)
def test_a_ratio_is_worse_beyond_what_its_rule_allows(
    check: ModuleType, name: str, committed: float, now: float, is_worse: bool
) -> None:
    (finding,) = check.compare({name: committed}, {name: now})
    assert finding.is_worse is is_worse


def test_a_ratio_of_one_side_is_named_and_not_compared(check: ModuleType) -> None:
    findings = check.compare({"head.a": 1.0}, {"head.b": 2.0})
    assert [(finding.name, finding.factor) for finding in findings] == [
        ("head.a", None),
        ("head.b", None),
    ]
    assert not any(finding.is_worse for finding in findings)


def test_a_ratio_that_fell_to_nothing_is_worse(check: ModuleType) -> None:
    (finding,) = check.compare({"head.a": 1.0}, {"head.a": 0.0})
    assert finding.is_worse
