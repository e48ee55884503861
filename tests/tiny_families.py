"""A small random model of every causal family of transformers that can be built small."""

from __future__ import annotations

import torch
from transformers import AutoConfig, AutoModelForCausalLM

VOCAB_SIZE = 270

SIZES = {
    32: "hidden_size d_model n_embd dim embedding_size word_embed_proj_dim",
    48: "intermediate_size ffn_dim n_inner moe_intermediate_size decoder_ffn_dim encoder_ffn_dim "
    "shared_expert_intermediate_size ffn_hidden_size expert_ffn_hidden_size",
    2: "num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers "
    "num_decoder_layers num_encoder_layers num_key_value_heads num_experts_per_tok moe_topk",
    4: "num_attention_heads n_head n_heads num_heads encoder_attention_heads num_experts "
    "decoder_attention_heads num_local_experts n_routed_experts rotary_dim zero_expert_num",
    8: "head_dim kv_lora_rank q_lora_rank index_head_dim index_n_heads",
    128: "max_position_embeddings n_positions",
    VOCAB_SIZE: "vocab_size",
    0: "pad_token_id",
    1: "eos_token_id",
    0.3: "initializer_range",
}
"""What a field is set to, in every config that has one of that name."""

LATENT = {
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 8,
    "num_key_value_heads": 4,
    "n_group": 1,
    "topk_group": 1,
}
MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_chunk_size": 8}
ROPE = {"rope_type": "default", "rope_theta": 1e4}

OWN_SIZES = {
    "axk1": LATENT | {"head_dim": 4},
    "axk2": LATENT,
    "bamba": MAMBA | {"attn_layer_indices": [1]},
    "deepseek_v2": LATENT | {"head_dim": 4, "moe_intermediate_size": 16},
    "deepseek_v3": LATENT | {"head_dim": 4},
    "deepseek_v32": LATENT | {"head_dim": 4},
    "dots1": {"n_shared_experts": 1},
    "dots3_note_text": LATENT | {"head_dim": 12},
    "falcon_h1": MAMBA | {"mamba_d_ssm": 64, "lm_head_multiplier": 0.4},
    "gemma2": {"sliding_window": 6},
    "gemma3_text": {"final_logit_softcapping": 20.0},
    "gemma4_text": {"final_logit_softcapping": 20.0, "vocab_size_per_layer_input": VOCAB_SIZE},
    "gemma4_unified_text": {"final_logit_softcapping": 20.0},
    "gemma3n_text": {
        "num_kv_shared_layers": 0,
        "vocab_size_per_layer_input": VOCAB_SIZE,
        "hidden_size_per_layer_input": 8,
        "laurel_rank": 4,
        "activation_sparsity_pattern": None,
    },
    "glm4_moe_lite": LATENT,
    "glm_moe_dsa": LATENT,
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granite": {"logits_scaling": 8.0},
    "granite_swa": {"logits_scaling": 8.0},
    "granitemoe": {"logits_scaling": 8.0},
    "granitemoe_swa": {"logits_scaling": 8.0},
    "granitemoehybrid": MAMBA | {"logits_scaling": 8.0, "layer_types": ["mamba", "attention"]},
    "granitemoeshared": {"logits_scaling": 8.0},
    "hy_v4": LATENT,
    "hyperclovax": {"logits_scaling": 0.25},
    "inkling2_text": {"unpadded_vocab_size": 268},
    "inkling_text": {"unpadded_vocab_size": 268},
    "kimi_linear": LATENT | {"linear_head_dim": 8, "linear_num_heads": 4},
    "lfm2_moe": {"layer_types": ["full_attention", "conv"], "num_dense_layers": 1},
    "longcat_flash": LATENT | {"head_dim": 4},
    "mamba2": {"num_heads": 8, "state_size": 8, "n_groups": 1, "chunk_size": 8},
    "minicpm3": LATENT | {"head_dim": None, "dim_model_base": 8},
    "nemotron_h": {"ssm_state_size": 8, "mamba_num_heads": 8, "mamba_head_dim": 8, "chunk_size": 8},
    "xmod": {"default_language": "en_XX"},
    "big_bird": {"attention_type": "original_full"},
    "reformer": {
        "attn_layers": ["local", "local"],
        "axial_pos_shape": [8, 16],
        "axial_pos_embds_dim": [16, 16],
        "feed_forward_size": 48,
    },
    "youtu": LATENT | {"head_dim": 4},
    "zamba": {"num_hidden_layers": 3, "n_mamba_heads": 2, "tie_word_embeddings": False},
    "zamba2": {"layers_block_type": ["mamba", "hybrid"], "n_mamba_heads": 8, "mamba_headdim": 8},
    "zaya": {"num_experts_per_tok": 1, "lm_head_bias": True},
    "cohere_compass_text": {
        "logit_scale": 0.0625,
        "rope_parameters": {"full_attention": ROPE, "sliding_attention": ROPE},
    },
    "phimoe": {"lm_head_bias": True},
    "ernie4_5_moe": {"use_bias": True},
}
"""Sizes and settings beyond `SIZES`."""


def small_config(family, **changes):
    """The family's default config, shrunk."""
    default = AutoConfig.for_model(family)
    fields = {*default.to_dict(), *getattr(default, "attribute_map", {})}
    shrunk = {name: size for size, names in SIZES.items() for name in names.split()}
    sizes = {name: size for name, size in shrunk.items() if name in fields}
    return AutoConfig.for_model(family, **(sizes | OWN_SIZES.get(family, {}) | changes))


def small_model(family, **changes):
    """A model whose biases and norms are not constants, which would hide a mistake with them."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(small_config(family, **changes)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 1:
                weight.add_(0.1 * torch.randn_like(weight))
    return model
