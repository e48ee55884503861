"""What is counted of every question for the health of a run, read without refusing odd values.

The reader of traces stops at the first number that is not finite; here such numbers are counted.
Letters of shapes: R completions of a row group.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Float

from thr_probe.analysis.health_contract import breaches, paired_parts
from thr_probe.core.mismatch import token_mismatch
from thr_probe.traces.layout import TableFile, read_columns
from thr_probe.traces.lists import list_values
from thr_probe.traces.reader import Run
from thr_probe.traces.schema import KEY_COLUMNS

GAP_NATS = 0.1
"""A token's log-probability that differs by more between sampler and policy is counted."""

_GROUP = ["step", "prompt_id"]
_STATES = {
    "truncated": ("finish_reason", "length"),
    "aborted": ("finish_reason", "abort"),
    "verifier timeout": ("verify_status", "timeout"),
    "verifier parse failure": ("verify_status", "parse_fail"),
    "verifier error": ("verify_status", "error"),
    "token ids retokenized": ("ids_source", "retokenized"),
    "token ids absent": ("ids_source", "absent"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Numbers per question (index prompt_id), and of the whole run."""

    completions: pd.DataFrame
    """Per question: `completions`, how many are in each state, `tokens` and the like."""
    groups: pd.DataFrame
    """Per group (columns step, prompt_id): `size` and `correct`."""
    has_ids: bool
    """Whether any completion has token ids."""
    has_scores: bool
    """Whether a score set was read."""
    has_gap: bool
    """Whether log-probabilities of sampler and policy were compared."""
    mean_gap: float
    """Mean |sampler_logprobs - logprob| over tokens; NaN where not compared."""
    max_gap: float
    """Its largest value."""


def count_run(run: Run, score_id: str | None, *, compare: bool) -> Counts:
    """One pass over the rollouts and one score set.

    Args:
        run: the trace.
        score_id: the score set; None reads no scores.
        compare: whether to compare the sampler's log-probabilities with the policy's.
    """
    scores = () if score_id is None else run.score_parts[score_id]
    has_ids = any("token_ids" in part.columns for part in run.rollout_parts)
    has_gap = compare and any("sampler_logprobs" in part.columns for part in run.rollout_parts)
    counts, groups, found_ids = [], [], False
    gap, gap_tokens, max_gap = 0.0, 0, 0.0
    expected = bool(scores) and run.is_complete
    for rollout, score in paired_parts(run.rollout_parts, scores):
        for table, scored in _tables(rollout, score, has_ids=has_ids, has_gap=has_gap):
            rows = _rollout_rows(table).assign(**breaches(table, scored, expected=expected))
            found_ids |= has_ids and table["token_ids"].null_count < table.num_rows
            if scored is not None:
                rows = rows.assign(**_score_columns(scored, rows["correct"].to_numpy()))
                if has_gap:
                    gap_N, over_R, number_R = _gaps(table, scored)
                    rows = rows.assign(**{"logprob gap": over_R, "compared tokens": number_R})
                    gap, gap_tokens = gap + float(gap_N.sum()), gap_tokens + len(gap_N)
                    max_gap = max(max_gap, float(gap_N.max(initial=0)))
            groups.append(
                rows.groupby(_GROUP, sort=False)["correct"].agg(["size", "sum"]).reset_index()
            )
            counts.append(rows.drop(columns=["step", "correct"]).groupby("prompt_id").sum())
    empty = pd.DataFrame(columns=[*_GROUP, "size", "sum"])
    grouped = pd.concat(groups or [empty]).groupby(_GROUP, sort=False).sum().reset_index()
    summed = pd.concat(counts).groupby(level=0, sort=False).sum() if counts else pd.DataFrame()
    return Counts(
        completions=summed,
        groups=grouped.rename(columns={"sum": "correct"}),
        has_ids=found_ids,
        has_scores=bool(scores),
        has_gap=gap_tokens > 0,
        mean_gap=gap / gap_tokens if gap_tokens else float("nan"),
        max_gap=max_gap if gap_tokens else float("nan"),
    )


def _tables(
    rollout: TableFile, score: TableFile | None, *, has_ids: bool, has_gap: bool
) -> Iterator[tuple[pa.Table, pa.Table | None]]:
    """The columns needed of a part, a row group at a time where both files are cut alike."""
    columns = [*KEY_COLUMNS, "text", "finish_reason", "correct", "extracted"]
    columns += ["verify_status", "ids_source"]
    columns += ["token_ids"] if has_ids else []
    columns += ["sampler_logprobs"] if has_gap else []
    of_scores = [*KEY_COLUMNS, "thr", "tau", "entropy", "logprob", "num_correct"]
    if score is None or score.group_rows == rollout.group_rows:
        chosen: Sequence[list[int] | None] = [[each] for each in range(len(rollout.group_rows))]
    else:
        chosen = [None]
    for rows in chosen:
        scored = None if score is None else read_columns(score, of_scores, rows)
        yield read_columns(rollout, columns, rows), scored


def _rollout_rows(table: pa.Table) -> pd.DataFrame:
    """One row per completion: its group, and 1 for each state that it is in."""
    rows = pd.DataFrame(
        {
            "step": table["step"].fill_null(-1).to_numpy(),
            "prompt_id": table["prompt_id"].to_pandas(),
            "correct": table["correct"].to_numpy().astype(np.int64),
            "completions": 1,
        }
    )
    for name, (column, state) in _STATES.items():
        rows[name] = (table[column].to_pandas() == state).astype(np.int64)
    rows["no extracted answer"] = table["extracted"].is_null().to_numpy().astype(np.int64)
    text = table["text"].to_pandas()
    rows["empty completion"] = (text.str.strip() == "").astype(np.int64)
    keys = rows[_GROUP].assign(text=text)
    rows["text repeated in its group"] = keys.duplicated().astype(np.int64)
    if "token_ids" in table.column_names:
        values, offsets = list_values(table["token_ids"])
        pairs = itertools.pairwise(offsets.tolist())
        keys["text"] = [values[start:stop].tobytes() for start, stop in pairs]
        known = table["token_ids"].is_valid().to_numpy()
        rows["ids repeated in its group"] = (keys.duplicated() & known).astype(np.int64)
        rows["completions with ids"] = known.astype(np.int64)
    return rows


def _score_columns(scored: pa.Table, correct_R: np.ndarray) -> dict[str, np.ndarray]:
    """Per completion: tokens, tokens whose numbers are not finite, THR that is missing."""
    null_R = scored["thr"].is_null().to_numpy()
    some_correct_R = scored["num_correct"].fill_null(0).to_numpy() > 0
    nonfinite_R = np.zeros(scored.num_rows, dtype=np.int64)
    length_R = np.zeros(scored.num_rows, dtype=np.int64)
    for name in ("thr", "entropy", "logprob"):
        values, offsets = list_values(scored[name])
        bad = np.append(0, np.cumsum(~np.isfinite(values)))
        nonfinite_R += np.diff(bad[offsets])
        length_R = np.maximum(length_R, np.diff(offsets))
    # tau may be minus infinity, which keeps every token
    tau_R = scored["tau"].to_numpy(zero_copy_only=False).astype(np.float64)
    undefined_R = np.isnan(tau_R) & ~null_R
    return {
        "tokens": length_R,
        "numbers": 3 * length_R,
        "number not finite": nonfinite_R,
        "THR undefined": (null_R & ~some_correct_R).astype(np.int64),
        "THR missing": ((null_R & (some_correct_R | (correct_R > 0))) | undefined_R).astype(
            np.int64
        ),
    }


def _gaps(
    table: pa.Table, scored: pa.Table
) -> tuple[Float[np.ndarray, " N"], np.ndarray, np.ndarray]:
    """|sampler_logprobs - logprob| of tokens; per completion those over the bound, and all.

    A completion without one of the lists, or with lists of different length, is not compared.
    """
    sampled, sampled_offsets = list_values(table["sampler_logprobs"])
    policy, policy_offsets = list_values(scored["logprob"])
    length_R = np.diff(policy_offsets)
    alike_R = np.diff(sampled_offsets) == length_R
    number_R = np.where(alike_R, length_R, 0)
    sampler_N, policy_N = (
        values[np.repeat(alike_R, np.diff(offsets))]
        for values, offsets in ((sampled, sampled_offsets), (policy, policy_offsets))
    )
    with np.errstate(invalid="ignore"):
        gap_N = token_mismatch(policy_N, sampler_N).gap
    over = np.append(0, np.cumsum(gap_N > GAP_NATS))
    over_R = np.diff(over[np.append(0, np.cumsum(number_R))])
    return gap_N[np.isfinite(gap_N)], over_R, number_R
