r"""What `thr-probe report --latex` writes: figures, tables, captions to `\input` into a paper."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from thr_probe.analysis.result import latex_escape
from thr_probe.errors import DataError
from thr_probe.report.written import Written
from thr_probe.traces.atomic import make_folder, write_atomically

MOST_ROWS = 45
"""Rows of a table that fit on a page; a longer one is a `longtable`."""

_HEAD = ("Quantity", "Split", "Value", r"95\,\% interval", "Questions")
_COLUMNS = "llrrr"


@dataclass(frozen=True, slots=True, kw_only=True)
class LatexItem:
    """An analysis to be written for LaTeX."""

    stem: str
    """Of its files and labels."""
    title: str
    """Of its section in report.tex; plain text."""
    written: Written
    """Its files."""


def write_latex(
    folder: Path, items: Sequence[LatexItem], *, tables: Mapping[str, str] | None = None
) -> tuple[Path, ...]:
    r"""Writes `figures/STEM.pdf`, `STEM.tex` (a figure environment), `tables/STEM.tex`, report.tex.

    The figures have their printed size, so they are included without a width. Tables are booktabs.

    Args:
        folder: made where it is missing; files of the same names are replaced.
        items: the analyses.
        tables: further tables, by the stem of their file.

    Returns:
        The files, `report.tex` first.

    Raises:
        DataError: a file that cannot be written.
    """
    files: dict[str, bytes] = {}
    for item in items:
        files |= _files_of(item)
    for stem, text in (tables or {}).items():
        files[f"tables/{stem}.tex"] = text.encode("utf-8")
    files = {"report.tex": _document(items, list(tables or {}), files).encode("utf-8")} | files
    for below in ("figures", "tables"):
        make_folder(folder / below)
    return tuple(_write(folder / name, content) for name, content in files.items())


def figure_environment(stem: str, caption: str) -> str:
    """A figure with its caption; its file is `figures/STEM.pdf`."""
    return "\n".join(
        (
            r"\begin{figure}[tbp]",
            r"  \centering",
            rf"  \includegraphics{{figures/{stem}.pdf}}",
            rf"  \caption{{{caption}}}",
            rf"  \label{{fig:{stem}}}",
            r"\end{figure}",
            "",
        )
    )


def summary_tabular(rows: Sequence[Mapping[str, Any]]) -> str:
    """The summary of an analysis as a booktabs table, the splits apart.

    Args:
        rows: as its JSON has them; None where a number is not defined.
    """
    name = "tabular" if len(rows) <= MOST_ROWS else "longtable"
    lines = [
        rf"\begin{{{name}}}{{{_COLUMNS}}}",
        r"\toprule",
        " & ".join(_HEAD) + r" \\",
        r"\midrule",
    ]
    if name == "longtable":
        lines.append(r"\endhead")
    lines += _body(rows)
    return "\n".join([*lines, r"\bottomrule", rf"\end{{{name}}}", ""])


def _files_of(item: LatexItem) -> Iterator[tuple[str, bytes]]:
    written = item.written
    if not written.empty_reason:
        pdf = (written.folder / f"{written.name}.pdf").read_bytes()
        yield f"figures/{item.stem}.pdf", pdf
        yield f"{item.stem}.tex", figure_environment(item.stem, written.caption).encode("utf-8")
    if written.summary:
        yield f"tables/{item.stem}.tex", summary_tabular(written.summary).encode("utf-8")


def _body(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    split = rows[0]["split"] if rows else ""
    for row in rows:
        if row["split"] != split:
            split = row["split"]
            yield r"\addlinespace"
        cells = (
            latex_escape(str(row["quantity"]).replace("_", " ")),
            latex_text(str(row["split"])),
            _number(row["value"]),
            _bounds(row["low"], row["high"]),
            _number(row["num_questions"]),
        )
        yield " & ".join(cells) + r" \\"


def latex_text(text: str) -> str:
    r"""Plain text for LaTeX, with `tau`, signs of order and bars as formulae.

    >>> latex_text("all, tau > 0")
    'all, $\\tau$ $>$ 0'
    """
    escaped = latex_escape(text)
    escaped = re.sub(r"<=|>=|[<>|]", lambda match: f"${_SIGNS[match[0]]}$", escaped)
    return re.sub(r"\btau\b", r"$\\tau$", escaped)


_SIGNS = {"<=": r"\le", ">=": r"\ge", "<": "<", ">": ">", "|": "|"}


def _number(value: int | float | None) -> str:
    if value is None:
        return "--"
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}".replace("-", "$-$")
    text = f"{value:.4g}"
    mantissa, _, exponent = text.partition("e")
    if exponent:
        return rf"${mantissa}\times 10^{{{int(exponent)}}}$"
    return text.replace("-", "$-$")


def _bounds(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return "--"
    return f"[{_number(low)}, {_number(high)}]"


def _document(items: Sequence[LatexItem], tables: Sequence[str], files: Mapping[str, bytes]) -> str:
    lines = [
        r"% Compile with pdflatex in this folder. In a paper: \input{STEM} for a figure with its",
        r"% caption, \input{tables/STEM} for a table; they need graphicx, booktabs and longtable.",
        r"\documentclass{article}",
        r"\usepackage[T1]{fontenc}",
        r"\usepackage[utf8]{inputenc}",
        r"\usepackage[margin=0.75in]{geometry}",
        r"\usepackage{amsmath}",
        r"\usepackage{booktabs}",
        r"\usepackage{graphicx}",
        r"\usepackage{longtable}",
        r"\begin{document}",
    ]
    for item in items:
        lines.append(rf"\section*{{{latex_text(item.title)}}}")
        if item.written.empty_reason:
            lines += ["", item.written.caption]
        if f"{item.stem}.tex" in files:
            lines.append(rf"\input{{{item.stem}}}")
        lines += _input_table(item.stem, files)
        lines.append(r"\clearpage")
    for stem in tables:
        lines += [*_input_table(stem, files), r"\clearpage"]
    return "\n".join([*lines, r"\end{document}", ""])


def _input_table(stem: str, files: Mapping[str, bytes]) -> list[str]:
    if f"tables/{stem}.tex" not in files:
        return []
    return [r"\begingroup\footnotesize\noindent", rf"\input{{tables/{stem}}}", r"\par\endgroup"]


def _write(path: Path, content: bytes) -> Path:
    def write(file: BinaryIO) -> None:
        file.write(content)

    try:
        write_atomically(path, write)
    except DataError as error:
        raise DataError(error.message, "choose another folder with --latex") from error
    return path
