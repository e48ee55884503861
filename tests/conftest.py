"""Shared set-up: one thread, headless figures, real data where the machine has it."""

from __future__ import annotations

import importlib
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    gpu_items = [item for item in items if item.get_closest_marker("gpu")]
    if not gpu_items:
        return
    torch = importlib.import_module("torch")

    if not torch.cuda.is_available():
        for item in gpu_items:
            item.add_marker(pytest.mark.skip(reason="needs CUDA"))


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Real benchmarks and rollouts, outside the project; tests that need them skip without."""
    folder = os.environ.get("THR_PROBE_TEST_DATA")
    if not folder:
        pytest.skip("THR_PROBE_TEST_DATA is not set")
    return Path(folder)


@pytest.fixture(scope="session")
def make_run() -> Callable[..., Path]:
    """Builds a run directory from plain Python lists; everything left out gets a sensible default.

    make_run(path, groups=[{"prompt_id": "a", "tau": 0.5, "completions": [{"correct": True}]}],
             tokens={1: "wait"}, score_id="default", scored=True, groups_per_part=None)

    A group takes any column of problems, plus step, tau, q, num_correct; a completion takes any
    column of rollouts and scores. Defaults: four tokens a completion (or the length of any list
    given) with ids 1, 2, 3 ...; thr +-0.01 * (1 + position) by correctness and None without a
    correct rollout; entropy 0.5, logprob -0.5; tau = the smallest mean thr of a correct completion;
    advantage, q, num_correct and retained by their definitions; text = the joined token texts.
    """
    return _make_run


def _make_run(
    path: Path,
    groups: Sequence[Mapping[str, Any]],
    *,
    tokens: Mapping[int, str] | None = None,
    score_id: str = "default",
    scored: bool = True,
    groups_per_part: int | None = None,
    complete: bool = True,
    manifest: Mapping[str, Any] | None = None,
) -> Path:
    # imported here so that the shape checks of the pytest plugin are installed first
    traces = importlib.import_module("thr_probe.traces")
    problem_columns = traces.TABLES["problems"]
    group_rows = [_group_rows(group, index, tokens or {}) for index, group in enumerate(groups)]
    problems = {}
    for index, group in enumerate(groups):
        prompt_id = group.get("prompt_id", f"p{index}")
        defaults = {"prompt_id": prompt_id, "dataset": "fake", "level": None, "answer": "1"}
        defaults |= {"question": f"question {prompt_id}", "prompt_text": f"prompt {prompt_id}"}
        given = {name: value for name, value in group.items() if name in problem_columns}
        problems.setdefault(prompt_id, defaults | given)
    fields = {"dataset": "fake", "sampler": "fake", "verifier": "fake", "seed": 0, "model": "fake"}
    fields |= {"num_prompts": len(problems), "group_size": max(map(len, group_rows), default=0)}
    record = traces.Manifest(**(fields | dict(manifest or {})))
    traces.create_run(path, manifest=record, config={"seed": 0}, problems=problems.values())
    step = groups_per_part or max(len(group_rows), 1)
    for part, start in enumerate(range(0, len(group_rows), step)):
        rows = [row for group in group_rows[start : start + step] for row in group]
        tables = ["rollouts", f"scores/{score_id}"] if scored else ["rollouts"]
        for table in tables:
            declared = traces.TABLES[table.partition("/")[0]]
            kept = [{key: row[key] for key in row if key in declared} for row in rows]
            traces.write_part(path, table, part, kept)
    if scored:
        traces.write_score_info(path, score_id, {"model": "fake"})
    if tokens:
        rows = [{"token_id": i, "bytes": text.encode(), "text": text} for i, text in tokens.items()]
        traces.write_tokens(path, rows)
    if complete:
        traces.finish_run(path, record)
    return path


_LIST_NAMES = ("token_ids", "thr", "entropy", "logprob", "sampler_logprobs")


def _group_rows(
    group: Mapping[str, Any], index: int, tokens: Mapping[int, str]
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    completions = group["completions"]
    num_correct = sum(bool(given.get("correct")) for given in completions)
    q = num_correct / len(completions)
    deviation = (q * (1 - q)) ** 0.5
    for rollout_id, given in enumerate(completions):
        correct = bool(given.get("correct"))
        lists = [given[name] for name in _LIST_NAMES if given.get(name) is not None]
        length = len(lists[0]) if lists else 4
        sign = 1.0 if correct else -1.0
        ids = given.get("token_ids", list(range(1, length + 1)))
        row = {
            "step": group.get("step"),
            "prompt_id": group.get("prompt_id", f"p{index}"),
            "rollout_id": rollout_id,
            "text": "".join(tokens.get(token, f"<{token}>") for token in ids or ()),
            "token_ids": ids,
            "finish_reason": "stop",
            "reward": float(correct),
            "correct": correct,
            "extracted": None,
            "verifier": "fake",
            "verify_status": "ok",
            "ids_source": "absent" if ids is None else "sampled",
            "seed": 0,
            "advantage": (correct - q) / deviation if deviation else 0.0,
            "q": q,
            "num_correct": num_correct,
            "thr": [sign * 0.01 * (1 + k) for k in range(length)] if num_correct else None,
            "entropy": [0.5] * length,
            "logprob": [-0.5] * length,
        }
        rows.append(row | dict(given))
    means = [sum(row["thr"]) / len(row["thr"]) for row in rows if row["correct"] and row["thr"]]
    tau = group.get("tau", min(means) if means else None)
    for row, given in zip(rows, completions, strict=True):
        row["tau"] = tau
        has_tau = tau is not None and row["thr"]
        dominant = [abs(value) > tau for value in row["thr"]] if has_tau else []
        row["retained"] = sum(dominant) / len(dominant) if dominant else None
        row.update({name: group[name] for name in ("q", "num_correct") if name in group})
        row.update(given)
    return rows
