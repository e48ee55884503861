"""How the logits of each model family come from W h + b, and the check that they really do."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from thr_probe.errors import PrerequisiteError
from thr_probe.policy.known import DECODERS, PLAIN

SOFTCAP_FIELD = {
    "gemma2": "final_logit_softcapping",
    "gemma3_text": "final_logit_softcapping",
    "gemma3n_text": "final_logit_softcapping",
    "gemma4_text": "final_logit_softcapping",
    "gemma4_unified_text": "final_logit_softcapping",
    "beam": "final_logit_softcapping",
    "inkling2_text": "final_logit_softcapping",
    "vaultgemma": "final_logit_softcapping",
    "nanochat": "final_logit_softcapping",
    "recurrent_gemma": "logits_soft_cap",
    "xlstm": "output_logit_soft_cap",
}
"""logits = c * tanh(z / c) with c from this config field; None there means no cap."""

FACTOR_FIELD = {
    "cohere": "logit_scale",
    "cohere2": "logit_scale",
    "cohere2_moe": "logit_scale",
    "cohere_compass_text": "logit_scale",
    "falcon_h1": "lm_head_multiplier",
    "hyperclovax": "logits_scaling",
}
"""logits = factor * W h."""

DIVISOR_FIELD = {
    "granite": "logits_scaling",
    "granite_swa": "logits_scaling",
    "granitemoe": "logits_scaling",
    "granitemoe_swa": "logits_scaling",
    "granitemoehybrid": "logits_scaling",
    "granitemoeshared": "logits_scaling",
}
"""logits = W h / divisor."""

ROWS_FIELD = {
    "inkling_text": "unpadded_vocab_size",
    "inkling2_text": "unpadded_vocab_size",
}
"""logits are the first rows of W h, as many as this config field says; None there means all."""

LARGE_LOGIT = 120.0
"""The check drives logits this far, where a soft-cap cannot be mistaken for rounding."""

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
"""Largest relative error that rounding explains; half precision: HALF_TOLERANCE."""

HALF_TOLERANCE = 1e-2


@dataclass(frozen=True, slots=True, kw_only=True)
class LogitRule:
    """logits = softcap * tanh(z / softcap), z = scale * W h + b; softcap None: logits = z."""

    scale: float = 1.0
    """Factor on W h."""
    softcap: float | None = None
    """Where the family soft-caps."""
    rows: int | None = None
    """Rows of W that belong to the vocabulary; None: all, none is padding."""

    def weight_and_bias(self, layer: torch.nn.Linear) -> tuple[Tensor, Tensor | None]:
        """W and b without the rows that are padding; views of the layer's own."""
        bias = None if layer.bias is None else layer.bias[: self.rows]
        return layer.weight[: self.rows], bias

    def logits(self, product: Tensor, bias: Tensor | None) -> Tensor:
        """The logits for a product W h."""
        raw = product * self.scale
        if bias is not None:
            raw = raw + bias.to(raw.dtype)
        return raw if self.softcap is None else self.softcap * torch.tanh(raw / self.softcap)


def logit_rule(config: PreTrainedConfig) -> LogitRule:
    """The rule of a model's family, read from its config; a plain head for families not listed."""
    text = config.get_text_config()
    family = text.model_type
    cap = getattr(text, SOFTCAP_FIELD[family]) if family in SOFTCAP_FIELD else None
    scale = 1.0
    if family in FACTOR_FIELD:
        scale = float(getattr(text, FACTOR_FIELD[family]))
    if family in DIVISOR_FIELD:
        scale = 1.0 / float(getattr(text, DIVISOR_FIELD[family]))
    return LogitRule(
        scale=scale,
        softcap=None if cap is None else float(cap),
        rows=getattr(text, ROWS_FIELD[family]) if family in ROWS_FIELD else None,
    )


def unembedding(model: PreTrainedModel) -> torch.nn.Linear:
    """The linear layer that logits come from.

    Raises:
        PrerequisiteError: the model has none, or one of another kind (quantised, several layers).
    """
    head = model.get_output_embeddings()
    if isinstance(head, torch.nn.Linear) and head.weight.is_floating_point():
        return head
    found = "none" if head is None else type(head).__name__
    raise _refused(model, f"its unembedding is {found}, not a linear layer of floating point")


