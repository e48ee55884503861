"""Loading policies, and what is said when that fails."""

from __future__ import annotations

import json
import shutil
import sys
import types

import pytest
import torch
from tiny_models import byte_tokenizer, tiny_model
from torch.testing import assert_close

from thr_probe.errors import DataError, PrerequisiteError, UsageError
from thr_probe.policy import load_policy
from thr_probe.policy.tokens import tokenizer_digest


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model directory as save_pretrained writes it."""
    folder = tmp_path_factory.mktemp("saved") / "tiny"
    tiny_model("qwen2", dtype=torch.float32).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def copied(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "tiny")


def edit(path, **changes):
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def test_a_saved_model_loads_with_the_weights_and_the_tokenizer_it_was_saved_with(saved):
    policy = load_policy(str(saved), device="cpu")
    original = tiny_model("qwen2", dtype=torch.float32)
    assert_close(dict(policy.model.state_dict()), dict(original.state_dict()), rtol=0, atol=0)
    assert policy.tokenizer_digest == tokenizer_digest(byte_tokenizer())
    assert (policy.family, policy.dtype, policy.device.type) == ("qwen2", torch.float32, "cpu")
    assert (policy.name, policy.revision, policy.eos_ids) == (str(saved), None, (1,))
    assert not policy.model.training


def test_dtype_bfloat16_is_taken(saved):
    assert load_policy(str(saved), device="cpu", dtype="bfloat16").dtype == torch.bfloat16


def test_auto_means_float32_on_the_cpu_and_bfloat16_on_cuda(saved, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    policy = load_policy(str(saved))
    assert (policy.device.type, policy.dtype) == ("cpu", torch.float32)


def test_all_end_of_sequence_ids_of_the_generation_config_count(copied):
    edit(copied / "generation_config.json", eos_token_id=[7, 9])
    assert load_policy(str(copied), device="cpu").eos_ids == (1, 7, 9)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"device": "tpu"}, "unknown device 'tpu'; choose auto, cpu or cuda"),
        ({"dtype": "int8"}, "unknown dtype 'int8'; choose auto, float32 or bfloat16"),
    ],
)
def test_unknown_options_are_usage_errors(saved, options, sentence):
    with pytest.raises(UsageError, match=sentence):
        load_policy(str(saved), **({"device": "cpu"} | options))


def test_cuda_without_a_gpu_is_said(saved, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(PrerequisiteError, match="torch finds no CUDA GPU"):
        load_policy(str(saved), device="cuda")


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/folder", "~/nowhere/at/all", "a b"])
def test_a_directory_that_is_not_there_is_said(name):
    with pytest.raises(PrerequisiteError, match="no model directory at") as caught:
        load_policy(name)
    assert "hub id" in caught.value.hint


@pytest.mark.parametrize("name", ["nobody-here/no-such-model", "nosuchmodel"])
def test_a_hub_id_that_cannot_be_fetched_is_said(name):
    with pytest.raises(PrerequisiteError, match=f"cannot load the config of '{name}'") as caught:
        load_policy(name)
    assert "offline" in caught.value.hint


def test_a_directory_without_config_is_said(tmp_path):
    with pytest.raises(DataError, match=r"holds no config\.json"):
        load_policy(str(tmp_path))


def test_an_adapter_given_as_the_model_is_recognised(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(DataError, match=r"no config\.json") as caught:
        load_policy(str(tmp_path))
    assert "--adapter" in caught.value.hint


def test_a_broken_config_is_said(copied):
    (copied / "config.json").write_text("{ not json")
    with pytest.raises(DataError, match="cannot load the config"):
        load_policy(str(copied))


def test_a_model_that_is_no_causal_language_model_is_said(copied):
    (copied / "config.json").write_text(json.dumps({"model_type": "t5"}))
    with pytest.raises(DataError, match="'t5' model: transformers has no causal language model"):
        load_policy(str(copied))


def test_code_in_a_model_directory_is_never_run(copied):
    marker = copied / "ran"
    (copied / "odd.py").write_text(
        f"open({str(marker)!r}, 'w').close()\n"
        "from transformers import PreTrainedConfig\n"
        "class OddConfig(PreTrainedConfig):\n    model_type = 'odd'\n"
    )
    auto_map = {"AutoConfig": "odd.OddConfig", "AutoModelForCausalLM": "odd.OddConfig"}
    (copied / "config.json").write_text(json.dumps({"model_type": "odd", "auto_map": auto_map}))
    with pytest.raises(DataError, match="cannot load the config"):
        load_policy(str(copied))
    assert not marker.exists()


def test_missing_tokenizer_files_are_said(copied):
    (copied / "tokenizer.json").unlink()  # tokenizer_config.json still names a class
    for _ in range(2):
        with pytest.raises(DataError) as caught:
            load_policy(str(copied))
        assert caught.value.message == f"{copied} has no tokenizer files"
        assert "tokenizer.json" in caught.value.hint
        (copied / "tokenizer_config.json").unlink(missing_ok=True)


def test_a_tokenizer_file_that_cannot_be_read_is_not_called_missing(copied):
    (copied / "tokenizer.json").write_text("{")
    with pytest.raises(DataError, match="cannot load the tokenizer of") as caught:
        load_policy(str(copied))
    assert not caught.value.message.endswith(":")
    assert "save_pretrained" in caught.value.hint


def test_a_tokenizer_file_that_stands_for_itself_is_not_split_like_its_models_family(copied):
    text = "The sum is 17 + 25 = 42.\n"
    policy = load_policy(str(copied), device="cpu")
    assert policy.encode_prompt(text) == byte_tokenizer().encode(text)
    assert len(policy.tokenizer) == len(byte_tokenizer())


def test_a_tokenizer_without_end_of_sequence_is_said(copied):
    edit(copied / "tokenizer_config.json", eos_token=None)
    with pytest.raises(DataError, match="names no end-of-sequence token"):
        load_policy(str(copied))


def test_a_tokenizer_of_another_vocabulary_is_said(copied):
    tiny_model("qwen2", vocab_size=200, dtype=torch.float32).save_pretrained(copied)
    with pytest.raises(DataError, match="ids up to 265, the model 200 rows"):
        load_policy(str(copied))


def test_missing_weight_files_are_said(copied):
    (copied / "model.safetensors").unlink()
    with pytest.raises(DataError, match="cannot load the weights"):
        load_policy(str(copied))


def test_truncated_weights_are_said(copied):
    path = copied / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DataError, match="cannot load the weights"):
        load_policy(str(copied))


def test_weights_that_would_be_filled_with_random_numbers_are_said(copied):
    edit(copied / "config.json", num_hidden_layers=3, layer_types=None)
    with pytest.raises(DataError, match=r"12 weights are missing.*model.layers.2"):
        load_policy(str(copied))


def test_an_adapter_without_peft_names_what_to_install(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(PrerequisiteError, match="needs the package peft") as caught:
        load_policy(str(saved), device="cpu", adapter="somewhere/adapter")
    assert caught.value.hint == 'pip install "thr_probe[lora]"'


def fake_peft(change):
    """The two calls of peft that are used: the adapter adds `change` to the unembedding."""

    class PeftModel:
        def __init__(self, model):
            self.model = model

        @classmethod
        def from_pretrained(cls, model, adapter):
            if adapter == "no/adapter":
                raise ValueError("Can't find 'adapter_config.json'")
            return cls(model)

        def merge_and_unload(self):
            self.model.lm_head.weight.data += change
            return self.model

    module = types.ModuleType("peft")
    module.PeftModel = PeftModel
    return module


def test_an_adapter_is_merged_into_the_weights(saved, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", fake_peft(0.25))
    policy = load_policy(str(saved), device="cpu", adapter=str(tmp_path))
    original = tiny_model("qwen2", dtype=torch.float32).lm_head.weight
    assert_close(policy.head().weight_VD, original.detach() + 0.25)


@pytest.mark.parametrize(
    ("adapter", "sentence"),
    [("./nowhere", "no adapter directory"), ("no/adapter", "cannot load the adapter")],
)
def test_an_adapter_that_cannot_be_found_is_said(saved, monkeypatch, adapter, sentence):
    monkeypatch.setitem(sys.modules, "peft", fake_peft(0))
    with pytest.raises(PrerequisiteError, match=sentence):
        load_policy(str(saved), device="cpu", adapter=adapter)
