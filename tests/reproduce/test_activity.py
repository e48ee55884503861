"""Whether a mechanism acted, from the records of the steps."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from thr_probe.reproduce.activity import active_share, is_inactive
from thr_probe.reproduce.rows import ROWS, Activity, row_named


@pytest.mark.parametrize(
    ("activity", "columns", "share"),
    [
        (Activity.ALWAYS, {"loss": [0.1, 0.2]}, 1.0),
        (Activity.MASKED, {"masked_share": [0.0, 0.3, 0.2, 0.0]}, 0.5),
        (Activity.KEPT_ENTROPY, {"kept_entropy_share": [0.1, 0.0]}, 0.5),
        (Activity.CLIPPED, {"active_updates": [1.0, 2.0], "num_updates": [4.0, 8.0]}, 0.25),
        (Activity.UPPER_CLIP, {"ratio_max": [1.19, 1.21, 1.3, 1.0]}, 0.5),
        (Activity.RATIO, {"ratio_min": [1.0, 0.9], "ratio_max": [1.0, 1.0]}, 0.5),
        (
            Activity.PENALISED,
            {"ratio_min": [1.0, 0.9], "ratio_max": [1.0, 1.1], "penalised_tokens": [3.0, 3.0]},
            0.5,
        ),
    ],
)
def test_the_share_of_each_metric_is_counted_by_hand(activity, columns, share):
    assert active_share(activity, pd.DataFrame(columns)) == pytest.approx(share)


@pytest.mark.parametrize("activity", [item for item in Activity if item is not Activity.ALWAYS])
@pytest.mark.parametrize("steps", [pd.DataFrame(), pd.DataFrame({"step": [0, 1], "loss": [1, 2]})])
def test_what_was_not_recorded_is_unknown_and_marks_nothing(activity, steps):
    share = active_share(activity, steps)
    assert math.isnan(share)
    assert not is_inactive(share)


def test_penalties_at_unknown_ratios_are_unknown_and_mark_nothing():
    number = {"penalised_tokens": [3.0, 5.0]}
    share = active_share(Activity.PENALISED, pd.DataFrame(number))
    assert math.isnan(share)
    assert not is_inactive(share)
    # one bound alone: a step that moved is known, one that may have moved the other way is not
    one_side = pd.DataFrame(number | {"ratio_min": [1.0, 0.9]})
    assert active_share(Activity.PENALISED, one_side) == 1.0
    assert active_share(Activity.RATIO, one_side) == 1.0
    # nothing was penalised, whatever the ratios were
    assert active_share(Activity.PENALISED, pd.DataFrame({"penalised_tokens": [0.0, 0.0]})) == 0.0


def test_text_in_a_metric_is_not_taken_for_a_missing_one():
    with pytest.raises(ValueError, match="high"):
        active_share(Activity.MASKED, pd.DataFrame({"masked_share": ["high", 0.5]}))


def test_a_missing_record_of_one_step_does_not_count():
    steps = pd.DataFrame({"masked_share": [math.nan, 0.5]})
    assert active_share(Activity.MASKED, steps) == 1.0


def test_below_one_in_a_hundred_is_inactive():
    assert is_inactive(0.0)
    assert is_inactive(0.0099)
    assert not is_inactive(0.01)


def test_names_of_rows_are_theirs_alone_and_base_alone_is_not_trained():
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert [row.name for row in ROWS if not row.is_trained] == ["base"]
    assert sum(row.is_core for row in ROWS) == 6
    assert row_named("thr-p-0.1").flags == ["--method", "thr", "--p", "-0.1"]
