"""Small runs and evaluations on disk, for the analyses of several sources."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

MakeRun = Callable[..., Path]


def labelled(labels: Mapping[str, str], **columns: Any) -> list[dict[str, Any]]:
    """Groups by their questions: {"q1": "100"} is one right completion of three."""
    return [
        {
            "prompt_id": f"id-{question}",
            "question": question,
            "completions": [{"correct": label == "1"} for label in text],
            **columns,
        }
        for question, text in labels.items()
    ]


def with_options(path: Path, **options: float | str | bool) -> Path:
    """The run with other options in its config.toml."""
    lines = [f"{name} = {json.dumps(value)}" for name, value in ({"seed": 0} | options).items()]
    (path / "config.toml").write_text("\n".join(lines) + "\n")
    return path


def make_evaluation(
    make_run: MakeRun,
    folder: Path,
    sets: Mapping[str, Mapping[str, Mapping[str, str]]],
    *,
    checkpoints: Sequence[str] = ("final",),
    best: str | None = None,
) -> Path:
    """A folder like that of `thr-probe eval`.

    Args:
        make_run: the fixture.
        folder: to make.
        sets: by measure, then set, the labels of each question.
        checkpoints: all with the same labels.
        best: of eval.json.
    """
    records = []
    for checkpoint in checkpoints:
        for measure, by_name in sets.items():
            for name, labels in by_name.items():
                place = Path(checkpoint) / measure / name
                path = make_run(folder / place, labelled(labels, dataset=name), scored=False)
                with_options(path, temperature=0.0 if measure == "greedy" else 1.0)
                records.append(
                    {"path": str(place), "checkpoint": checkpoint, "measure": measure}
                    | {"dataset": name}
                )
    content = {"runs": records, "best": best}
    (folder / "eval.json").write_text(json.dumps(content))
    return folder
