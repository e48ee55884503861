"""A policy of Qwen2.5-0.5B's shape with random weights.

Called by train_step.py with a line of JSON; prints one.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from thr_probe.lab import policy_directory
from thr_probe.policy import load_policy

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


def main() -> None:
    """Write the policy that the command line's JSON asks for."""
    call = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    save_random_policy(Path(call["sizes"]["model"]), QWEN_05B)
    print("{}")


def save_random_policy(folder: Path, shape: dict[str, object]) -> None:
    """Write a model directory: random weights in bfloat16, the lab's tokenizer."""
    torch.manual_seed(0)
    tokenizer = load_policy(str(policy_directory()), device="cpu").tokenizer
    config = Qwen2Config(**shape, eos_token_id=tokenizer.eos_token_id, pad_token_id=0)
    Qwen2ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    main()
