"""Ranks, correlations and ROC areas against scipy, scikit-learn and loops."""

from __future__ import annotations

import numpy as np
from scipy import stats
from sklearn.metrics import roc_auc_score

from thr_probe.analysis.stream import Batch
from thr_probe.analysis.token_ranks import (
    centred_ranks,
    completion_correlations,
    count_codes,
    partial_correlation,
    pooled_correlations,
    rank_classes,
    roc_area,
    value_codes,
)


def batch_of(lengths):
    number = len(lengths)
    return Batch(
        group_R=np.zeros(number, dtype=np.int64),
        stratum_R=np.zeros(number, dtype=np.int64),
        tau_R=np.ones(number, dtype=np.float32),
        offsets=np.append(0, np.cumsum(lengths)).astype(np.int64),
        tokens={},
        completions={},
    )


def parts(batch, value):
    return np.split(value, batch.offsets[1:-1])


def test_ranks_within_completions_are_those_of_scipy():
    rng = np.random.default_rng(0)
    batch = batch_of([7, 1, 0, 30])
    value = np.round(rng.normal(size=38), 1)
    value[3] = -0.0
    value[4] = 0.0
    expected = [
        stats.rankdata(part) - (len(part) + 1) / 2 for part in parts(batch, np.float32(value))
    ]
    np.testing.assert_allclose(centred_ranks(batch, value), np.concatenate(expected), atol=1e-12)


def test_correlations_within_completions_are_those_of_scipy_and_undefined_without_spread():
    rng = np.random.default_rng(1)
    batch = batch_of([12, 5, 40])
    first, second = np.round(rng.normal(size=(2, 57)), 1)
    second[12:17] = 3.0
    found = completion_correlations(batch, [first, second])[0, 1]
    expected = [
        stats.spearmanr(a, b).statistic
        for index, (a, b) in enumerate(zip(parts(batch, first), parts(batch, second), strict=True))
        if index != 1
    ]
    np.testing.assert_allclose(found[[0, 2]], expected, rtol=1e-12)
    assert np.isnan(found[1])


def test_a_partial_correlation_is_that_of_residuals():
    rng = np.random.default_rng(2)
    common = rng.normal(size=200)
    value = [common + rng.normal(size=200) for _ in range(4)]
    ranks = [stats.rankdata(each) for each in value]
    others = np.column_stack([np.ones(200), *ranks[2:]])
    left, right = (
        rank - others @ np.linalg.lstsq(others, rank, rcond=None)[0] for rank in ranks[:2]
    )
    correlation = completion_correlations(batch_of([200]), value)
    expected = stats.pearsonr(left, right).statistic
    np.testing.assert_allclose(partial_correlation(correlation)[0], expected, rtol=1e-10)


def test_a_partial_correlation_is_undefined_where_another_variable_says_it_all():
    value = np.arange(9.0)
    wave = np.sin(value)
    correlation = completion_correlations(batch_of([9]), [wave, value, value * 2])
    assert np.isnan(partial_correlation(correlation)[0])


def joint_table(left, right, size):
    table = np.zeros((1, size, size))
    for row, column in zip(left, right, strict=True):
        table[0, row, column] += 1
    return table


def test_pooled_correlations_are_exact_where_classes_are_finer_than_the_values():
    rng = np.random.default_rng(3)
    value = rng.integers(0, 9, (3, 300)).astype(float)
    value[1] += value[0]
    classes = []
    for each in value:
        table = rank_classes(count_codes(each), 24)
        classes.append(table[value_codes(each)])
    pairs = ((0, 1), (0, 2), (1, 2))
    joint = {(i, j): joint_table(classes[i], classes[j], 24) for i, j in pairs}
    found = pooled_correlations(joint)
    for i, j in pairs:
        expected = stats.spearmanr(value[i], value[j]).statistic
        np.testing.assert_allclose(found[i, j], expected, rtol=1e-12)


def test_classes_of_equal_mass_give_nearly_the_exact_correlation():
    rng = np.random.default_rng(4)
    left = rng.lognormal(size=20_000)
    right = left**2 * rng.lognormal(size=20_000)
    classes = [rank_classes(count_codes(each), 24)[value_codes(each)] for each in (left, right)]
    number = np.bincount(classes[0], minlength=24)
    assert number.min() > 20_000 / 24 * 0.7
    found = pooled_correlations({(0, 1): joint_table(*classes, 24)})[0, 1, 0]
    np.testing.assert_allclose(found, stats.spearmanr(left, right).statistic, atol=0.003)


def test_the_area_is_the_share_of_pairs_in_order_and_that_of_scikit_learn():
    rng = np.random.default_rng(5)
    score, label = rng.integers(0, 6, 80), rng.random(80) < 0.4
    count = [np.bincount(score[label == side], minlength=6)[None] for side in (False, True)]
    found = roc_area(*count)[0]
    pairs = [
        (1.0 if high > low else 0.5 if high == low else 0.0)
        for high in score[label]
        for low in score[~label]
    ]
    np.testing.assert_allclose(found, np.mean(pairs), rtol=1e-12)
    np.testing.assert_allclose(found, roc_auc_score(label, score), rtol=1e-12)
    assert np.isnan(roc_area(np.zeros((1, 3)), np.ones((1, 3)))[0])
