"""The fake server of the tests of the sampler over one."""

from __future__ import annotations

import pytest
from fake_server import FakeModel, FakeServer
from server_cases import EOS, TOKENIZER


@pytest.fixture
def calm(monkeypatch):
    for name in ("OPENAI_API_KEY", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("thr_probe.sampling.server.FIRST_PAUSE", 0.01)


@pytest.fixture
def fake():
    with FakeServer(FakeModel(TOKENIZER, eos_id=EOS)) as server:
        yield server
