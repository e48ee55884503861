"""vLLM for these tests: one engine in this process, on the lab's policy, for all of them."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# read when vLLM is imported
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    own = [item for item in items if Path(item.path).parent == Path(__file__).parent]
    spec = importlib.util.find_spec("vllm")
    missing = spec is None or spec.origin is None
    for item in own:
        item.add_marker(pytest.mark.vllm)
        # vLLM and what it imports warn of their own affairs
        item.add_marker(pytest.mark.filterwarnings("ignore"))
        if missing:
            item.add_marker(pytest.mark.skip(reason="needs vLLM: make test-vllm"))


@pytest.fixture(scope="session")
def engine():
    """The lab's policy with an engine that samples from it: `.policy`, `.sampler`."""
    # imported here so that the shape checks of the pytest plugin are installed first
    config = importlib.import_module("thr_probe.config").CollectConfig(
        engine="vllm", device="cpu", max_new_tokens=128
    )
    world = importlib.import_module("thr_probe.processes").World(rank=0, size=1, local_rank=0)
    loaded = importlib.import_module("thr_probe.engine").load_engine(config, world, scores=True)
    yield loaded
    loaded.sampler.close()


@pytest.fixture
def fresh(engine) -> Iterator[object]:
    """The engine; the policy's weights are put back afterwards."""
    kept = {name: value.clone() for name, value in engine.policy.model.state_dict().items()}
    yield engine
    engine.policy.model.load_state_dict(kept)
    engine.sampler.renew()
