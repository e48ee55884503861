"""One pass over the tokens of a run: the sampler's log-probabilities against the policy's.

Every completion counts, whatever its group: what an engine does wrong does not depend on rewards.
Letters of shapes: R completions of a table, N their tokens, P questions, K bins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float, Int, Shaped

from thr_probe.analysis.binned import BinnedSums
from thr_probe.analysis.histograms import dominant_tokens
from thr_probe.analysis.stream import Batch
from thr_probe.core.mismatch import TokenMismatch, token_mismatch
from thr_probe.errors import DataError
from thr_probe.traces.lists import list_values
from thr_probe.traces.reader import Run

KINDS = ("THR > tau", "THR < -tau", "|THR| <= tau")
"""Kinds of tokens, of groups with a positive tau."""
VALUES = ("k1", "k3", "gap", "beyond", "ratio", "ratio_squared", "truncated")
"""What is added up over tokens."""
POSITION_EDGES = np.concatenate([[0], np.unique(np.round(2.0 ** (np.arange(40) / 2)))])
"""Bins of the position in the completion: each its own while small, then two to a doubling."""
TAIL_EDGES = 10.0 ** (np.arange(-32, 7) / 4)
"""Differences at which the share of tokens beyond is told, nats."""
NUM_WORST = 20
"""Tokens of the table of the largest differences."""

_LEFT_OUT = {
    "unsampled_ids": "whose token ids are not those that were drawn (tokenized again, or absent)",
    "no_sampler_logprobs": "without log-probabilities of the sampler",
    "no_logprobs": "without log-probabilities of the policy",
}
_MOST = 0.01  # nats; above it no rounding of an engine brings a log-probability
_COLUMNS = ["step", "prompt_id", "rollout_id", "correct", "ids_source"]


@dataclass(slots=True, kw_only=True)
class MismatchSums:
    """What the pass leaves, after `read`."""

    bound: float
    """Differences beyond it are counted, nats."""
    cap: float
    """Ratios above it are counted."""
    questions: dict[str, int] = field(default_factory=dict)
    """Index of each question with a compared completion."""
    left_out: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_LEFT_OUT, 0))
    """Completions that could not be compared, by the first reason that holds."""
    kinds: BinnedSums = field(default_factory=lambda: BinnedSums("kind", len(KINDS) + 1))
    """By question and kind; the last is of tokens without THR, or with tau <= 0."""
    positions: BinnedSums = field(
        default_factory=lambda: BinnedSums("position", len(POSITION_EDGES))
    )
    """By question and position."""
    tails: BinnedSums = field(
        default_factory=lambda: BinnedSums("tail", (len(KINDS) + 1) * (len(TAIL_EDGES) + 1))
    )
    """By question, kind and size of the difference."""
    largest_of_kind: Float[np.ndarray, "kinds 2"] = field(
        default_factory=lambda: np.zeros((len(KINDS) + 1, 2))
    )
    """Of each kind the largest ratio and the largest difference."""
    _parts: dict[str, list[np.ndarray]] = field(default_factory=dict)
    _worst: list[pd.DataFrame] = field(default_factory=list)

    @property
    def num_questions(self) -> int:
        """P."""
        return len(self.questions)

    def completions(self) -> dict[str, Shaped[np.ndarray, " R"]]:
        """Columns of one value per compared completion.

        `question`, `correct`, `step` (-1 outside training), `tokens`, the sums of `VALUES`,
        `largest_ratio` and `largest_gap`.
        """
        return {name: np.concatenate(parts) for name, parts in self._parts.items()}

    def worst(self) -> pd.DataFrame:
        """The tokens of largest difference, largest first."""
        return _largest_rows(pd.concat(self._worst, ignore_index=True))

    def exclusion_sentence(self) -> str:
        """What could not be compared, as a sentence; empty if everything was."""
        told = [
            f"{number:,} completion{'' if number == 1 else 's'} {_LEFT_OUT[name]}"
            for name, number in self.left_out.items()
            if number
        ]
        return f"Left out: {', '.join(told)}." if told else ""

    def read(self, run: Run, score_id: str) -> None:
        """The pass.

        Raises:
            DataError: the run has no column sampler_logprobs, or it holds something else.
        """
        has_ids = any("token_ids" in part.columns for part in run.rollout_parts)
        columns = [*_COLUMNS, "sampler_logprobs", "logprob", "thr", "tau"]
        columns += ["token_ids"] if has_ids else []
        for table in run.iter_completions(columns, score_id=score_id):
            kept = self._compared(table)
            if kept.num_rows:
                self._add(kept)

    def _compared(self, table: pa.Table) -> pa.Table:
        reasons_R = {
            "unsampled_ids": pc.not_equal(table["ids_source"], "sampled"),
            "no_sampler_logprobs": pc.is_null(table["sampler_logprobs"]),
            "no_logprobs": pc.is_null(table["logprob"]),
        }
        kept_R = np.ones(table.num_rows, dtype=bool)
        for name, reason in reasons_R.items():
            bad_R = reason.to_numpy() & kept_R
            self.left_out[name] += int(bad_R.sum())
            kept_R &= ~bad_R
        return table if kept_R.all() else table.filter(pa.array(kept_R))

    def _add(self, table: pa.Table) -> None:
        batch = self._batch(table)
        _check_sampler(batch)
        found = token_mismatch(batch.tokens["logprob"], batch.tokens["sampler_logprobs"])
        value_N = self._values(found)
        kind_N = _kinds(batch)
        position_N = np.arange(len(kind_N)) - batch.per_token(batch.offsets[:-1])
        question_N = batch.per_token(batch.stratum_R)
        self.kinds.add(question_N, kind_N, value_N)
        some = {name: value_N[name] for name in ("k1", "k3", "gap")}
        bin_N = np.searchsorted(POSITION_EDGES, position_N, side="right") - 1
        self.positions.add(question_N, bin_N, some)
        tail_N = np.searchsorted(TAIL_EDGES, value_N["gap"], side="left")
        self.tails.add(question_N, kind_N * (len(TAIL_EDGES) + 1) + tail_N, {})
        for place, name in enumerate(("ratio", "gap")):
            np.maximum.at(self.largest_of_kind[:, place], kind_N, value_N[name])
        kept: dict[str, np.ndarray] = {
            "question": batch.stratum_R,
            "correct": batch.completions["correct"],
            "step": batch.completions["step"],
            "tokens": batch.lengths,
            **{name: batch.sum(value) for name, value in value_N.items()},
            "largest_ratio": _largest(batch, value_N["ratio"]),
            "largest_gap": _largest(batch, value_N["gap"]),
        }
        for name, value_R in kept.items():
            self._parts.setdefault(name, []).append(value_R)
        self._worst = [_largest_rows(pd.concat([*self._worst, _candidates(batch, found)]))]

    def _values(self, found: TokenMismatch) -> dict[str, Shaped[np.ndarray, " N"]]:
        """The `VALUES` of every token."""
        ratio_N, gap_N = found.ratio, found.gap
        return {
            "k1": found.k1,
            "k3": found.k3,
            "gap": gap_N,
            "beyond": gap_N > self.bound,
            "ratio": ratio_N,
            "ratio_squared": ratio_N**2,
            "truncated": found.truncated(self.cap),
        }

    def _batch(self, table: pa.Table) -> Batch:
        """A table as flat lists, its strata being questions; THR is NaN where there is none."""
        logprob_N, offsets = list_values(table["logprob"])
        prompts = table["prompt_id"].to_pylist()
        question_R = np.array(
            [self.questions.setdefault(name, len(self.questions)) for name in prompts]
        )
        tau_R = table["tau"].to_numpy(zero_copy_only=False).astype(np.float32)
        tokens = {
            "logprob": logprob_N,
            "sampler_logprobs": list_values(table["sampler_logprobs"])[0],
            "thr": _filled(table["thr"], offsets, np.float32(np.nan)),
        }
        if "token_ids" in table.column_names:
            tokens["token_ids"] = _filled(table["token_ids"], offsets, np.int32(-1))
        return Batch(
            group_R=question_R,
            stratum_R=question_R,
            tau_R=tau_R,
            offsets=offsets,
            tokens=tokens,
            completions={
                "correct": table["correct"].to_numpy(),
                "step": table["step"].fill_null(-1).to_numpy(),
                "prompt_id": np.array(prompts, dtype=object),
                "rollout_id": table["rollout_id"].to_numpy(),
            },
        )


def _filled(
    column: pa.ChunkedArray, offsets: Int[np.ndarray, " bounds"], missing: np.generic
) -> Shaped[np.ndarray, " N"]:
    """The lists of a column end to end, a missing one as so many equal entries."""
    values, _ = list_values(column)
    if not column.null_count:
        return values
    has_list_N = np.repeat(column.is_valid().to_numpy(), np.diff(offsets))
    filled_N = np.full(len(has_list_N), missing)
    filled_N[has_list_N] = values
    return filled_N


def _check_sampler(batch: Batch) -> None:
    """Refuse what is no log-probability, as imports of other columns may bring."""
    largest = float(batch.tokens["sampler_logprobs"].max(initial=-np.inf))
    if largest > _MOST:
        raise DataError(
            f"column sampler_logprobs holds {largest:.4g}, but log-probabilities are at most 0",
            "probabilities, or the negative of log-probabilities, were stored: import the run "
            "again from the right column",
        )


def _kinds(batch: Batch) -> Int[np.ndarray, " N"]:
    """Index into `KINDS` of each token, one beyond for those without THR or with tau <= 0."""
    thr_N = batch.tokens["thr"]
    dominant_N: Bool[np.ndarray, " N"] = dominant_tokens(batch)
    kind_N = np.where(dominant_N, np.where(thr_N > 0, 0, 1), 2)
    # a tau that is missing is NaN, and not above 0
    without_N = np.isnan(thr_N) | ~batch.per_token(batch.tau_R > 0)
    kind_N[without_N] = len(KINDS)
    return kind_N


def _largest(batch: Batch, value_N: Float[np.ndarray, " N"]) -> Float[np.ndarray, " R"]:
    """The largest value of each completion, 0 of an empty one."""
    largest_R = np.zeros(len(batch.lengths))
    some_R = batch.lengths > 0
    if some_R.any():
        largest_R[some_R] = np.maximum.reduceat(value_N, batch.offsets[:-1][some_R])
    return largest_R


def _candidates(batch: Batch, found: TokenMismatch) -> pd.DataFrame:
    """The tokens of largest difference of a batch."""
    gap_N = found.gap
    place = np.arange(len(gap_N))
    if len(gap_N) > NUM_WORST:
        # all that are as large as the last one wanted: the order of equals is that of the run
        place = np.flatnonzero(gap_N >= np.partition(gap_N, -NUM_WORST)[-NUM_WORST])
    place = place[np.argsort(-gap_N[place], kind="stable")][:NUM_WORST]
    row = np.searchsorted(batch.offsets, place, side="right") - 1
    columns: Mapping[str, np.ndarray] = {
        "step": batch.completions["step"][row],
        "prompt_id": batch.completions["prompt_id"][row],
        "rollout_id": batch.completions["rollout_id"][row],
        "position": place - batch.offsets[row],
        "token_id": batch.tokens.get("token_ids", np.full(len(gap_N), -1))[place],
        "sampler_logprob": batch.tokens["sampler_logprobs"][place].astype(np.float64),
        "logprob": batch.tokens["logprob"][place].astype(np.float64),
        "difference": found.log_ratio_N[place],
        "ratio": found.ratio[place],
        "thr": batch.tokens["thr"][place].astype(np.float64),
    }
    return pd.DataFrame(columns)


def _largest_rows(rows: pd.DataFrame) -> pd.DataFrame:
    order = np.argsort(-rows["difference"].abs().to_numpy(), kind="stable")[:NUM_WORST]
    return rows.iloc[order].reset_index(drop=True)
