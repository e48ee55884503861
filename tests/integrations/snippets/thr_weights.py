import torch

from thr_probe.core.advantages import thr_advantages
from thr_probe.core.head import Head
from thr_probe.core.thr import TokenGroup, threshold, token_hidden_reward
from thr_probe.policy.families import logit_rule, unembedding


def thr_weights(states, token_ids, correct, head, p):
    """1[|THR| > tau] (1 + sign(THR) p) of every token of ONE prompt's completions.

    states: per completion (T, D), the input of the unembedding one position before each token.
    Without a correct completion THR is undefined and every weight is 0.
    """
    lengths = torch.tensor([len(ids) for ids in token_ids])
    group = TokenGroup(
        torch.cat(states),
        torch.cat(token_ids),
        torch.arange(len(lengths)).repeat_interleave(lengths).to(states[0].device),
        correct.to(states[0].device),
    )
    thr = token_hidden_reward(group, head, vocab="sparse").thr_N.double()
    weights = thr_advantages(torch.ones_like(thr), thr, threshold(thr, group), p)
    return list(weights.split(lengths.tolist()))


def head_of(model, temperature):
    """The unembedding of a transformers model, gathered where FSDP 2 has sharded it."""
    rule = logit_rule(model.config)
    weight, bias = (
        part.full_tensor() if hasattr(part, "full_tensor") else part
        for part in rule.weight_and_bias(unembedding(model))
    )
    bias = None if bias is None else bias.detach()
    return Head(weight.detach(), bias, rule.scale, rule.softcap, temperature)


def weights_by_prompt(keys, states, token_ids, correct, head, p, group_size):
    """The same for all rows of one rank; rows of one prompt share a key and may lie anywhere."""
    weights = [None] * len(keys)
    for key in dict.fromkeys(keys):
        rows = [row for row, other in enumerate(keys) if other == key]
        if len(rows) != group_size:
            raise ValueError(f"prompt {key}: {len(rows)} of {group_size} completions on this rank")
        found = thr_weights(
            [states[row] for row in rows],
            [token_ids[row] for row in rows],
            torch.tensor([bool(correct[row]) for row in rows]),
            head,
            p,
        )
        for row, weight in zip(rows, found, strict=True):
            weights[row] = weight
    return weights
