"""The updates of a step: one optimiser step per mini-batch, mask and weights fixed throughout."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.distributed.tensor import DTensor

from thr_probe.core.losses import k3
from thr_probe.errors import IncompleteError
from thr_probe.processes import World
from thr_probe.train.batches import MicroBatch, MiniBatch, Row, micro_batches
from thr_probe.train.config import TrainConfig
from thr_probe.train.module import PolicyModule
from thr_probe.train.objective import Objective, SelectTokens, update_generator

Tokens = Float[Tensor, " N"]
Mask = Bool[Tensor, " N"]
Selection = Callable[[Tokens], Mask | None]
"""From the current log-probabilities of a micro-batch to its selected tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Learner:
    """What an update needs, the same in every step."""

    module: PolicyModule
    """The trained policy."""
    optimizer: torch.optim.Optimizer
    """Of its weights."""
    objective: Objective
    """What is minimised."""
    config: TrainConfig
    """The options."""
    device: torch.device
    """Where the micro-batches go."""
    filler_ids: Sequence[int]
    """Two ids for micro-batches of no weight."""
    world: World
    """The processes."""


@dataclass(slots=True, kw_only=True)
class UpdateRecord:
    """What one update did, over all processes."""

    loss: float = 0.0
    """All that was minimised."""
    policy_loss: float = 0.0
    """The objective alone."""
    kl_sum: float = 0.0
    """Sum of k3 over tokens."""
    clipped: int = 0
    """Tokens that a clip or a penalty changed."""
    selected: int = 0
    """Tokens that KL-Cov penalised or Clip-Cov dropped."""
    tokens: int = 0
    """Completion tokens."""
    ratio_min: float = math.inf
    """Smallest ratio to the old policy."""
    ratio_max: float = -math.inf
    """Largest one."""
    grad_norm: float = 0.0
    """Before clipping."""


def run_update(learner: Learner, batch: MiniBatch, *, step: int) -> UpdateRecord:
    """Gradients of a mini-batch, micro-batch by micro-batch, then one optimiser step.

    Raises:
        IncompleteError: the loss or the gradient is not a number, in every process; the weights are
            as they were before.
    """
    config, world = learner.config, learner.world
    parts = micro_batches(
        batch, config.micro_batch_tokens, learner.filler_ids, learner.device, world
    )
    generator = update_generator(config, step, batch.number)
    selections = _selections(learner, parts, generator)
    learner.optimizer.zero_grad(set_to_none=True)
    own = UpdateRecord()
    bad: list[Row] = []
    for part, selected_N in zip(parts, selections, strict=True):
        bad += _accumulate(learner, part, selected_N, own)
    stray = [(row.key, row.prompt_id) for row in bad]
    stray = sorted(item for listed in world.gather(stray) for item in listed)
    if stray:
        raise _not_a_number(step, batch.number, *stray[0])
    record = _joined(world.gather(own))
    record.grad_norm = _gradient_norm(learner)
    if not math.isfinite(record.grad_norm):
        raise IncompleteError(
            f"step {step}, update {batch.number}: the norm of the gradient is {record.grad_norm}",
            "the weights are as they were; lower --lr, or go on from the last checkpoint",
        )
    learner.optimizer.step()
    return record


def _accumulate(
    learner: Learner, part: MicroBatch, selection: Selection, record: UpdateRecord
) -> list[Row]:
    """Backward of one micro-batch; the completions whose loss is not a number."""
    config = learner.config
    logprob_N, entropy_N = _forward(learner, part)
    selected_N = selection(logprob_N.detach())
    token_loss = learner.objective.loss(logprob_N, part, selected_N)
    policy_loss = (part.weight_N * token_loss.loss_N).sum()
    others_N = torch.zeros_like(logprob_N)
    if config.entropy_coef != 0:  # else entropy would cost a backward pass for nothing
        others_N = others_N - config.entropy_coef * entropy_N
    if part.ref_logprob_N is not None:
        penalty_N = k3(logprob_N, part.ref_logprob_N)
        others_N = others_N + config.kl_coef * penalty_N
        record.kl_sum += float(penalty_N.detach().sum())
    loss = policy_loss + (part.mean_weight_N * others_N).sum()
    # FSDP takes the mean of the processes' gradients; the weights are those of the whole batch
    (loss * learner.world.size).backward()
    if not part.rows:
        return []
    value = float(loss.detach())
    record.loss += value
    record.policy_loss += float(policy_loss.detach())
    _count(record, part, logprob_N.detach(), token_loss.clipped_N, selected_N)
    return [] if math.isfinite(value) else _culprits(part, token_loss.loss_N + others_N)


def _forward(learner: Learner, part: MicroBatch) -> tuple[Tokens, Tokens]:
    logprob_N, entropy_N, _ = learner.module(
        part.input_ids_BL,
        part.places_2N,
        part.token_ids_N,
        learner.config.temperature,
        learner.config.chunk_size,
    )
    return logprob_N, entropy_N


