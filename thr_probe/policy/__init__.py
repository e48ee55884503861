"""A Hugging Face causal language model as policy: loading and saving, its head, its states."""

from __future__ import annotations

from thr_probe.policy.load import load_policy
from thr_probe.policy.policy import Policy, as_policy
from thr_probe.policy.save import save_policy
from thr_probe.policy.tokenizer import PolicyTokenizer, load_tokenizer
from thr_probe.policy.tokens import TokenRow
from thr_probe.policy.unloaded import AnyPolicy, UnloadedPolicy, load_unloaded

__all__ = [
    "AnyPolicy",
    "Policy",
    "PolicyTokenizer",
    "TokenRow",
    "UnloadedPolicy",
    "as_policy",
    "load_policy",
    "load_tokenizer",
    "load_unloaded",
    "save_policy",
]
