"""A verdict is decided by an interval alone."""

from __future__ import annotations

import math

import pytest

from thr_probe.core.stats import Interval
from thr_probe.reproduce.claims import (
    CLAIMS,
    Sense,
    Verdict,
    claims_table,
    peak_verdict,
    verdict,
)
from thr_probe.reproduce.estimates import Results
from thr_probe.reproduce.rows import row_named


def interval(low, high):
    return Interval(value=(low + high) / 2, low=low, high=high)


@pytest.mark.parametrize(
    ("low", "high", "above", "below", "equal"),
    [
        (0.01, 0.02, "appears", "the opposite appears", "appears"),
        (0.05, 0.09, "appears", "the opposite appears", "the opposite appears"),
        (-0.09, -0.05, "the opposite appears", "appears", "the opposite appears"),
        (-0.1, 0.1, "inside the noise", "inside the noise", "inside the noise"),
        (0.0, 0.1, "inside the noise", "inside the noise", "inside the noise"),
        (-0.02, 0.02, "inside the noise", "inside the noise", "appears"),
        (math.nan, math.nan, "inside the noise", "inside the noise", "inside the noise"),
    ],
)
def test_the_interval_decides(low, high, above, below, equal):
    found = interval(low, high)
    judged = [verdict(found, sense) for sense in (Sense.ABOVE, Sense.BELOW, Sense.EQUAL)]
    assert judged == [above, below, equal]


@pytest.mark.parametrize(
    ("low", "high", "told"),
    [
        (0.85, 0.95, "appears"),
        (0.7, 0.8, "the peak lies lower"),
        (0.95, 1.0, "the peak lies higher"),
    ],
)
def test_the_peak_is_near_ninety_percent_or_beside_it(low, high, told):
    assert peak_verdict(interval(low, high)) == told


def test_without_any_run_every_claim_is_told_as_not_run():
    table = claims_table(Results([]))
    assert len(table) == len(CLAIMS) + 3
    assert set(table["verdict"]) == {Verdict.NOT_RUN}
    assert all("missing" in sentence for sentence in table["sentence"])


def test_claims_are_about_rows_that_exist():
    for claim in CLAIMS:
        assert row_named(claim.row) != row_named(claim.versus)
