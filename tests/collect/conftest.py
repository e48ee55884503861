"""One uninterrupted run and one other checkpoint, made once."""

from __future__ import annotations

import shutil

import pytest
import torch
from lab_runs import CONFIG
from transformers import AutoModelForCausalLM

from thr_probe.collect import collect
from thr_probe.lab import policy_directory


@pytest.fixture(scope="session")
def lab_run(tmp_path_factory):
    """One short uninterrupted run of the lab; not to be changed."""
    path = tmp_path_factory.mktemp("collect") / "run"
    assert collect(CONFIG, path, argv=["thr-probe"])
    return path


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """The lab policy after a small step away: another checkpoint with the same tokenizer."""
    folder = tmp_path_factory.mktemp("checkpoint") / "step-1"
    shutil.copytree(policy_directory(), folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.01)
    model.save_pretrained(folder)
    return folder
