"""Load a policy from the lab, a directory or the hub; what can go wrong, in sentences."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING
from transformers.models.auto.tokenization_auto import get_tokenizer_config
from transformers.utils import logging as transformers_logging

from thr_probe import lab
from thr_probe.errors import DataError, PrerequisiteError, UsageError
from thr_probe.policy.policy import Policy, as_policy

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
GENERIC = {"PreTrainedTokenizerFast", "TokenizersBackend"}
"""Tokenizer classes that add nothing to tokenizer.json."""

LOADING_ERRORS = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    ImportError,
    RuntimeError,
    SafetensorError,
    UnpicklingError,
)
"""What transformers is known to raise for files that are missing, broken or foreign."""

VOCABULARY_FILES = ("tokenizer.*", "vocab.*", "*.model", "*.tiktoken", "tekken.json", "*.vocab")
TOKENIZER_HINT = "save the tokenizer into the same directory (tokenizer.json)"

LAB = "lab"


def load_policy(
    model: str,
    *,
    device: str = "auto",
    dtype: str = "auto",
    revision: str | None = None,
    adapter: str | None = None,
) -> Policy:
    """Load a causal language model with its tokenizer and check how its logits come about.

    Code from model repositories is never run (`trust_remote_code` stays False).

    Args:
        model: "lab" (the policy in the package), a model directory, or a hub id.
        device: `auto` (CUDA where there is one), `cpu`, `cuda` or `cuda:N`.
        dtype: `auto` (bfloat16 on CUDA, float32 on CPU), `float32` or `bfloat16`.
        revision: branch, tag or commit on the hub.
        adapter: directory or hub id of a LoRA adapter, merged into the weights; needs `peft`.

    Raises:
        UsageError: an unknown device or dtype.
        PrerequisiteError: the model cannot be found or fetched, its family is refused, no CUDA,
            `peft` is missing.
        DataError: a directory that holds no complete causal language model with its tokenizer.
    """
    place = resolve_device(device)
    precision = resolve_dtype(dtype, place)
    source = model_source(model)
    config = read_config(source, model, revision)
    tokenizer = read_tokenizer(source, model, revision)
    network = _weights(source, model, config, precision, revision)
    if adapter is not None:
        network = merge_adapter(network, adapter)
    return as_policy(
        cast("Any", network).to(place),
        tokenizer,
        name=model,
        revision=getattr(config, "_commit_hash", None) or revision,
    )


def resolve_device(device: str) -> torch.device:
    """The torch device of an option value.

    Raises:
        UsageError: another word than auto, cpu, cuda, cuda:N.
        PrerequisiteError: CUDA asked for and not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise UsageError(f"unknown device {device!r}; choose auto, cpu or cuda")
    if device != "cpu" and not torch.cuda.is_available():
        raise PrerequisiteError(
            "device cuda was asked for, but torch finds no CUDA GPU",
            hint="use --device cpu, or install a CUDA build of torch",
        )
    return torch.device(device)


def resolve_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """The weights' dtype of an option value.

    Raises:
        UsageError: another word than auto, float32, bfloat16.
    """
    if dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if dtype not in DTYPES:
        raise UsageError(f"unknown dtype {dtype!r}; choose auto, {' or '.join(DTYPES)}")
    return DTYPES[dtype]


def model_source(model: str) -> str:
    """What transformers is given: the lab's directory, a checked local directory, or a hub id.

    Raises:
        PrerequisiteError: no such directory, and not the form of a hub id either.
        DataError: a directory without config.json.
    """
    folder = lab.policy_directory() if model == LAB else Path(model).expanduser()
    if not folder.is_dir():
        if model == LAB or folder.exists() or not HUB_ID.fullmatch(model):
            raise PrerequisiteError(
                f"no model directory at {folder}",
                hint='give "lab", a directory with config.json, or a hub id such as org/name',
            )
        return model
    if not (folder / "config.json").is_file():
        is_adapter = (folder / "adapter_config.json").is_file()
        raise DataError(
            f"{folder} holds no config.json: it is not a model directory",
            hint="this is an adapter: give its base model, and this directory with --adapter"
            if is_adapter
            else "a model directory is what save_pretrained writes",
        )
    return str(folder)


