"""The model families whose logits are known; the tests build a small model of each.

A family that is not listed is not refused for that: every policy is compared with its family's rule
when it is loaded, and one that differs from a plain head is refused by name.
"""

from __future__ import annotations

PLAIN = (
    *("afmoe", "apertus", "arcee", "aria_text", "axk1", "axk2", "bailing_hybrid", "bamba", "bart"),
    *("bigbird_pegasus", "biogpt", "bitnet", "blenderbot", "blenderbot-small", "bloom", "codegen"),
    *("ctrl", "cwm", "deepseek_v2", "deepseek_v3", "deepseek_v32", "deepseek_v4", "diffllama"),
    *("doge", "dots1", "dots3_note_text", "ernie4_5", "ernie4_5_moe", "exaone4", "exaone_moe"),
    *("falcon", "falcon_mamba", "flex_olmo", "flint", "gemma", "glm", "glm4", "glm4_moe"),
    *("glm4_moe_lite", "glm_moe_dsa", "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox"),
    *("gpt_neox_japanese", "gpt_oss", "gptj", "helium", "hrm_text", "hunyuan_v1_dense"),
    *("hunyuan_v1_moe", "hy_v3", "hy_v4", "internlm3", "iquestcoder", "jais2", "jamba", "jetmoe"),
    *("kimi_linear", "kolibri1", "laguna", "lfm2", "lfm2_moe", "lfm3", "llama", "llama4_text"),
    *("longcat_flash", "mamba", "mamba2", "marian", "mbart", "mellum", "mimo_v2_flash", "minicpm3"),
    *("minimax", "minimax_m2", "minimax_m3_vl_text", "ministral", "ministral3", "mistral"),
    *("mixtral", "modernbert-decoder", "moshi", "mpt", "mvp", "nemotron", "nemotron_h", "olmo"),
    *("olmo2", "olmo3", "olmo_hybrid", "olmoe", "openai-gpt", "opt", "pegasus", "persimmon"),
    *("phi", "phi3", "phimoe", "plbart", "qwen2", "qwen2_moe", "qwen3", "qwen3_5_moe_text"),
    *("qwen3_5_text", "qwen3_moe", "qwen3_next", "qwen4_exp_text", "rwkv", "seed_oss", "smollm3"),
    *("solar_open", "stablelm", "starcoder2", "trocr", "whisper", "xglm", "youtu", "zamba"),
    *("zamba2", "zaya"),
)
"""logits = W h + b, with or without b."""

DECODERS = (
    *("bert", "bert-generation", "big_bird", "camembert", "data2vec-text", "electra", "ernie"),
    *("megatron-bert", "reformer", "rembert", "roberta", "roberta-prelayernorm", "roc_bert"),
    *("roformer", "xlm-roberta", "xlm-roberta-xl", "xmod"),
)
"""logits = W h + b, h what the head's own layers make of the last state; causal only as decoders,
with `is_decoder=True` in their config."""

REFUSED = {
    "cpmant": "reads the prompt in both directions",
    "prophetnet": "predicts several tokens from several streams of states",
    "xlm": "reads the text in both directions",
    "xlnet": "predicts tokens in permuted orders",
}
"""Families for which transformers has a causal class that THR is not defined for."""
