"""A training run as `train` leaves it, with a good early checkpoint and a worse final model."""

from __future__ import annotations

import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM

from thr_probe.lab import policy_directory


@pytest.fixture(scope="session")
def training_run(tmp_path_factory):
    """Checkpoints of steps 2 (the policy of the lab) and 4, which is also the final model."""
    path = tmp_path_factory.mktemp("trained") / "run"
    (path / "checkpoints").mkdir(parents=True)
    (path / "metrics.jsonl").write_text("")
    (path / "config.toml").write_text('model = "lab"\nmax_new_tokens = 40\n')
    first = path / "checkpoints" / "step-000002" / "model"
    shutil.copytree(policy_directory(), first)
    model = AutoModelForCausalLM.from_pretrained(first, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            generator = torch.Generator().manual_seed(0)
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    for folder in (path / "model", path / "checkpoints" / "step-000004" / "model"):
        shutil.copytree(policy_directory(), folder)
        model.save_pretrained(folder)
    return path
