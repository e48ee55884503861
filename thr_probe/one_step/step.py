"""One GRPO update on one question alone: what it does to the likelihood of its correct completions.

The protocol of Deng et al. (2025, arXiv 2505.18830): from the same weights every time, one step
on a question's completions, then Delta, the mean over its correct completions of
ln pi_theta'(y_i) - ln pi_theta(y_i), set beside GWHES (`thr_probe.core.gwhes`). The loss is the
trainer's own: Equation 2 at ratio 1 with its clip, without KL, entropy bonus, weight decay or
clipping of the gradient's norm.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from thr_probe.core.advantages import group_advantages
from thr_probe.core.gwhes import gwhes
from thr_probe.core.losses import aggregate_weights
from thr_probe.errors import UsageError
from thr_probe.policy import Policy
from thr_probe.probe import ProbeOptions, replay_group
from thr_probe.processes import World
from thr_probe.train.batches import MicroBatch, MiniBatch, Row, micro_batches
from thr_probe.train.config import TrainConfig
from thr_probe.train.module import PolicyModule
from thr_probe.train.objective import objective_of
from thr_probe.train.updates import Learner, run_update

OPTIMIZERS = ("sgd", "adamw")
DEFAULT_LR: Mapping[str, float] = {"sgd": 1e-3, "adamw": 1e-6}
_ALONE = World(rank=0, size=1, local_rank=0)
_NO_CLIPPING = sys.float_info.max

Tokens = Float[Tensor, " N"]
Weights = Mapping[torch.nn.Parameter, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOptions:
    """The update."""

    optimizer: str = "sgd"
    """`sgd`, of which the theorem speaks: a plain gradient step; or `adamw`, from fresh moments,
    whose first step is nearly the sign of the gradient."""
    lr: float | None = None
    """Learning rate; None: 1e-3 of sgd, 1e-6 of adamw."""
    temperature: float = 1.0
    """Of pi."""
    micro_batch_tokens: int = 16384
    """Tokens per forward and backward pass, padding included."""

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise UsageError(
                f"unknown optimizer {self.optimizer!r}; choose {' or '.join(OPTIMIZERS)}"
            )
        _ = self.config  # refuses an impossible value before anything is loaded

    @property
    def rate(self) -> float:
        """The learning rate in use."""
        return DEFAULT_LR[self.optimizer] if self.lr is None else self.lr

    @property
    def config(self) -> TrainConfig:
        """The same for the trainer: GRPO without whatever is not in the gradient of Equation 2.

        Raises:
            UsageError: an impossible value.
        """
        return TrainConfig(
            method="grpo",
            lr=self.rate,
            temperature=self.temperature,
            kl_coef=0.0,
            entropy_coef=0.0,
            weight_decay=0.0,
            max_grad_norm=_NO_CLIPPING,
            micro_batch_tokens=self.micro_batch_tokens,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question's rollouts, some correct and some not."""

    prompt_id: str
    """Names it."""
    prompt_ids: Sequence[int]
    """The prompt."""
    completions: Sequence[Sequence[int]]
    """Token ids of the G completions."""
    correct: Sequence[bool]
    """The verifier's verdicts."""

    @property
    def is_mixed(self) -> bool:
        """Whether any advantage differs from 0."""
        return len(set(map(bool, self.correct))) == 2


@dataclass(frozen=True, slots=True, kw_only=True)
class OneStep:
    """What one update did; P are the correct completions, in their order."""

    rollout_P: tuple[int, ...]
    """Their numbers in the group."""
    gwhes_P: tuple[float, ...]
    """GWHES of each before the update."""
    change_P: tuple[float, ...]
    """ln pi_theta'(y_i) - ln pi_theta(y_i) of each, nats, summed over its tokens."""
    first_order: float
    """<grad of the mean ln pi of the correct ones, theta' - theta>: Delta but for curvature."""
    gradient_norm: float
    """Of the loss, over all weights."""


def one_step(policy: Policy, question: Question, options: StepOptions) -> OneStep:
    """Take one GRPO step on a question, measure, and put the weights back bit by bit.

    Args:
        policy: in float32 or float64; its weights move and are restored.
        question: with correct and incorrect completions.
        options: the update.

    Raises:
        UsageError: verdicts that are all the same, or weights of 16 bits.
        IncompleteError: a loss or gradient that is not a number.
    """
    if not question.is_mixed:
        raise UsageError(
            f"prompt {question.prompt_id}: all completions are "
            f"{'right' if question.correct[0] else 'wrong'}, so a GRPO step does nothing",
            hint="take questions with right and wrong completions",
        )
    if policy.dtype not in {torch.float32, torch.float64}:
        raise UsageError("a small step is lost in weights of 16 bits: load the policy in float32")
    score_P = _scores(policy, question, options)
    learner = _learner(policy, question, options)
    batch = _mini_batch(question, options)
    batch = replace(batch, rows=_with_old_logprobs(batch, _logprobs(learner, batch)))
    before = _likelihoods(_logprobs(learner, batch), question)
    gradient = _likelihood_gradient(learner, batch, question)
    with _restored(learner.module) as saved:
        record = run_update(learner, batch, step=0)
        after = _likelihoods(_logprobs(learner, batch), question)
        moved = sum(
            float((gradient[weight].double() * (weight.detach() - start).double()).sum())
            for weight, start in saved.items()
            if weight in gradient
        )
    right = tuple(rollout for rollout, verdict in enumerate(question.correct) if verdict)
    return OneStep(
        rollout_P=right,
        gwhes_P=score_P,
        change_P=tuple(after[rollout] - before[rollout] for rollout in right),
        first_order=float(moved),
        gradient_norm=record.grad_norm,
    )


