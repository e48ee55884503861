"""A policy without its weights is the policy, as far as a run that only samples can tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import save_file
from tiny_models import tiny_policy

from thr_probe.policy import UnloadedPolicy, load_policy, load_unloaded, save_policy
from thr_probe.policy.unloaded import files_digest

SHARED = (
    "weights_digest",
    "tokenizer_digest",
    "max_length",
    "eos_ids",
    "name",
    "revision",
    "dtype",
    "device",
)


def saved(folder: Path, family: str, **options: Any) -> Path:
    policy = tiny_policy(family)
    save_policy(policy, folder)
    if options:
        for file in folder.glob("*.safetensors"):
            file.unlink()
        cast("Any", policy.model).save_pretrained(folder, **options)
    return folder


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_has_what_the_loaded_policy_has(tmp_path, family, dtype):
    folder = str(saved(tmp_path / "model", family))
    given = {"device": "cpu", "dtype": dtype}
    light, whole = load_unloaded(folder, **given), load_policy(folder, **given)
    assert isinstance(light, UnloadedPolicy)
    for name in SHARED:
        assert getattr(light, name) == getattr(whole, name), name
    ids = whole.encode_prompt("the ab in the")
    assert light.encode_prompt("the ab in the") == ids
    assert light.decode(ids) == whole.decode(ids)
    assert light.token_rows(ids) == whole.token_rows(ids)


def test_the_digest_does_not_depend_on_how_the_files_are_cut(tmp_path):
    whole = files_digest(saved(tmp_path / "one", "llama"), torch.float32)
    cut = saved(tmp_path / "many", "llama", max_shard_size="20KB")
    assert len(list(cut.glob("*.safetensors"))) > 1
    assert files_digest(cut, torch.float32) == whole


@pytest.mark.parametrize("shape", [(), (3,), (700,), (2, 1000), (600, 3), (5, 7, 90), (0, 4)])
def test_the_digest_reads_the_same_numbers_whatever_the_shape(tmp_path, shape):
    torch.manual_seed(0)
    weight = torch.randn(shape)
    save_file({"w": weight}, tmp_path / "model.safetensors")
    first = files_digest(tmp_path, torch.float32)
    assert first == _expected(weight)
    if weight.numel():
        weight.view(-1)[-1] += 1
        save_file({"w": weight}, tmp_path / "model.safetensors")
        assert files_digest(tmp_path, torch.float32) != first


def _expected(weight: torch.Tensor) -> str:
    """As `Policy.weights_digest`, of a model with one weight."""
    model = torch.nn.Module()
    model.register_parameter("w", torch.nn.Parameter(weight))
    policy = tiny_policy("llama")
    kept, policy.model = policy.model, cast("Any", model)
    try:
        return policy.weights_digest
    finally:
        policy.model = kept


def test_without_files_there_is_no_digest(tmp_path):
    assert files_digest(tmp_path, torch.float32) is None
    assert files_digest(tmp_path / "none", torch.float32) is None
