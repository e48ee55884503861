"""The two passes of the entropy analysis: ranks within completions, then classes and maps.

Letters of shapes: N tokens of a batch, R completions, Q questions of a batch, K classes or bins.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from thr_probe.analysis.histograms import dominant_tokens
from thr_probe.analysis.resampling import ResampledSums, Resampler
from thr_probe.analysis.stream import Batch, CompletionStream, Strata
from thr_probe.analysis.token_ranks import (
    code_value,
    completion_correlations,
    count_codes,
    partial_correlation,
    rank_classes,
    value_codes,
)

VARIABLES = ("magnitude", "entropy", "surprise", "position")
"""|THR| / tau; entropy; -log p, which ranks as 1 - p; position over the last position."""
PAIRS = tuple(itertools.combinations(range(len(VARIABLES)), 2))
NUM_RANK_CLASSES = 24
NUM_SCORE_CLASSES = 256
NUM_COLUMNS, NUM_ROWS = 30, 40
_LOWEST = 0.01  # quantile at which the logarithmic axes begin
_REACH = 1e-12  # of the largest value, below which no axis begins

Tokens = Mapping[str, Float[np.ndarray, " N"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What the first pass finds: numbers per completion, and how to class every value."""

    stratum_R: Int[np.ndarray, " R"]
    """Stratum of each completion."""
    length_R: Int[np.ndarray, " R"]
    """Tokens of each completion."""
    correlation_R: Mapping[str, Float[np.ndarray, " R"]]
    """Rank correlations within each completion by name, NaN where undefined."""
    count: Mapping[str, Int[np.ndarray, " codes"]]
    """How many values of each variable have each code."""

    def edges(self) -> dict[str, Float[np.ndarray, " edges"]]:
        """Bins of the maps, equal in the logarithm; values beyond the ends go into the end bins."""

        def least(name: str, share: float) -> float:
            return code_value(_position(self.count[name], share))

        high = {name: code_value(_position(count, 1.0) + 1) for name, count in self.count.items()}
        ends = {
            "entropy": (least("entropy", _LOWEST), high["entropy"], NUM_COLUMNS),
            "one_minus_p": (-np.expm1(-least("surprise", _LOWEST)), 1.0, NUM_COLUMNS),
            # the line at |THR| = tau is to be seen
            "magnitude": (
                min(least("magnitude", _LOWEST), 0.1),
                max(high["magnitude"], 10.0),
                NUM_ROWS,
            ),
        }
        return {
            name: np.geomspace(min(max(first, last * _REACH), last / 10), last, bins + 1)
            for name, (first, last, bins) in ends.items()
        }


def survey(stream: CompletionStream) -> Survey:
    """The first pass.

    Args:
        stream: reads thr, entropy, logprob of groups with a positive tau.
    """
    names = ("entropy", "one_minus_p", "partial_entropy")
    found: dict[str, list[np.ndarray]] = {name: [np.empty(0)] for name in names}
    strata, lengths = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)]
    count = {name: np.zeros(len(count_codes(np.empty(0))), dtype=np.int64) for name in VARIABLES}
    for batch in stream:
        values = token_values(batch)
        for name, value_N in values.items():
            count[name] += count_codes(value_N)
        correlation = completion_correlations(batch, list(values.values()))
        found["entropy"].append(correlation[0, 1])
        found["one_minus_p"].append(correlation[0, 2])
        found["partial_entropy"].append(partial_correlation(correlation))
        strata.append(batch.stratum_R)
        lengths.append(batch.lengths)
    return Survey(
        stratum_R=np.concatenate(strata),
        length_R=np.concatenate(lengths),
        correlation_R={name: np.concatenate(parts) for name, parts in found.items()},
        count=count,
    )


