"""The paper's tables from runs whose numbers can be derived by eye."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import shutil
import subprocess

import numpy as np
import pytest
from paper_sources import write_evaluation
from training_journals import step_record, training_records, write_journal

from thr_probe.analysis.reflection import reflection_ratio
from thr_probe.analysis.retention import tokens_retained
from thr_probe.core.stats import question_weights
from thr_probe.errors import DataError, UsageError
from thr_probe.evaluate.plan import Measure
from thr_probe.evaluate.sets import BENCHMARKS
from thr_probe.evaluate.table import count_run, measure_rows
from thr_probe.report.tables import (
    TABLES,
    paper_table,
    paper_tables,
    table_csv,
    table_json,
    table_latex,
    table_markdown,
    table_rows,
)
from thr_probe.report.tables.files import write_table
from thr_probe.report.tables.record import DOWN, UP, Cell, Table, TableRow, ranked
from thr_probe.traces import read_run

AIME, AMC = "aime24", "amc23"


@pytest.fixture
def two(tmp_path, make_run):
    """grpo solves 2 of 8 and 3 of 4; thr 6 of 8, those of grpo among them, and 3 of 4."""
    grpo = write_evaluation(
        tmp_path / "grpo",
        make_run,
        greedy={AIME: [1, 1, 0, 0, 0, 0, 0, 0], AMC: [1, 1, 1, 0]},
        sampled={AIME: [[1, 0, 0, 0], [0, 0, 0, 0]], AMC: [[1, 1, 0, 0], [1, 1, 1, 1]]},
    )
    thr = write_evaluation(
        tmp_path / "thr",
        make_run,
        greedy={AIME: [1, 1, 1, 1, 1, 1, 0, 0], AMC: [0, 1, 1, 1]},
        sampled={AIME: [[1, 1, 1, 0], [1, 0, 0, 0]], AMC: [[1, 1, 0, 0], [1, 1, 1, 1]]},
    )
    return grpo, thr


def values(table):
    return {
        (row["section"], row["row"], row["column"]): row["value"]
        for row in table_rows(table)
        if row["published"] is None
    }


def cell(table, label, column, section=""):
    found = [row for row in table.rows_of(section) if row.label == label and not row.published]
    assert len(found) == 1
    return found[0].cells[column]


def test_greedy_accuracy_by_set_and_its_unweighted_average(two):
    assert values(paper_table("greedy", two)) == {
        (None, "grpo", AIME): 25.0,
        (None, "grpo", AMC): 75.0,
        (None, "grpo", "average"): 50.0,
        (None, "thr", AIME): 75.0,
        (None, "thr", AMC): 75.0,
        (None, "thr", "average"): 75.0,
    }


def test_pass_at_k_by_set_and_averaged(two):
    found = values(paper_table("passk", two))
    # of 4 samples: c = 1 gives 1/4, 1/2, 1; c = 2 gives 1/2, 5/6, 1; c = 3 gives 3/4, 1, 1
    expected = {
        (AIME, "grpo"): (1 / 8, 1 / 4, 1 / 2),
        (AIME, "thr"): (1 / 2, 3 / 4, 1),
        (AMC, "grpo"): (3 / 4, 11 / 12, 1),
        (AMC, "thr"): (3 / 4, 11 / 12, 1),
        ("average", "grpo"): (7 / 16, 7 / 12, 3 / 4),
        ("average", "thr"): (5 / 8, 5 / 6, 1),
    }
    assert len(found) == 18
    for (section, label), shares in expected.items():
        got = [found[section, label, k] for k in ("1", "2", "4")]
        np.testing.assert_allclose(got, [100 * share for share in shares])


def test_an_interval_of_differences_that_excludes_zero_is_marked(two):
    table = paper_table("greedy", two)
    better, same = cell(table, "thr", AIME), cell(table, "thr", AMC)
    # by hand: the same resamples of the 8 differences 0 0 1 1 1 1 0 0
    gain_P = np.array([0, 0, 1, 1, 1, 1, 0, 0])
    draws_B = [
        sum(w * g for w, g in zip(row, gain_P, strict=True)) / 8 for row in question_weights(8)
    ]
    low, high = np.quantile(draws_B, [0.025, 0.975])
    assert better.difference.value == 50.0
    np.testing.assert_allclose(
        [better.difference.low, better.difference.high], [100 * low, 100 * high]
    )
    assert better.mark == UP
    assert same.difference.value == 0.0
    assert same.mark == ""
    assert cell(table, "grpo", AIME).mark == ""
    reversed_ = paper_table("greedy", two, versus="thr")
    assert cell(reversed_, "grpo", AIME).mark == DOWN
    assert math.isnan(cell(reversed_, "thr", AIME).difference.value)


def test_values_and_intervals_are_those_of_the_evaluation(two, make_run, tmp_path):
    six = write_evaluation(
        tmp_path / "six",
        make_run,
        greedy={
            name: np.random.default_rng(seed).integers(0, 2, 5 + seed).tolist()
            for seed, name in enumerate(BENCHMARKS)
        },
    )
    for measure, name, source in (
        (Measure.GREEDY, "greedy", six),
        (Measure.GREEDY, "greedy", two[1]),
        (Measure.SAMPLED, "passk", two[1]),
    ):
        folders = [
            source / each["path"] for each in json.loads((source / "eval.json").read_text())["runs"]
        ]
        runs = [read_run(path) for path in folders if path.parent.name == measure.value]
        sets = [count_run(run, run.path.name) for run in runs]
        table = paper_table(name, [source])
        rows = measure_rows("final", measure, sets, (1, 2, 4))
        assert len(rows) == len(table_rows(table))
        for row in rows:
            dataset = row["dataset"]
            key = (
                ("", dataset)
                if name == "greedy"
                else (dataset, row["measure"].removeprefix("pass@"))
            )
            found = cell(table, source.name, key[1], key[0])
            expected = [100 * row[bound] for bound in ("value", "low", "high")]
            np.testing.assert_array_equal([found.value, found.low, found.high], expected)


def test_columns_stand_in_the_order_of_the_paper(make_run, tmp_path):
    everything = write_evaluation(
        tmp_path / "six", make_run, greedy={"lab": [1, 0]} | {name: [1, 0] for name in BENCHMARKS}
    )
    table = paper_table("greedy", [everything])
    assert list(table.columns) == [
        "aime25", "aime24", "amc23", "hard", "math500", "minerva", "olympiadbench", "standard",
        "lab", "average",
    ]  # fmt: skip
    assert table.columns["olympiadbench"] == "Olympiad"


def made(*columns, digits=1):
    rows = [
        TableRow(label=str(index), section="", cells={"a": Cell(value=value)})
        for index, value in enumerate(columns)
    ]
    return [row.cells["a"].rank for row in ranked(rows, digits)]


def test_ties_share_their_rank_as_printed_and_the_next_smaller_number_is_second():
    assert made(1.0, 3.0, 2.0) == [None, 1, 2]
    assert made(3.0, 3.0, 2.0, 2.0, 1.0) == [1, 1, 2, 2, None]
    assert made(34.12, 34.08, 33.0) == [1, 1, 2]
    assert made(34.12, 34.08, 33.0, digits=2) == [1, 2, None]
    assert made(5.0, 5.0) == [None, None]
    assert made(5.0) == [None]
    assert made(math.nan, 1.0, 2.0) == [None, 2, 1]


def test_sources_of_other_questions_are_not_compared_and_the_note_says_so(two, make_run, tmp_path):
    other = write_evaluation(
        tmp_path / "other", make_run, greedy={AIME: [1] * 8 + [1], AMC: [0, 1, 1, 1]}
    )
    table = paper_table("greedy", [two[0], other])
    assert math.isnan(cell(table, "other", AIME).difference.value)
    assert math.isnan(cell(table, "other", "average").difference.value)
    assert cell(table, "other", AMC).difference.value == 0.0
    assert "other on AIME24 answered other questions than grpo" in " ".join(table.notes)


def test_another_template_asks_the_same_questions(two, make_run, tmp_path):
    same = write_evaluation(
        tmp_path / "plain", make_run, greedy={AIME: [0] * 8, AMC: [0] * 4}, prompt="plain-"
    )
    table = paper_table("greedy", [two[0], same])
    assert cell(table, "plain", AMC).difference.value == -75.0
    assert cell(table, "plain", AMC).mark == DOWN


def test_a_source_that_lacks_a_set_has_no_average(two, make_run, tmp_path):
    one = write_evaluation(tmp_path / "one", make_run, greedy={AMC: [1, 1, 1, 1]})
    table = paper_table("greedy", [two[0], one])
    assert list(table.rows[1].cells) == [AMC]
    assert "one lacks AIME24: it has no average" in " ".join(table.notes)
    assert cell(table, "one", AMC).difference.value == 25.0


def test_one_question_only_has_a_number_and_no_interval(make_run, tmp_path):
    sources = [
        write_evaluation(tmp_path / name, make_run, greedy={AIME: [right]})
        for name, right in (("a", 0), ("b", 1))
    ]
    table = paper_table("greedy", sources)
    found = cell(table, "b", AIME)
    assert (found.value, found.rank, found.mark) == (100.0, 1, "")
    assert math.isnan(found.low)
    assert found.difference.value == 100.0
    assert not any("brackets" in note for note in table.notes)
    assert "[" not in table_markdown(table)


def test_k_ends_at_the_fewest_completions_of_each_source(two, make_run, tmp_path):
    more = write_evaluation(
        tmp_path / "more", make_run, sampled={AIME: [[1] + [0] * 7, [0] * 8], AMC: [[1] * 8] * 2}
    )
    table = paper_table("passk", [two[0], more])
    assert list(table.columns) == ["1", "2", "4", "8"]
    assert "8" not in table.rows_of(AIME)[0].cells
    assert cell(table, "more", "8", AIME).value == 50.0
    assert math.isnan(cell(table, "more", "8", AIME).difference.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("greedy", "run has no greedy completions"),
        ("timing", "no training run among the sources: run"),
        ("retention", "run has no THR"),
    ],
)
def test_what_a_source_lacks_is_named(make_run, tmp_path, name, message):
    run = make_run(tmp_path / "run", [{"completions": [{"correct": True}] * 2}], scored=False)
    with pytest.raises(DataError, match=message):
        paper_table(name, [run])


def test_a_source_that_lacks_what_others_have_is_left_out_with_a_note(two, make_run, tmp_path):
    sampled = write_evaluation(tmp_path / "n", make_run, sampled={AIME: [[1, 0]] * 2})
    table = paper_table("greedy", [*two, sampled])
    assert [row.label for row in table.rows] == ["grpo", "thr"]
    assert "n has no greedy completions: it has no row." in table.notes
    first = paper_table("greedy", [sampled, *two])
    assert "n, to compare with, has no row: there are no marks." in first.notes


def test_a_run_of_collect_fills_the_tables_that_it_can(make_run, tmp_path):
    completions = [{"correct": index < 3} for index in range(4)]
    groups = [{"prompt_id": f"q{index}", "completions": completions} for index in range(3)]
    run = make_run(tmp_path / "run", groups, tokens={1: "wait ", 2: "a ", 3: "b ", 4: "but"})
    tables = {table.name: table for table in paper_tables([run])}
    assert list(tables) == ["passk", "reflection", "retention"]
    assert values(tables["passk"])[("fake", "run", "1")] == pytest.approx(75.0)
    # two of four tokens are words of Table 14
    assert values(tables["reflection"]) == {(None, "run", "ratio"): 50.0}
    assert set(TABLES) > set(tables)


def test_shares_are_those_of_the_analyses(make_run, tmp_path):
    rng = np.random.default_rng(0)
    tokens = {1: "wait ", 2: "a ", 3: "b "}
    runs = []
    for name in ("a", "b"):
        groups = [
            {
                "prompt_id": f"q{index}",
                "tau": 0.02,
                "completions": [
                    {"correct": bool(right), "token_ids": rng.integers(1, 4, 4 + right).tolist()}
                    | {"thr": rng.normal(0, 0.02, 4 + right).tolist()}
                    for right in rng.permutation([0, 0, 1]).tolist()
                ],
            }
            for index in range(6)
        ]
        runs.append(make_run(tmp_path / name, groups, tokens=tokens))
    reflection, retention = (paper_table(name, runs) for name in ("reflection", "retention"))
    for table, column, analysis, quantity in (
        (reflection, "ratio", reflection_ratio, "reflection_ratio"),
        (retention, "retained", tokens_retained, "retained_share"),
    ):
        shares = []
        for path in runs:
            expected = analysis(read_run(path)).value(quantity)
            found = cell(table, path.name, column)
            np.testing.assert_allclose(
                [found.value, found.low, found.high],
                [100 * expected.value, 100 * expected.low, 100 * expected.high],
            )
            shares.append(found)
        gap = shares[1].difference
        assert gap.value == pytest.approx(shares[1].value - shares[0].value)
        assert gap.low <= gap.value <= gap.high
        assert all(each.rank is None for each in shares)


def test_shares_of_several_sets_stand_beside_that_of_all_completions(make_run, tmp_path):
    solved = {AIME: [[1, 0]] * 2, AMC: [[1, 0]] * 6}
    source = write_evaluation(tmp_path / "e", make_run, sampled=solved, text="wait, no")
    other = write_evaluation(tmp_path / "f", make_run, sampled=solved, text="no")
    table = paper_table("reflection", [source, other])
    assert list(table.columns) == [AIME, AMC, "ratio"]
    assert {key[1:]: value for key, value in values(table).items()} == {
        ("e", AIME): 25.0, ("e", AMC): 25.0, ("e", "ratio"): 25.0,
        ("f", AIME): 0.0, ("f", AMC): 0.0, ("f", "ratio"): 0.0,
    }  # fmt: skip
    assert cell(table, "f", "ratio").mark == DOWN


def test_timing_is_table_10_under_the_labels_given(tmp_path):
    first = write_journal(tmp_path / "a", training_records(3))
    second = write_journal(tmp_path / "b", [step_record(0, gen=347.5, total=834.5)])
    table = paper_table("timing", [f"ours={first}", second])
    assert [row.label for row in table.rows] == ["ours", "b"]
    assert [each.value for each in table.rows[0].cells.values()] == [347, 210, 37, 120, 120, 834]
    assert "| ours | 347 | 210 | 37 | 120 | 120 | 834 |" in table_markdown(table)
    assert "ours 3, b 1" in table.notes[0]


def test_retention_of_a_training_run_is_the_mean_over_its_steps(tmp_path):
    run = write_journal(tmp_path / "a", training_records(3))
    table = paper_table("retention", [run], paper="Qwen2.5-Math-7B")
    assert cell(table, "a", "retained").value == pytest.approx(100 * (0.18 + 0.181 + 0.182) / 3)
    assert "| THR | 14 |" in table_markdown(table)
    assert "without an interval" in " ".join(table.notes)


def test_published_rows_stand_below_without_intervals_ranks_or_marks(two):
    table = paper_table("passk", two, paper="Qwen2.5-Math-1.5B")
    published = [row for row in table_rows(table) if row["published"]]
    assert {row["published"] for row in published} == {"Qwen2.5-Math-1.5B"}
    for row in published:
        assert (row["low"], row["difference"], row["rank"], row["marked"]) == (
            None,
            None,
            None,
            False,
        )
    corrected = {
        (row["row"], row["column"]): (row["value"], row["printed"])
        for row in published
        if row["printed"] is not None
    }
    assert corrected == {
        ("THR (p < 0)", "32"): (56.9, 57.3),
        ("THR", "2"): (27.9, 28.0),
        ("Neg Only", "1"): (19.5, 9.5),
        ("Neg Only", "256"): (69.5, 68.4),
    }
    assert "56.9†" in table_markdown(table)
    assert "57.3 is printed for 56.9" in table.notes[-1]
    assert list(table.columns)[-1] == "256"
    assert list(table.sections) == ["aime25", AIME, AMC, "average"]
    # what several tables print is there once
    rows = [row.label for row in table.rows_of(AMC) if row.published]
    assert rows.count("GRPO") == rows.count("THR (p < 0)") == 1
    assert "THR (p = -0.1)" not in rows
    assert "these are not the paper's" in " ".join(table.notes)


def test_a_row_of_a_shorter_table_is_dropped_for_the_fuller_one(two):
    table = paper_table("greedy", two, paper="Qwen2.5-Math-1.5B")
    rows = {row.label: row.cells for row in table.rows if row.published}
    assert list(rows) == [
        "Pos Only", "Base", "GRPO", "THR", "THR (p = -0.1)", "THR (p = 0.05)", "THR (p = 0.1)",
        "THR (p = 0.2)",
    ]  # fmt: skip
    assert rows["GRPO"]["hard"].value == 24.7
    nothing = paper_table("timing", [write_journal(two[0].parent / "t", training_records(1))])
    assert nothing.rows[0].published is None


def test_a_kind_that_the_paper_has_not_of_a_model_says_so(two):
    table = paper_table("greedy", two, paper="Qwen2.5-Math-7B")
    assert table.notes[-1] == "The paper has no such numbers of Qwen2.5-Math-7B."


def test_tidy_rows_and_csv_and_json_hold_the_same(two):
    table = paper_table("greedy", two)
    rows = table_rows(table)
    assert list(rows[0]) == [
        "table", "section", "row", "column", "unit", "value", "low", "high", "difference",
        "diff_low", "diff_high", "marked", "rank", "published", "printed",
    ]  # fmt: skip
    first = {key: rows[3][key] for key in ("row", "column", "value", "marked", "rank")}
    assert first == {"row": "thr", "column": AIME, "value": 75.0, "marked": True, "rank": 1}
    assert json.loads(table_json(table))["rows"] == rows
    read = list(csv.DictReader(io.StringIO(table_csv(table))))
    assert [float(row["value"]) for row in read] == [row["value"] for row in rows]
    assert read[0]["difference"] == ""


def test_markdown_is_the_table_by_eye(make_run, tmp_path):
    sources = [
        write_evaluation(tmp_path / name, make_run, greedy={AIME: [right]})
        for name, right in (("a", 0), ("b|c", 1))
    ]
    assert table_markdown(paper_table("greedy", sources)).splitlines() == [
        "**Greedy accuracy in %, by dataset (Tables 1, 5, 8 and 11 of the paper).**",
        "",
        "| Method | AIME24 |",
        "| --- | ---: |",
        "| a | <u>0.0</u> |",
        r"| b\|c | **100.0** |",
        "",
        "Bold: the largest number of its column as printed; underlined: the second largest.",
    ]


LABEL = "[x] 50% a_b #1 & {c} \\ ~^ THR (p = -0.1) <χ|"


def test_latex_is_booktabs_with_balanced_braces_and_full_rows(two):
    table = paper_table("passk", [f"{LABEL}={two[0]}", two[1]], paper="all")
    text = table_latex(table)
    assert (
        r"{}[x] 50\% a\_b \#1 \& \{c\} \textbackslash{} \textasciitilde{}\textasciicircum{}" in text
    )
    assert r"THR ($p = -0.1$) $<$$\chi$$|$" in text
    assert r"\textbf{50.0}$^{\uparrow}$ & " in text
    assert r"56.9$^{\dagger}$" in text
    check_latex(text, len(table.columns) + 1)
    assert text.count(r"\endfirsthead") == text.count(r"\endhead") == 1
    assert text.count(r"\caption") == 1
    bare = table_latex(table, environment=False)
    assert r"\caption" not in bare
    check_latex(bare, len(table.columns) + 1)
    assert r"\begin{table}[tbp]" in table_latex(paper_table("passk", two))
    greedy = table_latex(paper_table("greedy", two), environment=False)
    assert r"\textbf{75.0}$^{\uparrow}$" in greedy
    assert r"\underline{25.0}" in greedy
    assert r"{\tiny [" in greedy
    assert r"\begin{table}" not in greedy
    check_latex(greedy, 4)


RULES = {r"\midrule", r"\addlinespace", r"\toprule", r"\endfirsthead", r"\endhead"}


def check_latex(text, num_columns):
    """What a compiler would complain of: braces, environments, cells of a row, bare specials."""
    bare = re.sub(r"\\[\\{}%#&_$]", "", text)
    depth = 0
    for character in bare:
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0
    assert bare.count("$") % 2 == 0
    opened = re.findall(r"\\(begin|end){(\w+)}", text)
    stack = []
    for kind, name in opened:
        if kind == "begin":
            stack.append(name)
        else:
            assert stack.pop() == name
    assert stack == []
    assert text.count(r"\begingroup") == text.count(r"\endgroup")
    tabular = text.partition(r"\toprule")[2].partition(r"\bottomrule")[0]
    for line in filter(None, tabular.splitlines()):
        if line in RULES:
            continue
        assert line.endswith(r"\\")
        span = re.match(r"\\multicolumn{(\d+)}", line)
        cells = int(span[1]) if span else re.sub(r"\\&", "", line).count("&") + 1
        assert cells == num_columns, line
        assert not line.startswith(("[", "*"))
    assert re.search(rf"\\begin{{(tabular|longtable)}}{{lc{{{num_columns - 1}}}}}", text)
    assert not any(ord(character) > 127 for character in text)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_latex_compiles(two, tmp_path):
    body = table_latex(paper_table("passk", [f"{LABEL}={two[0]}", two[1]], paper="Qwen2.5-Math-7B"))
    packages = r"\usepackage{booktabs,longtable}"
    document = rf"\documentclass{{article}}{packages}\begin{{document}}{body}\end{{document}}"
    (tmp_path / "t.tex").write_text(document)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout.decode()[-2000:]


def test_files_are_written_by_their_ending_or_all_into_a_folder(two, tmp_path):
    table = paper_table("greedy", two)
    names = [path.name for path in write_table(table, tmp_path / "out")]
    assert names == ["greedy.md", "greedy.tex", "greedy.csv", "greedy.json"]
    assert write_table(table, tmp_path / "x" / "t.tex") == [tmp_path / "x" / "t.tex"]
    assert (tmp_path / "x" / "t.tex").read_text() == table_latex(table)
    with pytest.raises(UsageError, match=r"unknown ending \.xlsx"):
        write_table(table, tmp_path / "t.xlsx")


def test_labels_may_hold_an_equals_sign_and_so_may_folders(two, tmp_path):
    named = tmp_path / "p=0.1"
    two[1].rename(named)
    table = paper_table("greedy", [f"GRPO (p = 0)={two[0]}", named])
    assert [row.label for row in table.rows] == ["GRPO (p = 0)", "p=0.1"]
    labelled = paper_table("greedy", [two[0], f"THR (p = 0.1)={named}:final"])
    assert labelled.rows[1].label == "THR (p = 0.1)"


def test_wrong_names_and_labels_are_told(two, tmp_path):
    with pytest.raises(UsageError, match="unknown table 'pask'") as raised:
        paper_table("pask", two)
    assert raised.value.hint.startswith("did you mean passk?")
    with pytest.raises(UsageError, match="no source is called so") as raised:
        paper_table("greedy", two, versus="grppo")
    assert "did you mean grpo?" in raised.value.hint
    with pytest.raises(UsageError, match="2 sources are called a"):
        paper_table("greedy", [f"a={two[0]}", f"a={two[1]}"])
    with pytest.raises(UsageError, match="there is no label"):
        paper_table("greedy", [f"={two[0]}"])
    with pytest.raises(UsageError, match="no run was given"):
        paper_tables([])
    with pytest.raises(UsageError, match="no numbers of 'GPT'"):
        paper_table("greedy", two, paper="GPT")
    with pytest.raises(DataError, match="nowhere"):
        paper_table("greedy", [two[0], tmp_path / "nowhere"])


def test_a_run_of_training_steps_is_not_an_evaluation(make_run, tmp_path):
    groups = [
        {"prompt_id": "q", "step": step, "completions": [{"correct": True}, {"correct": False}]}
        for step in (0, 1)
    ]
    run = make_run(tmp_path / "run", groups)
    with pytest.raises(DataError, match="answers a question at several steps"):
        paper_table("passk", [run])
    write_journal(run, training_records(2))
    with pytest.raises(DataError, match="run is a training run"):
        paper_table("passk", [run])


def test_tables_that_only_some_sources_fill_are_all_there(two):
    journal = write_journal(two[0].parent / "t", training_records(2))
    tables = paper_tables([*two, journal], paper="Qwen2.5-Math-1.5B")
    assert [table.name for table in tables] == list(TABLES)
    assert all(isinstance(table, Table) for table in tables)
    timing = tables[2]
    assert "grpo is no training run: it has no row." in timing.notes
