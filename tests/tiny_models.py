"""Small random causal language models of several families and a byte-level tokenizer for them."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from thr_probe.policy import as_policy

VOCAB_SIZE = 270
SPECIAL = ("<pad>", "<eos>", "<bos>")
MERGES = ("Ġ t", "h e", "Ġt he", "i n", "Ġ a", "a b", "Ã ©")

SIZES = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
    "initializer_range": 0.3,
}
OWN_SIZES = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128},
    "gemma2": {"sliding_window": 6},
    "granite": {"logits_scaling": 8.0},
    "gemma3_text": {"final_logit_softcapping": 20.0, "sliding_window": 6},
}


def byte_tokenizer():
    """Byte-level BPE: special tokens, the 256 bytes, a few merges."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*SPECIAL, *alphabet, *("".join(merge.split(" ")) for merge in MERGES)]
    vocab = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(BPE(vocab, [tuple(merge.split(" ")) for merge in MERGES]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>"
    )


def tiny_model(family, *, seed=0, dtype=torch.float64, **changes):
    """A model with random weights, large enough that its distributions are far from uniform."""
    torch.manual_seed(seed)
    sizes = SIZES | OWN_SIZES.get(family, {}) | changes
    if family == "gpt2":
        sizes = {name: value for name, value in sizes.items() if name not in {"head_dim"}}
    config = AutoConfig.for_model(family, **sizes)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            # biases and norms start as constants, which would hide a mistake with them
            if weight.ndim == 1:
                weight.add_(0.3 * torch.randn_like(weight))
    return model.to(dtype)


def tiny_policy(family="qwen2", **options):
    return as_policy(tiny_model(family, **options), byte_tokenizer(), name=f"tiny-{family}")