def _scores(policy: Policy, question: Question, options: StepOptions) -> tuple[float, ...]:
    replay = replay_group(
        policy,
        question.prompt_ids,
        question.completions,
        question.correct,
        options=ProbeOptions(vocab="full", temperature=options.temperature),
        prompt_id=question.prompt_id,
        direction=None,
    )
    score_G = gwhes(replay.group, replay.head).score
    return tuple(score_G[replay.group.correct_G].tolist())


def _learner(policy: Policy, question: Question, options: StepOptions) -> Learner:
    config = options.config
    module = PolicyModule(policy.model, policy.rule)
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    optimizer: torch.optim.Optimizer
    if options.optimizer == "sgd":
        optimizer = torch.optim.SGD(weights, lr=config.lr)
    else:
        optimizer = torch.optim.AdamW(weights, lr=config.lr, weight_decay=0.0)
    return Learner(
        module=module,
        optimizer=optimizer,
        objective=objective_of(config),
        config=config,
        device=policy.device,
        filler_ids=(list(question.prompt_ids) * 2)[:2],
        world=_ALONE,
    )


def _mini_batch(question: Question, options: StepOptions) -> MiniBatch:
    """The question's completions with their advantages; old log-probabilities still to come."""
    lengths_G = torch.tensor([len(completion) for completion in question.completions])
    one_group_G = torch.zeros_like(lengths_G)
    advantage_G = group_advantages(torch.tensor([bool(verdict) for verdict in question.correct]))
    weight_G = aggregate_weights(lengths_G, one_group_G, aggregate=options.config.aggregate)
    rows = [
        Row(
            key=(0, rollout),
            prompt_id=question.prompt_id,
            prompt_ids=question.prompt_ids,
            token_ids=completion,
            advantage_N=advantage_G[rollout].expand(len(completion)),
            old_logprob_N=torch.zeros(len(completion)),
            ref_logprob_N=None,
            counted=len(completion),
        )
        for rollout, completion in enumerate(question.completions)
    ]
    weight = {row.key: float(weight_G[place]) for place, row in enumerate(rows)}
    return MiniBatch(number=0, rows=rows, weight=weight, mean_weight=weight)


def _parts(learner: Learner, batch: MiniBatch) -> list[MicroBatch]:
    """The micro-batches of the update: packed alike, log-probabilities are the same to the bit."""
    tokens = learner.config.micro_batch_tokens
    return micro_batches(batch, tokens, learner.filler_ids, learner.device, _ALONE)


def _forward(learner: Learner, part: MicroBatch) -> Tokens:
    config = learner.config
    logprob_N, _, _ = learner.module(
        part.input_ids_BL, part.places_2N, part.token_ids_N, config.temperature, config.chunk_size
    )
    return torch.as_tensor(logprob_N)


@torch.no_grad()
def _logprobs(learner: Learner, batch: MiniBatch) -> dict[int, Tokens]:
    """Log-probability of every token, by rollout, on the CPU."""
    found: dict[int, Tokens] = {}
    for part in _parts(learner, batch):
        lengths = [len(row.token_ids) for row in part.rows]
        split = torch.split(_forward(learner, part).cpu(), lengths)
        found |= {row.key[1]: own_N for row, own_N in zip(part.rows, split, strict=True)}
    return found


def _with_old_logprobs(batch: MiniBatch, logprobs: Mapping[int, Tokens]) -> list[Row]:
    return [replace(row, old_logprob_N=logprobs[row.key[1]]) for row in batch.rows]


def _likelihoods(logprobs: Mapping[int, Tokens], question: Question) -> list[float]:
    """ln pi(y) of each rollout; float64, as the change is small beside the sum."""
    return [float(logprobs[rollout].double().sum()) for rollout in range(len(question.completions))]


def _likelihood_gradient(learner: Learner, batch: MiniBatch, question: Question) -> Weights:
    """Gradient of the mean over correct completions of ln pi(y), by weight."""
    share = 1 / sum(map(bool, question.correct))
    learner.optimizer.zero_grad(set_to_none=True)
    for part in _parts(learner, batch):
        counts = [share * bool(question.correct[row.key[1]]) for row in part.rows]
        counted_N = torch.tensor(counts, device=learner.device)[part.rollout_index_N]
        torch.autograd.backward((counted_N * _forward(learner, part)).sum())
    return {
        weight: weight.grad.detach().clone()
        for weight in learner.module.parameters()
        if weight.grad is not None
    }


@contextmanager
def _restored(module: PolicyModule) -> Iterator[Weights]:
    """The weights as they are now, which they are again after the block, without gradients."""
    saved = {weight: weight.detach().clone() for weight in module.parameters()}
    try:
        yield saved
    finally:
        with torch.no_grad():
            for weight, start in saved.items():
                weight.copy_(start)
                weight.grad = None
