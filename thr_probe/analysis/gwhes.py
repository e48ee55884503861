"""Whether GWHES ranks questions by what one GRPO step does to them (Deng et al. 2025, Table 1).

The measurements come in as tables; this module needs no policy.
Letters of shapes: B resamples, R rows (questions, or their correct completions), P questions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from thr_probe.analysis.captions import caption_of
from thr_probe.analysis.gwhes_overlap import Rows, overlap_rows, overlap_table, reported_sizes
from thr_probe.analysis.intervals import interval_facts
from thr_probe.analysis.ranks import rank_correlation
from thr_probe.analysis.result import (
    Analysis,
    counted,
    empty_analysis,
    latex_escape,
    latex_percent,
    summary_row,
    summary_table,
)
from thr_probe.core.stats import (
    Interval,
    bootstrap_ratios,
    percentile_interval,
    question_weights,
)

_CHUNK = 250  # resamples worked on at once


@dataclass(frozen=True, slots=True)
class _Resamples:
    """The resamples of the questions, by how often each row of a table counts."""

    weights_BP: Int[np.ndarray, "B P"]
    """Of `question_weights`."""
    question_R: Int[np.ndarray, " R"]
    """Which question each row of the table belongs to."""

    def interval(self, x_R: Rows, y_R: Rows) -> Interval:
        """Spearman's rho of two columns."""
        return self.difference(x_R, None, y_R)

    def difference(self, x_R: Rows, other_R: Rows | None, y_R: Rows) -> Interval:
        """Rho of x and y minus that of another column and y, on the same resamples."""

        def statistic(weight_CR: Float[np.ndarray, "C R"]) -> Float[np.ndarray, " C"]:
            rho_C = rank_correlation(weight_CR, x_R, y_R)
            return rho_C if other_R is None else rho_C - rank_correlation(weight_CR, other_R, y_R)

        low, high = percentile_interval(np.concatenate([*map(statistic, self.chunks())]))
        value = float(statistic(np.ones((1, len(x_R))))[0])
        return Interval(value=value, low=low, high=high)

    def chunks(self) -> Iterator[Float[np.ndarray, "C R"]]:
        """How often each row counts, some resamples at a time."""
        for start in range(0, len(self.weights_BP), _CHUNK):
            part_CP = self.weights_BP[start : start + _CHUNK]
            yield part_CP[:, self.question_R].astype(np.float64)

    def per_question(self, value_R: Rows) -> Float[np.ndarray, " P"]:
        """Sums over the rows of each question."""
        return np.bincount(self.question_R, value_R, minlength=self.weights_BP.shape[1])


def gwhes_agreement(
    questions: pd.DataFrame,
    completions: pd.DataFrame,
    *,
    facts: Mapping[str, object] | None = None,
    exclusions: str = "",
    seed: int = 0,
) -> Analysis:
    """GWHES against the change of likelihood that one step on each question was measured to make.

    A larger GWHES should go with a smaller change, so agreement is that of GWHES with -Delta, and
    the questions of largest GWHES are compared with those of smallest Delta.

    Args:
        questions: one row per question, as `thr_probe.one_step.StepTables.questions`.
        completions: one row per correct completion, as `StepTables.completions`.
        facts: of the measurement, such as policy, optimizer, learning rate.
        exclusions: a sentence on what was not measured; empty for none.
        seed: of the bootstrap over questions.

    Returns:
        summary: `rank_agreement` (Spearman's rho of GWHES and -Delta over questions),
        `rank_agreement_per_token` (of GWHES over the question's tokens, by which Equation 2 divides
        its step), `rank_agreement_completions` (the same over correct completions),
        `rank_share_correct` (of the share of correct completions and -Delta: what a ranking without
        GWHES reaches), `rank_gain` (the first minus that), `rank_first_order` (rho of Delta and
        the change to first order in all weights), `linearity` (ratio of the sums of those two),
        `fallen_share` (of correct completions whose likelihood fell), for SGD `unembedding_share`
        (what GWHES alone predicts over the change to first order) and `bounded_share` (of correct
        completions that changed by at least as much as GWHES predicts), `overlap_at_K` with
        `chance_at_K` (K / N, bounds from the hypergeometric distribution) and
        `chance_probability_at_K` (of as much overlap or more by chance).
        curves: `questions`, `completions`, `overlap` (for every K, or 40 of them).
    """
    known = {**(facts or {}), "exclusions": exclusions, "num_questions": len(questions)}
    codes, names = pd.factorize(questions["prompt_id"])
    if len(names) < 2:
        return empty_analysis("gwhes", _too_few(len(names), exclusions), known)
    weights_BP = question_weights(len(names), seed=seed)
    over_questions = _Resamples(weights_BP, codes)
    over_completions = _Resamples(weights_BP, _places(completions["prompt_id"], names))
    overlap = overlap_table(questions, over_questions.chunks())
    rows = [
        *_rank_rows(questions, completions, over_questions, over_completions),
        *_ratio_rows(questions, completions, over_questions, over_completions),
        *overlap_rows(overlap, len(questions)),
    ]
    num = {"num_questions": len(names)}
    analysis = Analysis(
        name="gwhes",
        summary=summary_table(
            summary_row(name, "all", unit, interval, **num) for name, unit, interval in rows
        ),
        curves={"questions": questions, "completions": completions, "overlap": overlap},
        facts={
            **known,
            "num_questions": len(names),
            "num_completions": len(completions),
            "order": "descending GWHES against ascending change",
            **interval_facts(weights_BP, seed),
        },
        caption="",
    )
    return replace(analysis, caption=_caption(analysis))


_Row = tuple[str, str, Interval]


