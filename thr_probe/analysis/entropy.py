"""THR against the entropy and the probability of the token: what they tell of it, and what not."""

from __future__ import annotations

import importlib
import operator
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from thr_probe.analysis.captions import caption_of, counts_phrase, left_out_sentences
from thr_probe.analysis.entropy_passes import (
    NUM_COLUMNS,
    NUM_RANK_CLASSES,
    NUM_ROWS,
    NUM_SCORE_CLASSES,
    PAIRS,
    Sample,
    Survey,
    add_tokens,
    chosen_completions,
    question_resampler,
    survey,
)
from thr_probe.analysis.resampling import Drawn, ResampledSums, Resampler
from thr_probe.analysis.result import (
    Analysis,
    counted,
    empty_analysis,
    summary_row,
    summary_table,
)
from thr_probe.analysis.stream import CompletionStream
from thr_probe.analysis.token_ranks import (
    partial_correlation,
    pooled_correlations,
    rank_classes,
    roc_area,
)
from thr_probe.core.stats import Interval, quotient
from thr_probe.traces.reader import Run

SAMPLE_TOKENS = 200_000
"""Tokens at most that the regression is fitted to."""
_FOLDS = 5
_WITHIN = "Spearman correlation within completions, mean"
_POOLED = "Spearman correlation over tokens"
_AREA = "area under the ROC curve"
_CORRELATIONS = {
    "spearman_entropy": "entropy",
    "spearman_one_minus_p": "one_minus_p",
    "partial_entropy": "partial_entropy",
}


def thr_against_entropy(
    run: Run, *, groups: str = "mixed", seed: int = 0, score_id: str | None = None
) -> Analysis:
    """How |THR| goes with token entropy and with 1 - p(token), and whether these predict dominance.

    |THR| counts in units of its group's tau, so groups of tau <= 0 are left out. Correlations
    within completions are exact. Pooled ones rank tokens in 24 classes of equal mass (mean ranks,
    formed anew in every resample): on the lab's trace that is within 0.002 of exact ranks, and
    within 0.005 for the partial one; areas of a single score use 256 (within 0.0002).
    The regression (logistic, on entropy, 1 - p and relative position; out-of-fold, folds by
    question) is fitted to whole completions of at most 200,000 tokens. Its interval resamples the
    questions that are scored and keeps the fits: it is that of these scores.

    Args:
        run: the trace.
        groups: `mixed` (groups with correct and incorrect completions) or `has-correct`.
        seed: of the bootstrap over questions and of the choice of completions.
        score_id: which scores; the only ones by default.

    Returns:
        summary: `spearman_entropy`, `spearman_one_minus_p`, `partial_entropy` (given 1 - p and
        position), each also `pooled_...`; `auc_entropy`, `auc_one_minus_p`, `auc_regression` of
        predicting |THR| > tau. Those within completions also by correctness.
        curves: `entropy-map`, `one_minus_p-map` (tokens by bin: left and right of the axis, lower
        and upper of |THR| / tau), `entropy`, `one_minus_p` (by bin of the axis the median and
        quartiles of |THR| / tau and the share dominant; `low` and `high` bound the median). Map
        and bins know |THR| / tau to one of 40 logarithmic steps.
    """
    columns = ["thr", "entropy", "logprob"]
    stream = CompletionStream(run, columns, groups=groups, score_id=score_id, positive_tau=True)
    found = survey(stream)
    reason = stream.empty_reason()
    if reason is None and stream.num_tokens == 0:
        reason = "The completions that were kept have no tokens."
    if reason is not None:
        return empty_analysis("entropy", reason, stream.facts())
    questions = question_resampler(stream.num_questions, seed)
    sums = ResampledSums(questions)
    sample = add_tokens(
        stream, found, sums, chosen_completions(found.length_R, SAMPLE_TOKENS, seed)
    )
    rows = [*_within_rows(stream, found, seed), *_pooled_rows(sums, stream.num_questions)]
    rows += _regression_rows(sample, questions)
    facts = stream.facts() | _facts(found, sample) | questions.facts
    analysis = Analysis(
        name="entropy",
        summary=summary_table(rows),
        curves=_curves(found, sums, stream.num_questions),
        facts=facts | {"exclusions": stream.exclusion_sentence()},
        caption="",
    )
    return replace(analysis, caption=_caption(analysis))


