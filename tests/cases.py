"""Small random groups with each kind of head, for tests of the mathematics."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch

from thr_probe.core.head import Head
from thr_probe.core.thr import TokenGroup

HEADS = {
    "plain": {},
    "temperature": {"temperature": 0.7},
    "scale": {"scale": 0.3},
    "softcap": {"softcap": 1.5},
    "bias": {"bias": True},
    "everything": {"bias": True, "scale": 0.6, "softcap": 2.0, "temperature": 0.7},
}


@dataclass
class Case:
    """One group: torch for the package, numpy lists and head keywords for the reference."""

    group: TokenGroup
    head: Head
    states: list
    tokens: list
    correct: list
    weight: object
    keywords: dict

    def packed(self, rows):
        """Per-rollout lists of the reference in the order of the packed group."""
        return torch.tensor([value for row in rows for value in row], dtype=torch.float64)


def make_case(kind="plain", *, seed=0, correct=(True, False, True, False), lengths=(3, 5, 4, 2)):
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    vocab_size, hidden_size, options = 11, 6, dict(HEADS[kind])
    weight_VD = random(vocab_size, hidden_size)
    bias_V = random(vocab_size) if options.pop("bias", False) else None
    hidden_ND = random(sum(lengths), hidden_size)
    token_ids_N = torch.randint(vocab_size, (sum(lengths),), generator=generator)
    index_N = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    group = TokenGroup(hidden_ND, token_ids_N, index_N, torch.tensor(correct))
    keywords = dict(options)
    if bias_V is not None:
        keywords["bias_V"] = bias_V.numpy()
    return Case(
        group=group,
        head=Head(weight_VD, bias_V, **options),
        states=[part.numpy() for part in hidden_ND.split(list(lengths))],
        tokens=[part.tolist() for part in token_ids_N.split(list(lengths))],
        correct=list(correct),
        weight=weight_VD.numpy(),
        keywords=keywords,
    )


def log_probability(group, head, weight_VD):
    """log pi of every token as plain differentiable torch, apart from the package's head."""
    logits_NV = head.scale * (group.hidden_ND @ weight_VD.T)
    if head.bias_V is not None:
        logits_NV = logits_NV + head.bias_V
    if head.softcap is not None:
        logits_NV = head.softcap * torch.tanh(logits_NV / head.softcap)
    logprob_NV = torch.log_softmax(logits_NV / head.temperature, dim=1)
    return logprob_NV.gather(1, group.token_ids_N[:, None])[:, 0]


def mean_log_likelihood(group, head, weight_VD):
    """F(W) = sum over correct i of 1/T_i sum_k log pi."""
    logprob_N = log_probability(group, head, weight_VD)
    total = weight_VD.new_zeros(())
    for i in range(len(group.correct_G)):
        if group.correct_G[i]:
            total = total + logprob_N[group.rollout_index_N == i].mean()
    return total


def gradient_of_likelihood(case):
    weight_VD = case.head.weight_VD.clone().requires_grad_()
    mean_log_likelihood(case.group, case.head, weight_VD).backward()
    return weight_VD.grad


def wide_case(kind, *, vocab_size=400, sharpness=3.0, correct=(True, False, True, False), seed=0):
    """A group over a vocabulary much larger than its completions."""
    generator = torch.Generator().manual_seed(seed)
    options = dict(HEADS[kind])
    weight_VD = torch.randn(vocab_size, 8, generator=generator, dtype=torch.float64)
    has_bias = options.pop("bias", False)
    bias_V = torch.randn(vocab_size, generator=generator).double() if has_bias else None
    hidden_ND = sharpness * torch.randn(60, 8, generator=generator, dtype=torch.float64) / 2
    head = Head(weight_VD, bias_V, **options)
    logits_NV = hidden_ND @ weight_VD.T
    ids = torch.multinomial(logits_NV.softmax(dim=1), 1, generator=generator)[:, 0]
    index_N = torch.arange(60) // 15
    return TokenGroup(hidden_ND, ids, index_N, torch.tensor(correct)), head


def in_dtype(group, head, dtype):
    bias_V = None if head.bias_V is None else head.bias_V.to(dtype)
    head = dataclasses.replace(head, weight_VD=head.weight_VD.to(dtype), bias_V=bias_V)
    return dataclasses.replace(group, hidden_ND=group.hidden_ND.to(dtype)), head
