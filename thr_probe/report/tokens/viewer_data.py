"""From a trace: the groups that the token viewer shows, and how many it leaves out."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float, Int

from thr_probe.errors import DataError, UsageError
from thr_probe.traces import Run, list_values

THR_COLUMNS = ("thr", "thr_self", "thr_within", "thr_error")
"""Columns that a group without a correct completion has no values of."""
_OPTIONAL = THR_COLUMNS[1:]
_TOKEN_COLUMNS = ("entropy", "logprob")
_PER_COMPLETION = (
    "rollout_id",
    "correct",
    "reward",
    "extracted",
    "finish_reason",
    "verify_status",
    "advantage",
    "retained",
)
_PER_GROUP = ("q", "tau")

_Key = tuple[int | None, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewedGroup:
    """The completions of one question (at one step of training)."""

    step: int | None
    """Step of training; None outside."""
    prompt_id: str
    """The question."""
    q: float
    """Share of the completions that are correct."""
    tau: float | None
    """The threshold; None where THR is undefined."""
    completions: list[dict[str, object]]
    """Columns of one value per completion, and `length`, in the order of the trace."""
    token_ids_N: Int[np.ndarray, " N"]
    """The tokens, completion after completion."""
    columns: Mapping[str, Float[np.ndarray, " N"]]
    """`entropy`, `logprob` and those of `THR_COLUMNS` that the group has."""

    @property
    def balance(self) -> float | None:
        """sum THR / sum |THR| over the group's tokens, in [-1, 1]; None where it is undefined."""
        if "thr" not in self.columns:
            return None
        thr_N = self.columns["thr"].astype(np.float64)
        size = float(np.abs(thr_N).sum())
        return float(thr_N.sum()) / size if size else None

    @property
    def retained(self) -> float | None:
        """Share of the group's tokens with |THR| > tau; None where THR is undefined."""
        if "thr" not in self.columns or self.tau is None or not len(self.token_ids_N):
            return None
        return float((np.abs(self.columns["thr"]) > np.float32(self.tau)).mean())


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewerData:
    """What one page shows."""

    groups: list[ViewedGroup]
    """In the order of the trace."""
    problems: Mapping[str, Mapping[str, object]]
    """dataset, level, question and answer of every question shown."""
    tokens: pd.DataFrame
    """token_id and bytes of every id that occurs in the run."""
    num_left_out: int
    """Groups asked for that the limit of tokens left no room for."""
    score_id: str
    """The score set that was read."""


def viewer_data(
    run: Run,
    *,
    score_id: str | None = None,
    prompts: Sequence[str] | None = None,
    max_tokens: int,
) -> ViewerData:
    """Reads whole groups in the order of the trace until the next one would exceed the limit.

    The first group is read however large it is.

    Args:
        run: the trace; it needs token ids and scores.
        score_id: which scores; the only ones by default.
        prompts: the questions to show, by prompt_id or the beginning of one; all by default.
        max_tokens: of all groups together.

    Raises:
        DataError: the run has no scores, no token ids, or no completions.
        UsageError: no question, or more than one, begins as asked; `max_tokens` below 1.
    """
    if max_tokens < 1:
        raise UsageError(f"max_tokens is {max_tokens}, expected 1 or more")
    resolved = run.resolve_score_id(score_id)
    tokens = _tokens(run)
    problems = run.problems().set_index("prompt_id")
    wanted = _wanted(problems.index.tolist(), prompts)
    groups = _read_groups(run, resolved, wanted, max_tokens)
    if not groups:
        raise DataError(f"{run.path} holds no completions of the questions asked for")
    shown = {group.prompt_id for group in groups}
    missing = sorted(shown - set(problems.index))
    if missing:
        raise DataError(f"problems.parquet: prompt_id {missing[0]} is missing, but has completions")
    return ViewerData(
        groups=groups,
        problems={
            prompt_id: {str(name): value for name, value in problems.loc[prompt_id].items()}
            for prompt_id in shown
        },
        tokens=tokens,
        num_left_out=_num_groups(run, wanted) - len(groups),
        score_id=resolved,
    )


