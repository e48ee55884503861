"""Shared by the tests of the trainer."""

from __future__ import annotations

import pytest
import torch
from trained_pairs import ALONE, trained


@pytest.fixture
def held():
    return trained(ALONE, "tied", numbers=[0], dtype=torch.float32)
