"""Reflection words per token and tokens retained: Tables 15 and 16."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from thr_probe.analysis.reflection import REFLECTION_WORDS
from thr_probe.analysis.retention import tokens_retained
from thr_probe.analysis.training_runs import read_training_runs
from thr_probe.analysis.word_counts import count_words, unique_words
from thr_probe.core.stats import Interval, bootstrap_difference, bootstrap_ratio, question_weights
from thr_probe.errors import DataError, UsageError
from thr_probe.evaluate.sets import set_name
from thr_probe.report.tables.notes import compared_note, legend
from thr_probe.report.tables.questions import percent, question_texts, titles
from thr_probe.report.tables.record import NOTHING, Cell, Table, TableRow
from thr_probe.report.tables.sources import TableSource, check_filled, runs_of
from thr_probe.traces.reader import Run

RATIO, RETAINED = "ratio", "retained"
"""The columns of Tables 15 and 16, also in the published numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A share with the sums over questions that it is a ratio of."""

    value: Interval
    """The share."""
    sums: pd.DataFrame | None
    """By the text of the question: numerator, denominator; None where it is no such ratio."""


def reflection_table(sources: Sequence[TableSource], baseline: TableSource) -> Table:
    """Reflection words per generated token, in %, over the completions of each source.

    Of an evaluation the sampled completions count, and each set has a column.

    Raises:
        DataError: no source has completions with token ids.
    """
    runs, notes = runs_of(sources, _answers)
    shares = _shares(runs, _reflection, RATIO, notes)
    check_filled(shares, notes, "collect completions, or import some that hold token ids")
    return _table(
        shares,
        baseline.label,
        notes,
        name="reflection",
        title="Reflection words of Table 14 per generated token, in % (Table 15 of the paper).",
        columns={RATIO: "#Reflection / #Token"},
        digits=2,
    )


def retention_table(sources: Sequence[TableSource], baseline: TableSource) -> Table:
    """Share of tokens that the threshold retains, in %, from runs with THR.

    Of a training run it is the mean over its steps of each step's share (of its journal, which has
    all steps, where the trace may have some), else the share of all tokens; groups without a wrong
    or without a right completion are left out.

    Raises:
        DataError: no source has THR.
    """
    journals = {each.label: each_share for each in sources if (each_share := _journal(each))}
    runs, notes = runs_of([each for each in sources if each.label not in journals], _scored)
    by_label = _shares(runs, _retained, RETAINED, notes)
    by_label |= {label: {RETAINED: share} for label, share in journals.items()}
    check_filled(by_label, notes, "thr-probe collect, score and train write THR")
    if journals:
        notes.append(
            f"{', '.join(journals)}: mean over the steps of training of each step's share, without "
            "an interval and not compared."
        )
    return _table(
        {each.label: by_label[each.label] for each in sources if each.label in by_label},
        baseline.label,
        notes,
        name="retention",
        title="Share of tokens with |THR| > tau, in % (Table 16 of the paper).",
        columns={RETAINED: "Avg. ratio retained"},
        digits=1,
    )


def _table(
    shares: Mapping[str, Mapping[str, Share]],
    baseline: str,
    notes: Sequence[str],
    *,
    columns: Mapping[str, str],
    **described: Any,
) -> Table:
    rows = []
    differing: dict[str, None] = {}
    for label, found in shares.items():
        others = shares.get(baseline, {}) if label != baseline else {}
        cells = {}
        for column, share in found.items():
            difference = _difference(share, others.get(column))
            cells[column] = _cell(share.value, difference or NOTHING)
            if difference is None:
                differing[label] = None
        rows.append(TableRow(label=label, section="", cells=cells))
    keys = list(dict.fromkeys(column for row in rows for column in row.cells))
    return Table(
        head="Method",
        columns=titles(keys) | {key: columns[key] for key in keys if key in columns},
        sections={"": ""},
        rows=tuple(rows),
        unit="percent",
        notes=(
            *legend(rows, baseline),
            *compared_note(baseline, list(shares), list(differing)),
            *notes,
        ),
        **described,
    )


def _cell(share: Interval, difference: Interval) -> Cell:
    value = percent(share)
    return Cell(value=value.value, low=value.low, high=value.high, difference=percent(difference))


def _difference(share: Share, other: Share | None) -> Interval | None:
    """The paired difference of two shares; None where their questions differ."""
    if other is None or share.sums is None or other.sums is None:
        return NOTHING
    if set(share.sums.index) != set(other.sums.index):
        return None
    same = other.sums.loc[share.sums.index]
    numerator_P2, denominator_P2 = (
        pd.concat([share.sums[name], same[name]], axis=1).to_numpy(dtype=float)
        for name in ("numerator", "denominator")
    )
    return bootstrap_difference(numerator_P2, denominator_P2, question_weights(len(same)))


def _shares(
    runs: Sequence[tuple[TableSource, Sequence[Run]]],
    compute: Callable[[Run], Share],
    column: str,
    notes: list[str],
) -> dict[str, dict[str, Share]]:
    """Each source's share by column: over all its completions, and of each set where any has more.

    What cannot be computed is noted and left out.
    """
    is_single = all(len(found) == 1 for _, found in runs)
    shares: dict[str, dict[str, Share]] = {}
    for each, found in runs:
        by_set: dict[str, Share] = {}
        for run in found:
            try:
                by_set[_set_of(each, run)] = compute(run)
            except (DataError, UsageError) as error:  # the latter: several score sets
                notes.append(f"{each.label}: {error.message}.")
        if by_set:
            whole = {column: _pooled(by_set)} if len(by_set) == len(found) else {}
            shares[each.label] = whole if is_single else by_set | whole
    return shares


def _pooled(by_set: Mapping[str, Share]) -> Share:
    """The share over the completions of all sets."""
    if len(by_set) == 1:
        return next(iter(by_set.values()))
    return _of_sums(pd.concat({name: share.sums for name, share in by_set.items()}))


def _set_of(each: TableSource, run: Run) -> str:
    if each.is_evaluation:
        return run.path.name
    names = run.problems()["dataset"].dropna().unique()
    return set_name(str(names[0])) if len(names) else "none"


def _reflection(run: Run) -> Share:
    counts = count_words(run, unique_words(REFLECTION_WORDS))
    if counts.empty:
        raise DataError("the run holds no completions")
    if counts["without_ids"].any():
        raise DataError("some completions have no token ids, so there is no ratio per token")
    sums = counts.groupby(level="prompt_id", sort=False)[["matches", "tokens"]].sum()
    return _of_sums(_by_text(sums.set_axis(["numerator", "denominator"], axis=1), run))


def _of_sums(sums: pd.DataFrame) -> Share:
    weights_BP = question_weights(len(sums))
    value = bootstrap_ratio(sums["numerator"], sums["denominator"], weights_BP)
    return Share(value=value, sums=sums)


def _by_text(sums: pd.DataFrame, run: Run) -> pd.DataFrame:
    """Sums by prompt_id, by the texts of the questions instead."""
    prompt_id = pd.Series(sums.index, index=sums.index, dtype=str)
    return sums.set_index(question_texts(prompt_id, run.problems().set_index("prompt_id")))


def _retained(run: Run) -> Share:
    analysis = tokens_retained(run)
    if analysis.empty_reason is not None:
        raise DataError(analysis.empty_reason.rstrip("."))
    questions = analysis.curves["questions"].set_index("prompt_id")
    tokens = questions["tokens"].astype(float)
    sums = pd.DataFrame({"numerator": questions["retained_share"] * tokens, "denominator": tokens})
    # which groups are mixed depends on the policy: questions without one count nothing
    sums = sums.reindex(run.problems()["prompt_id"], fill_value=0.0)
    return Share(value=analysis.value("retained_share"), sums=_by_text(sums, run))


def _journal(each: TableSource) -> Share | None:
    """The mean over all steps of a training run; None where THR was not computed."""
    if not each.is_training:
        return None
    mean = float(read_training_runs([each.path])[0].values("retained_share").mean())
    return None if math.isnan(mean) else Share(value=replace(NOTHING, value=mean), sums=None)


def _answers(each: TableSource) -> tuple[Sequence[Run], str]:
    if each.source is None:
        return (), "has a journal of training, but no completions"
    return each.source.sampled or each.source.greedy, "has no completions"


def _scored(each: TableSource) -> tuple[Sequence[Run], str]:
    if each.source is None:
        return (), "has a journal of training, but no completions"
    return [run for run in each.source.runs if run.score_ids], "has no THR"