def _facts(found: Survey, sample: Sample) -> dict[str, object]:
    undefined = {
        f"num_completions_{name}_undefined": int(np.isnan(found.correlation_R[column]).sum())
        for name, column in _CORRELATIONS.items()
    }
    return undefined | {
        "magnitude": "|THR| over the tau of its group",
        "within": "exact ranks of each completion's tokens, ties sharing their mean rank",
        "pooled": f"mean ranks of {NUM_RANK_CLASSES} classes of equal mass, all tokens",
        "auc_single": f"{NUM_SCORE_CLASSES} classes of equal mass, all tokens",
        "auc_regression": "logistic regression on entropy, 1 - p, relative position; out-of-fold, "
        f"{_FOLDS} folds at most, grouped by question",
        "num_tokens_regression": len(sample.dominant_N),
        "num_questions_regression": len(np.unique(sample.question_N)),
    }


def _within_rows(stream: CompletionStream, found: Survey, seed: int) -> Iterator[dict[str, object]]:
    resampler = Resampler(stream.strata, stream.num_questions, seed=seed)
    size = len(stream.strata.question_S)
    columns: dict[str, np.ndarray] = {}
    for quantity, name in _CORRELATIONS.items():
        value_R = found.correlation_R[name]
        some_R = ~np.isnan(value_R)
        stratum_R = found.stratum_R[some_R]
        columns[quantity] = np.bincount(stratum_R, value_R[some_R], minlength=size)
        columns[f"{quantity} number"] = np.bincount(stratum_R, minlength=size)
    sums = resampler.sums(columns)
    for split, chosen_S in stream.strata.splits().items():
        for quantity in _CORRELATIONS:
            some_S = chosen_S & (columns[f"{quantity} number"] > 0)
            if not some_S.any():
                continue
            mean = sums.ratio(quantity, f"{quantity} number", chosen_S)
            number = len(np.unique(stream.strata.question_S[some_S]))
            yield summary_row(quantity, split, _WITHIN, mean, num_questions=number)


def _pooled_rows(sums: ResampledSums, num_questions: int) -> Iterator[dict[str, object]]:
    every = np.ones(num_questions, dtype=bool)

    def correlations(drawn: Drawn) -> Float[np.ndarray, "M M C"]:
        size = (-1, NUM_RANK_CLASSES, NUM_RANK_CLASSES)
        return pooled_correlations(
            {pair: drawn[f"joint {pair[0]} {pair[1]}"].reshape(size) for pair in PAIRS}
        )

    def area(score: str) -> Callable[[Drawn], Float[np.ndarray, " C"]]:
        return lambda drawn: roc_area(drawn[f"{score} negative"], drawn[f"{score} positive"])

    statistics: tuple[tuple[str, str, Callable[[Drawn], np.ndarray]], ...] = (
        ("pooled_spearman_entropy", _POOLED, lambda drawn: correlations(drawn)[0, 1]),
        ("pooled_spearman_one_minus_p", _POOLED, lambda drawn: correlations(drawn)[0, 2]),
        ("pooled_partial_entropy", _POOLED, lambda drawn: partial_correlation(correlations(drawn))),
        ("auc_entropy", _AREA, area("entropy")),
        ("auc_one_minus_p", _AREA, area("surprise")),
    )
    for quantity, unit, statistic in statistics:
        interval = sums.interval(statistic, every, of="tokens")
        if np.isfinite(interval.value):
            yield summary_row(quantity, "all", unit, interval, num_questions=num_questions)


