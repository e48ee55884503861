"""Advantages: Equations 1, 4, 5 and 6, their mixes, and the rules they are compared with.

Float64 throughout: G numbers for the rollouts of a question, N for completion tokens, cast where
they meet a loss.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from thr_probe.core.thr import dominant_mask
from thr_probe.errors import UsageError


def group_advantages(
    correct_G: Bool[Tensor, " G"], *, std: str = "population"
) -> Float[Tensor, " G"]:
    """The GRPO advantage of Equation 1: sqrt((1 - q) / q) if correct, -sqrt(q / (1 - q)) if not.

    Args:
        correct_G: whether each rollout is correct.
        std: `population` is the paper's; `sample` divides by the Bessel-corrected deviation
            (verl, TRL), a factor sqrt((G - 1) / G); `none` does not divide (`dr_grpo_advantages`).

    Returns:
        Advantages; all 0 where every rollout has the same outcome.

    Raises:
        UsageError: an unknown std.

    >>> group_advantages(torch.tensor([True, False, False, False])).tolist()
    [1.7320508075688772, -0.5773502691896257, -0.5773502691896257, -0.5773502691896257]
    """
    if std not in {"population", "sample", "none"}:
        raise UsageError(f"unknown std {std!r}; choose population, sample or none")
    if std == "none":
        return dr_grpo_advantages(correct_G)
    correct = correct_G.bool()
    num_correct, size = int(correct.sum()), len(correct)
    if num_correct in {0, size}:
        return torch.zeros(size, dtype=torch.float64, device=correct.device)
    q = num_correct / size
    factor = math.sqrt((size - 1) / size) if std == "sample" else 1.0
    up, down = math.sqrt((1 - q) / q), -math.sqrt(q / (1 - q))
    return down * factor + (up - down) * factor * correct.double()


def dr_grpo_advantages(correct_G: Bool[Tensor, " G"]) -> Float[Tensor, " G"]:
    """r - mean r: the advantage of Dr. GRPO (Liu et al. 2025, arXiv 2503.20783).

    >>> dr_grpo_advantages(torch.tensor([True, False, False, False])).tolist()
    [0.75, -0.25, -0.25, -0.25]
    """
    reward_G = correct_G.double()
    return reward_G - reward_G.mean()


def thr_advantages(
    advantage_N: Float[Tensor, " N"], thr_N: Float[Tensor, " N"], tau: float, p: float
) -> Float[Tensor, " N"]:
    """THR(p) of Equation 5, 1[|THR| > tau] (1 + sign(THR) p) A; p = 0 is Equation 4.

    Args:
        advantage_N: the completion's advantage at each of its tokens.
        thr_N: THR of each token.
        tau: the group's threshold.
        p: > 0 exploits, < 0 explores; |p| < 1, so that no advantage changes its sign.

    Raises:
        UsageError: |p| >= 1.
    """
    if not abs(p) < 1:
        raise UsageError(f"p must lie strictly between -1 and 1, got {p}")
    weighted_N = (1 + torch.sign(thr_N) * p) * advantage_N
    return torch.where(dominant_mask(thr_N, tau), weighted_N, torch.zeros_like(weighted_N))


def pass_at_k_factor(size: int, num_correct: int, k: int) -> float:
    """The factor f of Equation 6 on the GRPO advantage; 0 where N- < k.

    f = sqrt(x / (1 - x)) sqrt(q / (1 - q)) with x = C(N-, k) / C(G, k).

    Raises:
        UsageError: k outside 1..G.

    >>> round(pass_at_k_factor(8, 2, 4), 3)
    0.302
    """
    if not 1 <= k <= size:
        raise UsageError(f"k must lie in 1..{size} (the group size), got {k}")
    num_wrong = size - num_correct
    if num_correct == 0 or num_wrong < k:
        return 0.0
    miss = math.comb(num_wrong, k) / math.comb(size, k)
    return math.sqrt(miss / (1 - miss)) * math.sqrt(num_correct / num_wrong)


def pass_at_k_advantages(
    correct_G: Bool[Tensor, " G"], k: int, *, std: str = "population"
) -> Float[Tensor, " G"]:
    """The Pass@K advantage of Equation 6, f A; all 0 where fewer than k rollouts are wrong.

    Args:
        correct_G: whether each rollout is correct.
        k: of Pass@K.
        std: of A, as `group_advantages`.

    Raises:
        UsageError: k outside 1..G, or an unknown std.
    """
    factor = pass_at_k_factor(len(correct_G), int(correct_G.bool().sum()), k)
    return factor * group_advantages(correct_G, std=std)


def mixed_pass_at_k_advantages(
    correct_G: Bool[Tensor, " G"], k: int, *, mix: str = "paper", std: str = "population"
) -> Float[Tensor, " G"]:
    """Pass@K-mixed (section 6.2): the GRPO and the Pass@K advantage, weighted by q.

    Args:
        correct_G: whether each rollout is correct.
        k: of Pass@K.
        mix: `paper`, q A + (1 - q) f A, as printed; `chen`, q f A + (1 - q) A, Equation 18 of
            Chen et al. 2025 (arXiv 2508.10751), which the paper cites and which weighs the two
            the other way round.
        std: of A, as `group_advantages`.

    Raises:
        UsageError: an unknown mix or std, or k outside 1..G.
    """
    if mix not in {"paper", "chen"}:
        raise UsageError(f"unknown mix {mix!r}; choose paper or chen")
    q = float(correct_G.double().mean())
    chi = 1 - q if mix == "paper" else q
    return static_pass_at_k_advantages(correct_G, k, chi=chi, std=std)


def static_pass_at_k_advantages(
    correct_G: Bool[Tensor, " G"], k: int, *, chi: float = 0.2, std: str = "population"
) -> Float[Tensor, " G"]:
    """chi f A + (1 - chi) A: the two advantages at one weight for all questions (section 6.2).

    Args:
        correct_G: whether each rollout is correct.
        k: of Pass@K.
        chi: weight of the Pass@K advantage, 0.2 in the paper.
        std: of A, as `group_advantages`.

    Raises:
        UsageError: chi outside [0, 1], k outside 1..G, or an unknown std.
    """
    if not 0 <= chi <= 1:
        raise UsageError(f"chi must lie in [0, 1], got {chi}")
    base_G = group_advantages(correct_G, std=std)
    return chi * pass_at_k_advantages(correct_G, k, std=std) + (1 - chi) * base_G


def pkpo_advantages(
    correct_G: Bool[Tensor, " G"], k: int, *, baseline: str = "loo-minus-one"
) -> Float[Tensor, " G"]:
    """PKPO (Walder & Karkhanis 2025, arXiv 2505.15201) for right-or-wrong rewards.

    The mean over rollouts of A_i grad log pi(y_i) estimates grad Pass@k without bias. Averaged over
    the sets J of k - 1 other rollouts, A_i is k times whether J with i contains a correct rollout;
    a baseline that i has no part in adds no bias and is there to take away variance. The paper's
    weights, for a sum over rollouts, are A_i / G.

    Args:
        correct_G: whether each rollout is correct.
        k: of Pass@k.
        baseline: `none`; `loo`, Pass@k of the other rollouts; `loo-minus-one`, their Pass@(k - 1):
            what is left is k times the share of sets J without a correct rollout at the correct
            rollouts, and 0 at the others. At k = 1 it is no baseline at all.

    Raises:
        UsageError: an unknown baseline, k outside 1..G, or outside 1..G - 1 for `loo`.
    """
    if baseline not in {"none", "loo", "loo-minus-one"}:
        raise UsageError(f"unknown baseline {baseline!r}; choose none, loo or loo-minus-one")
    others = len(correct_G) - 1
    most = others if baseline == "loo" else others + 1
    if not 1 <= k <= most:
        raise UsageError(f"k must lie in 1..{most} for baseline {baseline!r}, got {k}")
    num_correct = int(correct_G.bool().sum())
    right = 1.0 - _any_correct(baseline, others, num_correct - 1, k)
    wrong = _share_with_a_correct(others, num_correct, k - 1)
    wrong -= _any_correct(baseline, others, num_correct, k)
    either = torch.tensor([wrong, right], dtype=torch.float64, device=correct_G.device)
    return k * either[correct_G.long()]


def _any_correct(baseline: str, others: int, num_correct: int, k: int) -> float:
    """The baseline: Pass@k or Pass@(k - 1) of the other rollouts."""
    if baseline == "none" or num_correct < 0:
        return 0.0
    return _share_with_a_correct(others, num_correct, k if baseline == "loo" else k - 1)


def _share_with_a_correct(size: int, num_correct: int, k: int) -> float:
    """1 - C(size - c, k) / C(size, k): draws of k rollouts of which at least one is correct."""
    # all wrong rollouts in a group without wrong ones: the branch is computed and not used
    return 1.0 - math.comb(max(size - num_correct, 0), k) / math.comb(size, k)


def positive_only(advantage_N: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
    """Positive advantages only, all others 0 (Appendix C.1)."""
    return torch.where(advantage_N > 0, advantage_N, torch.zeros_like(advantage_N))


def negative_only(advantage_N: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
    """Negative advantages only, all others 0 (Appendix C.1)."""
    return torch.where(advantage_N < 0, advantage_N, torch.zeros_like(advantage_N))


def check_entropy_share(share: float) -> None:
    """Refuse shares of tokens that select nothing or more than all.

    Raises:
        UsageError: a share outside (0, 1].
    """
    if not 0 < share <= 1:
        raise UsageError(f"a share of tokens must lie in (0, 1], got {share}")


def entropy_threshold_mask(entropy_N: Float[Tensor, " N"], share: float) -> Bool[Tensor, " N"]:
    """80/20 (Wang et al. 2025, arXiv 2506.01939): H >= the (1 - share) quantile of the given.

    The quantile interpolates linearly and ties are all kept, as in TRL: about share N tokens.

    Raises:
        UsageError: a share outside (0, 1].
    """
    check_entropy_share(share)
    if not len(entropy_N):
        return torch.zeros_like(entropy_N, dtype=torch.bool)
    # numpy's: torch.quantile refuses more than 2^24 tokens, and a step may have more
    bound = np.quantile(entropy_N.detach().double().cpu().numpy(), 1 - share)
    return entropy_N >= float(bound)


def top_entropy_mask(entropy_N: Float[Tensor, " N"], share: float) -> Bool[Tensor, " N"]:
    """The floor(share N) tokens of highest entropy among those given; ties to the earlier token.

    Raises:
        UsageError: a share outside (0, 1].
    """
    check_entropy_share(share)
    return largest_mask(entropy_N, math.floor(share * len(entropy_N)))


def largest_mask(value_N: Float[Tensor, " N"], count: int) -> Bool[Tensor, " N"]:
    """The `count` largest values; ties to the earlier one."""
    order_N = value_N.sort(descending=True, stable=True).indices
    largest_N = torch.zeros_like(value_N, dtype=torch.bool)
    largest_N[order_N[:count]] = True
    return largest_N


def kept_entropy_advantages(
    base_N: Float[Tensor, " N"],
    weighted_N: Float[Tensor, " N"],
    dominant_N: Bool[Tensor, " N"],
    top_N: Bool[Tensor, " N"],
) -> Float[Tensor, " N"]:
    """THR(p) with the tokens of high entropy kept (Appendix B).

    Dominant tokens have the advantage of Equation 5, other tokens of high entropy the unweighted
    one, all others 0.

    Args:
        base_N: the completion's advantage at each of its tokens.
        weighted_N: `thr_advantages` of them.
        dominant_N: 1[|THR| > tau].
        top_N: `top_entropy_mask` over the step.
    """
    kept_N = torch.where(top_N, base_N, torch.zeros_like(base_N))
    return torch.where(dominant_N, weighted_N, kept_N)


def nthr_selected(
    score_N: Float[Tensor, " N"], incorrect_N: Bool[Tensor, " N"], tau: float
) -> Bool[Tensor, " N"]:
    """Tokens of incorrect completions with s > tau, which NTHR damps (Deng et al. 2025).

    Args:
        score_N: `unit_influence`.
        incorrect_N: tokens of incorrect completions.
        tau: `threshold` of those scores; NaN selects nothing.
    """
    return incorrect_N & (score_N > tau)


def nthr_advantages(
    advantage_N: Float[Tensor, " N"],
    score_N: Float[Tensor, " N"],
    incorrect_N: Bool[Tensor, " N"],
    tau: float,
    q: float,
    *,
    eta: float | None = None,
) -> Float[Tensor, " N"]:
    """NTHR (Deng et al. 2025, arXiv 2505.18830): eta A at the selected tokens, A elsewhere.

    Args:
        advantage_N: the completion's advantage at each of its tokens.
        score_N: `unit_influence`.
        incorrect_N: tokens of incorrect completions.
        tau: `threshold` of those scores.
        q: share of correct completions.
        eta: None is 2 |0.5 - q|, as in their training runs; 0 in their study of a single step.
    """
    factor = 2 * abs(0.5 - q) if eta is None else eta
    selected_N = nthr_selected(score_N, incorrect_N, tau)
    return torch.where(selected_N, factor * advantage_N, advantage_N)


def random_control(
    advantage_N: Float[Tensor, " N"],
    incorrect_N: Bool[Tensor, " N"],
    count: int,
    generator: np.random.Generator,
) -> Float[Tensor, " N"]:
    """The control of Deng et al. 2025, section 5.3: `count` random incorrect tokens become 0.

    Raises:
        UsageError: more tokens than the incorrect completions have.
    """
    candidates = incorrect_N.nonzero()[:, 0]
    if not 0 <= count <= len(candidates):
        raise UsageError(f"count must lie in 0..{len(candidates)} (incorrect tokens), got {count}")
    drawn = generator.permutation(len(candidates))[:count]
    chosen = candidates[torch.from_numpy(drawn).to(candidates.device)]
    return advantage_N.index_fill(0, chosen, 0.0)
