"""What a training run would do, from its options alone: counts, tokens, memory. Without torch."""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from thr_probe.config import Given, Origin, config_dict
from thr_probe.errors import DataError
from thr_probe.lab import policy_directory
from thr_probe.train.config import TrainConfig
from thr_probe.train.resolve import warnings_of

MASTER_BYTES = 16
"""Per parameter: float32 weight, gradient and the two moments of AdamW; sharded."""

ACTIVATION_BYTES = 34
"""Per token, layer and hidden unit in 16-bit (Korthikanti et al. 2022, without attention maps)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSize:
    """What memory depends on, read from a model directory."""

    parameters: int
    """Numbers in the weights."""
    vocab: int
    """Rows of the unembedding."""
    hidden: int
    """Its columns."""
    layers: int
    """Layers."""


def plan_rows(config: TrainConfig, given: Mapping[str, Given]) -> list[dict[str, object]]:
    """The plan, then every option with where it came from: rows of what, value, source."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    rows: list[dict[str, object]] = [
        {"what": what, "value": value, "from": "plan"}
        for what, value in [*_counts(config, world), *_memory(config, world)]
    ]
    rows += [{"what": "note", "value": text, "from": "plan"} for text in warnings_of(config)]
    for name, value in config_dict(config).items():
        origin = given[name].origin if name in given else Origin.DEFAULT
        rows.append({"what": name, "value": value, "from": origin.value})
    return rows


def _counts(config: TrainConfig, world: int) -> list[tuple[str, object]]:
    completions = config.prompts * config.group_size
    length = config.max_new_tokens or 3072
    return [
        ("processes", world),
        ("prompts per step", config.prompts),
        ("completions per step", completions),
        ("prompts per update", config.mini_batch_prompts),
        ("updates per step", config.updates_per_step),
        ("updates in all", config.updates_per_step * config.steps),
        ("completion tokens per step, at most", completions * length),
        ("completion tokens in all, at most", completions * length * config.steps),
    ]


def _memory(config: TrainConfig, world: int) -> list[tuple[str, object]]:
    size = model_size(config.model)
    if size is None:
        return [("memory", f"unknown: {config.model} is not a local directory")]
    on_cpu = config.device == "cpu" or config.dtype == "float32" or config.model == "lab"
    width = 4 if on_cpu else 2
    is_shared = world == 1 and on_cpu
    activations = size.layers * size.hidden * ACTIVATION_BYTES * width // 2
    if config.recompute:
        activations = size.layers * size.hidden * width
    parts = {
        "weights, gradient, AdamW": MASTER_BYTES * size.parameters / world,
        "sampling copy": 0 if is_shared else width * size.parameters,
        "reference": width * size.parameters if config.needs_reference else 0,
        "G+ of THR": 4 * _columns_of_thr(config.vocab, size.vocab) * size.hidden,
        "logits of a chunk": 3 * 4 * size.vocab * min(config.chunk_size, config.micro_batch_tokens),
        "activations of a micro-batch, roughly": activations * config.micro_batch_tokens,
    }
    told = [(f"memory: {name}", _gib(value)) for name, value in parts.items()]
    return [
        ("parameters", size.parameters),
        *told,
        ("memory per process, roughly", _gib(sum(parts.values()))),
    ]


COLUMNS = 3 * 4096
"""Of the restricted routes of THR: a block of columns, and the completions' own ids in float64."""


def _columns_of_thr(vocab: str, size: int) -> int:
    """Columns of the vocabulary whose part of G+ is held at once, in units of float32."""
    if vocab == "pairwise":
        return 0
    return size if vocab == "full" else min(size, COLUMNS)


def _gib(value: float | int) -> str:
    return f"{value / 2**30:.3g} GiB"


def model_size(model: str) -> ModelSize | None:
    """Size of the lab's policy or of a model directory; None for a hub id.

    Raises:
        DataError: a model directory whose files cannot be read.
    """
    folder = policy_directory() if model == "lab" else Path(model).expanduser()
    if not (folder / "config.json").is_file():
        return None
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        counts = [_elements(path) for path in sorted(folder.glob("*.safetensors"))]
        return ModelSize(
            parameters=sum(counts),
            vocab=int(config["vocab_size"]),
            hidden=int(config["hidden_size"]),
            layers=int(config["num_hidden_layers"]),
        )
    except (OSError, ValueError, KeyError, struct.error) as error:
        raise DataError(
            f"{folder}: its size cannot be read: {error!r}",
            "a model directory has config.json and *.safetensors",
        ) from error


def _elements(path: Path) -> int:
    """Numbers in a safetensors file, from its header."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    shapes = [item["shape"] for name, item in header.items() if name != "__metadata__"]
    return sum(math.prod(shape) for shape in shapes)
