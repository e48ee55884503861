"""The tables of the replication, long: one line per row of the paper and column of its table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import pandas as pd

from thr_probe.core.stats import Interval
from thr_probe.reproduce.estimates import (
    CHANCE,
    GREEDY,
    OVERLAP,
    REFLECTION,
    RETAINED,
    Results,
    passk,
    point,
)
from thr_probe.reproduce.rows import BASE, GRPO, Row

THR_ROW = "thr"
"""THR with p = 0, which the ablation of p is compared with as well."""

NOTHING = Interval(value=math.nan, low=math.nan, high=math.nan)

ROW_COLUMNS = ("row", "title", "seeds", "active_share", "inactive")


class Unit(StrEnum):
    """How the numbers of a table are printed."""

    PERCENT = "percent"
    SMALL_PERCENT = "percent, two digits"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of the report."""

    name: str
    """Of its CSV file."""
    heading: str
    """What it shows, with the table of the paper."""
    note: str
    """How to read it."""
    data: pd.DataFrame
    """Columns row, title, seeds, active_share, inactive, column, value, low, high, num_questions,
    and for each row that is compared with: minus_<row>, minus_<row>_low, minus_<row>_high."""
    versus: tuple[str, ...] = ()
    """Rows that are compared with."""
    unit: Unit = Unit.PERCENT
    """Of the values."""
    larger_is_better: bool = False
    """Whether the best of each column is in bold."""


def question_tables(results: Results) -> list[Table]:
    """Every table whose numbers come from questions, in the order of the report."""
    return [
        _greedy(results),
        _passk(results),
        _ablation(results),
        _reflection(results),
        _retained(results),
        _overlap(results),
    ]


def greedy_columns(results: Results) -> dict[str, str]:
    """The columns of greedy accuracy: all problems, then each kind."""
    return {"all": GREEDY} | {kind: f"{GREEDY} {kind}" for kind in results.kinds()}


def passk_columns(results: Results) -> dict[str, str]:
    """The columns of Pass@K."""
    return {f"Pass@{k}": passk(k) for k in results.ks()}


def _over_rows(results: Results, columns: dict[str, str], **described: Any) -> Table:
    """A table of all rows, compared with GRPO and with Base."""
    versus = (GRPO, BASE)
    data = long_table(results, results.rows, columns, versus)
    return Table(data=data, versus=versus, **described)


def _greedy(results: Results) -> Table:
    return _over_rows(
        results,
        greedy_columns(results),
        name="greedy",
        heading="Greedy accuracy (Tables 1, 5, 7, 8 and 11)",
        note="Share of held-out problems solved at temperature 0, in %, over all problems and by "
        "kind of problem.",
        larger_is_better=True,
    )


def _passk(results: Results) -> Table:
    return _over_rows(
        results,
        passk_columns(results),
        name="passk",
        heading="Pass@K (Tables 2, 3, 4, 6, 7, 9 and 13)",
        note="Unbiased estimate at temperature 1, in %, mean over held-out problems; Pass@1 is the "
        "mean accuracy of the samples.",
        larger_is_better=True,
    )


def _ablation(results: Results) -> Table:
    steered = sorted(
        (row for row in results.rows if row.p is not None), key=lambda row: row.p or 0.0
    )
    fixed = [row for row in results.rows if row.name in {BASE, GRPO}]
    columns = {"greedy": GREEDY} | passk_columns(results)
    return Table(
        name="p-ablation",
        heading="Ablation of p (Tables 11 and 12)",
        note="The same numbers for plain THR(p), by p.",
        data=long_table(results, [*fixed, *steered], columns, (GRPO, THR_ROW)),
        versus=(GRPO, THR_ROW),
        larger_is_better=True,
    )


def _reflection(results: Results) -> Table:
    return _over_rows(
        results,
        {"ratio": REFLECTION},
        name="reflection",
        heading="Reflection words per generated token (Tables 14 and 15)",
        note="In %, over the completions of Pass@K; the 29 words of Table 14, matched whole in the "
        "text. The lab's texts are short and use few of them.",
        unit=Unit.SMALL_PERCENT,
    )