def _regression_rows(sample: Sample, resampler: Resampler) -> list[dict[str, object]]:
    """No row where the regression has nothing to learn from: one question, or one kind of token."""
    score_N = out_of_fold_scores(sample)
    known_N = np.isfinite(score_N)
    if not known_N.any():
        return []
    _, place_N, number = np.unique(score_N[known_N], return_inverse=True, return_counts=True)
    class_N = rank_classes(number, NUM_SCORE_CLASSES)[place_N]
    question_N, dominant_N = sample.question_N[known_N], sample.dominant_N[known_N]
    cell_N = (question_N * 2 + dominant_N) * NUM_SCORE_CLASSES + class_N
    shape = (resampler.num_questions, 2, NUM_SCORE_CLASSES)
    count = np.bincount(cell_N, minlength=int(np.prod(shape))).reshape(shape).astype(np.float64)
    sums = resampler.sums(
        {"negative": count[:, 0], "positive": count[:, 1], "tokens": count.sum(axis=(1, 2))}
    )
    every = np.ones(resampler.num_questions, dtype=bool)
    area = sums.interval(
        lambda drawn: roc_area(drawn["negative"], drawn["positive"]), every, of="tokens"
    )
    if not np.isfinite(area.value):
        return []
    num_questions = len(np.unique(question_N))
    return [summary_row("auc_regression", "all", _AREA, area, num_questions=num_questions)]


def out_of_fold_scores(sample: Sample) -> Float[np.ndarray, " N"]:
    """Log-odds of dominance of each token, from a regression that has not seen its question.

    NaN where the other questions' tokens are all dominant, or none is.
    """
    # loaded here: scikit-learn takes 1.5 s, and every analysis imports this module
    linear_model = importlib.import_module("sklearn.linear_model")
    selection = importlib.import_module("sklearn.model_selection")
    score_N = np.full(len(sample.dominant_N), np.nan)
    num_folds = min(_FOLDS, len(np.unique(sample.question_N)))
    if num_folds < 2:
        return score_N
    folds = selection.GroupKFold(num_folds)
    for train, test in folds.split(sample.feature_NF, groups=sample.question_N):
        if len(np.unique(sample.dominant_N[train])) < 2:
            continue
        centre, spread = sample.feature_NF[train].mean(axis=0), sample.feature_NF[train].std(axis=0)
        scaled_NF = (sample.feature_NF - centre) / np.where(spread > 0, spread, 1)
        model = linear_model.LogisticRegression(max_iter=1000)
        model.fit(scaled_NF[train], sample.dominant_N[train])
        score_N[test] = model.decision_function(scaled_NF[test])
    return score_N


def _curves(found: Survey, sums: ResampledSums, num_questions: int) -> dict[str, pd.DataFrame]:
    edges, curves = found.edges(), {}
    every = np.ones(num_questions, dtype=bool)
    for name in ("entropy", "one_minus_p"):
        left, right = edges[name][:-1], edges[name][1:]
        tokens = sums.band(operator.itemgetter(f"{name} map"), every, of="tokens")[0]
        curves[f"{name}-map"] = pd.DataFrame(
            {
                "left": np.repeat(left, NUM_ROWS),
                "right": np.repeat(right, NUM_ROWS),
                "lower": np.tile(edges["magnitude"][:-1], NUM_COLUMNS),
                "upper": np.tile(edges["magnitude"][1:], NUM_COLUMNS),
                "tokens": tokens.astype(np.int64),
            }
        )
        rows = [
            {"left": left[place], "right": right[place]}
            | _column_numbers(sums, every, name, place, edges["magnitude"])
            for place in range(NUM_COLUMNS)
        ]
        curves[name] = pd.DataFrame([row for row in rows if row["tokens"]]).reset_index(drop=True)
    return curves


