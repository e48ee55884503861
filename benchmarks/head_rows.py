"""The rows of `head.py`: ways from states and unembedding to log-probabilities and gradients."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from thr_probe.core.head import Head, head_pass
from thr_probe.policy.families import LogitRule
from thr_probe.train.module import PolicyModule

_LIGER = "liger_kernel.transformers.functional", "liger_fused_linear_cross_entropy"
CHUNK = 1024
"""Tokens whose logits thr_probe holds at once: the default of the commands."""

Read = tuple[Tensor, Tensor | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One way."""

    forward: Callable[[Tensor, torch.nn.Linear, Tensor], Read]
    """hidden (N, D), unembedding, ids (N) to log-probability and, where it has one, entropy."""
    loss: Callable[[Tensor, torch.nn.Linear, Tensor], Tensor] | None = None
    """The same to the mean of -log pi, differentiable; None: from `forward`."""

    def mean_loss(self, hidden_ND: Tensor, layer: torch.nn.Linear, ids_N: Tensor) -> Tensor:
        """The mean of -log pi, in the way that costs the row least."""
        if self.loss is not None:
            return self.loss(hidden_ND, layer, ids_N)
        return -self.forward(hidden_ND, layer, ids_N)[0].mean()


class _Unembedding(torch.nn.Module):
    """As much of a model as the trainer's head asks for."""

    def __init__(self, layer: torch.nn.Linear) -> None:
        super().__init__()
        self.layer = layer

    def get_output_embeddings(self) -> torch.nn.Linear:
        return self.layer


def _head_pass(hidden_ND: Tensor, layer: torch.nn.Linear, ids_N: Tensor) -> Read:
    read = head_pass(hidden_ND, ids_N, Head(layer.weight.detach()), chunk_size=CHUNK)
    return read.logprob_N, read.entropy_N


def _trainer(hidden_ND: Tensor, layer: torch.nn.Linear, ids_N: Tensor) -> Tensor:
    module = PolicyModule(cast("Any", _Unembedding(layer)), LogitRule())
    logprob_N, _ = module._head(hidden_ND, ids_N, 1.0, CHUNK)
    return -logprob_N.mean()


def _log_softmax(hidden_ND: Tensor, layer: torch.nn.Linear, ids_N: Tensor) -> Read:
    logprob_NV = torch.log_softmax(layer(hidden_ND).float(), dim=1)
    entropy_N = -(logprob_NV.exp() * logprob_NV).sum(dim=1)
    return logprob_NV.gather(1, ids_N[:, None])[:, 0], entropy_N


def _log_softmax_loss(hidden_ND: Tensor, layer: torch.nn.Linear, ids_N: Tensor) -> Tensor:
    logprob_NV = torch.log_softmax(layer(hidden_ND).float(), dim=1)
    with torch.no_grad():  # for the log, as trainers have it
        -(logprob_NV.exp() * logprob_NV).sum(dim=1)
    return -logprob_NV.gather(1, ids_N[:, None]).mean()


def _cross_entropy(hidden_ND: Tensor, layer: torch.nn.Linear, ids_N: Tensor) -> Read:
    return -F.cross_entropy(layer(hidden_ND).float(), ids_N, reduction="none"), None


def _chunked(hidden_ND: Tensor, layer: torch.nn.Linear, ids_N: Tensor) -> Read:
    options = torch.nn.LinearCrossEntropyOptions()
    loss_N = F.linear_cross_entropy(
        hidden_ND, layer.weight, ids_N, reduction="none", options=options
    )
    return -loss_N, None


def _chunked_loss(hidden_ND: Tensor, layer: torch.nn.Linear, ids_N: Tensor) -> Tensor:
    options = torch.nn.LinearCrossEntropyOptions()
    return F.linear_cross_entropy(hidden_ND, layer.weight, ids_N, options=options)


def _cut(implementation: str) -> Callable[[Tensor, torch.nn.Linear, Tensor], Read]:
    def forward(hidden_ND: Tensor, layer: torch.nn.Linear, ids_N: Tensor) -> Read:
        loss = _of_package("cut_cross_entropy", "linear_cross_entropy")
        options = {"reduction": "none", "impl": implementation}
        return -loss(hidden_ND, layer.weight, ids_N, **options), None

    return forward


def _liger(hidden_ND: Tensor, layer: torch.nn.Linear, ids_N: Tensor) -> Read:
    loss = _of_package(*_LIGER)
    return -loss(hidden_ND, layer.weight, ids_N, reduction="none"), None


def _liger_loss(hidden_ND: Tensor, layer: torch.nn.Linear, ids_N: Tensor) -> Tensor:
    return _of_package(*_LIGER)(hidden_ND, layer.weight, ids_N)


def _of_package(module: str, name: str) -> Callable[..., Tensor]:
    """A function of a package that is not installed everywhere."""
    return cast("Callable[..., Tensor]", getattr(importlib.import_module(module), name))


ROWS: Mapping[str, Row] = {
    "thr_probe": Row(forward=_head_pass, loss=_trainer),
    "log_softmax": Row(forward=_log_softmax, loss=_log_softmax_loss),
    "cross_entropy": Row(forward=_cross_entropy),
    "linear_cross_entropy": Row(forward=_chunked, loss=_chunked_loss),
    "cut-cross-entropy compiled": Row(forward=_cut("torch_compile")),
    "cut-cross-entropy": Row(forward=_cut("cce")),
    "Liger": Row(forward=_liger, loss=_liger_loss),
}
