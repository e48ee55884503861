"""Exploitation against exploration: the balance of THR in each question, and how q goes with it.

Letters of shapes: R completions, S strata, P questions, Q questions of a split.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from thr_probe.analysis.binned import (
    completion_table,
    interval_columns,
    latex_number,
    q_bins,
    stratum_totals,
)
from thr_probe.analysis.captions import caption_of, counts_phrase, left_out_sentences
from thr_probe.analysis.histograms import dominant_tokens
from thr_probe.analysis.ranks import rank_correlation
from thr_probe.analysis.resampling import ResampledSums, Resampler
from thr_probe.analysis.result import (
    Analysis,
    counted,
    empty_analysis,
    summary_row,
    summary_table,
)
from thr_probe.analysis.stream import Batch, CompletionStream
from thr_probe.core.stats import Interval, quotient
from thr_probe.traces.reader import Run

_BINS = 20
_KINDS = {
    "balance": ("signed", "mass"),
    "balance_dominant": ("dominant_signed", "dominant_mass"),
    "balance_advantage": ("weighted_signed", "weighted_mass"),
}
_UNITS = {
    "balance": "sum of THR over sum of |THR|",
    "balance_dominant": "sum of THR over sum of |THR|, dominant tokens",
    "balance_advantage": "sum of |A| THR over sum of |A| |THR|",
}
_P_ZERO = ("weighted_dominant_signed", "weighted_dominant_mass")
_P_ZERO_UNIT = "over questions, of the p at which a THR(p) step leaves F as it is"
_QUARTILES = {"q25": 0.25, "median": 0.5, "q75": 0.75}


@dataclass(frozen=True, slots=True)
class _Totals:
    """Sums of each stratum, with the resamples of the questions."""

    column_S: dict[str, Float[np.ndarray, " S"]]
    resampler: Resampler
    sums: ResampledSums

    def per_question(self, name: str, chosen_S: Bool[np.ndarray, " S"]) -> Float[np.ndarray, " P"]:
        """A sum over the chosen strata of each question."""
        value_S = np.where(chosen_S, self.column_S[name], 0.0)
        return self.resampler.per_question(value_S, np.ones_like(chosen_S))

    def ratio(
        self, names: tuple[str, str], chosen_S: Bool[np.ndarray, " S"]
    ) -> Float[np.ndarray, " P"]:
        """A ratio of two sums in each question, NaN where the second is 0."""
        return quotient(*(self.per_question(name, chosen_S) for name in names))

    @property
    def share_correct(self) -> Float[np.ndarray, " P"]:
        """Share of correct completions in each question."""
        everything_S = np.ones(len(self.column_S["completions"]), dtype=bool)
        return self.ratio(("right", "completions"), everything_S)


def exploration_balance(
    run: Run, *, groups: str = "mixed", seed: int = 0, score_id: str | None = None
) -> Analysis:
    """The balance of each question, sum THR / sum |THR|, against q = share of correct completions.

    It is 1 where every token has THR > 0 (exploitation), -1 where every token has THR < 0
    (exploration). With |A| as weights it is the first-order drift of plain GRPO's step, in units
    of the largest there could be (the derivative of F = sum over correct i of 1/|y_i| log pi(y_i)
    along the step on W). A question that occurs at several steps of training is summed over them.

    Args:
        run: the trace.
        groups: `mixed` (groups with correct and incorrect completions) or `has-correct`.
        seed: of the bootstrap over questions.
        score_id: which scores; the only ones by default.

    Returns:
        summary, by split: `balance` (of all tokens of all questions), `balance_mean` (mean over
        questions of each one's), `balance_q_correlation` (Spearman's rho over questions with q);
        the same for `balance_dominant` (dominant tokens only) and `balance_advantage` (weighted by
        |A|), these with the correlation for all completions only; for all completions also
        `p_zero_q25`, `p_zero_median`, `p_zero_q75`, quartiles over questions of
        -sum |A| THR / sum |A| |THR| over dominant tokens: the p at which a THR(p) step leaves the
        likelihood of the question's correct completions as it is.
        Splits named "..., tau > 0" leave out groups of tau <= 0. What is undefined has no row.
        curves: `questions` (prompt_id, q, num_completions, num_tokens, the balances of all
        completions, `balance_correct`, `balance_incorrect`, p_zero), `by_q` (bins of q with the
        mean over their questions), `distribution` (histogram over questions).
    """
    stream = CompletionStream(
        run, ["thr"], completion_columns=["advantage", "correct"], groups=groups, score_id=score_id
    )
    table = completion_table(stream, _columns)
    reason = stream.empty_reason()
    if reason is None and not table["mass"].any():
        reason = "Every THR of this run is 0: there is nothing to balance."
    if reason is not None:
        return empty_analysis("balance", reason, stream.facts())
    column_S = stratum_totals(table, len(stream.strata.question_S))
    resampler = Resampler(stream.strata, stream.num_questions, seed=seed)
    totals = _Totals(column_S, resampler, resampler.sums(column_S))
    rows = [
        row
        for name, chosen_S in stream.strata.splits().items()
        if chosen_S.any()
        for row in (*_rows(name, chosen_S, totals), *_p_zero_rows(name, chosen_S, totals))
    ]
    facts = stream.facts() | {
        "balance": "sum of THR over sum of |THR|",
        "exclusions": stream.exclusion_sentence(),
        **resampler.facts,
    }
    analysis = Analysis(
        name="balance",
        summary=summary_table(rows),
        curves=_curves(stream, totals),
        facts=facts,
        caption="",
    )
    return replace(analysis, caption=_caption(analysis))


def _columns(batch: Batch) -> dict[str, Float[np.ndarray, " R"]]:
    """What is summed of each completion."""
    thr_N = batch.tokens["thr"].astype(np.float64)
    dominant_N = dominant_tokens(batch)
    weight_R = np.abs(batch.completions["advantage"].astype(np.float64))
    plain = {
        "signed": batch.sum(thr_N),
        "mass": batch.sum(np.abs(thr_N)),
        "dominant_signed": batch.sum(thr_N * dominant_N),
        "dominant_mass": batch.sum(np.abs(thr_N) * dominant_N),
    }
    weighted = {f"weighted_{name}": weight_R * value_R for name, value_R in plain.items()}
    counts = {
        "tokens": batch.lengths.astype(np.float64),
        "completions": np.ones(len(weight_R)),
        "right": batch.completions["correct"].astype(np.float64),
    }
    return plain | weighted | counts


def _rows(
    split: str, chosen_S: Bool[np.ndarray, " S"], totals: _Totals
) -> Iterator[dict[str, object]]:
    q_P = totals.share_correct
    for kind, names in _KINDS.items():
        value_P = totals.ratio(names, chosen_S)
        some = np.flatnonzero(np.isfinite(value_P))
        value_Q, q_Q, unit = value_P[some], q_P[some], _UNITS[kind]
        if not len(some):
            continue
        found = {
            (kind, unit): totals.sums.ratio(*names, chosen_S),
            (f"{kind}_mean", f"mean over questions of {unit}"): _mean(totals, value_Q, some),
        }
        if kind == "balance" or split.startswith("all"):
            correlation = functools.partial(rank_correlation, x_Q=value_Q, y_Q=q_Q)
            found[f"{kind}_q_correlation", "Spearman's rho over questions"] = (
                totals.resampler.interval(correlation, some)
            )
        for (quantity, described), interval in found.items():
            if math.isfinite(interval.value):
                yield summary_row(quantity, split, described, interval, num_questions=len(some))


def _mean(
    totals: _Totals, value_Q: Float[np.ndarray, " Q"], question_Q: Int[np.ndarray, " Q"]
) -> Interval:
    """The mean over questions."""
    return totals.resampler.interval(
        lambda weight_CQ: quotient(weight_CQ @ value_Q, weight_CQ.sum(axis=1)), question_Q
    )


def _p_zero_rows(
    split: str, chosen_S: Bool[np.ndarray, " S"], totals: _Totals
) -> Iterator[dict[str, object]]:
    """Of whole groups only: a step is made of correct and incorrect completions together."""
    p_zero_P = -totals.ratio(_P_ZERO, chosen_S)
    some = np.flatnonzero(np.isfinite(p_zero_P))
    if not split.startswith("all") or not len(some):
        return
    intervals = totals.resampler.quantiles(p_zero_P[some], some, list(_QUARTILES.values()))
    for name, interval in zip(_QUARTILES, intervals, strict=True):
        yield summary_row(f"p_zero_{name}", split, _P_ZERO_UNIT, interval, num_questions=len(some))


def _curves(stream: CompletionStream, totals: _Totals) -> dict[str, pd.DataFrame]:
    correct_S = stream.strata.correct_S
    everything_S = np.ones_like(correct_S)
    balance_P = totals.ratio(_KINDS["balance"], everything_S)
    questions = pd.DataFrame(
        {
            "prompt_id": stream.questions,
            "q": totals.share_correct,
            "num_completions": totals.per_question("completions", everything_S).astype(np.int64),
            "num_tokens": totals.per_question("tokens", everything_S).astype(np.int64),
            **{kind: totals.ratio(names, everything_S) for kind, names in _KINDS.items()},
            "balance_correct": totals.ratio(_KINDS["balance"], correct_S),
            "balance_incorrect": totals.ratio(_KINDS["balance"], ~correct_S),
            "p_zero": -totals.ratio(_P_ZERO, everything_S),
        }
    )
    some = np.flatnonzero(np.isfinite(balance_P))
    return {
        "questions": questions,
        "by_q": _by_q(totals, balance_P[some], some),
        "distribution": _distribution(totals, balance_P[some], some),
    }


def _by_q(
    totals: _Totals, value_Q: Float[np.ndarray, " Q"], question_Q: Int[np.ndarray, " Q"]
) -> pd.DataFrame:
    place_Q, bins = q_bins(totals.share_correct[question_Q])
    intervals = [
        _mean(totals, value_Q[place_Q == place], question_Q[place_Q == place])
        for place in range(len(bins))
    ]
    return bins.assign(
        num_questions=np.bincount(place_Q), **interval_columns("balance_mean", intervals)
    )


def _distribution(
    totals: _Totals, value_Q: Float[np.ndarray, " Q"], question_Q: Int[np.ndarray, " Q"]
) -> pd.DataFrame:
    edges = np.linspace(-1, 1, _BINS + 1)
    place_Q = np.clip(np.searchsorted(edges, value_Q, side="right") - 1, 0, _BINS - 1)
    indicator_QK = np.eye(_BINS)[place_Q]
    value, low, high = totals.resampler.band(
        lambda weight: quotient(weight @ indicator_QK, weight.sum(axis=1, keepdims=True)),
        question_Q,
    )
    return pd.DataFrame(
        {
            "left": edges[:-1],
            "right": edges[1:],
            "share_of_questions": value,
            "low": low,
            "high": high,
        }
    )


def _caption(analysis: Analysis) -> str:
    present = set(zip(analysis.summary["quantity"], analysis.summary["split"], strict=True))

    def told(quantity: str, split: str = "all") -> str:
        if (quantity, split) not in present:
            return "undefined"
        return latex_number(analysis.value(quantity, split))

    nonpositive = analysis.count("num_groups_tau_nonpositive")
    trivial = ""
    if nonpositive:
        trivial = (
            f" (with {counted(nonpositive, 'group')} of $\\tau \\le 0$, in which every token is; "
            f"without {told('balance_dominant', 'all, tau > 0')})"
        )
    used = int(analysis.curves["by_q"]["num_questions"].sum())
    return caption_of(
        analysis,
        "Brackets and bars",
        r"Balance of exploitation and exploration, $\sum \mathrm{THR} / \sum |\mathrm{THR}|$: "
        f"{counts_phrase(analysis)}",
        f"(a) Each of {counted(used, 'question')} against the share $q$ of its completions that "
        "are correct: blue dots above 0 (exploitation), open vermilion ones below (exploration); "
        "diamonds are means over the questions of a $q$, their numbers along the top; Spearman's "
        rf"$\rho$ is {told('balance_q_correlation')}",
        "(b) Distribution over questions; the lines mark the balance of all tokens, "
        f"{told('balance')} (correct completions {told('balance', 'correct')}, incorrect "
        f"{told('balance', 'incorrect')}), and the mean of the questions, {told('balance_mean')}",
        f"Over dominant tokens alone the balance is {told('balance_dominant')}{trivial}; weighted "
        r"by the advantage, $\sum |\hat{A}|\,\mathrm{THR} / \sum |\hat{A}|\,|\mathrm{THR}|$, "
        "which is where a plain GRPO step on each question alone pushes, "
        f"{told('balance_advantage')}; the $p$ that would cancel the push of the dominant tokens "
        f"has median {told('p_zero_median')} over questions",
        *left_out_sentences(analysis),
    )
