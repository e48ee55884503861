"""One small random group for each kind of head."""

from __future__ import annotations

import pytest
from cases import HEADS, Case, make_case


@pytest.fixture(params=list(HEADS))
def case(request) -> Case:
    return make_case(request.param)


@pytest.fixture
def plain_case() -> Case:
    return make_case("plain")
