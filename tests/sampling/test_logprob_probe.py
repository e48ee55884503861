"""Telling raw log-probabilities from processed ones by five tokens, on random distributions."""

from __future__ import annotations

import numpy as np
import pytest

from thr_probe.sampling import Prompt, SamplingSettings
from thr_probe.sampling.logprob_probe import has_temperature, has_top_p, what_is_wrong

PROMPTS = [Prompt(prompt_id=f"p{place}", token_ids=[place]) for place in range(8)]


def logprobs_at(logits, temperature, top_p):
    """A distribution by its definition: softmax, then the smallest set of mass top_p."""
    scaled = logits / (temperature or 1.0)
    shares = np.exp(scaled - scaled.max())
    shares /= shares.sum()
    if temperature == 0:
        return np.log(shares)
    mass, kept = 0.0, np.zeros(len(shares), dtype=bool)
    for token in np.argsort(-shares):
        if mass >= top_p:
            break
        kept[token] = True
        mass += shares[token]
    with np.errstate(divide="ignore"):
        return np.log(np.where(kept, shares / shares[kept].sum(), 0.0))


class Server:
    """Shows the five likeliest tokens; rounds as bfloat16 logits do when asked to."""

    def __init__(self, *, seed, temperature, top_p, noise=0.0, spread=2.5, size=2000):
        self.rng = np.random.default_rng(seed)
        self.with_temperature, self.with_top_p, self.noise = temperature, top_p, noise
        self.logits = [self.rng.normal(0, spread, size) for _ in PROMPTS]
        self.asked = 0

    def at(self, prompt, temperature, top_p):
        self.asked += 1
        logits = self.logits[prompt.token_ids[0]]
        logits = logits + self.noise * self.rng.normal(size=len(logits))
        values = logprobs_at(
            logits,
            temperature if self.with_temperature else 1.0,
            top_p if self.with_top_p else 1.0,
        )
        top = np.argsort(-values)[:5]
        return {str(token): float(max(values[token], -9999.0)) for token in top}


def verdict(server, temperature, top_p):
    settings = SamplingSettings(group_size=2, temperature=temperature, top_p=top_p)
    return what_is_wrong(PROMPTS, settings, server.at)


@pytest.mark.parametrize("noise", [0.0, 0.02], ids=["exact", "as bfloat16"])
@pytest.mark.parametrize("spread", [1.0, 2.5, 5.0])
@pytest.mark.parametrize(
    ("temperature", "top_p"), [(0.7, 1.0), (1.3, 1.0), (0.99, 0.95), (1.0, 0.9), (1.0, 0.999)]
)
def test_both_kinds_are_told_apart_whatever_the_distribution(temperature, top_p, spread, noise):
    for seed in range(20):
        options = {"seed": seed, "noise": noise, "spread": spread}
        right = Server(temperature=True, top_p=True, **options)
        assert verdict(right, temperature, top_p) is None
        raw = Server(temperature=False, top_p=False, **options)
        lacking = "the temperature" if temperature != 1 else "top-p"
        assert verdict(raw, temperature, top_p) == f"lack {lacking}"


def test_one_of_the_two_is_not_enough():
    half = Server(seed=0, temperature=True, top_p=False)
    assert verdict(half, 0.7, 1.0) is None
    assert verdict(half, 0.7, 0.9) == "lack top-p"


def test_at_temperature_one_nothing_is_asked():
    server = Server(seed=0, temperature=False, top_p=False)
    assert verdict(server, 1.0, 1.0) is None
    assert server.asked == 0


def test_greedy_sampling_wants_the_logprobs_of_temperature_one():
    assert verdict(Server(seed=0, temperature=True, top_p=True), 0.0, 0.5) is None
    assert has_temperature([({"a": -0.1, "b": -3.0}, {"a": 0.0, "b": -9999.0})], 0.0) is None
    assert has_temperature([({"a": -0.1, "b": -3.0}, {"a": 0.0, "b": -30.0})], 0.0) is False


def test_a_server_that_shows_no_likeliest_tokens_shows_nothing():
    settings = SamplingSettings(group_size=2, temperature=0.7, top_p=0.9)
    told = what_is_wrong(PROMPTS, settings, lambda *_: {})
    assert told == "do not show that they include the temperature"


def test_distributions_that_cannot_tell_are_passed_over():
    equal = {"a": -1.0, "b": -1.01}
    assert has_temperature([(equal, equal)] * 8, 0.5) is None
    assert has_temperature([({"a": -0.1}, {"a": -0.1})], 0.5) is None
    # the nucleus is everything that is shown, and nearly all there is
    assert has_top_p({"a": -0.001}, {"a": 0.0}, 0.999) is None
    # the nucleus ends so close to top-p that rounding decides
    half = {"a": np.log(0.5), "b": np.log(0.3), "c": np.log(0.2)}
    assert has_top_p(half, half, 0.5) is None
