"""Whether a server's log-probabilities are those of the distribution it draws from.

Servers differ: vLLM's default is the model's own distribution, before temperature and top-p. One
request of one token shows the five likeliest tokens of a distribution; the distribution of a
prompt's first token stays the same, so requests with other settings can be held against each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from thr_probe.sampling.protocol import Prompt, SamplingSettings

LikeliestAt = Callable[[Prompt, float, float], Mapping[str, float]]
"""The likeliest first tokens of a prompt at a temperature and a top-p, with log-probabilities."""

IMPOSSIBLE = -1000.0
"""Below lie tokens that cannot be drawn: vLLM writes -9999 for -inf."""

TOLERANCE = 0.25
"""Of the difference between the two hypotheses: less than this off one of them decides for it."""

PLENTY, ENOUGH = 4.0, 0.3
"""Squared differences between tokens, nats: so many need no other prompt; fewer tell nothing.
Logits in bfloat16 blur a difference by some hundredths."""

LEAST_SHIFT = 0.02
"""Shift of a whole distribution that bfloat16 does not blur."""

PROBE_TEMPERATURE = PROBE_TOP_P = 0.5
"""Far from 1: what a server does there it does at other values."""

EDGE = 0.005
"""A nucleus that ends this close to top-p may end one token earlier or later."""


def what_is_wrong(
    prompts: Sequence[Prompt], settings: SamplingSettings, at: LikeliestAt
) -> str | None:
    """What the log-probabilities lack, as the end of a sentence; None: nothing.

    Args:
        prompts: looked at one after another until they tell.
        settings: of the sampling; what stays at 1 is not looked at.
        at: asks the server.
    """
    temperature, top_p = settings.temperature, settings.top_p

    if temperature != 1:
        probed = PROBE_TEMPERATURE if temperature > 0 else 0.0
        pairs = ((at(prompt, 1.0, 1.0), at(prompt, probed, 1.0)) for prompt in prompts)
        verdict = has_temperature(pairs, probed)
        if verdict is not True:
            return _said(verdict, "the temperature")
    if top_p < 1 and temperature > 0:  # greedy sampling knows no nucleus
        answers = (
            has_top_p(at(prompt, 1.0, 1.0), at(prompt, 1.0, PROBE_TOP_P), PROBE_TOP_P)
            for prompt in prompts
        )
        verdict = next((answer for answer in answers if answer is not None), None)
        if verdict is not True:
            return _said(verdict, "top-p")
    return None


def _said(verdict: object, part: str) -> str:
    return f"{'lack' if verdict is False else 'do not show that they include'} {part}"


def has_temperature(
    pairs: Iterable[tuple[Mapping[str, float], Mapping[str, float]]], temperature: float
) -> bool | None:
    """Whether the differences between tokens grew by 1/T; None where they cannot tell.

    Args:
        pairs: of a prompt each, token -> log-probability at temperature 1 and at `temperature`;
            no more are taken than are needed.
        temperature: T; at 0 those at 1 are expected.
    """
    squares = products = 0.0
    for plain, found in pairs:
        shared = _possible(plain) & _possible(found)
        first = max(shared, key=lambda token: plain[token], default="")
        for token in shared:
            before, after = plain[token] - plain[first], found[token] - found[first]
            squares += before**2
            products += before * after
        if squares >= PLENTY:
            break
    if squares < ENOUGH:
        return None
    wanted = 1 / temperature if temperature else 1.0
    return abs(products / squares - wanted) < TOLERANCE * max(abs(wanted - 1), 1.0)


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
