"""Whether a server's log-probabilities are those of the distribution it draws from.

Servers differ: vLLM's default is the model's own distribution, before temperature and top-p. One
request of one token shows the five likeliest tokens of a distribution; the distribution of a
prompt's first token stays the same, so requests with other settings can be held against each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from thr_probe.sampling.protocol import Prompt, SamplingSettings

LikeliestAt = Callable[[Prompt, float, float], Mapping[str, float]]
"""The likeliest first tokens of a prompt at a temperature and a top-p, with log-probabilities."""

IMPOSSIBLE = -1000.0
"""Below lie tokens that cannot be drawn: vLLM writes -9999 for -inf."""

TOLERANCE = 0.25
"""Of the difference between the two hypotheses: less than this off one of them decides for it."""

LEAST_GAP, LEAST_SHIFT = 0.1, 0.02
"""Differences in nats that bfloat16 does not blur."""

PROBE_TEMPERATURE = PROBE_TOP_P = 0.5
"""Far from 1: what a server does there it does at other values."""

EDGE = 0.005
"""A nucleus that ends this close to top-p may end one token earlier or later."""


def what_is_wrong(
    prompts: Sequence[Prompt], settings: SamplingSettings, at: LikeliestAt
) -> str | None:
    """What the log-probabilities lack, as the end of a sentence; None: nothing.

    Args:
        prompts: looked at one after another until one tells.
        settings: of the sampling; what stays at 1 is not looked at.
        at: asks the server.
    """
    temperature, top_p = settings.temperature, settings.top_p

    def tempered(prompt: Prompt) -> bool | None:
        if temperature == 1:
            return True
        probed = PROBE_TEMPERATURE if temperature > 0 else 0.0
        return has_temperature(at(prompt, 1.0, 1.0), at(prompt, probed, 1.0), probed)

    def cut(prompt: Prompt) -> bool | None:
        # greedy sampling knows no nucleus
        if top_p == 1 or temperature == 0:
            return True
        return has_top_p(at(prompt, 1.0, 1.0), at(prompt, 1.0, PROBE_TOP_P), PROBE_TOP_P)

    for test, part in ((tempered, "the temperature"), (cut, "top-p")):
        answers = (test(prompt) for prompt in prompts)
        verdict = next((answer for answer in answers if answer is not None), None)
        if verdict is not True:
            return f"{'lack' if verdict is False else 'do not show that they include'} {part}"
    return None


def has_temperature(
    plain: Mapping[str, float], found: Mapping[str, float], temperature: float
) -> bool | None:
    """Whether the differences between tokens grew by 1/T; None where they cannot tell.

    Args:
        plain: token -> log-probability at temperature 1.
        found: the same at `temperature`; 0 is expected to show those at 1.
        temperature: T.
    """
    shared = sorted(_possible(plain) & _possible(found), key=lambda token: -plain[token])
    if len(shared) < 2:
        return None
    first, last = shared[0], shared[-1]
    before, after = plain[last] - plain[first], found[last] - found[first]
    if temperature == 0:
        return abs(after - before) < LEAST_GAP
    wanted = before / temperature
    gap = abs(wanted - before)
    return None if gap < LEAST_GAP else abs(after - wanted) < TOLERANCE * gap


def has_top_p(whole: Mapping[str, float], found: Mapping[str, float], top_p: float) -> bool | None:
    """Whether tokens outside the nucleus are gone and its mass is 1; None where nothing can tell.

    Args:
        whole: token -> log-probability at top-p 1.
        found: the same at `top_p`.
        top_p: P.
    """
    ordered = sorted(_possible(whole), key=lambda token: -whole[token])
    possible = _possible(found)
    if not ordered or ordered[0] not in possible:
        return None
    mass, nucleus = 0.0, 0
    for token in ordered:
        if abs(mass - top_p) < EDGE:
            return None
        if mass >= top_p:
            break
        mass += math.exp(whole[token])
        nucleus += 1
    outside = ordered[nucleus:]
    # a nucleus wider than what is shown ends before another token as likely as the last shown
    most = mass if mass >= top_p else top_p + math.exp(whole[ordered[-1]])
    least_shift, most_shift = -math.log(min(most, 1.0)), -math.log(min(max(mass, top_p), 1.0))
    if not outside and least_shift < LEAST_SHIFT:
        return None
    got = found[ordered[0]] - whole[ordered[0]]
    slack = TOLERANCE * max(least_shift, LEAST_SHIFT)
    fits = least_shift - slack < got < most_shift + slack
    return fits and not possible & set(outside)


def _possible(logprobs: Mapping[str, float]) -> set[str]:
    return {token for token, value in logprobs.items() if value > IMPOSSIBLE}
