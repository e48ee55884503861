"""How many tokens the adaptive threshold retains: the share with |THR| > tau (paper Table 16)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from thr_probe.analysis.captions import retention_caption
from thr_probe.analysis.histograms import dominant_tokens
from thr_probe.analysis.resampling import ResampledSums, Resampler
from thr_probe.analysis.result import (
    SUMMARY_COLUMNS,
    Analysis,
    empty_analysis,
    summary_row,
    summary_table,
)
from thr_probe.analysis.stream import CompletionStream
from thr_probe.core.stats import Interval, quotient
from thr_probe.traces.reader import Run

_BINS = 25
_QUANTILES = {"q10": 0.1, "q25": 0.25, "median": 0.5, "q75": 0.75, "q90": 0.9}
_TOKEN_UNIT = "share of tokens"
_MEAN_UNIT = "mean over completions of the share of their tokens"
_QUESTION_UNIT = "over questions, of the share of their tokens"


@dataclass(frozen=True, slots=True)
class _Totals:
    """Counts of each stratum, and of each group."""

    tokens_S: Float[np.ndarray, " S"]
    dominant_S: Float[np.ndarray, " S"]
    completions_S: Float[np.ndarray, " S"]
    share_S: Float[np.ndarray, " S"]
    tokens_G: Float[np.ndarray, " groups"]
    dominant_G: Float[np.ndarray, " groups"]

    def columns(self) -> dict[str, Float[np.ndarray, " S"]]:
        """Those of the strata, for the resampling."""
        return {
            "tokens": self.tokens_S,
            "dominant": self.dominant_S,
            "completions": self.completions_S,
            "share": self.share_S,
        }


def tokens_retained(
    run: Run, *, groups: str = "mixed", seed: int = 0, score_id: str | None = None
) -> Analysis:
    """The share of tokens with |THR| > tau (Table 16).

    Args:
        run: the trace.
        groups: `mixed` (groups with correct and incorrect completions) or `has-correct`.
        seed: of the bootstrap over questions.
        score_id: which scores; the only ones by default.

    Returns:
        summary, by split: `retained_share` (of all tokens), `retained_mean` (mean over completions
        of each one's share), `retained_q10`, `retained_q25`, `retained_median`, `retained_q75`,
        `retained_q90` (over questions, of each one's share); for a run of several training steps
        also `retained_step_mean`, the mean over steps of each step's share. Splits named
        "..., tau > 0" leave out groups of tau <= 0 and are present where there are such groups.
        curves: `distribution` (histogram over questions), `splits` (both averages by correctness),
        `questions` (each question's share).
    """
    stream = CompletionStream(run, ["thr"], groups=groups, score_id=score_id)
    totals = _collect(stream)
    reason = stream.empty_reason()
    if reason is not None:
        return empty_analysis("retention", reason, stream.facts())
    resampler = Resampler(stream.strata, stream.num_questions, seed=seed)
    sums = resampler.sums(totals.columns())
    rows = [
        row
        for name, chosen_S in stream.strata.splits().items()
        if chosen_S.any()
        for row in _rows(name, chosen_S, totals, sums, resampler)
    ]
    rows += _step_rows(stream, totals, resampler)
    summary = summary_table(rows)
    facts = stream.facts() | {
        "num_steps": len(set(stream.step_of_group)),
        "rule": "|THR| > tau, strict",
        "exclusions": stream.exclusion_sentence(),
        **resampler.facts,
    }
    analysis = Analysis(
        name="retention",
        summary=summary,
        curves=_curves(stream, totals, resampler, summary),
        facts=facts,
        caption="",
    )
    return replace(analysis, caption=retention_caption(analysis))


def _collect(stream: CompletionStream) -> _Totals:
    columns = ("group", "stratum", "tokens", "dominant")
    parts: dict[str, list[np.ndarray]] = {name: [np.empty(0, dtype=np.int64)] for name in columns}
    for batch in stream:
        dominant_R = batch.count(dominant_tokens(batch))
        found = (batch.group_R, batch.stratum_R, batch.lengths, dominant_R)
        for name, value_R in zip(columns, found, strict=True):
            parts[name].append(value_R)
    group_R, stratum_R, tokens_R, dominant_R = (np.concatenate(parts[name]) for name in columns)
    share_R = quotient(dominant_R.astype(float), tokens_R.astype(float))

    def sums(index_R: np.ndarray, value_R: np.ndarray | None) -> np.ndarray:
        return np.bincount(index_R, weights=value_R).astype(float)

    return _Totals(
        tokens_S=sums(stratum_R, tokens_R),
        dominant_S=sums(stratum_R, dominant_R),
        completions_S=sums(stratum_R, None),
        share_S=sums(stratum_R, share_R),
        tokens_G=sums(group_R, tokens_R),
        dominant_G=sums(group_R, dominant_R),
    )


def _rows(
    name: str,
    chosen_S: Bool[np.ndarray, " S"],
    totals: _Totals,
    sums: ResampledSums,
    resampler: Resampler,
) -> Iterator[dict[str, object]]:
    share_Q, questions = _question_shares(chosen_S, totals, resampler)
    num_questions = len(questions)
    micro = sums.ratio("dominant", "tokens", chosen_S)
    yield summary_row("retained_share", name, _TOKEN_UNIT, micro, num_questions=num_questions)
    mean = sums.ratio("share", "completions", chosen_S)
    yield summary_row("retained_mean", name, _MEAN_UNIT, mean, num_questions=num_questions)
    intervals = resampler.quantiles(share_Q, questions, list(_QUANTILES.values()))
    for quantile, interval in zip(_QUANTILES, intervals, strict=True):
        quantity = f"retained_{quantile}"
        yield summary_row(quantity, name, _QUESTION_UNIT, interval, num_questions=num_questions)


def _question_shares(
    chosen_S: Bool[np.ndarray, " S"], totals: _Totals, resampler: Resampler
) -> tuple[Float[np.ndarray, " Q"], np.ndarray]:
    """Each question's share of retained tokens, and the index of the question."""
    tokens_P = resampler.per_question(totals.tokens_S, chosen_S)
    dominant_P = resampler.per_question(totals.dominant_S, chosen_S)
    questions = np.flatnonzero(tokens_P)
    return dominant_P[questions] / tokens_P[questions], questions


def _step_rows(
    stream: CompletionStream, totals: _Totals, resampler: Resampler
) -> list[dict[str, object]]:
    """The mean over training steps of each step's share; nothing outside training."""
    steps, step_G = np.unique(
        [-1 if step is None else step for step in stream.step_of_group], return_inverse=True
    )
    if len(steps) < 2:
        return []
    indicator_GT = np.eye(len(steps))[step_G]
    tokens_GT = indicator_GT * totals.tokens_G[:, None]
    dominant_GT = indicator_GT * totals.dominant_G[:, None]

    def statistic(weight_CG: np.ndarray) -> np.ndarray:
        tokens_CT = weight_CG @ tokens_GT
        share_CT = quotient(weight_CG @ dominant_GT, tokens_CT)
        # a resample may miss every question of a step: the mean is over the others
        return quotient(np.nansum(share_CT, axis=1), (tokens_CT > 0).sum(axis=1).astype(float))

    interval: Interval = resampler.interval(statistic, stream.question_of_group)
    unit = "mean over training steps of the share of tokens"
    questions = stream.num_questions
    return [summary_row("retained_step_mean", "all", unit, interval, num_questions=questions)]


def _curves(
    stream: CompletionStream, totals: _Totals, resampler: Resampler, summary: pd.DataFrame
) -> dict[str, pd.DataFrame]:
    everything_S = np.ones(len(totals.tokens_S), dtype=bool)
    share_Q, questions = _question_shares(everything_S, totals, resampler)
    indicator_QK = np.eye(_BINS)[np.minimum((share_Q * _BINS).astype(np.int64), _BINS - 1)]
    value, low, high = resampler.band(
        lambda weight: quotient(weight @ indicator_QK, weight.sum(axis=1, keepdims=True)),
        questions,
    )
    left = np.arange(_BINS) / _BINS
    averages = summary["quantity"].isin(["retained_share", "retained_mean"])
    names = stream.questions
    return {
        "distribution": pd.DataFrame(
            {
                "left": left,
                "right": left + 1 / _BINS,
                "share_of_questions": value,
                "low": low,
                "high": high,
            }
        ),
        "splits": summary.loc[averages, list(SUMMARY_COLUMNS)].reset_index(drop=True),
        "questions": pd.DataFrame(
            {
                "prompt_id": [names[index] for index in questions],
                "retained_share": share_Q,
                "tokens": resampler.per_question(totals.tokens_S, everything_S)[questions],
            }
        ),
    }
