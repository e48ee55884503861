"""What `validate_run` refuses, counted per completion where the rows are read anyway."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Int

from thr_probe.traces.layout import TableFile
from thr_probe.traces.schema import COMPLETION_COLUMNS, KEY_COLUMNS

SCORES_MISSING, OTHER_KEY = "scores missing", "scores of another completion"
UNEQUAL_LISTS, UNKNOWN_STATE = "lists of unequal length", "state that does not exist"
BREACHES = (SCORES_MISSING, OTHER_KEY, UNEQUAL_LISTS, UNKNOWN_STATE)
"""The breaches of the trace's contract that are counted; `thr-probe data validate` names places."""


def paired_parts(
    rollouts: Sequence[TableFile], scores: Sequence[TableFile]
) -> Iterator[tuple[TableFile, TableFile | None]]:
    """Each part of the rollouts with its scores; None where they are missing or of other rows."""
    for index, rollout in enumerate(rollouts):
        score = scores[index] if index < len(scores) else None
        is_beside = score is not None and score.num_rows == rollout.num_rows
        yield rollout, score if is_beside else None


def breaches(
    table: pa.Table, scored: pa.Table | None, *, expected: bool
) -> Mapping[str, Int[np.ndarray, " R"]]:
    """1 for each completion that breaks the contract, by breach; R completions of a row group.

    Args:
        table: columns of the rollouts.
        scored: columns of the scores, row by row beside them; None where there are none.
        expected: whether there should be scores: a complete run with a score set.
    """
    missing_R = np.full(table.num_rows, expected and scored is None)
    found = {
        SCORES_MISSING: missing_R,
        OTHER_KEY: np.zeros(table.num_rows, bool) if scored is None else _other(table, scored),
        UNEQUAL_LISTS: _unequal([table] if scored is None else [table, scored]),
        UNKNOWN_STATE: _unknown(table),
    }
    return {name: wrong_R.astype(np.int64) for name, wrong_R in found.items()}


def _other(table: pa.Table, scored: pa.Table) -> Bool[np.ndarray, " R"]:
    differs_R = np.zeros(table.num_rows, dtype=bool)
    for name in KEY_COLUMNS:
        left, right = table[name], scored[name]
        both_null = pc.and_(left.is_null(), right.is_null())
        same = pc.or_(both_null, pc.fill_null(pc.equal(left, right), fill_value=False))
        differs_R |= ~same.to_numpy()
    return differs_R


def _unequal(tables: Sequence[pa.Table]) -> Bool[np.ndarray, " R"]:
    """Whether lists of a completion differ in length; a list that is null has no length."""
    wrong_R = np.zeros(tables[0].num_rows, dtype=bool)
    length_R = np.full(tables[0].num_rows, -1, dtype=np.int64)
    for table in tables:
        for name in table.column_names:
            if not pa.types.is_list(table[name].type):
                continue
            other_R = pc.fill_null(pc.list_value_length(table[name]), -1).to_numpy()
            wrong_R |= (length_R >= 0) & (other_R >= 0) & (other_R != length_R)
            length_R = np.where(length_R >= 0, length_R, other_R)
    return wrong_R


def _unknown(table: pa.Table) -> Bool[np.ndarray, " R"]:
    wrong_R = np.zeros(table.num_rows, dtype=bool)
    for name in table.column_names:
        column = COMPLETION_COLUMNS.get(name)
        if column is not None and column.values:
            known = pc.is_in(table[name], pa.array(column.values, pa.string()))
            wrong_R |= ~known.to_numpy()
    return wrong_R
