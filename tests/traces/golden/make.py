"""Made the golden run of schema version 1 beside this file; it is read for ever, so never remade.

A new schema version gets a folder of its own: python tests/traces/golden/make.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from thr_probe.traces import (
    Manifest,
    create_run,
    finish_run,
    write_part,
    write_score_info,
    write_tokens,
)

PROBLEMS = [
    {
        "prompt_id": "aaaaaaaaaaaaaaaa",
        "dataset": "golden",
        "level": "sum",
        "question": "What is 1 + 2?",
        "prompt_text": "Q: What is 1 + 2?\nA:",
        "prompt_token_ids": [7, 8, 9],
        "answer": "3",
        "answer_alt": "3.0",
    },
    {
        "prompt_id": "bbbbbbbbbbbbbbbb",
        "dataset": "golden",
        "level": None,
        "question": "What is 4 × 5?",
        "prompt_text": "Q: What is 4 × 5?\nA:",
        "prompt_token_ids": None,
        "answer": "20",
        "answer_alt": None,
    },
]
TOKENS = [
    {"token_id": 3, "bytes": b"3", "text": "3"},
    {"token_id": 5, "bytes": b"wait", "text": "wait"},
    {"token_id": 6, "bytes": b"\xe2\x82", "text": "\ufffd"},
    {"token_id": 9, "bytes": b" so", "text": " so"},
]


def rollout(prompt_id: str, rollout_id: int, **values: Any) -> dict[str, Any]:
    fixed = {"step": None, "prompt_id": prompt_id, "rollout_id": rollout_id, "verifier": "math"}
    return fixed | values


ROLLOUTS = [
    [
        rollout(
            "aaaaaaaaaaaaaaaa",
            0,
            text="wait so3",
            token_ids=[5, 9, 3],
            sampler_logprobs=[-0.25, -0.5, -0.75],
            finish_reason="stop",
            reward=1.0,
            correct=True,
            extracted="3",
            verify_status="ok",
            ids_source="sampled",
            seed=11,
        ),
        rollout(
            "aaaaaaaaaaaaaaaa",
            1,
            text=" so",
            token_ids=[9],
            sampler_logprobs=[-1.5],
            finish_reason="length",
            reward=0.0,
            correct=False,
            extracted=None,
            verify_status="parse_fail",
            ids_source="retokenized",
            seed=12,
        ),
    ],
    [
        rollout(
            "bbbbbbbbbbbbbbbb",
            0,
            text="\ufffd",
            token_ids=[6],
            sampler_logprobs=[-2.0],
            finish_reason="abort",
            reward=-1.0,
            correct=False,
            extracted="19",
            verify_status="timeout",
            ids_source="sampled",
            seed=13,
        ),
    ],
]
SCORES = [
    [
        {
            "step": None,
            "prompt_id": "aaaaaaaaaaaaaaaa",
            "rollout_id": 0,
            "advantage": 1.0,
            "q": 0.5,
            "num_correct": 1,
            "tau": 0.125,
            "retained": 0.75,
            "thr": [0.25, -0.0625, 3.5],
            "entropy": [0.375, 0.0, 0.875],
            "logprob": [-0.3125, -0.625, -0.6875],
            "thr_self": [0.5, 0.03125, 2.5],
            "thr_within": [0.1875, 0.015625, 2.25],
            "thr_error": [0.0078125, 0.00390625, 0.001953125],
            "ref_logprobs": [-4.0, -5.0, -6.0],
        },
        {
            "step": None,
            "prompt_id": "aaaaaaaaaaaaaaaa",
            "rollout_id": 1,
            "advantage": -1.0,
            "q": 0.5,
            "num_correct": 1,
            "tau": 0.125,
            "retained": 0.25,
            "thr": [-7.0],
            "entropy": [1.25],
            "logprob": [-1.75],
            "thr_self": [-8.0],
            "thr_within": [-9.0],
            "thr_error": [0.0],
            "ref_logprobs": [-10.0],
        },
    ],
    [
        {
            "step": None,
            "prompt_id": "bbbbbbbbbbbbbbbb",
            "rollout_id": 0,
            "advantage": 0.0,
            "q": 0.0,
            "num_correct": 0,
            "tau": None,
            "retained": None,
            "thr": None,
            "entropy": [2.25],
            "logprob": [-2.5],
            "thr_self": None,
            "thr_within": None,
            "thr_error": None,
            "ref_logprobs": [-11.0],
        }
    ],
]
CONFIG = {"dataset": "golden", "seed": 11, "sampling": {"temperature": 0.7, "group_size": 2}}
SCORE_INFO = {"model": "golden-model", "beta": 1.0}
MANIFEST = Manifest(
    tool_version="0.1.0",
    model="golden-model",
    revision="r1",
    tokenizer_digest="t1",
    dataset="golden",
    dataset_digest="d1",
    sampler="fake",
    verifier="math",
    seed=11,
    argv=("collect", "--model", "golden-model"),
    num_prompts=2,
    group_size=2,
    counts={"empty_gold": 4},
    versions={"torch": "2.13.0"},
)


def write(path: Path) -> None:
    create_run(path, manifest=MANIFEST, config=CONFIG, problems=PROBLEMS)
    for index, (rollouts, scores) in enumerate(zip(ROLLOUTS, SCORES, strict=True)):
        write_part(path, "rollouts", index, rollouts)
        write_part(path, "scores/default", index, scores)
    write_score_info(path, "default", SCORE_INFO)
    write_tokens(path, TOKENS)
    finish_run(path, MANIFEST)
    (path / "logs").rmdir()


if __name__ == "__main__":
    write(Path(sys.argv[1]))
