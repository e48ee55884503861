import torch
from thr_weights import weights_by_prompt

from thr_probe.core.head import Head

STATES = {}  # sample index -> (T, D)


def watch(output_layer, rows):
    """Hook the unembedding of the last pipeline stage around the log-probability pass.

    `rows()` yields (sample index, total length, response length) of the micro-batch in its order.
    Megatron's states are (tokens, 1, D), completions one after another.
    """

    def before(_module, given):
        first = 0
        for index, total, response in rows():
            last = first + total
            STATES[index] = given[0][last - response - 1 : last - 1, 0].detach()
            first = last

    return output_layer.register_forward_pre_hook(before)


def thr_advantages(args, rollout_data):
    """For --custom-advantage-function-path: slime's normalised rewards, weighed by THR(p)."""
    lengths, indices = rollout_data["response_lengths"], rollout_data["sample_indices"]
    tokens = [
        torch.as_tensor(ids)[-length:]
        for ids, length in zip(rollout_data["tokens"], lengths, strict=True)
    ]
    # with --rewards-normalization a reward of 0 or 1 lies above the group's mean if it is 1
    rewards = rollout_data["rewards"]
    weights = weights_by_prompt(
        [index // args.n_samples_per_prompt for index in indices],
        [STATES.pop(index) for index in indices],
        tokens,
        [reward > 0 for reward in rewards],
        Head(args.thr_unembedding, temperature=args.rollout_temperature),
        args.thr_p,
        args.n_samples_per_prompt,
    )
    advantages = [
        reward * weight.to(kl)
        for reward, weight, kl in zip(rewards, weights, rollout_data["kl"], strict=True)
    ]
    rollout_data["advantages"] = rollout_data["returns"] = advantages
