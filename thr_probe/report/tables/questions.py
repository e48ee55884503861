"""Greedy accuracy and Pass@K by dataset: Tables 1, 5, 8, 11 and 2-4, 6, 7, 9, 12, 13."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from thr_probe.analysis.passk import count_correct, ks_up_to
from thr_probe.core.pass_at_k import pass_at_k
from thr_probe.core.stats import Interval
from thr_probe.errors import DataError
from thr_probe.evaluate.sets import BENCHMARKS, HARD, STANDARD, set_name
from thr_probe.evaluate.table import AVERAGE, mean_over_sets
from thr_probe.report.tables.notes import compared_note, legend
from thr_probe.report.tables.record import NOTHING, Cell, Table, TableRow, ranked
from thr_probe.report.tables.sources import TableSource, check_filled, runs_of
from thr_probe.traces.reader import Run

TITLES = {
    "aime25": "AIME25",
    "aime24": "AIME24",
    "amc23": "AMC23",
    "math500": "MATH500",
    "minerva": "Minerva",
    "olympiadbench": "Olympiad",
    "hard": "Hard avg.",
    "standard": "Standard avg.",
    AVERAGE: "Avg.",
}
"""Of columns; other sets go by their names."""

_WITHIN = " within each dataset"


Sets = Mapping[str, pd.DataFrame]
"""What a source did on each set: completions n and correct ones c by question, in order."""


def greedy_table(sources: Sequence[TableSource], baseline: TableSource) -> Table:
    """Greedy accuracy by dataset, in %.

    Raises:
        DataError: no source has greedy completions.
    """
    runs, notes = runs_of(sources, _greedy)
    check_filled(runs, notes, "thr-probe eval answers every set greedily")
    counted = {each.label: _by_set(each, found) for each, found in runs}
    groups = set_groups(list(dict.fromkeys(name for sets in counted.values() for name in sets)))
    rows = []
    for label, sets in counted.items():
        cells = {
            title: cell(sets, _other(counted, label, baseline), names, 1)
            for title, names in groups.items()
            if set(names) <= set(sets)
        }
        rows.append(TableRow(label=label, section="", cells=cells))
    rows = list(ranked(rows, 1))
    return Table(
        name="greedy",
        title="Greedy accuracy in %, by dataset (Tables 1, 5, 8 and 11 of the paper).",
        head="Method",
        columns=titles(groups),
        sections={"": ""},
        rows=tuple(rows),
        unit="percent",
        digits=1,
        notes=(
            *legend(rows, baseline.label, within=_WITHIN),
            *_notes(counted, groups, baseline.label),
            *notes,
        ),
    )


def passk_table(sources: Sequence[TableSource], baseline: TableSource) -> Table:
    """Unbiased Pass@K by dataset and averaged, in %, for K = 1, 2, 4 ... as far as n goes.

    Raises:
        DataError: no source has sampled completions.
    """
    runs, notes = runs_of(sources, _sampled)
    hint = "thr-probe eval samples with --samples N, thr-probe collect with -n N"
    check_filled(runs, notes, hint)
    counted = {each.label: _by_set(each, found) for each, found in runs}
    groups = {
        title: names
        for title, names in set_groups(
            list(dict.fromkeys(name for sets in counted.values() for name in sets))
        ).items()
        if title not in {"hard", "standard"}
    }
    rows = ranked(_passk_rows(counted, groups, baseline.label), 1)
    ks = sorted({int(column) for row in rows for column in row.cells})
    sections = {title: TITLES.get(title, title) for title in groups}
    return Table(
        name="passk",
        title="Unbiased Pass@K in %, by dataset (Tables 2-4, 6, 7, 9, 12 and 13 of the paper).",
        head="Method, K =",
        columns={str(k): str(k) for k in ks},
        sections=sections | ({AVERAGE: "Average"} if AVERAGE in sections else {}),
        rows=rows,
        unit="percent",
        digits=1,
        notes=(
            *legend(rows, baseline.label, within=_WITHIN),
            *_notes(counted, groups, baseline.label),
            *notes,
        ),
    )


def _passk_rows(
    counted: Mapping[str, Sets], groups: Mapping[str, tuple[str, ...]], baseline: str
) -> Iterator[TableRow]:
    for title, names in groups.items():
        for label, sets in counted.items():
            if not set(names) <= set(sets):
                continue
            other = counted.get(baseline) if label != baseline else None
            fewest = min(int(sets[name]["n"].min()) for name in names)
            cells = {str(k): cell(sets, other, names, k) for k in ks_up_to(fewest)}
            yield TableRow(label=label, section=title, cells=cells)


def _greedy(each: TableSource) -> tuple[Sequence[Run], str]:
    if each.is_training or each.source is None:
        return (), "is a training run, whose policies thr-probe eval answers with"
    return each.source.greedy, "has no greedy completions"


def _sampled(each: TableSource) -> tuple[Sequence[Run], str]:
    if each.is_training or each.source is None:
        return (), "is a training run, whose policies thr-probe eval answers with"
    return each.source.sampled, "has no sampled completions"


def _other(counted: Mapping[str, Sets], label: str, baseline: TableSource) -> Sets | None:
    return None if label == baseline.label else counted.get(baseline.label)


def set_groups(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The sets behind each column, in the paper's order: the sets, their halves, all of them.

    A half is there where all its sets are, and others.

    >>> set_groups(["lab", "amc23"])
    {'amc23': ('amc23',), 'lab': ('lab',), 'average': ('lab', 'amc23')}
    """
    groups: dict[str, tuple[str, ...]] = {}
    for half, members in (("hard", HARD), ("standard", STANDARD)):
        groups |= {name: (name,) for name in members if name in names}
        if set(members) <= set(names) and len(names) > len(members):
            groups[half] = members
    groups |= {name: (name,) for name in names if name not in BENCHMARKS}
    if len(names) > 1:
        groups[AVERAGE] = tuple(names)
    return groups


