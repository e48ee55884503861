"""A saved policy is a model directory like any other; refusals of the system are told as such."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from tiny_models import tiny_policy
from transformers import AutoModelForCausalLM

from thr_probe.policy import load_policy, save_policy


def save_loaded(policy, folder):
    save_policy(policy, folder)
    return load_policy(str(folder), device="cpu", dtype="float32")


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("qwen2", {"tie_word_embeddings": True}),
        ("qwen2", {"tie_word_embeddings": False}),
        ("gemma2", {}),
        ("gpt2", {}),
    ],
)
def test_a_saved_policy_loads_as_it_was(family, changes, tmp_path):
    policy = tiny_policy(family, dtype=torch.float32, **changes)
    loaded = save_loaded(policy, tmp_path / "model")
    saved = dict(policy.model.named_parameters())
    assert saved.keys() == dict(loaded.model.named_parameters()).keys()
    for name, weight in loaded.model.named_parameters():
        torch.testing.assert_close(weight, saved[name], rtol=0, atol=0)
    assert loaded.rule == policy.rule
    assert loaded.eos_ids == policy.eos_ids
    assert loaded.tokenizer_digest == policy.tokenizer_digest
    assert loaded.encode_prompt("the ab é") == policy.encode_prompt("the ab é")


def test_transformers_alone_loads_it(tmp_path):
    policy = tiny_policy(dtype=torch.float32)
    save_policy(policy, tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = torch.arange(3, 12)[None]
    torch.testing.assert_close(model(input_ids=ids).logits, policy.model(input_ids=ids).logits)


def test_the_lab_policy_stays_the_lab_policy(tmp_path):
    policy = load_policy("lab", device="cpu", dtype="float32")
    loaded = save_loaded(policy, tmp_path)
    assert loaded.weights_digest == policy.weights_digest
    assert loaded.tokenizer_digest == policy.tokenizer_digest
    assert loaded.eos_ids == policy.eos_ids


@pytest.mark.parametrize("part", ["model", "tokenizer"])
@pytest.mark.parametrize("kind", [SafetensorError, Exception, OSError])
def test_the_systems_number_is_read_from_errors_of_rust(tmp_path, monkeypatch, part, kind):
    policy = tiny_policy()

    def refuse(_folder):
        if kind is OSError:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise kind("while serializing: No space left on device (os error 28)")

    monkeypatch.setattr(getattr(policy, part), "save_pretrained", refuse)
    with pytest.raises(OSError, match="No space left on device") as caught:
        save_policy(policy, tmp_path)
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.strerror == "No space left on device"


def test_another_error_is_not_taken_for_a_refusal(tmp_path, monkeypatch):
    policy = tiny_policy()

    def fail(_folder):
        raise SafetensorError("tensors share memory")

    monkeypatch.setattr(policy.model, "save_pretrained", fail)
    with pytest.raises(SafetensorError, match="tensors share memory"):
        save_policy(policy, tmp_path)


FULL = """
import subprocess, sys
from pathlib import Path
from tiny_models import tiny_policy
from thr_probe.errors import DataError
from thr_probe.train.checkpoint import export_model
disk, policy = Path(sys.argv[1]), tiny_policy("qwen2")
for size in sys.argv[2:]:
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        sys.exit(77)
    try:
        export_model(disk / "model", policy)
    except DataError as error:
        print(error.message.removeprefix(f"could not write {disk}/"), list(disk.iterdir()))
    subprocess.run(["umount", str(disk)], check=True)
"""


def test_a_disk_that_is_full_at_the_config_the_weights_and_the_tokenizer(tmp_path):
    # a mount that only this process sees, and that ends with it
    private = ["unshare", "--user", "--map-root-user", "--mount"]
    if not shutil.which("unshare") or subprocess.run([*private, "true"], check=False).returncode:
        pytest.skip("no private mounts on this machine")
    done = subprocess.run(
        [*private, sys.executable, "-c", FULL, str(tmp_path), "4", "20", "272"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )
    if done.returncode == 77:
        pytest.skip("no file system can be mounted on this machine")
    assert done.stdout.splitlines() == ["model: No space left on device []"] * 3, done.stderr
