"""One pass over the completions whose groups count, with what was left out counted.

A group is the rollouts of one question (at one step of training). Letters of shapes: R completions
of a batch, N their tokens, S strata, P questions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Int, Shaped
from numpy.typing import DTypeLike

from thr_probe.analysis.result import counted
from thr_probe.errors import DataError, UsageError
from thr_probe.traces.lists import list_values
from thr_probe.traces.reader import Run

GROUPS = ("mixed", "has-correct")

# Why a group is left out; the first that holds is counted.
_REASONS = {
    "no_correct": "without a correct completion",
    "all_correct": "with only correct completions",
    "tau_nonpositive": "with a threshold of 0 or below",
}

_Key = tuple[int | None, str]

_KEY_COLUMNS = ("step", "prompt_id", "correct", "q", "tau")


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Some kept completions with their tokens end to end."""

    group_R: Int[np.ndarray, " R"]
    """Index of each completion's group, in order of appearance over the whole run."""
    stratum_R: Int[np.ndarray, " R"]
    """Index of each completion's stratum."""
    tau_R: Float[np.ndarray, " R"]
    """The threshold of each completion's group."""
    offsets: Int[np.ndarray, " bounds"]
    """Completion r has the tokens `offsets[r]:offsets[r + 1]`."""
    tokens: Mapping[str, Shaped[np.ndarray, " N"]]
    """The list columns asked for, flat."""
    completions: Mapping[str, Shaped[np.ndarray, " R"]]
    """The columns of one value per completion asked for, such as `advantage`; `q` always."""

    @property
    def lengths(self) -> Int[np.ndarray, " R"]:
        """|y_i| of each completion."""
        return np.diff(self.offsets)

    def per_token(self, value_R: Shaped[np.ndarray, " R"]) -> Shaped[np.ndarray, " N"]:
        """A value per completion, repeated for each of its tokens."""
        return np.repeat(value_R, self.lengths)

    def count(self, chosen_N: Bool[np.ndarray, " N"]) -> Int[np.ndarray, " R"]:
        """How many of each completion's tokens are chosen."""
        number_R: np.ndarray = self.sum(chosen_N.view(np.uint8), dtype=np.int64)
        return number_R

    def sum(
        self, value_N: Shaped[np.ndarray, " N"], *, dtype: DTypeLike = np.float64
    ) -> Shaped[np.ndarray, " R"]:
        """The sum over each completion's tokens."""
        total_R = np.zeros(len(self.lengths), dtype=dtype)
        # reduceat gives an empty run the value that follows it
        some_R = self.lengths > 0
        if some_R.any():
            total_R[some_R] = np.add.reduceat(value_N, self.offsets[:-1][some_R], dtype=dtype)
        return total_R


@dataclass(frozen=True, slots=True, kw_only=True)
class Strata:
    """The smallest sets of completions counted apart: question, sign of tau, correctness."""

    question_S: Int[np.ndarray, " S"]
    """Index of the question, the unit that is resampled."""
    tau_positive_S: Bool[np.ndarray, " S"]
    """Whether the group's tau is above 0; where it is not, (nearly) every token is dominant."""
    correct_S: Bool[np.ndarray, " S"]
    """Whether the completions were verified as correct."""

    def splits(self) -> dict[str, Bool[np.ndarray, " S"]]:
        """The sets that are reported: by correctness, and again without groups of tau <= 0."""
        everything = np.ones_like(self.correct_S)
        by_label = {"all": everything, "correct": self.correct_S, "incorrect": ~self.correct_S}
        if self.tau_positive_S.all():
            return by_label
        positive = {f"{name}, tau > 0": mask for name, mask in by_label.items()}
        return by_label | {name: mask & self.tau_positive_S for name, mask in positive.items()}


