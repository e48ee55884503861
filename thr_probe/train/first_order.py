"""The exact first-order check of THR(p): one question, one SGD step on the unembedding.

With hidden states held fixed and the ratio at 1, a step of size e changes F, the sum over the
correct completions of their mean log-likelihood, by e (net + p slope) to first order
(METHOD 2.2): p > 0 raises it, p < 0 lowers it, exactly. KL, weight decay and gradient clipping are
off; the clip of the ratio is on and does nothing at 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from thr_probe.core.advantages import group_advantages, thr_advantages
from thr_probe.core.head import Head, logits_and_slope
from thr_probe.core.losses import aggregate_weights, clipped_loss
from thr_probe.core.steering import Steering, steering
from thr_probe.core.thr import TokenGroup, dominant_mask, threshold, token_hidden_reward
from thr_probe.errors import IncompleteError, UsageError
from thr_probe.policy import Policy

SECOND_ORDER = 0.003
"""The step is halved until what is not linear in it is a smaller share than this."""

MOST_HALVINGS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstOrder:
    """One row of the check."""

    p: float
    """Of THR(p)."""
    step_size: float
    """e, after halving."""
    measured: float
    """Change of F over e."""
    predicted: float
    """net + p slope."""
    error: float
    """|measured - predicted| / max(|net|, |slope|)."""
    second_order: float
    """Part of `measured` that is not linear in e, in the same unit as `error`."""
    steering: Steering
    """net and slope, from THR alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question's rollouts with states held fixed, all in float64."""

    group: TokenGroup
    """States, tokens, verdicts."""
    head: Head
    """The unembedding, detached: a weight of its own even where the policy ties it."""
    thr_N: Float[Tensor, " N"]
    """THR of every token."""
    tau: float
    """Threshold."""
    advantage_N: Float[Tensor, " N"]
    """GRPO advantage at every token."""

    @property
    def steering(self) -> Steering:
        """What THR says a step does to F."""
        dominant_N = dominant_mask(self.thr_N, self.tau)
        return steering(self.advantage_N, self.thr_N, dominant_N, dominant_N)


def first_order_check(
    policy: Policy,
    prompt_ids: Sequence[int],
    completions: Sequence[Sequence[int]],
    correct: Sequence[bool],
    *,
    ps: Sequence[float] = (-0.5, 0.0, 0.5),
    temperature: float = 1.0,
) -> list[FirstOrder]:
    """Measure dF of one SGD step on the unembedding for some p, beside what THR predicts.

    Args:
        policy: the policy that sampled the completions; it is not changed.
        prompt_ids: the question's prompt.
        completions: token ids of its G completions.
        correct: the verifier's verdicts, some right and some wrong.
        ps: the values of p.
        temperature: of the rollouts.

    Returns:
        A row per p.

    Raises:
        UsageError: verdicts that are all the same, which leaves every advantage at 0.
        IncompleteError: no step was small enough.
    """
    if len(set(map(bool, correct))) < 2:
        raise UsageError(
            "the first-order check needs completions that are right and completions that are wrong",
            hint="take another question",
        )
    question = _question(policy, prompt_ids, completions, correct, temperature)
    return [_check(question, p) for p in ps]


def _question(
    policy: Policy,
    prompt_ids: Sequence[int],
    completions: Sequence[Sequence[int]],
    correct: Sequence[bool],
    temperature: float,
) -> Question:
    device = policy.device
    lengths = torch.tensor([len(completion) for completion in completions])
    ids = torch.tensor([token for completion in completions for token in completion])
    group = TokenGroup(
        policy.hidden(prompt_ids, completions).double(),
        ids.to(device),
        torch.arange(len(completions)).repeat_interleave(lengths).to(device),
        torch.tensor([bool(verdict) for verdict in correct], device=device),
    )
    shared = policy.head(temperature)
    bias_V = None if shared.bias_V is None else shared.bias_V.double()
    head = replace(shared, weight_VD=shared.weight_VD.double().clone(), bias_V=bias_V)
    thr_N = token_hidden_reward(group, head).thr_N
    return Question(
        group=group,
        head=head,
        thr_N=thr_N,
        tau=threshold(thr_N, group),
        advantage_N=group_advantages(group.correct_G)[group.rollout_index_N],
    )


def _check(question: Question, p: float) -> FirstOrder:
    known = question.steering
    scale = max(abs(known.net), abs(known.slope))
    gradient_VD = _loss_gradient(question, p)
    # no logit moves by more than about 1: far out, where pi has saturated, dF is linear again
    moved_NV = question.head.scale * (question.group.hidden_ND @ gradient_VD.T)
    step_size = question.head.temperature / float(moved_NV.abs().max().clamp(min=1e-300))
    change = _change(question, gradient_VD, step_size)
    for _ in range(MOST_HALVINGS):
        smaller = _change(question, gradient_VD, step_size / 2)
        # with dF(e) = a e + b e^2 this is b e / 2, the share of b in dF(e / 2) / (e / 2)
        curvature = abs(change - 2 * smaller) / step_size
        step_size, change = step_size / 2, smaller
        if curvature < SECOND_ORDER * scale:
            measured, predicted = change / step_size, known.net + p * known.slope
            return FirstOrder(
                p=p,
                step_size=step_size,
                measured=measured,
                predicted=predicted,
                error=abs(measured - predicted) / scale,
                second_order=curvature / scale,
                steering=known,
            )
    raise IncompleteError(
        f"first-order check: dF is not linear in the step down to {step_size:g}",
        "take a question with a larger net drift or steering slope",
    )


def _loss_gradient(question: Question, p: float) -> Float[Tensor, "V D"]:
    """Gradient of the trainer's own loss of this one question with respect to the unembedding."""
    group = question.group
    weight_VD = question.head.weight_VD.clone().requires_grad_()
    logprob_N = _logprobs(question, weight_VD)
    advantage_N = thr_advantages(question.advantage_N, question.thr_N, question.tau, p)
    loss = clipped_loss(logprob_N, logprob_N.detach(), advantage_N, clip_low=0.2, clip_high=0.2)
    one_group_R = torch.zeros_like(group.lengths)
    weight_R = aggregate_weights(group.lengths, one_group_R, aggregate="group-token-mean")
    # Equation 2 divides by the question's tokens; net and slope are sums over them
    num_tokens = len(group.token_ids_N)
    total = num_tokens * (weight_R[group.rollout_index_N] * loss.loss_N).sum()
    (gradient_VD,) = torch.autograd.grad(total, weight_VD)
    return gradient_VD


def _logprobs(question: Question, weight_VD: Float[Tensor, "V D"]) -> Float[Tensor, " N"]:
    head, ids_N = replace(question.head, weight_VD=weight_VD), question.group.token_ids_N
    logprob_NV = torch.log_softmax(logits_and_slope(question.group.hidden_ND, head)[0], dim=1)
    return logprob_NV.gather(1, ids_N[:, None])[:, 0]


def _change(question: Question, gradient_VD: Float[Tensor, "V D"], step_size: float) -> float:
    """dF of one SGD step of a size."""
    weight = torch.nn.Parameter(question.head.weight_VD.clone())
    weight.grad = gradient_VD
    torch.optim.SGD([weight], lr=step_size).step()
    with torch.no_grad():
        moved_N = _logprobs(question, weight) - _logprobs(question, question.head.weight_VD)
    return float((question.group.likelihood_weights * moved_N).sum())
