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


def steering(scores, advantages, tau_value):
    """METHOD 2.2: net and slope over |THR| > tau, total over all; scores[j][k], advantages[j]."""
    net = slope = total = 0.0
    for row, advantage in zip(scores, advantages, strict=True):
        for score in row:
            total += abs(advantage) * abs(score)
            if abs(score) > tau_value:
                net += abs(advantage) * score
                slope += abs(advantage) * abs(score)
    return net, slope, total


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


def pkpo_weights(correct, k, *, baseline):
    """Walder & Karkhanis 2025 by enumeration: the weight of grad log pi(y_i) in a sum over i.

    The mean over all sets of k of (any correct - baseline), over the sets that i belongs to;
    the baseline is that of all sets of k, or of k - 1, of the other rollouts.
    """
    size = len(correct)
    groups = list(combinations(range(size), k))
    weights = []
    for i in range(size):
        others = [j for j in range(size) if j != i]
        level = 0.0
        if baseline != "none":
            drawn = list(combinations(others, k if baseline == "loo" else k - 1))
            level = sum(float(any(correct[j] for j in group)) for group in drawn) / len(drawn)
        mine = [float(any(correct[j] for j in group)) - level for group in groups if i in group]
        weights.append(sum(mine) / len(groups))
    return weights


def unit_influence(states, tokens, correct, weight_VD, **head):
    """NTHR's score, as a loop over pairs of tokens: no 1/T_i and no sign."""
    residuals = [
        [residual(weight_VD, h, y, **head) for h, y in zip(states[i], tokens[i], strict=True)]
        for i in range(len(tokens))
    ]
    scores = []
    for j in range(len(tokens)):
        row = []
        for k_prime in range(len(tokens[j])):
            total = 0.0
            for i in np.flatnonzero(correct):
                for k in range(len(tokens[i])):
                    alpha = float(residuals[i][k] @ residuals[j][k_prime])
                    total += alpha * float(states[i][k] @ states[j][k_prime])
            row.append(total)
        scores.append(row)
    return scores


def clip(value, low, high):
    return min(max(value, low), high)


def equation_2(logprobs, old_logprobs, advantages, group_of, *, low=0.2, high=0.2):
    """The objective of Equation 2 per question, averaged over questions; to be maximised.

    logprobs[i][k]; group_of[i] is the question of rollout i.
    """
    questions = sorted(set(group_of))
    objective = 0.0
    for question in questions:
        members = [i for i in range(len(logprobs)) if group_of[i] == question]
        total = 0.0
        for i in members:
            for new, old, advantage in zip(
                logprobs[i], old_logprobs[i], advantages[i], strict=True
            ):
                gamma = math.exp(new - old)
                total += min(gamma * advantage, clip(gamma, 1 - low, 1 + high) * advantage)
        objective += total / sum(len(logprobs[i]) for i in members)
    return objective / len(questions)


def gspo_objective(logprobs, old_logprobs, advantage_of, *, low, high):
    """Equations 7 and 8 with METHOD 5.4's corrections: 1/G and the logarithm of gamma."""
    objective = 0.0
    for new, old, advantage in zip(logprobs, old_logprobs, advantage_of, strict=True):
        mean = sum(a - b for a, b in zip(new, old, strict=True)) / len(new)
        ratio = math.exp(mean)
        objective += min(ratio * advantage, clip(ratio, 1 - low, 1 + high) * advantage)
    return objective / len(logprobs)


def covariances(advantages, logprobs):
    """(A_t - mean A)(log pi_t - mean log pi), one list of all tokens."""
    mean_advantage = sum(advantages) / len(advantages)
    mean_logprob = sum(logprobs) / len(logprobs)
    return [
        (a - mean_advantage) * (b - mean_logprob) for a, b in zip(advantages, logprobs, strict=True)
    ]
