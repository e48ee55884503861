"""The sides of analyze.py must have found the same numbers before a time is told."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("analyze_tables")


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"a": []}, {"a": []}),
        ({"a": [0.0]}, {"a": [0.0]}),
        ({"a": [1000.0, 1.0]}, {"a": [1000.0, 1.0005]}),
        ({"paper curve": [1.0]}, {"paper curve": [1.0009]}),
    ],
)
def test_numbers_agree_within_the_tolerance(
    tables: ModuleType, ours: dict[str, list[float]], theirs: dict[str, list[float]]
) -> None:
    assert tables.disagreement(ours, theirs, 1e-6) is None


@pytest.mark.parametrize(
    ("ours", "theirs", "told"),
    [
        ({"a": [1.0]}, {"b": [1.0]}, "only one side has ['a', 'b']"),
        ({"a": [1.0]}, {"a": [1.0, 2.0]}, "a: 1 values against 2"),
        ({"a": [2.0]}, {"a": [2.5]}, "a differs by 0.5, of 2"),
        ({"a": [0.0]}, {"a": [1e-12]}, "a differs by 1e-12, of 0"),
        ({"paper curve": [1.0]}, {"paper curve": [1.125]}, "paper curve differs by 0.125, of 1"),
    ],
)
def test_what_differs_is_named(
    tables: ModuleType, ours: dict[str, list[float]], theirs: dict[str, list[float]], told: str
) -> None:
    assert tables.disagreement(ours, theirs, 1e-6) == told


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("sides", ["ours", "theirs", "both"])
def test_nan_agrees_with_nothing(tables: ModuleType, place: int, sides: str) -> None:
    whole = [1.0, 2.0, 3.0]
    broken = [math.nan if index == place else value for index, value in enumerate(whole)]
    ours = whole if sides == "theirs" else broken
    theirs = whole if sides == "ours" else broken
    assert tables.disagreement({"a": ours}, {"a": theirs}, 1e-6) is not None
