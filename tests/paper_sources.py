"""Evaluations whose every answer is written down, for the tables of the paper."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Solved = Sequence[Sequence[int]]
"""For each question, for each completion, whether it is correct."""


def write_evaluation(
    path: Path,
    make_run: Callable[..., Path],
    *,
    greedy: Mapping[str, Sequence[int]] | None = None,
    sampled: Mapping[str, Solved] | None = None,
    prompt: str = "",
    **completion: Any,
) -> Path:
    """A folder as `thr-probe eval` leaves it, as far as tables read it.

    Args:
        path: the folder.
        make_run: the fixture.
        greedy: by set, whether each question is solved.
        sampled: by set, whether each completion of each question is correct.
        prompt: the template, which the ids of the questions depend on and their texts do not.
        completion: columns of every completion.
    """
    asked: list[tuple[str, str, Solved]] = []
    for name, solved in (greedy or {}).items():
        asked.append(("greedy", name, [[correct] for correct in solved]))
    asked += [("sampled", name, solved) for name, solved in (sampled or {}).items()]
    records = []
    for measure, name, questions in asked:
        groups = [
            {
                "prompt_id": f"{prompt}{name}-{index}",
                "question": f"{name} {index}",
                "dataset": name,
                "completions": [{"correct": bool(each)} | completion for each in solved],
            }
            for index, solved in enumerate(questions)
        ]
        place = f"final/{measure}/{name}"
        make_run(path / place, groups, scored=False)
        records.append({"path": place, "checkpoint": "final", "measure": measure, "dataset": name})
    (path / "eval.json").write_text(json.dumps({"runs": records, "best": None}))
    return path