def _tokens(run: Run) -> pd.DataFrame:
    tokens = run.tokens()
    if tokens is None or not any("token_ids" in part.columns for part in run.rollout_parts):
        lacking = "token ids" if tokens is not None else "texts of its tokens (tokens.parquet)"
        raise DataError(
            f"{run.path} has no {lacking}, which the viewer shows one by one",
            "collect the run with thr-probe, or give its importer the policy's tokenizer",
        )
    return tokens


def _wanted(known: Sequence[str], prompts: Sequence[str] | None) -> set[str] | None:
    if prompts is None:
        return None
    return {_resolve_prompt(known, prompt) for prompt in prompts}


def _resolve_prompt(known: Sequence[str], prompt: str) -> str:
    """The prompt_id that is or begins with what was asked for."""
    found = [name for name in known if name.startswith(prompt)] if prompt else []
    if prompt in found:
        return prompt
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(
            f"{len(found)} questions begin with {prompt!r}", f"such as {', '.join(found[:3])}"
        )
    close = difflib.get_close_matches(prompt, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known[:3])} ..."
    raise UsageError(f"no question has the prompt_id {prompt!r}", hint)


def _read_groups(
    run: Run, score_id: str, wanted: set[str] | None, max_tokens: int
) -> list[ViewedGroup]:
    stored = {name for part in run.score_parts[score_id] for name in part.columns}
    optional = [name for name in _OPTIONAL if name in stored]
    columns = ["step", "prompt_id", *_PER_COMPLETION, *_PER_GROUP]
    columns += ["token_ids", "thr", *_TOKEN_COLUMNS, *optional]
    groups: list[ViewedGroup] = []
    num_tokens = 0
    for table in run.iter_completions(columns, score_id=score_id):
        for key, start, stop in _runs_of_keys(table):
            if wanted is not None and key[1] not in wanted:
                continue
            rows = table.slice(start, stop - start)
            num_tokens += pc.sum(pc.list_value_length(rows["token_ids"])).as_py() or 0
            if groups and num_tokens > max_tokens:
                return groups
            groups.append(_group(run, key, rows))
    return groups


def _num_groups(run: Run, wanted: set[str] | None) -> int:
    keys: set[_Key] = set()
    for table in run.iter_completions(["step", "prompt_id"]):
        keys |= {key for key, _, _ in _runs_of_keys(table) if wanted is None or key[1] in wanted}
    return len(keys)


def _runs_of_keys(table: pa.Table) -> list[tuple[_Key, int, int]]:
    """The groups of a table in order: key, first row, row after the last."""
    keys = list(zip(table["step"].to_pylist(), table["prompt_id"].to_pylist(), strict=True))
    starts = [row for row, key in enumerate(keys) if row == 0 or key != keys[row - 1]]
    bounds = zip(starts, [*starts[1:], len(keys)], strict=False)
    return [(keys[start], start, stop) for start, stop in bounds]


def _group(run: Run, key: _Key, rows: pa.Table) -> ViewedGroup:
    if rows["token_ids"].null_count:
        raise DataError(
            f"{run.path}: {rows['token_ids'].null_count} completions of {key[1]} have no token ids",
            "collect the run with thr-probe, or give its importer the policy's tokenizer",
        )
    token_ids_N, offsets = list_values(rows["token_ids"])
    columns = {}
    for name in rows.column_names:
        if name in (*_TOKEN_COLUMNS, *THR_COLUMNS) and not rows[name].null_count:
            columns[name] = list_values(rows[name])[0]
    completions = rows.select(list(_PER_COMPLETION)).to_pylist()
    for completion, length in zip(completions, np.diff(offsets).tolist(), strict=True):
        completion["length"] = length
    return ViewedGroup(
        step=key[0],
        prompt_id=key[1],
        q=rows["q"][0].as_py(),
        tau=rows["tau"][0].as_py(),
        completions=completions,
        token_ids_N=token_ids_N,
        columns=columns,
    )
