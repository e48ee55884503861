import torch
from thr_weights import head_of, weights_by_prompt
from verl.trainer.ppo.core_algos import register_adv_est

from thr_probe.core.advantages import group_advantages
from thr_probe.policy.families import capture_states


def log_probs_and_states(model, forward):
    """On the worker: `forward` is its no-grad log-probability pass over one micro-batch.

    The states are (1, total tokens, D) with use_remove_padding, else (rows, length, D). With
    use_fused_kernels the unembedding is not called, and nothing is captured: leave that off.
    """
    with capture_states(model, keep_logits=True) as states:
        output = forward()
    return output, states[0]


def completion_states(states, offsets, prompt_lengths):
    """Packed states -> per completion (T, D): from the prompt's last position to the last but one.

    offsets: where each row begins and the last one ends, `input_ids.offsets()` of the micro-batch.
    """
    bounds = zip(offsets[:-1], offsets[1:], prompt_lengths, strict=True)
    return [states[0, first + prompt - 1 : last - 1] for first, last, prompt in bounds]


def padded_weights(uids, states, responses, scores, model, p, temperature, group_size):
    """On the worker, after the last micro-batch: (rows, longest response), 0 behind the end."""
    correct = [float(score) > 0.5 for score in scores]
    head = head_of(model, temperature)
    weights = weights_by_prompt(uids, states, responses, correct, head, p, group_size)
    return torch.nn.utils.rnn.pad_sequence(weights, batch_first=True)


def with_thr_weights(compute_advantage):
    """On the driver: `ray_trainer.compute_advantage = with_thr_weights(...)` before `fit`."""

    def weighed(data, *given, **named):
        data = compute_advantage(data, *given, **named)
        weights = data.batch["thr_weights"].to(data.batch["advantages"])
        data.batch["advantages"] = data.batch["advantages"] * weights
        return data

    return weighed


@register_adv_est("grpo_population")
def grpo_population(token_level_rewards, response_mask, index, config=None, **_):
    """Equation 1 as printed; verl's own `grpo` has the sample deviation."""
    correct = token_level_rewards.sum(-1) > 0.5
    advantages = torch.zeros_like(token_level_rewards)
    for uid in set(index):
        rows = torch.tensor([row for row, other in enumerate(index) if other == uid])
        advantages[rows] = group_advantages(correct[rows])[:, None].to(advantages)
    advantages = advantages * response_mask
    return advantages, advantages
