"""Batches of rows under a token budget."""

from __future__ import annotations

import pytest
import torch
from tiny_models import tiny_policy
from torch.testing import assert_close

from thr_probe.errors import PrerequisiteError, UsageError
from thr_probe.policy.batches import TokenBudget, run_batches


def collect(lengths, tokens, **options):
    batches = []
    run_batches(lengths, TokenBudget(tokens), batches.append, **options)
    return batches


def test_every_row_is_run_once_within_the_budget():
    lengths = [5, 900, 300, 290, 1, 900, 450, 1500]
    batches = collect(lengths, 1800)
    assert sorted(row for batch in batches for row in batch) == list(range(8))
    for batch in batches:
        longest = max(lengths[row] for row in batch)
        assert len(batch) == 1 or len(batch) * longest <= 1800


def test_a_row_longer_than_the_budget_runs_alone():
    assert collect([10, 3], 4) == [[0], [1]]


def test_much_shorter_rows_wait_for_a_batch_of_their_own():
    assert collect([1000, 1000, 990, 10, 10], 10**6) == [[0, 1, 2], [3, 4]]
    assert collect([10, 10, 1], 10**6) == [[0, 1, 2]]


def test_a_prompts_rollouts_stay_together_where_a_group_fits():
    assert collect([400] * 9, 2000, together=3) == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert collect([400] * 3, 800, together=3) == [[0, 1], [2]]


def short_of_memory(limit, seen):
    def run(batch):
        if len(batch) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        seen.append(batch)

    return run


def test_out_of_memory_halves_the_budget_with_a_warning_and_loses_no_row():
    seen, budget = [], TokenBudget(10**6)
    with pytest.warns(UserWarning, match="batch_tokens is now") as caught:
        run_batches([100] * 8, budget, short_of_memory(2, seen))
    assert len(caught) == 2
    assert seen == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert budget.tokens == 200


@pytest.mark.filterwarnings("ignore:out of GPU memory:UserWarning")
def test_a_single_row_that_does_not_fit_is_an_error_with_its_length():
    with pytest.raises(PrerequisiteError, match="single row of 100 tokens"):
        run_batches([100, 50], TokenBudget(200), short_of_memory(0, []))


def test_a_budget_below_one_token_is_refused():
    with pytest.raises(UsageError, match="batch_tokens must be at least 1, got 0"):
        TokenBudget(0)


def test_scoring_survives_out_of_memory_and_remembers_what_fitted():
    policy = tiny_policy()
    completions = [[5, 6, 7], [8, 9], [10], [11, 12, 13, 14]]
    expected = policy.hidden([2, 3], completions)
    inner = policy.model.forward

    def forward(**inputs):
        if inputs["input_ids"].shape[0] > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return inner(**inputs)

    policy.model.forward = forward
    with pytest.warns(UserWarning, match="out of GPU memory"):
        actual = policy.hidden([2, 3], completions)
    assert_close(actual, expected, rtol=1e-10, atol=1e-11)
    assert policy.ceiling == 5
    # no warning: the smaller budget is kept
    assert_close(policy.hidden([2, 3], completions), expected, rtol=1e-10, atol=1e-11)
