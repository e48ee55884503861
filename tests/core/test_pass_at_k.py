"""Pass@K against counting every subset, exact rational arithmetic, and its properties."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from thr_probe.core.pass_at_k import pass_at_k
from thr_probe.errors import UsageError


def counted(n: int, c: int, k: int) -> float:
    """Draws every subset of k completions and counts those that hold a correct one."""
    subsets = list(combinations([i < c for i in range(n)], k))
    return float(Fraction(sum(any(subset) for subset in subsets), len(subsets)))


def exact(n: int, c: int, k: int) -> float:
    return float(1 - Fraction(comb(n - c, k), comb(n, k)))


@pytest.mark.parametrize("n", range(1, 10))
def test_equals_counting_every_subset(n: int) -> None:
    correct = np.arange(n + 1)
    for k in range(1, n + 1):
        assert_allclose(
            pass_at_k(n, correct, k), [counted(n, int(c), k) for c in correct], rtol=0, atol=1e-14
        )


@pytest.mark.parametrize("n", [16, 80, 256, 320, 1000])
def test_equals_exact_rational_arithmetic_at_sizes_where_binomials_overflow_floats(n: int) -> None:
    correct = np.unique(np.linspace(0, n, 33).astype(int))
    for k in {1, 2, 8, n // 2, n - 1, n}:
        assert_allclose(
            pass_at_k(n, correct, k), [exact(n, int(c), k) for c in correct], rtol=0, atol=1e-12
        )


def test_questions_with_different_numbers_of_completions_are_estimated_each_with_its_own() -> None:
    n, c = np.array([4, 8, 5]), np.array([1, 3, 0])
    assert_allclose(
        pass_at_k(n, c, 3),
        [exact(4, 1, 3), exact(8, 3, 3), exact(5, 0, 3)],
        rtol=0,
        atol=1e-14,
    )


def test_its_edges_are_exact() -> None:
    correct = np.arange(9)
    assert_array_equal(pass_at_k(8, correct, 8), (correct > 0).astype(float))
    assert_allclose(pass_at_k(8, correct, 1), correct / 8, rtol=0, atol=1e-15)
    for k in range(1, 9):
        assert float(pass_at_k(8, 0, k)) == 0.0
        assert float(pass_at_k(8, 8, k)) == 1.0
        assert float(pass_at_k(8, 8 - k + 1, k)) == 1.0


def test_its_arguments_are_left_as_they_were() -> None:
    n, c = np.array([4, 8]), np.array([1, 3])
    pass_at_k(n, c, 2)
    assert_array_equal(n, [4, 8])
    assert_array_equal(c, [1, 3])


@given(data=st.data(), n=st.integers(1, 200))
@settings(deadline=None, derandomize=True, max_examples=60)
def test_it_grows_with_k_and_with_the_number_correct(data: st.DataObject, n: int) -> None:
    c = data.draw(st.integers(0, n))
    curve = np.array([float(pass_at_k(n, c, k)) for k in range(1, n + 1)])
    assert np.all(np.diff(curve) >= -1e-15)
    assert np.all((curve >= 0) & (curve <= 1))
    k = data.draw(st.integers(1, n))
    by_correct = pass_at_k(n, np.arange(n + 1), k)
    assert np.all(np.diff(by_correct) >= -1e-15)


@given(n=st.integers(2, 40), data=st.data())
@settings(deadline=None, derandomize=True, max_examples=60)
def test_leaving_one_completion_out_averages_back_to_it(n: int, data: st.DataObject) -> None:
    # unbiasedness: the estimate from n is the mean of the estimates from its n subsets of n - 1
    c = data.draw(st.integers(0, n))
    k = data.draw(st.integers(1, n - 1))
    without_a_correct_one = float(pass_at_k(n - 1, max(c - 1, 0), k))
    without_a_wrong_one = float(pass_at_k(n - 1, min(c, n - 1), k))
    mean = (c * without_a_correct_one + (n - c) * without_a_wrong_one) / n
    assert_allclose(float(pass_at_k(n, c, k)), mean, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("n", "c", "k"), [(8, 2, 9), ([8, 4], [1, 1], 5), (8, 2, 0), (8, 2, -1)])
def test_more_draws_than_completions_are_refused(n: object, c: object, k: int) -> None:
    with pytest.raises(UsageError, match="needs at least") as refused:
        pass_at_k(n, c, k)
    assert refused.value.exit_code == 2
    assert f"got {np.min(n)}" in refused.value.message


@pytest.mark.parametrize("c", [-1, 9])
def test_a_number_correct_outside_the_group_is_refused(c: int) -> None:
    with pytest.raises(UsageError, match="between 0 and n"):
        pass_at_k(8, c, 2)