def _column_numbers(
    sums: ResampledSums,
    every_S: Bool[np.ndarray, " S"],
    name: str,
    place: int,
    edges: Float[np.ndarray, " edges"],
) -> dict[str, int | float]:
    """Of one bin of the axis: tokens, questions, quartiles of |THR| / tau, share dominant."""

    def counts(drawn: Drawn) -> Float[np.ndarray, "C 3"]:
        tables = [drawn[f"{name} {table}"] for table in ("bins", "dominant", "questions")]
        return np.column_stack([table[:, place] for table in tables])

    def quantile(share: float) -> Interval:
        rows = slice(place * NUM_ROWS, (place + 1) * NUM_ROWS)
        return sums.interval(
            lambda drawn: log_quantile(drawn[f"{name} map"][:, rows], edges, share),
            every_S,
            of="tokens",
        )

    tokens, _, questions = sums.band(counts, every_S, of="tokens")[0].tolist()
    lower, median, upper = (quantile(share) for share in (0.25, 0.5, 0.75))
    dominant = sums.interval(
        lambda drawn: quotient(counts(drawn)[:, 1], counts(drawn)[:, 0]), every_S, of="tokens"
    )
    if questions < 2:
        median, dominant = (
            Interval(value=one.value, low=np.nan, high=np.nan) for one in (median, dominant)
        )
    return {
        "tokens": int(tokens),
        "num_questions": int(questions),
        "q25": lower.value,
        "median": median.value,
        "low": median.low,
        "high": median.high,
        "q75": upper.value,
        "dominant_share": dominant.value,
        "dominant_low": dominant.low,
        "dominant_high": dominant.high,
    }


def log_quantile(
    count_CK: Float[np.ndarray, "C K"], edges: Float[np.ndarray, " edges"], share: float
) -> Float[np.ndarray, " C"]:
    """A quantile of counted values, linear in the logarithm within its bin; NaN without any."""
    up_to_CK = np.cumsum(count_CK, axis=1)
    total_C = up_to_CK[:, -1]
    bin_C = (up_to_CK < share * total_C[:, None]).sum(axis=1)
    row = np.arange(len(count_CK))
    bin_C = np.minimum(bin_C, count_CK.shape[1] - 1)
    below_C = up_to_CK[row, bin_C] - count_CK[row, bin_C]
    part_C = quotient(share * total_C - below_C, count_CK[row, bin_C])
    found_C: np.ndarray = edges[bin_C] * (edges[bin_C + 1] / edges[bin_C]) ** part_C
    return found_C


def _caption(analysis: Analysis) -> str:
    def told(quantity: str) -> str:
        return _latex_number(analysis, quantity)

    has = set(analysis.summary["quantity"])
    sentences = [
        r"Size of THR over its group's threshold, $|\mathrm{THR}|/\tau$, against (a) the entropy "
        "of the policy at the token and (b) one minus the token's probability: "
        + counts_phrase(analysis),
        "Shading counts tokens on a logarithmic scale (those beyond an axis are in its end bins); "
        "the line is the median of each bin with its interval, dashed lines are the quartiles; "
        "above the dotted line at 1 tokens are dominant",
    ]
    if {"spearman_entropy", "spearman_one_minus_p"} <= has:
        sentence = (
            "Within a completion Spearman's rank correlation is on average "
            f"{told('spearman_entropy')} with entropy and {told('spearman_one_minus_p')} with "
            "$1-p$"
        )
        if "partial_entropy" in has:
            sentence += (
                f"; with entropy, given $1-p$ and the position, it is {told('partial_entropy')}"
            )
        sentences.append(sentence)
    if {"auc_entropy", "auc_one_minus_p"} <= has:
        sentence = (
            "Dominance is predicted with an area under the ROC curve of "
            f"{told('auc_entropy')} from entropy, {told('auc_one_minus_p')} from $1-p$"
        )
        if "auc_regression" in has:
            tokens = counted(analysis.count("num_tokens_regression"), "token")
            sentence += (
                f", and {told('auc_regression')} from both and the position (logistic regression "
                f"on {tokens}, questions held out)"
            )
        sentences.append(sentence)
    return caption_of(analysis, "Brackets and bands", *sentences, *left_out_sentences(analysis))


def _latex_number(analysis: Analysis, quantity: str) -> str:
    found = analysis.value(quantity)
    bounds = f" [{found.low:.2f}, {found.high:.2f}]" if np.isfinite(found.low) else ""
    return f"${found.value:.2f}$" + bounds.replace("-", "$-$")
