"""Mini-batches of whole groups, and micro-batches of whole completions that fit the memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from thr_probe.core.losses import aggregate_weights
from thr_probe.policy.batches import EVEN
from thr_probe.processes import World
from thr_probe.train.config import TrainConfig
from thr_probe.train.scoring import ScoredGroup

Tokens = Float[Tensor, " N"]

ENOUGH_SHARE = 1 / 16
"""Up to this share of the budget a micro-batch takes rows of any length, as several tiny ones cost
more than padding; beyond it, rows much shorter than its longest wait for the next. On the lab the
updates took a third less time so than with one micro-batch each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One completion as an update reads it; on the CPU."""

    key: tuple[int, int]
    """Place of its group among the step's kept groups, and its number in the group."""
    prompt_id: str
    """Names the question in errors."""
    prompt_ids: Sequence[int]
    """The prompt."""
    token_ids: Sequence[int]
    """The completion."""
    advantage_N: Tokens
    """Of each token."""
    old_logprob_N: Tokens
    """log pi at the start of the step."""
    ref_logprob_N: Tokens | None
    """log pi of the initial policy, where it is asked for."""
    importance_N: Tokens | None = None
    """Weight of each token's loss, where the sampler is corrected for."""
    counted: int
    """Tokens that count in the divisor of the loss."""

    @property
    def length(self) -> int:
        """Tokens that are read: the last one predicts nothing."""
        return len(self.prompt_ids) + len(self.token_ids) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatch:
    """Some completions on the device, padded for the policy and packed for the loss."""

    rows: Sequence[Row]
    """The completions; none in a filler."""
    input_ids_BL: Int[Tensor, "B L"]
    """Prompts and completions, padded on the right."""
    places_2N: Int[Tensor, "2 N"]
    """Row and position of the state that predicts each token."""
    token_ids_N: Int[Tensor, " N"]
    """The tokens."""
    rollout_index_N: Int[Tensor, " N"]
    """Which row each belongs to."""
    advantage_N: Tokens
    """Of each token."""
    old_logprob_N: Tokens
    """log pi at the start of the step."""
    ref_logprob_N: Tokens | None
    """log pi of the initial policy."""
    importance_N: Tokens | None
    """Weight of each token's loss, where the sampler is corrected for."""
    weight_N: Tokens
    """Of each token in the policy loss; 0 in a filler."""
    mean_weight_N: Tokens
    """Of each token in the means over all tokens (k3, entropy)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MiniBatch:
    """What one update is made of: this process's rows of it, and everybody's counts."""

    number: int
    """Place in the step."""
    rows: Sequence[Row]
    """Own completions, in the step's order."""
    weight: dict[tuple[int, int], float]
    """Weight of each token in the policy loss, by the key of its row."""
    mean_weight: dict[tuple[int, int], float]
    """Weight of each token in a mean over all tokens, by the key of its row."""