class CompletionStream:
    """Iterates over the kept completions of a run; may be iterated again, with equal indices.

    `mixed` keeps the groups with correct and incorrect completions, `has-correct` also those with
    only correct ones; without any correct completion THR is undefined and a group is left out.

    Args:
        run: the trace.
        token_columns: list columns to read, such as `thr`, `entropy`.
        completion_columns: columns of one value per completion, such as `advantage`.
        groups: `mixed` or `has-correct`.
        score_id: which scores; the only ones by default.
        positive_tau: whether groups with tau <= 0 are left out as well.
    """

    def __init__(
        self,
        run: Run,
        token_columns: Sequence[str],
        *,
        completion_columns: Sequence[str] = (),
        groups: str = "mixed",
        score_id: str | None = None,
        positive_tau: bool = False,
    ) -> None:
        if groups not in GROUPS:
            raise UsageError(f"unknown groups {groups!r}; choose {' or '.join(GROUPS)}")
        self.run, self.groups, self._positive_tau = run, groups, positive_tau
        self._token_columns = list(token_columns)
        self._completion_columns = list(dict.fromkeys(["q", *completion_columns]))
        self._has_scores = bool(run.score_ids)
        self.score_id = run.resolve_score_id(score_id) if self._has_scores else None
        self._forget()

    def _forget(self) -> None:
        self._questions: dict[str, int] = {}
        self._groups: dict[_Key, int] = {}
        self._strata: dict[tuple[int, bool, bool], int] = {}
        self._question_of_group: list[int] = []
        self._tau: list[float] = []
        self._excluded: dict[str, set[_Key]] = {name: set() for name in _REASONS}
        self._num_excluded = dict.fromkeys(_REASONS, 0)
        self.num_completions = 0
        self._num_tau_nonpositive = 0
        self.num_tokens = 0

    def __iter__(self) -> Iterator[Batch]:
        self._forget()
        if not self._has_scores:
            return
        columns = dict.fromkeys(
            [*_KEY_COLUMNS, "thr", *self._completion_columns, *self._token_columns]
        )
        for table in self.run.iter_completions(list(columns), score_id=self.score_id):
            keys, key_R = _row_keys(table)
            kept_R = self._kept(table, keys, key_R)
            if kept_R.any():
                yield self._batch(table, kept_R, keys, key_R)

    def _kept(
        self, table: pa.Table, keys: Sequence[_Key], key_R: Int[np.ndarray, " R"]
    ) -> Bool[np.ndarray, " R"]:
        """Which completions are kept; counts the others by reason."""
        reason_R = np.zeros(table.num_rows, dtype=np.int64)  # 0 keeps, i is _REASONS[i - 1]
        if self._positive_tau:
            tau_R = table["tau"].to_numpy(zero_copy_only=False)
            reason_R[tau_R <= 0] = 3
        if self.groups == "mixed":
            reason_R[table["q"].to_numpy() >= 1] = 2
        reason_R[table["thr"].is_null().to_numpy()] = 1
        for index, name in enumerate(_REASONS, start=1):
            excluded_R = reason_R == index
            self._num_excluded[name] += int(excluded_R.sum())
            self._excluded[name].update(keys[place] for place in np.unique(key_R[excluded_R]))
        kept_R: np.ndarray = reason_R == 0
        return kept_R

    def _batch(
        self,
        table: pa.Table,
        kept_R: Bool[np.ndarray, " rows"],
        keys: Sequence[_Key],
        key_R: Int[np.ndarray, " rows"],
    ) -> Batch:
        tau_R = table["tau"].to_numpy(zero_copy_only=False)[kept_R].astype(np.float32)
        if np.isnan(tau_R).any():
            raise DataError(
                f"{self.run.path}: score set {self.score_id}: column tau is null for "
                f"{int(np.isnan(tau_R).sum())} completions that have THR",
                "score the run again",
            )
        correct_R = table["correct"].to_numpy()[kept_R]
        group_R = self._group_index(keys, key_R[kept_R], tau_R)
        stratum_R = self._stratum_index(group_R, tau_R, correct_R)
        tokens = {}
        for name in self._token_columns:
            tokens[name], offsets = kept_lists(table[name], kept_R)
        completions = {
            name: table[name].to_numpy(zero_copy_only=False)[kept_R]
            for name in self._completion_columns
        }
        self.num_completions += len(group_R)
        self._num_tau_nonpositive += int((tau_R <= 0).sum())
        self.num_tokens += int(offsets[-1])
        return Batch(
            group_R=group_R,
            stratum_R=stratum_R,
            tau_R=tau_R,
            offsets=offsets,
            tokens=tokens,
            completions=completions,
        )

    def _group_index(
        self, keys: Sequence[_Key], key_R: Int[np.ndarray, " R"], tau_R: Float[np.ndarray, " R"]
    ) -> Int[np.ndarray, " R"]:
        """Index of each completion's group; new groups, and new questions, are added."""
        index = np.empty(len(keys), dtype=np.int64)
        _, first = np.unique(key_R, return_index=True)
        for row in first.tolist():
            place = key_R[row]
            key = keys[place]
            if key not in self._groups:
                self._groups[key] = len(self._groups)
                self._tau.append(float(tau_R[row]))
                question = self._questions.setdefault(key[1], len(self._questions))
                self._question_of_group.append(question)
            index[place] = self._groups[key]
        group_R: np.ndarray = index[key_R]
        return group_R

    def _stratum_index(
        self,
        group_R: Int[np.ndarray, " R"],
        tau_R: Float[np.ndarray, " R"],
        correct_R: Bool[np.ndarray, " R"],
    ) -> Int[np.ndarray, " R"]:
        """Index of each completion's stratum; new ones are added in order of appearance."""
        code_R = 4 * group_R + 2 * (tau_R > 0) + correct_R
        codes, first, local_R = np.unique(code_R, return_index=True, return_inverse=True)
        index = np.empty(len(codes), dtype=np.int64)
        for place in np.argsort(first):
            group, flags = divmod(int(codes[place]), 4)
            stratum = (self._question_of_group[group], flags >= 2, flags % 2 == 1)
            index[place] = self._strata.setdefault(stratum, len(self._strata))
        stratum_R: np.ndarray = index[local_R]
        return stratum_R

    @property
    def num_questions(self) -> int:
        """P: questions with a kept completion, as far as the stream was read."""
        return len(self._questions)

    @property
    def questions(self) -> list[str]:
        """The prompt_id of each question, by index."""
        return list(self._questions)

    @property
    def tau(self) -> Float[np.ndarray, " groups"]:
        """The threshold of each kept group, by index."""
        return np.asarray(self._tau, dtype=np.float64)

    @property
    def question_of_group(self) -> Int[np.ndarray, " groups"]:
        """The question of each kept group, by index."""
        return np.asarray(self._question_of_group, dtype=np.int64)

    @property
    def step_of_group(self) -> list[int | None]:
        """The step of training of each kept group, by index; None outside training."""
        return [step for step, _ in self._groups]

    @property
    def strata(self) -> Strata:
        """The strata met so far, by index."""
        table = np.asarray(list(self._strata), dtype=np.int64).reshape(-1, 3)
        return Strata(
            question_S=table[:, 0],
            tau_positive_S=table[:, 1].astype(bool),
            correct_S=table[:, 2].astype(bool),
        )

    def facts(self) -> dict[str, object]:
        """What was kept and what was left out, for `Analysis.facts`."""
        facts: dict[str, object] = {
            "groups": self.groups,
            "score_id": self.score_id,
            "num_questions": self.num_questions,
            "num_groups": len(self._groups),
            "num_completions": self.num_completions,
            "num_tokens": self.num_tokens,
            "num_groups_tau_nonpositive": int((self.tau <= 0).sum()),
            "num_completions_tau_nonpositive": self._num_tau_nonpositive,
        }
        for name in _REASONS:
            facts[f"excluded_groups_{name}"] = len(self._excluded[name])
            facts[f"excluded_completions_{name}"] = self._num_excluded[name]
        return facts

    def empty_reason(self) -> str | None:
        """After a pass: why nothing was kept, in a sentence with its counts; None if something was.

        Outside training a group is a question.
        """
        if self.num_completions:
            return None
        if not self._has_scores:
            return "This run has no scores: the THR of its tokens has not been computed yet."
        excluded = {name: len(self._excluded[name]) for name in _REASONS}
        if not any(excluded.values()):
            return "This run holds no completions."
        if sum(excluded.values()) == excluded["no_correct"]:
            return (
                f"None of the {counted(self._num_excluded['no_correct'], 'completion')} in "
                f"{counted(excluded['no_correct'], 'group')} is correct, and THR is defined only "
                "relative to correct completions."
            )
        hint = " Groups with only correct completions are kept with --groups has-correct."
        return f"No group is left to analyse. {self.exclusion_sentence()}" + (
            hint if excluded["all_correct"] else ""
        )

    def exclusion_sentence(self) -> str:
        """What was left out, as a sentence; empty if nothing was."""
        parts = [
            f"{counted(len(self._excluded[name]), 'group')} {description}"
            for name, description in _REASONS.items()
            if self._excluded[name]
        ]
        return f"Left out: {', '.join(parts)}." if parts else ""