def token_values(batch: Batch) -> dict[str, Float[np.ndarray, " N"]]:
    """The `VARIABLES` of every token, none below 0."""
    last_N = batch.per_token(np.maximum(batch.lengths - 1, 1))
    place_N = np.arange(batch.offsets[-1]) - batch.per_token(batch.offsets[:-1])
    values = (
        np.abs(batch.tokens["thr"], dtype=np.float64) / batch.per_token(batch.tau_R),
        np.maximum(batch.tokens["entropy"], 0),
        np.maximum(-batch.tokens["logprob"], 0),
        place_N / last_N,
    )
    return dict(zip(VARIABLES, values, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Whole completions drawn for the regression, all of their tokens."""

    feature_NF: Float[np.ndarray, "N F"]
    """Entropy, 1 - p, relative position."""
    dominant_N: Bool[np.ndarray, " N"]
    """Whether |THR| > tau."""
    question_N: Int[np.ndarray, " N"]
    """Index of the question."""


def chosen_completions(
    length_R: Int[np.ndarray, " R"], max_tokens: int, seed: int
) -> Bool[np.ndarray, " R"]:
    """Completions in random order until their tokens would be more than the maximum."""
    order_R = np.random.default_rng(seed).permutation(len(length_R))
    chosen_R = np.zeros(len(length_R), dtype=bool)
    chosen_R[order_R] = np.cumsum(length_R[order_R]) <= max_tokens
    return chosen_R


def question_resampler(num_questions: int, seed: int) -> Resampler:
    """Questions that are not divided by correctness."""
    every = np.ones(num_questions, dtype=bool)
    strata = Strata(
        question_S=np.arange(num_questions), tau_positive_S=every, correct_S=every.copy()
    )
    return Resampler(strata, num_questions, seed=seed)


def add_tokens(
    stream: CompletionStream, found: Survey, sums: ResampledSums, chosen_R: Bool[np.ndarray, " R"]
) -> Sample:
    """The second pass: adds tables per question, and takes the sample.

    Added are `tokens`; `joint 0 1` ... (tokens by rank class of two variables); `entropy negative`,
    `entropy positive` ... (tokens by class of a score, not dominant and dominant); `entropy map`,
    `one_minus_p map` (tokens by bin of the axis and of |THR| / tau).

    Args:
        stream: the same completions again.
        found: of the first pass.
        sums: of `question_resampler`.
        chosen_R: the completions of the sample.
    """
    ranks = {name: rank_classes(count, NUM_RANK_CLASSES) for name, count in found.count.items()}
    scores = {
        name: rank_classes(found.count[name], NUM_SCORE_CLASSES) for name in ("entropy", "surprise")
    }
    edges, parts, done = found.edges(), [], 0
    for batch in stream:
        values, dominant_N = token_values(batch), dominant_tokens(batch)
        question_R = stream.question_of_group[batch.group_R]
        questions, local_R = np.unique(question_R, return_inverse=True)
        local_N = batch.per_token(local_R)
        codes = {name: value_codes(value_N) for name, value_N in values.items()}
        table = _Tables(local_N, len(questions))
        added = {"tokens": np.bincount(local_N, minlength=len(questions))}
        class_N = [ranks[name][codes[name]] for name in VARIABLES]
        for left, right in PAIRS:
            shape = (NUM_RANK_CLASSES, NUM_RANK_CLASSES)
            added[f"joint {left} {right}"] = table.count(class_N[left], class_N[right], shape)
        for name, score in scores.items():
            two = table.count(dominant_N.astype(np.int64), score[codes[name]], (2, len(_SCORES)))
            added[f"{name} negative"], added[f"{name} positive"] = np.split(two, 2, axis=1)
        row_N = _bins(values["magnitude"], edges["magnitude"])
        axes = {"entropy": values["entropy"], "one_minus_p": -np.expm1(-values["surprise"])}
        for name, value_N in axes.items():
            column_N = _bins(value_N, edges[name])
            cells = table.count(column_N, row_N, (NUM_COLUMNS, NUM_ROWS))
            bins = cells.reshape(-1, NUM_COLUMNS, NUM_ROWS).sum(axis=2)
            dominant = table.count(dominant_N.astype(np.int64), column_N, (2, NUM_COLUMNS))
            added |= {f"{name} map": cells, f"{name} bins": bins}
            added[f"{name} dominant"] = dominant[:, NUM_COLUMNS:]
            added[f"{name} questions"] = (bins > 0).astype(np.int64)
        sums.add(questions, added)
        kept_N = batch.per_token(chosen_R[done : done + len(question_R)])
        done += len(question_R)
        feature_NF = np.column_stack([*axes.values(), values["position"]])
        parts.append((feature_NF[kept_N], dominant_N[kept_N], questions[local_N[kept_N]]))
    feature_NF, dominant_N, question_N = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Sample(feature_NF=feature_NF, dominant_N=dominant_N, question_N=question_N)


_SCORES = range(NUM_SCORE_CLASSES)


class _Tables:
    """Counts the tokens of each question by two classes."""

    def __init__(self, local_N: Int[np.ndarray, " N"], num_questions: int) -> None:
        self._local_N, self._num_questions = local_N, num_questions

    def count(
        self, left_N: Int[np.ndarray, " N"], right_N: Int[np.ndarray, " N"], shape: tuple[int, int]
    ) -> Int[np.ndarray, "Q cells"]:
        cell_N = (self._local_N * shape[0] + left_N) * shape[1] + right_N
        size = self._num_questions * shape[0] * shape[1]
        table: np.ndarray = np.bincount(cell_N, minlength=size).reshape(self._num_questions, -1)
        return table


def _bins(
    value_N: Float[np.ndarray, " N"], edges: Float[np.ndarray, " edges"]
) -> Int[np.ndarray, " N"]:
    """Bin of each value, those beyond an end in the end bin."""
    inside_N = np.clip(value_N, edges[0], edges[-1], dtype=np.float64)
    position_N = np.log(inside_N / edges[0]) / np.log(edges[-1] / edges[0]) * (len(edges) - 1)
    bin_N: np.ndarray = np.clip(position_N, 0, len(edges) - 2).astype(np.int64)
    return bin_N


def _position(count: Int[np.ndarray, " codes"], share: float) -> int:
    """The first code with that share of the values at or below it."""
    cumulative = np.cumsum(count)
    return int(np.searchsorted(cumulative, max(share * cumulative[-1], 1)))