@contextmanager
def capture_states(
    model: PreTrainedModel, *, factor: float = 1.0, keep_logits: bool = False
) -> Iterator[list[Tensor]]:
    """Collect the input of the unembedding of every forward inside the `with` block.

    A hook at the unembedding is right for every family, MiniCPM 3 included, which divides the last
    hidden state once more. All positions are collected, but only the first goes on to the
    unembedding, which saves V x D work per token.

    Args:
        model: the policy's model.
        factor: multiplies the states on their way into the unembedding (for the check).
        keep_logits: let all positions through.
    """
    states: list[Tensor] = []

    def before_unembedding(_module: torch.nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        states.append(args[0] * factor)
        return (states[-1] if keep_logits else states[-1][:, :1],)

    handle = unembedding(model).register_forward_pre_hook(before_unembedding)
    try:
        yield states
    finally:
        handle.remove()


@torch.no_grad()
def check_logits(model: PreTrainedModel, rule: LogitRule) -> None:
    """Compare a small batch's own logits with the rule, at their natural size and made large.

    Also: a later token may not change an earlier state (a policy is causal).

    Raises:
        PrerequisiteError: naming the family and what differs.
    """
    weight, _ = rule.weight_and_bias(unembedding(model))
    ids = torch.linspace(0, len(weight) - 1, 8, device=weight.device).long().repeat(2, 1)
    ids[1, -1] = 0
    largest = _compare(model, rule, ids, factor=1.0)
    if largest > 0:
        _compare(model, rule, ids, factor=LARGE_LOGIT / largest)


def _compare(model: PreTrainedModel, rule: LogitRule, ids: Tensor, *, factor: float) -> float:
    """Check one factor; returns the largest |scale * W h + b|."""
    weight, bias = rule.weight_and_bias(unembedding(model))
    with capture_states(model, factor=factor, keep_logits=True) as states:
        logits = model(input_ids=ids, use_cache=False).logits
    if len(states) != 1:
        raise _refused(model, f"its unembedding ran {len(states)} times in one forward pass")
    product = torch.nn.functional.linear(states[0], weight)
    if logits.shape != product.shape:
        raise _refused(
            model, f"logits have shape {tuple(logits.shape)}, W h {tuple(product.shape)}"
        )
    # some families cast their logits to float32
    tolerance = max(TOLERANCE.get(part.dtype, HALF_TOLERANCE) for part in (product, logits))
    wide = torch.float64 if product.dtype == torch.float64 else torch.float32
    first, second = states[0][:, :-1].to(wide)
    if relative_error(second, first) > tolerance:
        raise _refused(model, "a later token changes earlier states: it is not a causal model")
    expected = rule.logits(product.to(wide), bias)
    error = relative_error(logits.to(wide), expected)
    if not error <= tolerance:
        raise _refused(model, f"its logits differ from {_formula(rule)} by {error:.2%}")
    raw = LogitRule(scale=rule.scale).logits(product.to(wide), bias)
    return float(raw.abs().max())


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """|actual - expected| / |actual|, Euclidean norms; 0 where both vanish."""
    error = float(torch.linalg.vector_norm(actual - expected))
    size = float(torch.linalg.vector_norm(actual))
    return error / size if size > 0 else (math.inf if error > 0 else 0.0)


def _formula(rule: LogitRule) -> str:
    scaled = "W h + b" if rule.scale == 1.0 else f"{rule.scale:g} * W h + b"
    return scaled if rule.softcap is None else f"the soft-cap of {scaled} at {rule.softcap:g}"


def known_families() -> dict[str, list[str]]:
    """The families whose logits are known, by how they come from W h."""
    return {
        "W h + b": sorted(PLAIN),
        "W h + b, as decoders": sorted(DECODERS),
        "soft-capped": sorted(SOFTCAP_FIELD),
        "scaled": sorted({*FACTOR_FIELD, *DIVISOR_FIELD}),
        "first rows of W h": sorted(ROWS_FIELD),
    }


def _refused(model: PreTrainedModel, reason: str) -> PrerequisiteError:
    family = model.config.get_text_config().model_type
    known = known_families()
    hint = (
        f"THR needs to know how logits come from W h; {len(set().union(*known.values()))} families "
        "are known, thr_probe/integrations/README.md names them"
    )
    if family in DECODERS:
        hint = "load it as a decoder: set is_decoder to true in its config"
    return PrerequisiteError(
        f"model family {family!r} ({type(model).__name__}) is refused: {reason}", hint=hint
    )
