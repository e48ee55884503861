"""A table in LaTeX: booktabs, the best number bold, the second underlined, intervals below."""

from __future__ import annotations

import re
from collections.abc import Iterator

from thr_probe.analysis.result import latex_escape
from thr_probe.report.table_record import DAGGER, DOWN, UP, Cell, Table
from thr_probe.report.table_text import (
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


def table_latex(table: Table, *, environment: bool = True) -> str:
    r"""The table for a paper that loads booktabs.

    Args:
        table: what to print.
        environment: as `table` with caption and label; else the tabular and its note alone.
    """
    body = [*_tabular(table), *_note(table)]
    if environment:
        body = [
            r"\begin{table}[tbp]",
            r"\centering",
            rf"\caption{{{_text(table.title)}}}",
            rf"\label{{tab:{table.name}}}",
            *body,
            r"\end{table}",
        ]
    return "\n".join(["% needs \\usepackage{booktabs}", *body, ""])


def _tabular(table: Table) -> Iterator[str]:
    yield r"\begingroup\small\setlength{\tabcolsep}{3pt}"
    yield rf"\begin{{tabular}}{{l{'c' * len(table.columns)}}}"
    yield r"\toprule"
    yield _line([table.head, *table.columns.values()])
    yield r"\midrule"
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
    yield r"\bottomrule"
    yield r"\end{tabular}"
    yield r"\par\endgroup"


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


def _line(cells: list[str]) -> str:
    return " & ".join(_text(cell) for cell in cells) + r" \\"


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
