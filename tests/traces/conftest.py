from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def golden() -> ModuleType:
    """The module with the golden run's rows as plain Python values, and `write(path)`."""
    spec = importlib.util.spec_from_file_location("golden_make", GOLDEN / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def golden_path() -> Path:
    return GOLDEN / "v1"


@pytest.fixture(scope="session")
def rollout_row() -> Callable[..., dict[str, Any]]:
    """A row with every required column of rollouts, whatever else is given on top."""

    def row(**values: Any) -> dict[str, Any]:
        base = {
            "step": None,
            "prompt_id": "a",
            "rollout_id": 0,
            "text": "x",
            "finish_reason": "stop",
            "reward": 1.0,
            "correct": True,
            "extracted": None,
            "verifier": "fake",
            "verify_status": "ok",
            "ids_source": "sampled",
            "seed": 0,
        }
        return base | values

    return row


@pytest.fixture(scope="session")
def score_row() -> Callable[..., dict[str, Any]]:
    """A row with every required column of scores, whatever else is given on top."""

    def row(**values: Any) -> dict[str, Any]:
        base = {
            "step": None,
            "prompt_id": "a",
            "rollout_id": 0,
            "advantage": 0.0,
            "q": 1.0,
            "num_correct": 1,
            "tau": 0.5,
            "retained": 1.0,
            "thr": [0.5, 1.0],
            "entropy": [0.25, 0.75],
            "logprob": [-0.25, -0.75],
        }
        return base | values

    return row