def _retained(results: Results) -> Table:
    return _over_rows(
        results,
        {"final policy": RETAINED},
        name="retained",
        heading="Tokens retained by the threshold (Table 16)",
        note="Share of tokens with |THR| > tau, in %, in mixed groups of eight completions that "
        "the final policy sampled on held-out problems; the mean over the steps of training is in "
        "the table of training. The paper: 18 and 14 %.",
    )


def _overlap(results: Results) -> Table:
    columns, versus = {"mean overlap": OVERLAP, "chance": CHANCE}, (GRPO, BASE)
    lines = [*_lines(results, results.rows, columns, versus), *_peaks(results)]
    return Table(
        name="overlap",
        heading="Overlap of dominant and high-entropy tokens (Fig. 3)",
        note="Share of a completion's dominant tokens that are among as many tokens of highest "
        "entropy, in %, mean over completions, groups of tau <= 0 left out; chance is the share of "
        "tokens that are dominant. Peak: mode of the density over completions, first seed.",
        data=_frame(lines, versus),
        versus=versus,
    )


def _peaks(results: Results) -> Iterator[dict[str, object]]:
    for row in results.rows:
        first = next((item for item in results.of(row.name) if item.peak is not None), None)
        sums = results.sums(row.name, OVERLAP)
        if first is not None and first.scored is not None and sums is not None:
            line = _row_cells(results, row, sums.seeds) | {"column": "peak"}
            line |= _interval_cells("", first.peak or NOTHING)
            yield line | {"num_questions": int((first.scored["completions"] > 0).sum())}


def long_table(
    results: Results, rows: Iterable[Row], columns: dict[str, str], versus: Sequence[str]
) -> pd.DataFrame:
    """Each quantity of each row with its interval, and its paired differences.

    Args:
        results: what was measured.
        rows: in order.
        columns: the printed name of each quantity.
        versus: the rows to subtract.
    """
    return _frame(_lines(results, rows, columns, versus), versus)


def _frame(lines: Iterable[dict[str, object]], versus: Sequence[str]) -> pd.DataFrame:
    names = [*ROW_COLUMNS, "column", *_interval_cells("", NOTHING), "num_questions"]
    names += [cell for other in versus for cell in _interval_cells(f"minus_{other}", NOTHING)]
    return pd.DataFrame(list(lines), columns=names)


def _lines(
    results: Results, rows: Iterable[Row], columns: dict[str, str], versus: Sequence[str]
) -> Iterator[dict[str, object]]:
    for row in rows:
        for column, quantity in columns.items():
            sums = results.sums(row.name, quantity)
            if sums is None:
                continue
            line = _row_cells(results, row, sums.seeds) | {"column": column}
            line |= _interval_cells("", results.value(row.name, quantity) or NOTHING)
            line["num_questions"] = sums.num_questions
            for other in versus:
                found = results.minus(row.name, other, quantity) or NOTHING
                line |= _interval_cells(f"minus_{other}", found)
            yield line


def _row_cells(results: Results, row: Row, seeds: Sequence[int]) -> dict[str, object]:
    values = (
        row.name,
        row.title,
        " ".join(map(str, seeds)),
        results.active_share(row.name),
        results.is_inactive(row.name),
    )
    return dict(zip(ROW_COLUMNS, values, strict=True))


def _interval_cells(stem: str, interval: Interval) -> dict[str, object]:
    first, before = (stem, f"{stem}_") if stem else ("value", "")
    return {first: interval.value, f"{before}low": interval.low, f"{before}high": interval.high}


def seed_table(results: Results) -> pd.DataFrame:
    """Greedy accuracy and Pass@K of every seed by itself: how far seeds lie apart."""
    columns = {"greedy": GREEDY} | passk_columns(results)
    lines = []
    for item in results.measured:
        name, seed = item.job.row.name, item.job.seed
        for column, quantity in columns.items():
            sums = results.sums(name, quantity, (seed,))
            if sums is not None:
                value = point(sums.table)
                lines.append({"row": name, "seed": seed, "column": column, "value": value})
    return pd.DataFrame(lines, columns=["row", "seed", "column", "value"])
