"""One source beside the baseline: every quantity on the questions that both answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from thr_probe.analysis.compare_checks import (
    differences_told,
    refuse_disjoint,
    score_differences,
)
from thr_probe.analysis.compare_rows import (
    QUESTIONS,
    Column,
    Solved,
    few_questions,
    ratio_rows,
    set_rows,
    solved_questions,
)
from thr_probe.analysis.compare_sums import (
    KEY,
    RATIOS,
    Answers,
    Ratio,
    Sums,
    question_pass_at_k,
    read_answers,
    read_sums,
)
from thr_probe.analysis.passk import checked_ks
from thr_probe.analysis.sources import GREEDY, SAMPLED, Source
from thr_probe.errors import DataError


class Read:
    """A source with what is needed of it, read once.

    Args:
        source: the runs.
        score_id: which scores; the only ones by default.
    """

    def __init__(self, source: Source, *, score_id: str | None = None) -> None:
        self.source, self.score_id = source, score_id
        self.answers: dict[str, Answers] = read_answers(source)
        """Labels by measure."""
        self._sums: dict[str, Sums] = {}

    def sums(self, measure: str) -> Sums:
        """The sums of `RATIOS`."""
        if measure not in self._sums:
            runs = self.source.greedy if measure == GREEDY else self.source.sampled
            self._sums[measure] = read_sums(runs, score_id=self.score_id)
        return self._sums[measure]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A source compared with the baseline."""

    first: str
    """The baseline's name."""
    second: str
    """The other's."""
    rows: list[dict[str, object]]
    """One per quantity and split; see `row_of`."""
    solved: list[Solved]
    """By measure, greedy first."""
    warnings: list[str]
    """What differs besides the policy."""
    too_few: list[str]
    """Quantities of so few questions that their intervals are too narrow."""
    left_out: list[str]
    """Quantities that cannot be compared, and why."""


def compare_pair(
    first: Read,
    second: Read,
    *,
    ks: Sequence[int] | None = None,
    seed: int = 0,
) -> Pair:
    """Every quantity of two sources and their paired differences.

    Args:
        first: the baseline.
        second: the other.
        ks: of Pass@K; the powers of two up to the smaller n by default.
        seed: of the resampling.

    Raises:
        DataError: no question, or no measure, in common.
        UsageError: a k above the smaller n.
    """
    names = first.source.name, second.source.name
    both, shared = _shared(first, second, names)
    rows, solved, left_out = [], [], _one_sided(first, second, both)
    for measure, (ours, theirs) in both.items():
        questions = shared[measure]
        counts = [_counts(each, questions) for each in (ours, theirs)]
        solved.append(solved_questions(measure, questions, counts))
        if measure == GREEDY:
            columns = [_greedy_column(counts)]
        else:
            columns = _passk_columns((ours, theirs), questions, ks)
        rows += set_rows(columns, questions, seed, solved[-1] if measure == GREEDY else None)
        if measure == list(both)[-1]:  # sampled where both have it
            rows += ratio_rows(_ratio_columns(first, second, measure, questions, left_out), seed)
    warnings = differences_told(first.source, second.source, both)
    if SAMPLED in both:
        warnings += score_differences(first.source, second.source, score_id=first.score_id)
    return Pair(
        first=names[0],
        second=names[1],
        rows=[{"run": names[1], "baseline_run": names[0], **row} for row in rows],
        solved=solved,
        warnings=warnings,
        too_few=few_questions(rows),
        left_out=left_out,
    )


