"""Rules that choose tokens: high entropy, one sign, NTHR and its random control."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thr_probe.core.advantages import (
    entropy_threshold_mask,
    kept_entropy_advantages,
    negative_only,
    nthr_advantages,
    nthr_selected,
    positive_only,
    random_control,
    thr_advantages,
    top_entropy_mask,
)
from thr_probe.errors import UsageError

ADVANTAGE = torch.tensor([2.0, -1.0, 0.0, -3.0, 0.5], dtype=torch.float64)
INCORRECT = torch.tensor([False, True, True, True, False])


def generator():
    return np.random.default_rng(7)


@given(
    entropies=st.lists(st.sampled_from([0.0, 0.1, 0.5, 1.0, 2.5]), min_size=1, max_size=60),
    share=st.sampled_from([0.01, 0.2, 0.25, 0.5, 1.0]),
)
def test_exactly_the_share_of_highest_entropy_is_kept_and_ties_go_to_the_earlier(entropies, share):
    mask = top_entropy_mask(torch.tensor(entropies), share).tolist()
    ranked = sorted(range(len(entropies)), key=lambda n: (-entropies[n], n))
    kept = set(ranked[: math.floor(share * len(entropies))])
    assert {n for n, chosen in enumerate(mask) if chosen} == kept


@given(
    entropies=st.lists(st.sampled_from([0.0, 0.1, 0.5, 1.0, 2.5]), min_size=1, max_size=60),
    share=st.sampled_from([0.01, 0.2, 0.25, 0.5, 1.0]),
)
def test_the_entropy_threshold_is_torchs_quantile_and_keeps_its_ties(entropies, share):
    entropy_N = torch.tensor(entropies, dtype=torch.float64)
    mask = entropy_threshold_mask(entropy_N, share)
    bound = torch.quantile(entropy_N, 1 - share)
    # both interpolate; a value apart from the bound by rounding may fall on either side
    clear = (entropy_N - bound).abs() > 1e-12
    torch.testing.assert_close(mask[clear], (entropy_N >= bound)[clear])
    assert bool(mask[entropy_N == entropy_N.max()].all())
    assert int(mask.sum()) >= math.floor(share * len(entropies))


def test_the_two_entropy_rules_differ_in_ties():
    entropy_N = torch.tensor([1.0, 3.0, 3.0, 3.0, 0.0])
    assert top_entropy_mask(entropy_N, 0.2).tolist() == [False, True, False, False, False]
    assert entropy_threshold_mask(entropy_N, 0.2).tolist() == [False, True, True, True, False]
    assert top_entropy_mask(entropy_N, 0.19).sum() == 0


def test_no_tokens_have_no_entropy_mask():
    assert len(entropy_threshold_mask(torch.zeros(0), 0.2)) == 0
    assert len(top_entropy_mask(torch.zeros(0), 0.2)) == 0


@pytest.mark.parametrize("select", [entropy_threshold_mask, top_entropy_mask])
@pytest.mark.parametrize("share", [0.0, -0.1, 1.1, math.nan])
def test_a_share_that_is_none_is_refused(select, share):
    with pytest.raises(UsageError, match=r"share of tokens must lie in \(0, 1\]"):
        select(torch.ones(3), share)


def test_kept_entropy_tokens_have_the_unweighted_advantage_unless_dominant():
    base_N = torch.tensor([1.0, 1.0, -2.0, -2.0])
    thr_N = torch.tensor([3.0, 0.1, -3.0, 0.1])
    dominant_N, top_N = thr_N.abs() > 1, torch.tensor([True, True, False, False])
    weighted_N = thr_advantages(base_N, thr_N, 1.0, 0.25)
    actual = kept_entropy_advantages(base_N, weighted_N, dominant_N, top_N)
    assert actual.tolist() == [1.25, 1.0, -1.5, 0.0]


def test_the_sign_rules_keep_one_sign():
    assert positive_only(ADVANTAGE).tolist() == [2.0, 0.0, 0.0, 0.0, 0.5]
    assert negative_only(ADVANTAGE).tolist() == [0.0, -1.0, 0.0, -3.0, 0.0]


def test_nthr_selects_incorrect_tokens_above_its_threshold():
    score_N = torch.tensor([9.0, 1.0, 1.5, -9.0, math.nan], dtype=torch.float64)
    assert nthr_selected(score_N, INCORRECT, 1.0).tolist() == [False, False, True, False, False]
    every = nthr_selected(score_N, INCORRECT, -math.inf)
    assert every.tolist() == INCORRECT.tolist()
    assert not bool(nthr_selected(score_N, INCORRECT, math.nan).any())


@pytest.mark.parametrize(
    ("q", "eta", "factor"),
    [(0.25, None, 0.5), (0.5, None, 0.0), (0.875, None, 0.75), (0.25, 0.0, 0.0), (0.25, 0.9, 0.9)],
)
def test_nthr_damps_the_selected_tokens_by_eta(q, eta, factor):
    score_N = torch.tensor([9.0, 2.0, 0.0, 0.5, 9.0], dtype=torch.float64)
    actual = nthr_advantages(ADVANTAGE, score_N, INCORRECT, 1.0, q, eta=eta)
    torch.testing.assert_close(actual, ADVANTAGE * torch.tensor([1, factor, 1, 1, 1]).double())


@pytest.mark.parametrize("count", range(4))
def test_the_control_takes_as_many_incorrect_tokens_at_random(count):
    advantage_N = torch.arange(1.0, 6.0)
    actual = random_control(advantage_N, INCORRECT, count, generator())
    changed = actual != advantage_N
    assert int(changed.sum()) == count
    assert not bool((changed & ~INCORRECT).any())
    assert bool((actual[changed] == 0).all())
    torch.testing.assert_close(random_control(advantage_N, INCORRECT, count, generator()), actual)
    assert advantage_N.tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]


def test_every_incorrect_token_is_as_likely_to_be_taken():
    random = generator()
    taken = sum(random_control(torch.ones(5), INCORRECT, 1, random) == 0 for _ in range(3000))
    # 1000 expected, deviation 26
    np.testing.assert_allclose(taken, [0, 1000, 1000, 1000, 0], atol=130)


def test_more_tokens_than_there_are_cannot_be_taken():
    with pytest.raises(UsageError, match=r"count must lie in 0\.\.3 \(incorrect tokens\), got 4"):
        random_control(ADVANTAGE, INCORRECT, 4, generator())
