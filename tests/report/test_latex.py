"""The files for LaTeX: balanced, escaped, complete, with the numbers of the analyses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from thr_probe.report.latex import (
    MOST_ROWS,
    figure_environment,
    latex_text,
    summary_tabular,
)


def _balanced(text: str) -> None:
    """Environments nest, and so do braces, outside of comments."""
    text = re.sub(r"(?<!\\)%.*", "", text)
    open_ones = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        if kind == "begin":
            open_ones.append(name)
        else:
            assert open_ones.pop() == name
    assert open_ones == []
    depth = 0
    for brace in re.findall(r"(?<!\\)(?:\\\\)*([{}])", text):
        depth += 1 if brace == "{" else -1
        assert depth >= 0
    assert depth == 0
    assert len(re.findall(r"(?<!\\)\$", text)) % 2 == 0


@pytest.fixture(scope="module")
def latex(lab_report: Path) -> Path:
    return lab_report / "latex"


def test_every_file_is_balanced(latex):
    paths = sorted(latex.rglob("*.tex"))
    assert len(paths) > 10
    for path in paths:
        _balanced(path.read_text())


def test_the_document_inputs_what_is_there_and_all_of_it(latex):
    document = (latex / "report.tex").read_text()
    inputs = re.findall(r"^\\input\{([^}]*)\}", document, flags=re.MULTILINE)
    assert len(set(inputs)) == len(inputs)
    written = {str(path.relative_to(latex))[:-4] for path in latex.rglob("*.tex")} - {"report"}
    assert set(inputs) == written
    assert document.index(r"\begin{document}") < document.index("\n\\input")
    for name in ("graphicx", "booktabs", "longtable"):
        assert rf"\usepackage{{{name}}}" in document


def test_every_figure_is_there_with_a_label_of_its_own(latex):
    labels, figures = [], set()
    for path in latex.glob("*.tex"):
        if path.stem != "report":
            text = path.read_text()
            labels += re.findall(r"\\label\{([^}]*)\}", text)
            figures |= set(re.findall(r"\\includegraphics\{([^}]*)\}", text))
    assert labels
    assert len(set(labels)) == len(labels)
    assert figures == {f"figures/{path.name}" for path in (latex / "figures").glob("*.pdf")}
    for name in figures:
        assert (latex / name).read_bytes().startswith(b"%PDF")


def test_the_caption_is_that_of_the_analysis(lab_report):
    environment = (lab_report / "latex" / "density.tex").read_text()
    caption = (lab_report / "files" / "density.tex").read_text().splitlines()[0]
    assert caption in environment


def test_a_table_has_the_numbers_of_the_json(lab_report):
    rows = json.loads((lab_report / "files" / "overlap.json").read_text())["summary"]
    table = (lab_report / "latex" / "tables" / "overlap.tex").read_text()
    lines = [line for line in table.splitlines() if line.endswith(r"\\")][1:]
    assert len(lines) == len(rows)
    for line, row in zip(lines, rows, strict=True):
        cells = [cell.strip() for cell in line.removesuffix(r"\\").split(" & ")]
        assert cells[0] == row["quantity"].replace("_", " ")
        assert float(cells[2]) == pytest.approx(row["value"], rel=1e-3)
        low, high = cells[3].strip("[]").split(", ")
        assert float(low) == pytest.approx(row["low"], rel=1e-3)
        assert float(high) == pytest.approx(row["high"], rel=1e-3)
        assert cells[4] == str(row["num_questions"])


def _row(**given: object) -> dict[str, object]:
    row = {"quantity": "a_b", "split": "all", "value": 0.5, "low": None, "high": None}
    return row | {"num_questions": 1} | given


def test_what_is_not_defined_is_a_dash_and_text_is_escaped():
    table = summary_tabular([_row(split="50% & more", value=None)])
    assert r"a b & 50\% \& more & -- & -- & 1 \\" in table
    assert r"$-$0.25" in summary_tabular([_row(value=-0.25)])
    assert r"$1.5\times 10^{-7}$" in summary_tabular([_row(value=1.5e-7)])


def test_splits_are_set_apart_and_long_tables_break_over_pages():
    rows = [_row(), _row(split="correct"), _row(split="correct")]
    assert summary_tabular(rows).count(r"\addlinespace") == 1
    assert r"\begin{tabular}" in summary_tabular([_row()] * MOST_ROWS)
    long = summary_tabular([_row()] * (MOST_ROWS + 1))
    assert r"\begin{longtable}" in long
    assert r"\endhead" in long
    _balanced(long)


def test_signs_and_tau_are_formulae():
    assert latex_text("all, tau <= 0 & |THR|") == r"all, $\tau$ $\le$ 0 \& $|$THR$|$"
    assert latex_text("tautology") == "tautology"


def test_a_figure_is_included_at_its_printed_size():
    text = figure_environment("density", "A caption.")
    assert r"\includegraphics{figures/density.pdf}" in text
    assert text.index(r"\caption") < text.index(r"\label{fig:density}")
