"""The lines of a comparison: values of two sources, their difference, its p-value."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from thr_probe.analysis.result import counted
from thr_probe.analysis.sources import GREEDY
from thr_probe.core.paired import McNemar, PairedRatio, mcnemar, paired_ratios, paired_set_means
from thr_probe.core.stats import Interval

QUESTIONS = "share of questions"
MEAN_OF_SETS = "mean of datasets"
BOOTSTRAP, MCNEMAR = "bootstrap", "McNemar, exact"

# questions, below which the percentile bootstrap is plainly too narrow: simulated with two policies
# of 16 completions a question, 95 % intervals of Pass@1, Pass@8 and ratios held the true difference
# in 0.80 to 0.91 of cases with 10 questions, 0.89 to 0.92 with 20, 0.91 to 0.94 with 30
_ENOUGH = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A quantity of the shared questions: a ratio of sums over them."""

    name: str
    """As in the tables."""
    unit: str
    """Of its value."""
    numerator_P2: Float[np.ndarray, "P 2"]
    """Of the baseline and the other."""
    denominator_P2: Float[np.ndarray, "P 2"]
    """Likewise; 0 in both where a question does not count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Solved:
    """Which of the shared questions each of two sources solved."""

    measure: str
    """`greedy` (all its greedy completions right, of which there is one as a rule), or `sampled`
    (any of its completions right)."""
    how: str
    """The same for a sentence."""
    test: McNemar
    """Of both labels."""
    table: pd.DataFrame
    """dataset, question, solved_by (both, baseline, run, neither), and each one's counts."""


def ratio_rows(columns: Sequence[Column], seed: int, split: str = "all") -> list[dict[str, object]]:
    """A line for each quantity, over all questions given.

    Args:
        columns: the quantities, of the same questions.
        seed: of the resampling.
        split: what the questions are.
    """
    if not columns:
        return []
    found = paired_ratios(
        np.stack([column.numerator_P2 for column in columns], axis=1),
        np.stack([column.denominator_P2 for column in columns], axis=1),
        seed=seed,
    )
    return [
        row_of(column.name, column.unit, split, ratio, int((column.denominator_P2 > 0)[:, 0].sum()))
        for column, ratio in zip(columns, found, strict=True)
    ]


def set_rows(
    columns: Sequence[Column], questions: pd.MultiIndex, seed: int, solved: Solved | None
) -> list[dict[str, object]]:
    """The lines of means over questions; of several sets also of each, and of their mean.

    Args:
        columns: the quantities.
        questions: the shared questions, as (dataset, question).
        seed: of the resampling.
        solved: who solved what, where the quantity is that: its p-value is then McNemar's.
    """
    dataset_P = questions.get_level_values("dataset").to_numpy()
    names = list(dict.fromkeys(dataset_P.tolist()))
    splits = {"all": np.ones(len(dataset_P), dtype=bool)}
    if len(names) > 1:
        splits |= {f"dataset {name}": dataset_P == name for name in names}
    rows = []
    for split, chosen_P in splits.items():
        for row in ratio_rows([_chosen(each, chosen_P) for each in columns], seed, split):
            rows.append(row if solved is None else row | _exact(solved.table[chosen_P]))
    if len(names) < 2:
        return rows
    stacked_PM2 = np.stack([column.numerator_P2 for column in columns], axis=1)
    means = paired_set_means([stacked_PM2[dataset_P == name] for name in names], seed=seed)
    return rows + [
        row_of(column.name, column.unit, MEAN_OF_SETS, mean, len(questions))
        for column, mean in zip(columns, means, strict=True)
    ]


def _chosen(column: Column, chosen_P: Bool[np.ndarray, " P"]) -> Column:
    return Column(
        name=column.name,
        unit=column.unit,
        numerator_P2=column.numerator_P2[chosen_P],
        denominator_P2=column.denominator_P2[chosen_P],
    )


def _exact(table: pd.DataFrame) -> dict[str, object]:
    by = [table["solved_by"].isin(["both", name]).to_numpy() for name in ("baseline", "run")]
    test = mcnemar(by[0], by[1])
    return {
        "p": test.p,
        "test": MCNEMAR,
        "only_baseline": test.only_first,
        "only_run": test.only_second,
    }


def row_of(
    metric: str, unit: str, split: str, ratio: PairedRatio, num_questions: int
) -> dict[str, object]:
    """A line of the table.

    Args:
        metric: the quantity.
        unit: of its value.
        split: `all` questions, those of a `dataset`, or the mean of datasets.
        ratio: both values, their difference, and its p-value.
        num_questions: questions that count in both.
    """
    row: dict[str, object] = {"metric": metric, "split": split, "unit": unit}
    for name, interval in (
        ("baseline", ratio.first),
        ("value", ratio.second),
        ("difference", ratio.difference),
        ("relative", ratio.relative),
    ):
        row |= _cells(name, interval)
    return row | {
        "p": ratio.p,
        "test": BOOTSTRAP,
        "only_baseline": None,
        "only_run": None,
        "num_questions": num_questions,
    }


def _cells(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def solved_questions(
    measure: str, questions: pd.MultiIndex, counts: Sequence[pd.DataFrame]
) -> Solved:
    """Who solved what.

    Args:
        measure: `greedy` or `sampled`.
        questions: the shared ones.
        counts: of the baseline and the other, n completions and c right ones of each question.
    """
    if measure == GREEDY:
        labels = [(each["c"] == each["n"]).to_numpy() for each in counts]
        how = "greedily"
    else:
        labels = [(each["c"] > 0).to_numpy() for each in counts]
        sizes = sorted({int(n) for each in counts for n in each["n"].unique()})
        how = f"in any of {sizes[0]} completions" if len(sizes) == 1 else "in any completion"
    names = np.array(["neither", "baseline", "run", "both"], dtype=object)
    table = questions.to_frame(index=False).assign(
        measure=measure, solved_by=names[labels[0].astype(int) + 2 * labels[1]]
    )
    for name, each in zip(("baseline", "run"), counts, strict=True):
        table[f"{name}_correct"] = each["c"].to_numpy()
        table[f"{name}_completions"] = each["n"].to_numpy()
    return Solved(measure=measure, how=how, test=mcnemar(labels[0], labels[1]), table=table)


def few_questions(rows: Sequence[Mapping[str, object]]) -> list[str]:
    """Warnings where a handful of questions is resampled, which gives too narrow intervals."""
    few: dict[int, list[str]] = {}
    for row in rows:
        number = int(str(row["num_questions"]))
        has_test = row["test"] == BOOTSTRAP and not math.isnan(float(str(row["p"])))
        if row["split"] == "all" and number < _ENOUGH and has_test:
            few.setdefault(number, []).append(str(row["metric"]))
    return [
        f"{counted(number, 'question')} are few for the bootstrap: intervals of "
        f"{', '.join(metrics)} are too narrow and p-values too small"
        for number, metrics in few.items()
    ]
