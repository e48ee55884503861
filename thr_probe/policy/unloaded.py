"""A policy whose weights another engine holds: its tokenizer, its limits, the digest of its files.

A run that only samples needs no more, so no weight is read twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import GenerationConfig, PreTrainedTokenizerBase

from thr_probe.policy.load import (
    model_source,
    read_config,
    read_tokenizer,
    resolve_device,
    resolve_dtype,
)
from thr_probe.policy.policy import Policy, context_limit, ending_ids, ends_of
from thr_probe.policy.tokens import (
    TokenRow,
    decode,
    encode_prompt,
    token_rows,
    tokenizer_digest,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnloadedPolicy:
    """What reads prompts and decodes completions; the names are those of `Policy`."""

    tokenizer: PreTrainedTokenizerBase
    """Of the same vocabulary."""
    name: str
    """What the user called it: "lab", a directory, a hub id."""
    revision: str | None
    """Commit on the hub, where known."""
    device: torch.device
    """Where the engine is to run."""
    dtype: torch.dtype
    """The weights' dtype in the engine."""
    max_length: int | None
    """Most tokens, prompt and completion together, that the model takes; None: no limit."""
    eos_ids: tuple[int, ...]
    """Ids that end a completion."""
    weights_digest: str | None
    """As `Policy.weights_digest`, from the files; None where they lie elsewhere."""

    @property
    def tokenizer_digest(self) -> str:
        """sha256 of the tokenizer's serialised state."""
        return tokenizer_digest(self.tokenizer)

    def encode_prompt(self, text: str) -> list[int]:
        """Ids of a prompt, with the tokenizer's own beginning-of-sequence token if it has one."""
        return encode_prompt(self.tokenizer, text)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of a completion, without special tokens."""
        return decode(self.tokenizer, ids)

    def token_rows(self, ids: Iterable[int]) -> list[TokenRow]:
        """(token_id, bytes, text) of each id."""
        return token_rows(self.tokenizer, ids)


AnyPolicy = Policy | UnloadedPolicy
"""What a run that only samples needs."""


def load_unloaded(
    model: str, *, device: str = "auto", dtype: str = "auto", revision: str | None = None
) -> UnloadedPolicy:
    """A policy without its weights.

    Args:
        model: "lab", a model directory, or a hub id.
        device: as of `load_policy`.
        dtype: as of `load_policy`.
        revision: branch, tag or commit on the hub.

    Raises:
        UsageError, PrerequisiteError, DataError: as `load_policy`.
    """
    place = resolve_device(device)
    precision = resolve_dtype(dtype, place)
    source = model_source(model)
    config = read_config(source, model, revision)
    tokenizer = read_tokenizer(source, model, revision)
    try:
        generation = GenerationConfig.from_pretrained(source, revision=revision or "main")
    except OSError:  # few models come without one
        generation = GenerationConfig.from_model_config(config)
    return UnloadedPolicy(
        tokenizer=tokenizer,
        name=model,
        revision=getattr(config, "_commit_hash", None) or revision,
        device=place,
        dtype=precision,
        max_length=context_limit(config),
        eos_ids=ending_ids(generation, tokenizer),
        weights_digest=files_digest(Path(source), precision),
    )


def files_digest(folder: Path, dtype: torch.dtype) -> str | None:
    """The digest that the loaded policy has, from a directory's safetensors; None without any.

    It differs from the loaded policy's where the family's files name or cut weights in another way
    than its model does.
    """
    places = {name: file for file in sorted(folder.glob("*.safetensors")) for name in _names(file)}
    if not places:
        return None
    digest = hashlib.sha256()
    for name in sorted(places):
        with safe_open(places[name], framework="pt") as file:
            weight = file.get_slice(name)
            shape = tuple(weight.get_shape())
            digest.update(f"{name} {shape}".encode())
            digest.update(_file_ends(weight, shape).to(dtype).float().numpy().tobytes())
    return digest.hexdigest()


def _names(file: Path) -> list[str]:
    with safe_open(file, framework="pt") as opened:
        return list(opened.keys())


def _file_ends(weight: Any, shape: tuple[int, ...]) -> Tensor:
    """First and last numbers of a weight, read without the rest of it."""
    read = weight.__getitem__
    width = max(1, torch.Size(shape[1:]).numel())
    rows = -(-256 // width)
    if len(shape) == 0 or shape[0] <= 2 * rows:
        return ends_of(read(...))
    return torch.cat(
        [read(slice(0, rows)).flatten()[:256], read(slice(-rows, None)).flatten()[-256:]]
    )
