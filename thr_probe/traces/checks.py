"""What the rows of a trace promise each other: unique keys, aligned scores, lists of one length."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from thr_probe.errors import DataError
from thr_probe.traces.layout import (
    SCORE_INFO_NAME,
    SCORES,
    TableFile,
    part_path,
    read_columns,
)
from thr_probe.traces.manifest import MANIFEST_NAME, read_json_object
from thr_probe.traces.rows import check_values, row_key
from thr_probe.traces.schema import COMPLETION_COLUMNS, KEY_COLUMNS


def check_keys(parts: Sequence[TableFile]) -> None:
    """Refuse two completions with the same (step, prompt_id, rollout_id).

    Only the three key columns are read, about 30 bytes a completion.
    """
    tables = [read_columns(part, KEY_COLUMNS) for part in parts]
    if not tables:
        return
    keys = pa.concat_tables(tables)
    counted = keys.group_by(list(KEY_COLUMNS)).aggregate([([], "count_all")])
    repeated = counted.filter(pc.greater(counted["count_all"], 1))
    if repeated.num_rows:
        raise DataError(
            f"{parts[0].path.parent}: columns {', '.join(KEY_COLUMNS)}: found "
            f"{repeated['count_all'][0]} rows with {row_key(repeated, 0)}, expected one",
            "a part was copied under a second name, or two runs were mixed: restore the folder",
        )


def check_parts(
    run_path: Path,
    table: str,
    scores: Sequence[TableFile],
    rollouts: Sequence[TableFile],
    *,
    is_complete: bool,
) -> None:
    """Refuse a score set whose parts do not cover the rollouts, part by part.

    In an incomplete run the last parts may still wait for their scores.
    """
    if len(scores) < len(rollouts) and is_complete:
        raise DataError(
            f"{part_path(run_path, table, len(scores))} is missing: "
            f"{len(scores)} of {len(rollouts)} parts have scores",
            _how_to_complete(run_path, table.partition("/")[2]),
        )
    if len(scores) > len(rollouts):
        raise DataError(
            f"{scores[len(rollouts)].path} has no rollouts part beside it",
            "the scores belong to another run: restore the folder",
        )
    for score_part, rollout_part in zip(scores, rollouts, strict=False):
        if score_part.num_rows != rollout_part.num_rows:
            raise DataError(
                f"{score_part.path}: found {score_part.num_rows} rows, expected "
                f"{rollout_part.num_rows} as in {rollout_part.path}",
                "the scores belong to other rollouts: delete this score set and score again",
            )


def _how_to_complete(run_path: Path, score_id: str) -> str:
    """The command that writes a missing part: of whoever wrote the set.

    `thr-probe score` writes score.json first, and the digest of the policy's weights into it;
    `collect` and `train` write the set "default" without one, `train` with its objective.
    """
    info = _object(run_path / SCORES / score_id / SCORE_INFO_NAME)
    if "objective" in info:
        return (
            "restore the part from a copy of the training run, or score its rollouts again as "
            "another set: thr-probe score RUN --score-id NAME"
        )
    if "model_digest" in info or score_id != "default":
        return f"complete them: thr-probe score {run_path} --score-id {score_id} --resume"
    typed = _object(run_path / MANIFEST_NAME).get("argv")
    words = [str(word) for word in typed] if isinstance(typed, list) else []
    kept = [word for word in words if word not in {"--resume", "--overwrite"}]
    for place, word in enumerate(kept[:-1]):
        if word in {"-o", "--out"}:  # the folder may have been moved since
            kept[place + 1] = str(run_path)
    if kept[1:2] != ["collect"]:
        kept = ["thr-probe", "collect", "-o", str(run_path), "..."]
    return f"complete them with the command that collected the run: {shlex.join(kept)} --resume"


def _object(path: Path) -> dict[str, object]:
    """A JSON object for a hint; empty where it cannot be read, which is another error."""
    try:
        return read_json_object(path)
    except DataError:
        return {}


def check_aligned(path: Path, rollout_keys: pa.Table, score_keys: pa.Table) -> None:
    """Refuse scores whose keys are not those of the rollouts, row by row."""
    for name in KEY_COLUMNS:
        left, right = rollout_keys[name], score_keys[name]
        if left.equals(right):
            continue
        both_null = pc.and_(left.is_null(), right.is_null())
        same = pc.or_(both_null, pc.fill_null(pc.equal(left, right), fill_value=False)).to_numpy()
        if not same.all():
            row = int(np.flatnonzero(~same)[0])
            raise DataError(
                f"{path}: column {name}: found {row_key(score_keys, row)}, expected "
                f"{row_key(rollout_keys, row)} as in the rollouts part of the same number",
                "the scores belong to other rollouts: delete this score set and score again",
            )


def check_columns(path: Path, table: pa.Table) -> None:
    """Refuse nulls where none may be, states that do not exist, numbers that are not finite."""
    for name in table.column_names:
        if name in COMPLETION_COLUMNS:
            check_values(path, COMPLETION_COLUMNS[name], table)
