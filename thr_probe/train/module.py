"""The trained policy: backbone and chunked head under FSDP2, and its weights for the snapshot."""

from __future__ import annotations

import functools
from typing import Any, cast

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from thr_probe.core.head import Head, accumulation_dtype, chunks, logits_and_slope
from thr_probe.errors import PrerequisiteError
from thr_probe.policy import Policy
from thr_probe.policy.families import LogitRule, capture_states, unembedding
from thr_probe.processes import World

KEPT_LOGITS = 2**24
"""Logits of a micro-batch that are simply kept for the backward pass: 64 MiB. More are formed
again, chunk by chunk."""


class PolicyModule(torch.nn.Module):
    """From token ids to log-probability and entropy of the completion tokens.

    The root of FSDP. Logits exist for one chunk of completion tokens at a time, in the forward pass
    and, formed again, in the backward pass; a (rows, positions, vocabulary) tensor never does.
    """

    def __init__(self, model: PreTrainedModel, rule: LogitRule) -> None:
        super().__init__()
        # no dropout: the ratio to the old policy must be exact
        self.model = cast("PreTrainedModel", cast("Any", model).eval())
        self.rule = rule

    def forward(
        self,
        input_ids_BL: Int[Tensor, "B L"],
        places_2N: Int[Tensor, "2 N"],
        token_ids_N: Int[Tensor, " N"],
        temperature: float,
        chunk_size: int,
    ) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"], Float[Tensor, "N D"]]:
        """Log-probability and entropy (nats) of N tokens, and the states that predict them.

        Args:
            input_ids_BL: rows padded on the right.
            places_2N: row and position of the state that predicts each token.
            token_ids_N: the tokens.
            temperature: of pi.
            chunk_size: tokens whose logits are held at once.
        """
        with capture_states(self.model) as captured:
            self.model(input_ids=input_ids_BL, use_cache=False)
        hidden_ND = captured[0][places_2N[0], places_2N[1]]
        logprob_N, entropy_N = self._head(hidden_ND, token_ids_N, temperature, chunk_size)
        return logprob_N, entropy_N, hidden_ND.detach()

    def _head(
        self, hidden_ND: Tensor, token_ids_N: Tensor, temperature: float, chunk_size: int
    ) -> tuple[Tensor, Tensor]:
        weight_VD, bias_V = self.rule.weight_and_bias(unembedding(self.model))
        weight_VD = weight_VD.to(accumulation_dtype(hidden_ND))
        read = functools.partial(_read, rule=self.rule, temperature=temperature)
        keeps = len(token_ids_N) * len(weight_VD) <= KEPT_LOGITS or not torch.is_grad_enabled()
        logprobs, entropies = [], []
        for chunk in chunks(len(token_ids_N), chunk_size):
            parts = (hidden_ND[chunk], weight_VD, bias_V, token_ids_N[chunk])
            logprob_C, entropy_C = (
                read(*parts) if keeps else checkpoint(read, *parts, use_reentrant=False)
            )
            logprobs.append(logprob_C)
            entropies.append(entropy_C)
        return torch.cat(logprobs), torch.cat(entropies)


def _read(
    hidden_CD: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    token_ids_C: Tensor,
    *,
    rule: LogitRule,
    temperature: float,
) -> tuple[Tensor, Tensor]:
    """Log-probability and entropy of one chunk, differentiable."""
    head = Head(weight_VD, bias_V, rule.scale, rule.softcap, temperature)
    logprob_CV = torch.log_softmax(logits_and_slope(hidden_CD, head)[0], dim=1)
    logprob_C = logprob_CV.gather(1, token_ids_C[:, None])[:, 0]
    return logprob_C, -(logprob_CV.exp() * logprob_CV).sum(dim=1)


def build_module(
    policy: Policy, world: World, *, compute_dtype: torch.dtype, recompute: bool
) -> PolicyModule:
    """Wrap a float32 policy for training; sharded where there are several processes, or CUDA.

    Args:
        policy: the policy in float32, on this process's device; its model becomes the module's.
        world: the processes.
        compute_dtype: of forward and backward; the weights and the optimizer stay in float32.
        recompute: form the layers' activations again in the backward pass instead of keeping them.
    """
    layers = decoder_layers(policy.model)
    if recompute:
        for layer in layers:
            inner = layer.forward
            layer.forward = functools.partial(checkpoint, inner, use_reentrant=False)
    module = PolicyModule(policy.model, policy.rule)
    device = policy.device
    if world.size == 1 and device.type == "cpu":
        return module
    mesh = _mesh(device, world)
    precision = MixedPrecisionPolicy(param_dtype=compute_dtype, reduce_dtype=torch.float32)
    for layer in layers:
        fully_shard(layer, mesh=mesh, mp_policy=precision)
    fully_shard(module, mesh=mesh, mp_policy=precision)
    return module


def decoder_layers(model: PreTrainedModel) -> torch.nn.ModuleList:
    """The stack of a model's layers: its longest list of modules outside of any other.

    Raises:
        PrerequisiteError: a model without one.
    """
    stacks: dict[str, torch.nn.ModuleList] = {}
    for name, part in model.named_modules():
        # the experts of a layer are a list, too, and may be the longer one
        is_inner = any(name.startswith(f"{outer}.") for outer in stacks)
        if isinstance(part, torch.nn.ModuleList) and not is_inner:
            stacks[name] = part
    if not stacks:
        raise PrerequisiteError(
            f"{type(model).__name__} has no list of layers: it cannot be sharded",
            hint="train another architecture",
        )
    return max(stacks.values(), key=len)


@torch.no_grad()
def push_weights(module: PolicyModule, snapshot: Policy) -> None:
    """Copy the trained weights, gathered from all processes, into the snapshot policy.

    Every process calls it.
    """
    targets = snapshot.model.state_dict(keep_vars=True)
    copied: set[int] = set()
    # asked for as state: after a forward pass without a backward one, FSDP's own list of the
    # parameters holds them in the compute dtype
    for name, weight in module.model.state_dict(keep_vars=True).items():
        if id(weight) not in copied:  # a tied weight has two names
            copied.add(id(weight))
            full = weight.full_tensor() if isinstance(weight, DTensor) else weight
            targets[name].copy_(full)


def _mesh(device: torch.device, world: World) -> DeviceMesh:
    if not dist.is_initialized():
        # FSDP wants the group of the processes, even where there is only one
        store = cast("Any", dist).HashStore()
        dist.init_process_group("cpu:gloo,cuda:nccl", store=store, rank=0, world_size=1)
    return init_device_mesh(device.type, (world.size,))
