"""The paper's formulas, transcribed literally and slowly: loops, float64, numpy only.

Nothing here is shared with the package; the fast functions are held against it.
"""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np


def softmax(logits_V):
    exponent_V = np.exp(logits_V - logits_V.max())
    return exponent_V / exponent_V.sum()


def final_logits(weight_VD, hidden_D, *, bias_V=None, scale=1.0, softcap=None, temperature=1.0):
    logits_V = scale * np.array([row @ hidden_D for row in weight_VD])
    if bias_V is not None:
        logits_V = logits_V + bias_V
    if softcap is not None:
        logits_V = softcap * np.tanh(logits_V / softcap)
    return logits_V / temperature


def probabilities(weight_VD, hidden_D, **head):
    return softmax(final_logits(weight_VD, hidden_D, **head))


def residual(weight_VD, hidden_D, token, **head):
    """R = J (e_y - pi), J = s (1 - (l / c)^2) / T; e_y - pi for a plain head at T = 1."""
    temperature, scale = head.get("temperature", 1.0), head.get("scale", 1.0)
    error_V = -probabilities(weight_VD, hidden_D, **head)
    error_V[token] += 1.0
    slope_V = np.full(len(error_V), scale / temperature)
    if head.get("softcap") is not None:
        capped_V = temperature * final_logits(weight_VD, hidden_D, **head)
        slope_V = slope_V * (1 - (capped_V / head["softcap"]) ** 2)
    return slope_V * error_V


def thr_quadruple_loop(states, tokens, correct, weight_VD, **head):
    """Corollary 4.2 with Definition 4.1: for every y_j, k', over every correct y_i, over every k.

    states[i] is (T_i, D), tokens[i] a list of T_i ids, correct[i] a bool; one list per rollout.
    """
    residuals = [
        [residual(weight_VD, h, y, **head) for h, y in zip(states[i], tokens[i], strict=True)]
        for i in range(len(tokens))
    ]
    scores = []
    for j in range(len(tokens)):
        row = []
        for k_prime in range(len(tokens[j])):
            total = 0.0
            for i in range(len(tokens)):
                if not correct[i]:
                    continue
                inner = 0.0
                for k in range(len(tokens[i])):
                    alpha = float(residuals[i][k] @ residuals[j][k_prime])
                    inner += alpha * float(states[i][k] @ states[j][k_prime])
                total += inner / len(tokens[i])
            row.append((2 * int(correct[j]) - 1) * total)
        scores.append(row)
    return scores


def alpha(weight_VD, hidden_a, token_a, hidden_b, token_b):
    """1[y = y'] - pi(y') - pi'(y) + <pi, pi'> for a plain head at T = 1 (METHOD 2.1, form 4)."""
    pi_a, pi_b = probabilities(weight_VD, hidden_a), probabilities(weight_VD, hidden_b)
    return float(token_a == token_b) - pi_a[token_b] - pi_b[token_a] + float(pi_a @ pi_b)


def thr_restricted(states, tokens, correct, weight_VD, kept):
    """THR on the entries `kept` only, probabilities not renormalised, and what that leaves out.

    What is left out: sum_i 1/T_i sum_k sum_{v not kept} pi pi' <h, h'>, with the token's sign.
    """
    outside = np.setdiff1d(np.arange(len(weight_VD)), kept)
    restricted, left_out = [], []
    for j in range(len(tokens)):
        for h_prime, y_prime in zip(states[j], tokens[j], strict=True):
            r_prime = residual(weight_VD, h_prime, y_prime)
            pi_prime = probabilities(weight_VD, h_prime)
            score = lost = 0.0
            for i in np.flatnonzero(correct):
                for h, y in zip(states[i], tokens[i], strict=True):
                    similarity = float(h @ h_prime) / len(tokens[i])
                    score += float(residual(weight_VD, h, y)[kept] @ r_prime[kept]) * similarity
                    pi = probabilities(weight_VD, h)
                    lost += float(pi[outside] @ pi_prime[outside]) * similarity
            sign = 2 * int(correct[j]) - 1
            restricted.append(sign * score)
            left_out.append(sign * lost)
    return np.array(restricted), np.array(left_out)


def tau(scores, correct, *, beta=1.0):
    """beta * min over correct i' of the mean over k'' of its THR."""
    means = [sum(scores[i]) / len(scores[i]) for i in range(len(correct)) if correct[i]]
    return beta * min(means)


def grpo_advantages(rewards):
    """(r - mean) / population standard deviation: Equation 1 is its closed form."""
    mean = sum(rewards) / len(rewards)
    deviation = math.sqrt(sum((r - mean) ** 2 for r in rewards) / len(rewards))
    return [(r - mean) / deviation for r in rewards]


def chen_pass_at_k_advantages(correct, k):
    """Chen et al. 2025 by enumeration: all groups of k, reward = any correct, mean per rollout."""
    groups = list(combinations(range(len(correct)), k))
    rewards = [float(any(correct[i] for i in group)) for group in groups]
    mean = sum(rewards) / len(rewards)
    deviation = math.sqrt(mean * (1 - mean))
    if deviation == 0:
        return [0.0] * len(correct)
    advantages = []
    for i in range(len(correct)):
        mine = [r for group, r in zip(groups, rewards, strict=True) if i in group]
        advantages.append(sum((r - mean) / deviation for r in mine) / len(mine))
    return advantages