def mini_batches(
    groups: Sequence[ScoredGroup], config: TrainConfig, max_new_tokens: int, world: World
) -> list[MiniBatch]:
    """The step's mini-batches, equal in number on every process; a group is in one of them.

    Args:
        groups: this process's kept groups.
        config: the size and unit of a mini-batch, and the aggregate.
        max_new_tokens: the constant of `dr-grpo`.
        world: the processes, which agree on the weights of all rows.
    """
    rows = [row for scored in groups for row in _rows(scored)]
    counts = [(row.key, len(row.token_ids), row.counted) for row in rows]
    listed = sorted(item for part in world.gather(counts) for item in part)
    size = config.mini_batch_prompts
    num_batches = 1 + max(key[0] for key, _, _ in listed) // size
    made = []
    for number in range(num_batches):
        members = [item for item in listed if item[0][0] // size == number]
        own = [row for row in rows if row.key[0] // size == number]
        mean, policy = (_weights(members, column, config, max_new_tokens) for column in (1, 2))
        made.append(MiniBatch(number=number, rows=own, weight=policy, mean_weight=mean))
    return made


def _rows(scored: ScoredGroup) -> Iterator[Row]:
    assert scored.advantage_N is not None
    lengths = scored.lengths_G.tolist()
    counted = lengths if scored.counted_G is None else scored.counted_G.tolist()
    parts = zip(
        scored.group.completions,
        scored.advantage_N.split(lengths),
        scored.old_logprob_N.split(lengths),
        _split(scored.ref_logprob_N, lengths),
        _split(scored.importance_N, lengths),
        counted,
        strict=True,
    )
    for rollout, (completion, advantage_N, old_N, ref_N, importance_N, count) in enumerate(parts):
        yield Row(
            key=(scored.group.order, rollout),
            prompt_id=scored.group.task.problem.prompt_id,
            prompt_ids=scored.group.task.token_ids,
            token_ids=completion.token_ids,
            advantage_N=advantage_N,
            old_logprob_N=old_N,
            ref_logprob_N=ref_N,
            importance_N=importance_N,
            counted=count,
        )


def _split(value_N: Tokens | None, lengths: list[int]) -> Sequence[Float[Tensor, " _"] | None]:
    return [None] * len(lengths) if value_N is None else value_N.split(lengths)


def _weights(
    members: Sequence[tuple[tuple[int, int], int, int]],
    column: int,
    config: TrainConfig,
    max_new_tokens: int,
) -> dict[tuple[int, int], float]:
    weight_R = aggregate_weights(
        torch.tensor([item[column] for item in members]),
        torch.tensor([item[0][0] for item in members]),
        aggregate=config.aggregate,
        max_length=max_new_tokens,
    )
    return dict(zip([item[0] for item in members], weight_R.tolist(), strict=True))


def micro_batches(
    batch: MiniBatch, max_tokens: int, filler_ids: Sequence[int], device: torch.device, world: World
) -> list[MicroBatch]:
    """Rows of similar length together, at most `max_tokens` with padding, or a single row.

    Every process gets the same number: those with fewer rows get fillers of no weight.

    Args:
        batch: the mini-batch.
        max_tokens: rows times the longest of them.
        filler_ids: two ids for a filler.
        device: where they go.
        world: the processes.
    """
    split: list[list[Row]] = []
    for row in sorted(batch.rows, key=lambda row: (-row.length, row.key)):
        if split and _joins(row, split[-1], max_tokens):
            split[-1].append(row)
        else:
            split.append([row])
    made = [packed(rows, batch, device) for rows in split]
    missing = max(world.gather(len(made))) - len(made)
    return made + [_filler(filler_ids, device) for _ in range(missing)]


def _joins(row: Row, rows: Sequence[Row], max_tokens: int) -> bool:
    """Whether a row fits a micro-batch and would not be padding for the most part."""
    longest = rows[0].length  # rows come longest first
    if (len(rows) + 1) * longest > max_tokens:
        return False
    return len(rows) * longest < ENOUGH_SHARE * max_tokens or row.length >= EVEN * longest


def packed(rows: Sequence[Row], batch: MiniBatch, device: torch.device) -> MicroBatch:
    """Rows on the device, one completion after another."""
    width = max(row.length for row in rows)
    inputs = [[*row.prompt_ids, *row.token_ids[:-1]] for row in rows]
    lengths = torch.tensor([len(row.token_ids) for row in rows])
    index_N = torch.arange(len(rows)).repeat_interleave(lengths)
    positions = [torch.arange(len(row.token_ids)) + len(row.prompt_ids) - 1 for row in rows]
    ids = [token for row in rows for token in row.token_ids]
    references = [row.ref_logprob_N for row in rows if row.ref_logprob_N is not None]
    importance = [row.importance_N for row in rows if row.importance_N is not None]
    old_N = torch.cat([row.old_logprob_N for row in rows]).to(device)

    def spread(weight: dict[tuple[int, int], float]) -> Tensor:
        weight_R = torch.tensor([weight[row.key] for row in rows], dtype=torch.float64)
        return weight_R[index_N].to(old_N)

    return MicroBatch(
        rows=rows,
        input_ids_BL=torch.tensor(
            [[*ids_L, *[0] * (width - len(ids_L))] for ids_L in inputs], device=device
        ),
        places_2N=torch.stack([index_N, torch.cat(positions)]).to(device),
        token_ids_N=torch.tensor(ids, device=device),
        rollout_index_N=index_N.to(device),
        advantage_N=torch.cat([row.advantage_N for row in rows]).to(old_N),
        old_logprob_N=old_N,
        ref_logprob_N=torch.cat(references).to(device) if references else None,
        importance_N=torch.cat(importance).to(device) if importance else None,
        weight_N=spread(batch.weight),
        mean_weight_N=spread(batch.mean_weight),
    )


def _filler(ids: Sequence[int], device: torch.device) -> MicroBatch:
    """One token that counts nothing: it keeps the processes' collective calls in step."""
    zero_N = torch.zeros(1, device=device)
    return MicroBatch(
        rows=[],
        input_ids_BL=torch.tensor([[ids[0]]], device=device),
        places_2N=torch.zeros(2, 1, dtype=torch.long, device=device),
        token_ids_N=torch.tensor([ids[1]], device=device),
        rollout_index_N=torch.zeros(1, dtype=torch.long, device=device),
        advantage_N=zero_N,
        old_logprob_N=zero_N,
        ref_logprob_N=None,
        importance_N=None,
        weight_N=zero_N,
        mean_weight_N=zero_N,
    )
