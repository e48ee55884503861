"""Shared set-up: one thread, headless figures, real data where the machine has it."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    gpu_items = [item for item in items if item.get_closest_marker("gpu")]
    if not gpu_items:
        return
    import torch

    if not torch.cuda.is_available():
        for item in gpu_items:
            item.add_marker(pytest.mark.skip(reason="needs CUDA"))


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real benchmarks and rollouts, outside the project; tests that need it skip without it."""
    folder = os.environ.get("THR_PROBE_TEST_DATA")
    if not folder:
        pytest.skip("THR_PROBE_TEST_DATA is not set")
    return Path(folder)
