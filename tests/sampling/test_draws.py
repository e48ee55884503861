"""Uniform numbers, nuclei and the inverse CDF."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch.testing import assert_close

from thr_probe.sampling.draws import draw, inverse_cdf, sampled_logprobs, uniforms


def test_uniforms_are_a_prefix_of_a_longer_rollouts():
    np.testing.assert_array_equal(uniforms(3, "p", 1, 5), uniforms(3, "p", 1, 40)[:5])


def test_uniforms_differ_with_seed_prompt_and_rollout():
    keys = [(0, "p", 0), (1, "p", 0), (0, "q", 0), (0, "p", 1), (0, "p1", 0), (0, "p", 10)]
    assert len({float(uniforms(*key, 1)[0]) for key in keys}) == len(keys)


def test_uniforms_of_neighbouring_rollouts_are_uniform_and_uncorrelated():
    drawn = np.stack([uniforms(0, "p", rollout, 200) for rollout in range(50)])
    assert stats.kstest(drawn.ravel(), "uniform").pvalue > 0.01
    assert abs(np.corrcoef(drawn[:-1].ravel(), drawn[1:].ravel())[0, 1]) < 0.03


def nucleus(probabilities, top_p):
    """Literally: take likeliest tokens until their mass reaches top_p, then renormalise."""
    kept, mass = [], 0.0
    for token in sorted(range(len(probabilities)), key=lambda token: -probabilities[token]):
        kept.append(token)
        mass += probabilities[token]
        if mass >= top_p:
            break
    return {token: probabilities[token] / mass for token in kept}


@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.7])
def test_the_nucleus_is_the_smallest_set_that_reaches_top_p(temperature, top_p):
    generator = torch.Generator().manual_seed(5)
    logits = 2 * torch.randn(6, 23, dtype=torch.float64, generator=generator)
    actual = sampled_logprobs(logits, temperature=temperature, top_p=top_p).exp()
    for row, probabilities in enumerate(np.asarray(torch.softmax(logits / temperature, dim=-1))):
        expected = nucleus(probabilities.tolist(), top_p)
        assert {int(token) for token in actual[row].nonzero()[:, 0]} == set(expected)
        for token, probability in expected.items():
            assert float(actual[row, token]) == pytest.approx(probability, rel=1e-12)


def test_equal_tokens_enter_the_nucleus_in_the_order_of_their_ids():
    logprob = sampled_logprobs(torch.zeros(1, 8), temperature=1.0, top_p=0.5)
    assert logprob[0].exp().tolist() == pytest.approx([0.25] * 4 + [0.0] * 4)


def test_the_inverse_cdf_divides_the_unit_interval_by_probability():
    logprob = torch.tensor([[0.25, 0.0, 0.5, 0.25, 0.0]], dtype=torch.float64).log()
    points = [0.0, 0.2499, 0.25, 0.7499, 0.75, 1 - 2**-53]
    ids = inverse_cdf(logprob.expand(6, 5), torch.tensor(points, dtype=torch.float64))
    assert ids.tolist() == [0, 0, 2, 2, 3, 3]


def test_a_uniform_just_below_one_never_lands_on_an_impossible_token():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(500, 40, generator=generator)
    logits[:, -3:] = -torch.inf
    last = torch.full((500,), 1 - 2**-53, dtype=torch.float64)
    ids, logprob = draw(logits, last, temperature=1.0, top_p=1.0)
    assert int(ids.max()) == 36
    assert bool(logprob.isfinite().all())


def test_drawn_frequencies_match_the_distribution():
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, 0.5]).expand(20_000, 5)
    ids, _ = draw(
        logits, torch.from_numpy(uniforms(1, "p", 0, 20_000)), temperature=0.8, top_p=0.95
    )
    probabilities = nucleus(torch.softmax(logits[0].double() / 0.8, dim=0).tolist(), 0.95)
    counts = torch.bincount(ids, minlength=5)
    assert set(counts.nonzero()[:, 0].tolist()) == set(probabilities)
    expected = [20_000 * probabilities[token] for token in probabilities]
    observed = [int(counts[token]) for token in probabilities]
    assert stats.chisquare(observed, expected).pvalue > 0.01


def test_temperature_zero_takes_the_likeliest_and_its_logprob_at_one():
    logits = torch.tensor([[0.0, 3.0, 3.0, -1.0]], dtype=torch.float64)
    ids, logprob = draw(logits, torch.zeros(1, dtype=torch.float64), temperature=0.0, top_p=0.1)
    assert ids.tolist() == [1]
    assert_close(logprob, torch.log_softmax(logits, dim=-1)[:, 1])