def _shared(
    first: Read, second: Read, names: tuple[str, str]
) -> tuple[dict[str, tuple[Answers, Answers]], dict[str, pd.MultiIndex]]:
    """By measure: the answers of both, and the questions they share."""
    both = {
        measure: (first.answers[measure], second.answers[measure])
        for measure in (GREEDY, SAMPLED)
        if measure in first.answers and measure in second.answers
    }
    if not both:
        kinds = [" and ".join(each.answers) or "no" for each in (first, second)]
        raise DataError(
            f"{names[0]} has {kinds[0]} completions, {names[1]} has {kinds[1]} completions: "
            "there is nothing to compare",
            "compare runs whose completions were drawn in the same way",
        )
    shared = {
        measure: ours.questions[ours.questions.isin(theirs.questions)]
        for measure, (ours, theirs) in both.items()
    }
    kept = {measure: pair for measure, pair in both.items() if len(shared[measure])}
    if not kept:
        refuse_disjoint(names, *next(iter(both.values())))
    return kept, shared


def _one_sided(first: Read, second: Read, both: Mapping[str, object]) -> list[str]:
    told = []
    for measure, what in ((GREEDY, "greedy accuracy"), (SAMPLED, "Pass@K")):
        lacking = [each.source.name for each in (first, second) if measure not in each.answers]
        if len(lacking) == 1:
            told.append(f"{what}: {lacking[0]} has no {measure} completions")
        elif not lacking and measure not in both:
            told.append(f"{what}: no {measure} question in common")
    return told


def _counts(answers: Answers, questions: pd.MultiIndex) -> pd.DataFrame:
    """Completions n and correct ones c of each question."""
    return answers.groups.groupby(KEY, sort=False)[["n", "c"]].sum().loc[questions]


def _greedy_column(counts: Sequence[pd.DataFrame]) -> Column:
    value_P2 = np.column_stack([each["c"] == each["n"] for each in counts]).astype(float)
    return Column(
        name="greedy_accuracy",
        unit=QUESTIONS,
        numerator_P2=value_P2,
        denominator_P2=np.ones_like(value_P2),
    )


def _passk_columns(
    answers: tuple[Answers, Answers], questions: pd.MultiIndex, ks: Sequence[int] | None
) -> list[Column]:
    kept = [each.of(questions) for each in answers]
    chosen = checked_ks(ks, pd.concat([each["n"] for each in kept], ignore_index=True))
    columns = []
    for k in chosen:
        value_P2 = np.column_stack([question_pass_at_k(each, k).loc[questions] for each in kept])
        columns.append(
            Column(
                name=f"pass_at_{k}",
                unit=QUESTIONS,
                numerator_P2=value_P2,
                denominator_P2=np.ones_like(value_P2),
            )
        )
    return columns


def _ratio_columns(
    first: Read,
    second: Read,
    measure: str,
    questions: pd.MultiIndex,
    left_out: list[str],
) -> list[Column]:
    """Those that both have; the questions that count in both."""
    tables = [
        each.sums(measure).table.reindex(questions, fill_value=0.0) for each in (first, second)
    ]
    columns, lacking = [], dict[str, list[str]]()
    for ratio in RATIOS:
        denominator_P2 = np.column_stack([table[ratio.denominator] for table in tables])
        counts_P = np.asarray((denominator_P2 > 0).all(axis=1))
        reason = _reason(ratio, first, second, measure)
        if not reason and not counts_P.any():
            reason = "no question counts in both"
        if reason:
            lacking.setdefault(reason, []).append(ratio.name)
            continue
        numerator_P2 = np.column_stack([table[ratio.numerator] for table in tables])
        columns.append(
            Column(
                name=ratio.name,
                unit=ratio.unit,
                numerator_P2=np.where(counts_P[:, None], numerator_P2, 0.0),
                denominator_P2=np.where(counts_P[:, None], denominator_P2, 0.0),
            )
        )
    left_out += [f"{', '.join(names)}: {reason}" for reason, names in lacking.items()]
    return columns


def _reason(ratio: Ratio, first: Read, second: Read, measure: str) -> str:
    """Why a ratio is not there; empty where both have it."""
    sources: dict[str, list[str]] = {}
    for each in (first, second):
        if ratio.name in each.sums(measure).lacking:
            why = each.sums(measure).lacking[ratio.name]
            sources.setdefault(why, []).append(each.source.name)
    return "; ".join(f"{why} ({', '.join(names)})" for why, names in sources.items())
