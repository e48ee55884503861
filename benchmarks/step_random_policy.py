"""A policy of Qwen2.5-0.5B's shape with random weights, and rewards for what it writes."""

from __future__ import annotations

import zlib
from pathlib import Path

QWEN_05B = {
    "vocab_size": 151_936,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32_768,
    "tie_word_embeddings": True,
}


def save_random_policy(folder: Path, shape: dict[str, object]) -> None:
    """Write a model directory: random weights in bfloat16, the lab's tokenizer."""
    import torch  # noqa: PLC0415  the verifier's processes import this file, and need no torch
    from transformers import Qwen2Config, Qwen2ForCausalLM  # noqa: PLC0415

    from thr_probe.lab import policy_directory  # noqa: PLC0415
    from thr_probe.policy import load_policy  # noqa: PLC0415

    torch.manual_seed(0)
    tokenizer = load_policy(str(policy_directory()), device="cpu").tokenizer
    config = Qwen2Config(**shape, eos_token_id=tokenizer.eos_token_id, pad_token_id=0)
    Qwen2ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def coin(completion: str, answer: str) -> float:
    """A verifier that has an opinion on any text, right or wrong about as often."""
    del answer
    return float(zlib.crc32(completion.encode()) % 2)