@contextmanager
def _explained(model: str, part: str) -> Iterator[None]:
    """Turn what transformers raises while loading into one sentence."""
    try:
        yield
    except LOADING_ERRORS as error:
        first = next((line for line in str(error).splitlines() if line.strip()), "").strip()
        if first.endswith(":"):  # what it announces stands in the lines that follow
            first = " ".join(str(error).split())
        reason = f"{type(error).__name__}: {first[:300]}"
        if model == LAB or Path(model).expanduser().is_dir():
            raise DataError(
                f"cannot load the {part} of {model}: {reason}",
                hint="the directory must hold all that save_pretrained writes",
            ) from error
        raise PrerequisiteError(
            f"cannot load the {part} of {model!r}, which is no local directory, from the hub: "
            f"{reason}",
            hint="check the spelling and the connection; a gated model needs HF_TOKEN; offline, "
            "give a local directory",
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bar and no advice from transformers while it loads or saves."""
    verbosity = transformers_logging.get_verbosity()
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if shown:
            transformers_logging.enable_progress_bar()


def read_config(source: str, model: str, revision: str | None) -> PreTrainedConfig:
    """The config of a causal language model.

    Args:
        source: what transformers is given.
        model: what the user said, for messages.
        revision: on the hub.

    Raises:
        PrerequisiteError: it cannot be found or fetched.
        DataError: it is broken, or of a model of another kind.
    """
    with _explained(model, "config"), quiet():
        config: PreTrainedConfig = AutoConfig.from_pretrained(
            source, revision=revision, trust_remote_code=False
        )
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise DataError(
            f"{model} is a {config.model_type!r} model: transformers has no causal language model "
            "for it",
            hint="THR is defined for models that predict the next token",
        )
    return config


def read_tokenizer(source: str, model: str, revision: str | None) -> PreTrainedTokenizerBase:
    """The tokenizer of a model directory or hub id.

    Args:
        source: what transformers is given.
        model: what the user said, for messages.
        revision: on the hub.

    Raises:
        PrerequisiteError: it cannot be found or fetched.
        DataError: it is broken, or has no end-of-sequence token.
    """
    with _tokenizer_files_named(source, model), _explained(model, "tokenizer"), quiet():
        declared = get_tokenizer_config(source, revision=revision).get("tokenizer_class")
        # AutoTokenizer would put the family's own splitting (Qwen2's) over a tokenizer.json that
        # says it stands for itself, and every number would be cut differently than in training
        loader: Any = PreTrainedTokenizerFast if declared in GENERIC else AutoTokenizer
        tokenizer = loader.from_pretrained(source, revision=revision, trust_remote_code=False)
    with _tokenizer_files_named(source, model):
        if not isinstance(tokenizer, PreTrainedTokenizerBase) or _is_hollow(tokenizer):
            raise DataError(f"{model} has no usable tokenizer", hint=TOKENIZER_HINT)
    if tokenizer.eos_token_id is None:
        raise DataError(
            f"the tokenizer of {model} names no end-of-sequence token (eos_token)",
            hint="set eos_token in its tokenizer_config.json",
        )
    return tokenizer


@contextmanager
def _tokenizer_files_named(source: str, model: str) -> Iterator[None]:
    """Say that tokenizer files are missing where that is why a tokenizer did not load.

    Asked only afterwards: some tokenizers (of bytes) need no vocabulary file.
    """
    try:
        yield
    except DataError as error:
        folder = Path(source)
        is_local = folder.is_dir()
        if not is_local or any(file for name in VOCABULARY_FILES for file in folder.glob(name)):
            raise
        raise DataError(f"{model} has no tokenizer files", hint=TOKENIZER_HINT) from error


def _is_hollow(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Without tokenizer files transformers makes up a tokenizer of special tokens only."""
    return len(tokenizer) <= len(tokenizer.all_special_tokens)


def _weights(
    source: str,
    model: str,
    config: PreTrainedConfig,
    precision: torch.dtype,
    revision: str | None,
) -> PreTrainedModel:
    loader: Any = AutoModelForCausalLM
    with _explained(model, "weights"), quiet():
        network, info = loader.from_pretrained(
            source,
            config=config,
            dtype=precision,
            revision=revision,
            trust_remote_code=False,
            output_loading_info=True,
        )
    missing = sorted(info["missing_keys"]) + sorted(str(key) for key in info["mismatched_keys"])
    if missing:
        raise DataError(
            f"{model}: {len(missing)} weights are missing or of the wrong shape, "
            f"{missing[0]} for one",
            hint="transformers would fill them with random numbers",
        )
    checked: PreTrainedModel = network
    return checked


def merge_adapter(network: PreTrainedModel, adapter: str) -> PreTrainedModel:
    """The model with a LoRA adapter merged into its weights.

    Raises:
        PrerequisiteError: `peft` is not installed, or the adapter cannot be found.
        DataError: the adapter does not fit the model.
    """
    try:
        peft: Any = importlib.import_module("peft")
    except ImportError as error:
        raise PrerequisiteError(
            "a LoRA adapter needs the package peft, which is not installed",
            hint='pip install "thr_probe[lora]"',
        ) from error
    folder = Path(adapter).expanduser()
    if not folder.is_dir() and not HUB_ID.fullmatch(adapter):
        raise PrerequisiteError(f"no adapter directory at {folder}")
    with _explained(adapter, "adapter"), quiet():
        merged: PreTrainedModel = peft.PeftModel.from_pretrained(
            network, str(folder) if folder.is_dir() else adapter
        ).merge_and_unload()
    return merged
