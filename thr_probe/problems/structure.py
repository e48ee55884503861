"""Answers of several parts: lists, sets, tuples, intervals, matrices, assignments, signs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from thr_probe.problems.normalise import closes_at_end, strip_outer


class Shape(StrEnum):
    """How the parts of an answer hang together."""

    LIST = "list"
    """1, 2 and 3: in any order."""
    SET = "set"
    """{1, 2, 3}: in any order."""
    TUPLE = "tuple"
    """(1, 2, 3): in this order."""
    BRACKET = "bracket"
    """[1, 2], [1, 2), (1, 2]: in this order, and with these brackets."""
    MATRIX = "matrix"
    """Rows and columns: in this order."""
    UNION = "union"
    """A or B as sets: in any order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """An answer taken apart."""

    shape: Shape
    """How the parts hang together."""
    items: tuple[str, ...]
    """The parts."""
    frame: str = ""
    """Brackets of an interval, rows and columns of a matrix: equal answers have equal frames."""


_STRONG = re.compile(r";|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])")
_MATRIX = re.compile(r"\\begin\{([pbBvV]?matrix|array)\}(?:\{[lcr|]*\})?(.*)\\end\{\1\}")
_NAME = r"(?:\\?[A-Za-z]+(?:_\{?\w+\}?)?'*)"
_LEFT_SIDE = re.compile(
    rf"(?:{_NAME}|{_NAME}\s*\([\w\s,\\]*\)|\([\w\s,\\_{{}}]*\)|\|[^|]*\||[A-Za-z][A-Za-z ]*"
    rf"|\\angle\s*[A-Z]+|{_NAME}\s*:\s*{_NAME})\s*"
)


def take_apart(text: str) -> Parts | None:
    r"""The parts of a normalised answer; None for one that is of one piece.

    >>> take_apart("1, 2 and 3").items, take_apart(r"[0, \infty)").frame, take_apart("x+1")
    (('1', '2', '3'), '[)', None)
    """
    matrix = _MATRIX.fullmatch(text)
    if matrix:
        return _matrix(matrix[1], matrix[2])
    union = split_top(text, re.compile(r"\\cup(?![A-Za-z])"))
    if len(union) > 1:
        return Parts(shape=Shape.UNION, items=tuple(union))
    if text.startswith("\\{") and text.endswith("\\}") and closes_at_end(text[1:]):
        inner = split_list(text[2:-2])
        return Parts(shape=Shape.SET, items=tuple(inner))
    if text[:1] in ("(", "[") and closes_at_end(text):
        return _bracketed(text)
    items = split_list(text)
    return Parts(shape=Shape.LIST, items=tuple(items)) if len(items) > 1 else None


def split_list(text: str) -> list[str]:
    """The items of an enumeration: commas, semicolons and the words and, or separate them.

    Where every part between semicolons or `and` holds several assignments, as in "a=1, b=2 and
    a=3, b=4", each part is one item.
    """
    strong = split_top(text, _STRONG)
    weak = [split_top(part, re.compile(",")) for part in strong]
    if len(strong) > 1 and _are_systems(weak):
        return [f"({', '.join(items)})" for items in weak]
    return [strip_outer(item) for items in weak for item in items]


def _are_systems(parts: list[list[str]]) -> bool:
    width = len(parts[0])
    return width > 1 and all(
        len(items) == width and all("=" in item for item in items) for items in parts
    )


def split_top(text: str, separator: re.Pattern[str]) -> list[str]:
    """The pieces between separators that stand outside all brackets; blank pieces are left out."""
    pieces = []
    depth = start = position = 0
    while position < len(text):
        match = separator.match(text, position) if depth == 0 else None
        if match and match.end() > position:
            pieces.append(text[start : match.start()])
            position = start = match.end()
            continue
        char = text[position]
        if char in "([{":
            depth += 1
        elif char in ")]}":
            depth = max(depth - 1, 0)
        position += 1
    pieces.append(text[start:])
    return [piece.strip() for piece in pieces if piece.strip()]


def split_assignment(text: str) -> tuple[str, str] | None:
    """("x", "3") of "x = 3", the last right side of a chain; None where no plain name stands left.

    >>> split_assignment("f(x)=x+1"), split_assignment("x^2+y^2=1")
    (('f(x)', 'x+1'), None)
    """
    sides = split_top(text, re.compile(r"(?<![<>!])=|\\in(?![A-Za-z])"))
    if len(sides) < 2 or not _LEFT_SIDE.fullmatch(sides[0]):
        return None
    if len(sides) > 2 and len(split_list(text)) > 1:
        return None  # several assignments, not one chain
    return sides[0].replace(" ", ""), strip_outer(sides[-1])


def expand_signs(text: str) -> list[str]:
    r"""Both values of an answer with one plus-or-minus sign.

    >>> expand_signs(r"3 \pm \sqrt{2}"), expand_signs(r"\pm 5")
    (['3 + \\sqrt{2}', '3 - \\sqrt{2}'], ['5', '-5'])
    """
    if text.count("\\pm") != 1:
        return [text]
    before, _, after = text.partition("\\pm")
    after = after.strip()
    if not before.strip() or before.rstrip().endswith(("=", "(", "{")):
        return [f"{before}{after}", f"{before}-{after}"]
    return [f"{before}+ {after}", f"{before}- {after}"]


def _bracketed(text: str) -> Parts | None:
    items = split_list(text[1:-1])
    if text[0] == "(" and text[-1] == ")":
        return Parts(shape=Shape.TUPLE, items=tuple(items)) if len(items) > 1 else None
    if len(items) < 2:
        return None
    return Parts(shape=Shape.BRACKET, items=tuple(items), frame=text[0] + text[-1])


def _matrix(kind: str, body: str) -> Parts | None:
    rows = [
        [cell.strip() for cell in row.split("&")]
        for row in re.split(r"\\\\(?:\[[^\]]*\])?", body)
        if row.strip()
    ]
    if "\\begin" in body or not rows:
        return None
    bars = kind if kind in ("vmatrix", "Vmatrix") else ""  # a determinant is a number, not a matrix
    cells = tuple(strip_outer(cell) for row in rows for cell in row)
    frame = f"{bars}{'/'.join(str(len(row)) for row in rows)}"
    return Parts(shape=Shape.MATRIX, items=cells, frame=frame)