def _count(
    record: UpdateRecord,
    part: MicroBatch,
    logprob_N: Tokens,
    clipped_N: Mask,
    selected_N: Mask | None,
) -> None:
    low, high = torch.aminmax((logprob_N - part.old_logprob_N).exp())
    record.ratio_min = min(record.ratio_min, float(low))
    record.ratio_max = max(record.ratio_max, float(high))
    record.clipped += int(clipped_N.sum())
    record.selected += 0 if selected_N is None else int(selected_N.sum())
    record.tokens += len(logprob_N)


def _culprits(part: MicroBatch, loss_N: Tokens) -> list[Row]:
    bad_N = ~torch.isfinite(loss_N)
    places = sorted(set(part.rollout_index_N[bad_N].tolist()))
    return [part.rows[place] for place in places]


def _not_a_number(step: int, update: int, key: tuple[int, int], prompt_id: str) -> IncompleteError:
    return IncompleteError(
        f"step {step}, update {update}: the loss of prompt {prompt_id}, rollout {key[1]} is not a "
        "number",
        "the weights are as they were; lower --lr, or go on from the last checkpoint",
    )


def _joined(records: Sequence[UpdateRecord]) -> UpdateRecord:
    return UpdateRecord(
        loss=sum(record.loss for record in records),
        policy_loss=sum(record.policy_loss for record in records),
        kl_sum=sum(record.kl_sum for record in records),
        clipped=sum(record.clipped for record in records),
        selected=sum(record.selected for record in records),
        tokens=sum(record.tokens for record in records),
        ratio_min=min(record.ratio_min for record in records),
        ratio_max=max(record.ratio_max for record in records),
    )


def _gradient_norm(learner: Learner) -> float:
    """Norm of the whole gradient, which is then cut down to the largest one allowed."""
    norm = torch.nn.utils.clip_grad_norm_(learner.module.parameters(), learner.config.max_grad_norm)
    whole = norm.full_tensor() if isinstance(norm, DTensor) else norm
    return float(whole)


def _selections(
    learner: Learner, parts: Sequence[MicroBatch], generator: np.random.Generator
) -> list[Selection]:
    """For each micro-batch what KL-Cov penalises or Clip-Cov drops, given its log-probabilities."""
    select = learner.objective.select
    if select is None:
        return [lambda _: None for _ in parts]
    if learner.config.cov_scope == "micro-batch":
        return [_within(select, part, generator) for part in parts]
    masks = _over_the_mini_batch(learner, select, parts, generator)
    return [_known(mask_N) for mask_N in masks]


def _known(mask_N: Mask) -> Selection:
    return lambda _: mask_N


def _within(select: SelectTokens, part: MicroBatch, generator: np.random.Generator) -> Selection:
    return lambda logprob_N: select(logprob_N, part.old_logprob_N, part.advantage_N, generator)


def _over_the_mini_batch(
    learner: Learner,
    select: SelectTokens,
    parts: Sequence[MicroBatch],
    generator: np.random.Generator,
) -> list[Mask]:
    """The selection among all tokens of the mini-batch, from one more no-grad pass.

    The tokens stand in the step's order, so neither packing nor the number of processes matters.
    """
    own: dict[tuple[int, int], tuple[Tensor, Tensor, Tensor]] = {}
    with torch.no_grad():
        for part in parts:
            logprob_N, _ = _forward(learner, part)
            own.update(_by_row(part, logprob_N))
    everyone = {key: row for listed in learner.world.gather(own) for key, row in listed.items()}
    keys = sorted(everyone)
    logprob_N, old_N, advantage_N = (
        torch.cat([everyone[key][column] for key in keys]) for column in range(3)
    )
    chosen_N = select(logprob_N, old_N, advantage_N, generator)
    split = chosen_N.split([len(everyone[key][0]) for key in keys])
    by_key = dict(zip(keys, split, strict=True))
    return [_mask(part, by_key, learner.device) for part in parts]


def _by_row(
    part: MicroBatch, logprob_N: Tokens
) -> Iterator[tuple[tuple[int, int], tuple[Tensor, Tensor, Tensor]]]:
    lengths = [len(row.token_ids) for row in part.rows]
    if not lengths:
        return
    for row, logprobs in zip(part.rows, logprob_N.cpu().split(lengths), strict=True):
        yield row.key, (logprobs, row.old_logprob_N, row.advantage_N)


def _mask(part: MicroBatch, by_key: dict[tuple[int, int], Tensor], device: torch.device) -> Mask:
    if not part.rows:
        return torch.zeros(1, dtype=torch.bool, device=device)
    return torch.cat([by_key[row.key] for row in part.rows]).to(device)
