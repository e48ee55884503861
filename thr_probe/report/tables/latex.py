"""A table in LaTeX: booktabs, the best number bold, the second underlined, intervals below."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from thr_probe.analysis.result import latex_escape
from thr_probe.report.tables.record import DAGGER, DOWN, UP, Cell, Table
from thr_probe.report.tables.text import (
    Line,
    LineKind,
    bounds_text,
    dagger,
    number_text,
    table_lines,
)

_SYMBOLS = {
    UP: r"$\uparrow$",
    DOWN: r"$\downarrow$",
    DAGGER: r"$^{\dagger}$",
    "χ": r"$\chi$",
    # these three are other characters in the old encoding of fonts
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
    " tau": r" $\tau$",
}
_FORMULA = re.compile(r"\b(p) ([=<>]) (-?\d+(?:\.\d+)?)")


MOST_LINES = 50
"""Lines of a table that fit on a page; a longer one is a `longtable`, which breaks over pages."""


def table_latex(table: Table, *, environment: bool = True) -> str:
    r"""The table for a paper that loads booktabs, and longtable where it is long.

    Args:
        table: what to print.
        environment: with caption and label; else the tabular and its note alone.
    """
    body = list(_body(table))
    caption = rf"\caption{{{_text(table.title)}}}\label{{tab:{table.name}}}" if environment else ""
    if len(body) > MOST_LINES:
        lines = ["% needs \\usepackage{booktabs,longtable}", *_longtable(table, body, caption)]
        return "\n".join([*lines, *_note(table), ""])
    lines = [*_tabular(table, body), *_note(table)]
    if environment:
        lines = [r"\begin{table}[tbp]", r"\centering", caption, *lines, r"\end{table}"]
    return "\n".join(["% needs \\usepackage{booktabs}", *lines, ""])


_BEGIN = r"\begingroup\small\setlength{\tabcolsep}{3pt}"


def _tabular(table: Table, body: Sequence[str]) -> Iterator[str]:
    yield _BEGIN
    yield rf"\begin{{tabular}}{{{_columns(table)}}}"
    yield from _head(table)
    yield from body
    yield from (r"\bottomrule", r"\end{tabular}", r"\par\endgroup")


def _longtable(table: Table, body: Sequence[str], caption: str) -> Iterator[str]:
    yield _BEGIN
    yield rf"\begin{{longtable}}{{{_columns(table)}}}"
    if caption:
        yield caption + r" \\"
        yield from _head(table)
        yield r"\endfirsthead"
    yield from _head(table)
    yield r"\endhead"
    yield from body
    yield from (r"\bottomrule", r"\end{longtable}", r"\endgroup")


def _columns(table: Table) -> str:
    return "l" + "c" * len(table.columns)


def _head(table: Table) -> Iterator[str]:
    yield r"\toprule"
    yield " & ".join(_text(title) for title in (table.head, *table.columns.values())) + r" \\"
    yield r"\midrule"


def _body(table: Table) -> Iterator[str]:
    before: LineKind | None = None
    for line in table_lines(table):
        if line.kind is LineKind.ROW:
            yield from _row(line, table.digits)
        else:
            if before is LineKind.ROW:
                yield r"\midrule" if line.kind is LineKind.SECTION else r"\addlinespace"
            span = len(table.columns) + 1
            yield rf"\multicolumn{{{span}}}{{l}}{{\emph{{{_text(line.text)}}}}} \\"
        before = line.kind


def _row(line: Line, digits: int) -> Iterator[str]:
    """The numbers, and on a line of their own the intervals, where a row has any."""
    numbers = (_cell(cell, digits) for cell in line.cells)
    label = _text(line.text)
    if label.startswith(("[", "*")):
        label = "{}" + label  # the line break above would take it as its argument
    yield " & ".join([label, *numbers]) + r" \\"
    bounds = [bounds_text(cell, digits) if cell else "" for cell in line.cells]
    if any(bounds):
        small = (rf"{{\tiny {text}}}" if text else "" for text in bounds)
        yield " & ".join(["", *small]).strip() + r" \\"


def _cell(cell: Cell | None, digits: int) -> str:
    if cell is None:
        return "--"
    text = number_text(cell, digits)
    text = {1: rf"\textbf{{{text}}}", 2: rf"\underline{{{text}}}"}.get(cell.rank or 0, text)
    arrow = {UP: r"$^{\uparrow}$", DOWN: r"$^{\downarrow}$"}.get(cell.mark, "")
    return text + _SYMBOLS.get(dagger(cell), "") + arrow


def _note(table: Table) -> Iterator[str]:
    if table.notes:
        yield r"\par\smallskip"
        yield r"\parbox{\linewidth}{\footnotesize " + _text(" ".join(table.notes)) + "}"


def _text(text: str) -> str:
    r"""Plain text for LaTeX; conditions on p become formulae.

    >>> _text("THR (p = -0.1)")
    'THR ($p = -0.1$)'
    """
    parts = []
    end = 0
    for found in _FORMULA.finditer(text):
        parts += [_plain(text[end : found.start()]), f"${' '.join(found.groups())}$"]
        end = found.end()
    return "".join([*parts, _plain(text[end:])])


def _plain(text: str) -> str:
    escaped = latex_escape(text)
    for symbol, command in _SYMBOLS.items():
        escaped = escaped.replace(symbol, command)
    return escaped
