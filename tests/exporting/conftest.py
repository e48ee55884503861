"""A run with everything that an export may meet."""

from __future__ import annotations

import pytest

from thr_probe.traces import read_run, write_tokens

THR = [0.5, -0.25, 0.0, 0.125]


def _scored(**columns):
    base = {"token_ids": [1, 2, 3, 4], "thr": THR, "entropy": [1.0, 0.5, 0.25, 0.0]}
    base |= {"logprob": [-1.0, -0.5, -0.25, -0.1], "sampler_logprobs": [-1.1, -0.6, -0.3, -0.2]}
    return base | columns


@pytest.fixture
def groups():
    """Mixed; none correct; all correct with a tau of minus infinity; one row without ids."""
    return [
        {
            "prompt_id": "a",
            "step": 0,
            "tau": 0.2,
            "answer": "7",
            "prompt_token_ids": [9, 8],
            "completions": [
                _scored(correct=True, text="right", reward=1.0),
                _scored(token_ids=[3], thr=[-0.3], entropy=[0.1], logprob=[-2.0])
                | {"sampler_logprobs": None, "text": "é"},
                _scored(token_ids=[], thr=[], entropy=[], logprob=[], sampler_logprobs=[]),
            ],
        },
        {
            "prompt_id": "b",
            "step": 0,
            "prompt_token_ids": [5],
            "completions": [_scored(thr=None), _scored(thr=None, token_ids=[4, 4, 1, 2])],
        },
        {
            "prompt_id": "a",
            "step": 1,
            "tau": float("-inf"),
            "completions": [_scored(correct=True), _scored(correct=True, token_ids=None)],
        },
    ]


@pytest.fixture
def run(tmp_path, make_run, groups):
    path = make_run(tmp_path / "run", groups, groups_per_part=2)
    write_tokens(
        path,
        [
            {"token_id": 1, "bytes": b" a", "text": " a"},
            {"token_id": 2, "bytes": b"\xe2\x82", "text": "\ufffd"},
            {"token_id": 3, "bytes": "€".encode(), "text": "€"},
        ],
    )
    return read_run(path)


@pytest.fixture
def rows(groups):
    """The completions as plain dicts with their group's columns, in the order of the trace."""
    found = []
    for group in groups:
        correct = sum(bool(each.get("correct")) for each in group["completions"])
        q = correct / len(group["completions"])
        for place, each in enumerate(group["completions"]):
            own = {"prompt_id": group["prompt_id"], "step": group["step"], "rollout_id": place}
            spread = (q * (1 - q)) ** 0.5
            advantage = (bool(each.get("correct")) - q) / spread if spread else 0.0
            own |= {"tau": group.get("tau") if correct else None, "q": q, "advantage": advantage}
            found.append(
                {"correct": False, "reward": float(each.get("correct", False))} | each | own
            )
    return found