def titles(columns: Sequence[str] | Mapping[str, object]) -> dict[str, str]:
    """The printed names of columns."""
    return {name: TITLES.get(name, name) for name in columns}


def cell(sets: Sets, other: Sets | None, names: Sequence[str], k: int) -> Cell:
    """A source's mean over some sets in %, with its difference to the same mean of another.

    Args:
        sets: of the source.
        other: of the baseline; None where there is nothing to compare with.
        names: the sets.
        k: of Pass@K.
    """
    value_SP = [solved(sets[name], k) for name in names]
    mean = percent(mean_over_sets(value_SP))
    difference = NOTHING
    if other is not None and _are_paired(sets, other, names, k):
        # the mean of differences within questions: its resamples are the same for both
        pairs = [(sets[name], other[name].loc[sets[name].index]) for name in names]
        value_SP = [solved(own, k) - solved(same, k) for own, same in pairs]
        difference = percent(mean_over_sets(value_SP))
    return Cell(value=mean.value, low=mean.low, high=mean.high, difference=difference)


def solved(counts: pd.DataFrame, k: int) -> Float[np.ndarray, " P"]:
    """Unbiased Pass@K of each question of a set."""
    return pass_at_k(counts["n"].to_numpy(), counts["c"].to_numpy(), k)


def percent(interval: Interval) -> Interval:
    """A share in %."""
    return Interval(value=100 * interval.value, low=100 * interval.low, high=100 * interval.high)


def _are_paired(sets: Sets, other: Sets, names: Sequence[str], k: int) -> bool:
    return all(
        name in other
        and set(other[name].index) == set(sets[name].index)
        and other[name]["n"].min() >= k
        for name in names
    )


def _notes(
    counted: Mapping[str, Sets], groups: Mapping[str, tuple[str, ...]], baseline: str
) -> Iterator[str]:
    names = [name for name in groups if groups[name] == (name,)]
    for label, sets in counted.items():
        missing = [TITLES.get(name, name) for name in names if name not in sets]
        if missing and AVERAGE in groups:
            yield f"{label} lacks {', '.join(missing)}: it has no average over all datasets."
    differing = []
    for label, sets in counted.items():
        shared = [name for name in sets if name in counted.get(baseline, {})]
        where = [
            TITLES.get(name, name)
            for name in shared
            if set(sets[name].index) != set(counted[baseline][name].index)
        ]
        if where:
            differing.append(f"{label} on {', '.join(where)}")
    yield from compared_note(baseline, list(counted), differing)


def _by_set(each: TableSource, runs: Sequence[Run]) -> dict[str, pd.DataFrame]:
    sets: dict[str, pd.DataFrame] = {}
    for run in runs:
        for name, counts in _datasets(each, run):
            if name in sets:
                raise DataError(
                    f"{each.label}: two of its runs are of the set {name}",
                    "give them as two sources",
                )
            sets[name] = counts
    return sets


def _datasets(each: TableSource, run: Run) -> Iterator[tuple[str, pd.DataFrame]]:
    """The counts of each dataset of a run, by the texts of the questions, in the run's order.

    Raises:
        DataError: no completions, or a question that several training steps answered.
    """
    counts = count_correct(run)
    if counts.empty:
        raise DataError(f"{each.label} holds no completions", "sample some, or leave it out")
    if counts["prompt_id"].duplicated().any():
        raise DataError(
            f"{each.label} answers a question at several steps of training",
            "evaluate its policies with thr-probe eval",
        )
    problems = run.problems().set_index("prompt_id")
    counts = counts.set_index(question_texts(counts["prompt_id"], problems))
    if each.is_evaluation:
        yield run.path.name, counts  # an evaluation has a run for each set
        return
    dataset = counts["prompt_id"].map(problems["dataset"]).fillna("none").astype(str)
    for name, part in counts.groupby(dataset, sort=False):
        yield set_name(str(name)), part


def question_texts(prompt_id: pd.Series[str], problems: pd.DataFrame) -> pd.Index[str]:
    """What tells questions apart whatever the template: the text, else the id.

    Args:
        prompt_id: of each question.
        problems: of the run, by prompt_id.
    """
    text = prompt_id.map(problems["question"])
    return pd.Index(text.mask(text.isna() | text.duplicated(keep=False), prompt_id).astype(str))