def _too_few(number: int, exclusions: str) -> str:
    said = f"{counted(number, 'question')} measured: ranks need at least two"
    return f"{said}. {exclusions}".rstrip() if exclusions else f"{said}."


def _places(prompt_id: pd.Series, names: Iterable[object]) -> Int[np.ndarray, " R"]:
    place = {name: index for index, name in enumerate(names)}
    return np.array([place[name] for name in prompt_id], dtype=np.int64)


def _rank_rows(
    questions: pd.DataFrame,
    completions: pd.DataFrame,
    over_questions: _Resamples,
    over_completions: _Resamples,
) -> Iterator[_Row]:
    score_R, change_R, first_R, tokens_R = (
        questions[name].to_numpy(float) for name in ("gwhes", "change", "first_order", "tokens")
    )
    yield "rank_agreement", "Spearman's rho", over_questions.interval(score_R, -change_R)
    yield (
        "rank_agreement_per_token",
        "Spearman's rho",
        over_questions.interval(score_R / tokens_R, -change_R),
    )
    yield (
        "rank_agreement_completions",
        "Spearman's rho, over completions",
        over_completions.interval(
            completions["gwhes_per_token"].to_numpy(float),
            -completions["change"].to_numpy(float),
        ),
    )
    share_R = (questions["num_correct"] / questions["group_size"]).to_numpy(float)
    yield "rank_share_correct", "Spearman's rho", over_questions.interval(share_R, -change_R)
    yield (
        "rank_gain",
        "difference of Spearman's rho",
        over_questions.difference(score_R, share_R, -change_R),
    )
    yield "rank_first_order", "Spearman's rho", over_questions.interval(first_R, change_R)


def _ratio_rows(
    questions: pd.DataFrame,
    completions: pd.DataFrame,
    over_questions: _Resamples,
    over_completions: _Resamples,
) -> Iterator[_Row]:
    change_P, first_P, predicted_P = (
        over_questions.per_question(questions[name].to_numpy(float))
        for name in ("change", "first_order", "unembedding")
    )
    change_R, bound_R = (completions[name].to_numpy(float) for name in ("change", "unembedding"))
    fell_P, above_P, count_P = (
        over_completions.per_question(value_R.astype(float))
        for value_R in (change_R < 0, change_R >= bound_R, np.ones_like(change_R))
    )
    ratios = bootstrap_ratios(
        np.column_stack([change_P, fell_P, predicted_P, above_P]),
        np.column_stack([first_P, count_P, first_P, count_P]),
        over_questions.weights_BP,
    )
    yield "linearity", "measured over first-order change", ratios[0]
    yield "fallen_share", "share of correct completions", ratios[1]
    if np.isfinite(bound_R).all():
        yield "unembedding_share", "share of the first-order change", ratios[2]
        yield "bounded_share", "share of correct completions", ratios[3]


def _caption(analysis: Analysis) -> str:
    facts = analysis.facts
    number = analysis.count("num_questions")
    reported = [
        f"{latex_percent(analysis.value(f'overlap_at_{size}'))} of the {size} "
        f"(by chance {latex_percent(analysis.value(f'chance_at_{size}'))})"
        for size in reported_sizes(len(analysis.curves["questions"]))
    ]
    step = _step_words(facts)
    measured = counted(number, "question"), counted(
        analysis.count("num_completions"), "correct completion"
    )  # fmt: skip
    excluded = latex_escape(str(facts["exclusions"]).rstrip("."))
    return caption_of(
        analysis,
        "Brackets and the band",
        f"GWHES against the change of likelihood $\\Delta$ that one GRPO step{step} on a question "
        f"alone makes, mean over its correct completions of $\\ln \\pi_{{\\theta'}}(y) - \\ln "
        f"\\pi_\\theta(y)$: {measured[0]}, {measured[1]}",
        "(a) Questions. Spearman's $\\rho$ of GWHES and $-\\Delta$ is "
        f"{_rho(analysis, 'rank_agreement')}; of GWHES over the question's tokens, by which the "
        f"loss is divided, {_rho(analysis, 'rank_agreement_per_token')}; the share of correct "
        f"completions alone reaches {_rho(analysis, 'rank_share_correct')}, a difference of "
        f"{_rho(analysis, 'rank_gain')}",
        "(b) Share of the $K$ questions of largest GWHES among the $K$ of smallest $\\Delta$: "
        f"{' and '.join(reported)}; the dotted line is chance, $K/N$, with its central 95\\,\\% "
        "(hypergeometric) between the thin lines",
        f"(c) Correct completions, {_predicted_words(analysis)}; $\\rho$ is "
        f"{_rho(analysis, 'rank_agreement_completions')}. The likelihood of "
        f"{latex_percent(analysis.value('fallen_share'))} of them fell (crosses)",
        *([excluded] if excluded else []),
    )


def _step_words(facts: Mapping[str, object]) -> str:
    if "optimizer" not in facts:
        return ""
    return f" ({str(facts['optimizer']).upper()}, learning rate {facts['lr']:g})"


def _predicted_words(analysis: Analysis) -> str:
    if "unembedding_share" not in set(analysis.summary["quantity"]):
        return "measured change against $-$GWHES over the question's tokens"
    share = latex_percent(analysis.value("unembedding_share"))
    above = latex_percent(analysis.value("bounded_share"))
    return (
        "measured change against the part that GWHES predicts, the unembedding's with hidden "
        f"states held fixed, {share} of the first-order change of all weights; {above} of the "
        "completions changed by at least as much (dashed line)"
    )


def _rho(analysis: Analysis, quantity: str) -> str:
    found = analysis.value(quantity)
    bounds = f" [{found.low:.2f}, {found.high:.2f}]" if math.isfinite(found.low) else ""
    return f"${found.value:.2f}${bounds}"
