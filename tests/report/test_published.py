"""The transcription of the paper's numbers holds its own averages, but for the marked errata."""

from __future__ import annotations

import numpy as np
import pytest

from thr_probe.analysis.timing import MODULES, TOTAL
from thr_probe.errors import UsageError
from thr_probe.evaluate.sets import BENCHMARKS, HARD, STANDARD
from thr_probe.report.published import check_model, read_published

ROUNDING = 0.0501
"""The mean of the printed rows, printed with one digit, is off by at most half a tenth."""

PUBLISHED = read_published()
BY_NUMBER = {table.number: table for table in PUBLISHED.tables}


def entries(table, model, method, dataset=""):
    found = [
        row.entries
        for row in table.rows
        if (row.model, row.method, row.dataset) == (model, method, dataset)
    ]
    assert len(found) == 1
    return found[0]


def averages():
    """Every printed average or sum with what its row or rows give, column by column."""
    given = {"passk": of_sets, "greedy": of_columns, "timing": of_modules}
    for table in PUBLISHED.tables:
        if table.name in given:
            for row in table.rows:
                for column, mean in given[table.name](table, row):
                    where = (table.number, row.model, row.method, column)
                    yield where, row.entries[column], mean


def of_sets(table, row):
    if row.dataset == "average":
        sets = [entries(table, row.model, row.method, name) for name in HARD]
        for k in row.entries:
            yield k, np.mean([each[k].value for each in sets])


def of_columns(table, row):
    for column, names in (("average", tuple(BENCHMARKS)), ("hard", HARD), ("standard", STANDARD)):
        if column in row.entries:
            yield column, np.mean([row.entries[name].value for name in names])


def of_modules(table, row):
    yield TOTAL, sum(row.entries[column].value for column in MODULES.values())


def test_exactly_the_marked_averages_deviate_from_their_rows():
    deviating = {where for where, entry, mean in averages() if abs(entry.printed - mean) > ROUNDING}
    marked = {where for where, entry, _ in averages() if entry.erratum is not None}
    assert deviating == marked
    assert len(marked) == 12


def test_every_value_is_what_its_rows_give():
    for where, entry, mean in averages():
        assert abs(entry.value - mean) <= ROUNDING, where
        if entry.erratum is not None:
            assert entry.value == pytest.approx(round(mean, 1)), where


def test_only_averages_are_corrected_and_all_of_them_are_checked():
    checked = {id(entry) for _, entry, _ in averages()}
    corrected = [
        entry
        for table in PUBLISHED.tables
        for row in table.rows
        for entry in row.entries.values()
        if entry.printed != entry.value or entry.erratum is not None
    ]
    assert all(id(entry) in checked for entry in corrected)
    # 9 K for each of 38 rows of averages; 1 average in 9 rows, 3 in 7 rows; 3 totals
    assert len(list(averages())) == 9 * 38 + 9 + 3 * 7 + 3


@pytest.mark.parametrize(
    ("number", "model", "method", "column", "printed", "value", "erratum"),
    [
        (6, "Qwen2.5-Math-1.5B", "Neg Only", "1", 9.5, 19.5, 12),
        (6, "Qwen2.5-Math-1.5B", "Neg Only", "256", 68.4, 69.5, 12),
        (6, "Qwen2.5-0.5B-Instruct", "THR (p < 0)", "1", 4.9, 4.2, 12),
        (6, "Qwen2.5-0.5B-Instruct", "THR (p < 0)", "128", 43.5, 42.9, 12),
        (3, "Qwen2.5-Math-1.5B", "THR (p < 0)", "32", 57.3, 56.9, 14),
        (13, "Qwen2.5-Math-1.5B", "THR (p < 0)", "32", 57.3, 56.9, 14),
        (12, "Qwen2.5-Math-1.5B", "THR", "2", 28.0, 27.9, 14),
    ],
)
def test_errata_keep_what_is_printed(number, model, method, column, printed, value, erratum):
    entry = entries(BY_NUMBER[number], model, method, "average")[column]
    assert (entry.printed, entry.value, entry.erratum) == (printed, value, erratum)


def test_statements_of_the_text_are_recomputed_from_their_tables():
    for each in PUBLISHED.statements:
        model, dataset, column, *methods = each.recompute
        rows = [entries(BY_NUMBER[each.table], model, method, dataset) for method in methods]
        ks = list(rows[0]) if column in {"mean", "max"} else [column]
        gains = [rows[0][k].value - (rows[1][k].value if len(rows) > 1 else 0) for k in ks]
        found = max(gains) if column == "max" else np.mean(gains)
        assert found == pytest.approx(each.value, abs=0.005), each.text
        assert each.printed != each.value
    assert {each.erratum for each in PUBLISHED.statements} == {11, 13, 15, 16}


def test_the_same_method_has_the_same_numbers_wherever_it_is_printed():
    seen = {}
    for table in PUBLISHED.tables:
        if table.name != "passk":
            continue
        for row in table.rows:
            numbers = tuple(entry.printed for entry in row.entries.values())
            key = (row.model, row.method, row.dataset)
            assert seen.setdefault(key, numbers) == numbers, (table.number, key)
    thr = seen["Qwen2.5-Math-1.5B", "THR (p < 0)", "amc23"]
    assert thr == seen["Qwen2.5-Math-1.5B", "THR (p = -0.1)", "amc23"]


def test_percentages_of_thirty_or_forty_problems_are_whole_problems_at_256():
    sizes = {name: BENCHMARKS[name].size for name in HARD}
    for table in PUBLISHED.tables:
        for row in table.rows:
            if table.name == "passk" and row.dataset in sizes:
                solved = row.entries["256"].printed / 100 * sizes[row.dataset]
                assert abs(solved - round(solved)) < 0.0005 * sizes[row.dataset], row


def test_all_tables_of_results_are_there_but_the_two_that_the_text_lacks():
    assert sorted(BY_NUMBER) == [3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15, 16]
    assert PUBLISHED.missing_tables == (1, 2)
    assert "columns are these models" in BY_NUMBER[6].note
    rows = {row.method: row.entries["ratio"].value for row in BY_NUMBER[15].rows}
    assert rows == {"GRPO": 0.34, "THR": 0.36, "THR (p = -0.1)": 0.55}
    retained = {row.model: row.entries["retained"].value for row in BY_NUMBER[16].rows}
    assert retained == {"Qwen2.5-Math-1.5B": 18, "Qwen2.5-Math-7B": 14}


def test_an_unknown_model_is_told_with_the_nearest_name():
    with pytest.raises(UsageError, match="no numbers of 'qwen-math-7b'") as raised:
        check_model(PUBLISHED, "qwen-math-7b")
    assert "did you mean Qwen2.5-Math-7B?" in raised.value.hint
    assert [table.number for table in PUBLISHED.of("greedy", "Llama3.2-3B-Instruct")] == [8]