def kept_lists(
    column: pa.ChunkedArray, kept_R: Bool[np.ndarray, " R"]
) -> tuple[Shaped[np.ndarray, " N"], Int[np.ndarray, " bounds"]]:
    """The lists of some rows, end to end, and their offsets.

    Rows are kept and left out by whole groups: a few slices are copied, none where all are kept.
    """
    values, offsets = list_values(column)
    if kept_R.all():
        return values, offsets
    edges = np.flatnonzero(np.diff(kept_R, prepend=False, append=False)).reshape(-1, 2)
    parts = [values[offsets[start] : offsets[stop]] for start, stop in edges]
    kept_offsets = np.zeros(int(kept_R.sum()) + 1, dtype=np.int64)
    np.cumsum(np.diff(offsets)[kept_R], out=kept_offsets[1:])
    return np.concatenate(parts), kept_offsets


def _row_keys(table: pa.Table) -> tuple[list[_Key], Int[np.ndarray, " R"]]:
    """The runs of rows of one group: the key of each run, and the run of each row."""
    columns = [table[name].combine_chunks() for name in ("step", "prompt_id")]
    codes = [
        column.dictionary_encode(null_encoding="encode").indices.to_numpy() for column in columns
    ]
    is_new_R = np.ones(table.num_rows, dtype=bool)
    is_new_R[1:] = np.any([code_R[1:] != code_R[:-1] for code_R in codes], axis=0)
    first = pa.array(np.flatnonzero(is_new_R))
    steps, prompts = (column.take(first).to_pylist() for column in columns)
    return list(zip(steps, prompts, strict=True)), np.cumsum(is_new_R) - 1
