"""Whether two answers are the same: exactly where that is quick, by algebra where it is not."""

from __future__ import annotations

import re
from collections.abc import Callable

from thr_probe.problems.normalise import MAX_ANSWER, comparison_key, normalise
from thr_probe.problems.numbers import numerals_equal, read_numeral
from thr_probe.problems.structure import (
    Parts,
    Shape,
    expand_signs,
    split_assignment,
    take_apart,
)

Algebra = Callable[[str, str], bool]
"""Compares two answers of one piece, gold first."""

MAX_DEPTH = 8
MAX_UNORDERED = 64
"""Longer lists are compared in the order in which they are written."""

_WORDS = re.compile(r"[A-Za-z][A-Za-z ,'-]+")
_DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+")


class UndecidedError(Exception):
    """Algebra is needed, and none is at hand."""


def needs_algebra(gold: str, other: str) -> bool:
    """Stands in for the algebra where none is at hand: raises UndecidedError."""
    raise UndecidedError(gold, other)


def same_answer(gold: str, other: str, algebra: Algebra = needs_algebra) -> bool:
    r"""Whether an answer says what the gold says.

    >>> same_answer("12000", r"\$12{,}000"), same_answer("(1,2)", "(2,1)")
    (True, False)
    >>> same_answer("[1,2)", "(1,2]"), same_answer("2, 1", r"\{1, 2\}"), same_answer("", "")
    (False, True, False)
    """
    if not gold.strip() or not other.strip():
        return False
    if len(gold) > MAX_ANSWER or len(other) > MAX_ANSWER:
        return gold.strip() == other.strip()
    gold, other = normalise(gold), normalise(other)
    if not gold or not other:
        return False
    return _same(gold, other, algebra, 0)


def _same(gold: str, other: str, algebra: Algebra, depth: int) -> bool:
    if comparison_key(gold) == comparison_key(other) or _same_words(gold, other):
        return True
    if len(gold) == len(other) == 1 and not gold.isdigit():
        return False  # x is not X, whatever the parser makes of capitals
    if depth >= MAX_DEPTH:
        return algebra(gold, other)
    as_numbers = _same_numbers(gold, other)
    if as_numbers is not None:
        return as_numbers
    unwrapped = _unwrap(gold, other)
    if unwrapped is not None:
        return _same(*unwrapped, algebra, depth + 1)
    return _same_parts(gold, other, algebra, depth)


def _same_words(gold: str, other: str) -> bool:
    """Answers in words, whatever their capitals; a single letter keeps its case."""
    if not (_WORDS.fullmatch(gold) and _WORDS.fullmatch(other)):
        return False
    return comparison_key(gold).casefold() == comparison_key(other).casefold()


def _same_numbers(gold: str, other: str) -> bool | None:
    """The verdict where both are plain numbers; None where they are not, or a comma may list."""
    wanted, found = read_numeral(gold), read_numeral(other)
    if wanted is not None and found is not None:
        if numerals_equal(wanted, found):
            return True
        if "," not in gold and "," not in other:
            return False
    return _same_with_decimal_comma(gold, other) or None


def _same_with_decimal_comma(gold: str, other: str) -> bool:
    """1,22 is 1.22 where the other side shows a decimal point."""
    for comma, point in ((gold, other), (other, gold)):
        if _DECIMAL_COMMA.fullmatch(comma) and "." in point and "," not in point:
            left, right = read_numeral(comma.replace(",", ".")), read_numeral(point)
            if left is not None and right is not None and numerals_equal(left, right):
                return True
    return False


def _unwrap(gold: str, other: str) -> tuple[str, str] | None:
    """Both sides without a left side "x =" that only one of them has, or that both have alike."""
    left, right = split_assignment(gold), split_assignment(other)
    if left is None and right is None:
        return None
    if left is not None and right is not None:
        same_name = comparison_key(left[0]) == comparison_key(right[0])
        return (left[1], right[1]) if same_name else None
    if left is not None:
        return None if _has_relation(other) else (left[1], other)
    assert right is not None
    return None if _has_relation(gold) else (gold, right[1])


def _has_relation(text: str) -> bool:
    return re.search(r"[=<>]|\\(?:le|ge|ne|in)(?![A-Za-z])", text) is not None


def _same_parts(gold: str, other: str, algebra: Algebra, depth: int) -> bool:
    wanted, found = _parts(gold), _parts(other)
    if wanted is None or found is None:
        return _same_one_piece(gold, other, (wanted, found), algebra, depth)
    ordered = _order_counts(wanted, found)
    if ordered is None:
        return _mixed_shapes(gold, other, wanted, found, algebra)
    if not ordered:
        wanted, found = _distinct(wanted), _distinct(found)
    equal = _compare_items(wanted, found, algebra, depth, ordered=ordered)
    if equal or wanted.shape is not Shape.UNION:
        return equal
    return algebra(gold, other)  # the same set may be another union


def _parts(text: str) -> Parts | None:
    """The parts of an answer, every plus-or-minus sign written out."""
    parts = take_apart(text)
    if parts is None:
        both = expand_signs(text)
        return Parts(shape=Shape.LIST, items=tuple(both)) if len(both) > 1 else None
    if parts.shape not in (Shape.LIST, Shape.SET) or "\\pm" not in text:
        return parts
    items = tuple(value for item in parts.items for value in expand_signs(item))
    return Parts(shape=parts.shape, items=items)


def _same_one_piece(
    gold: str, other: str, parts: tuple[Parts | None, Parts | None], algebra: Algebra, depth: int
) -> bool:
    """One side or both are of one piece: an enumeration of several values is never a single one."""
    wanted, found = (_only_value(part) for part in parts)
    if wanted is not None or found is not None:
        pair = (gold if wanted is None else wanted, other if found is None else found)
        return _same(*pair, algebra, depth + 1)
    listed = any(part is not None and part.shape in (Shape.LIST, Shape.SET) for part in parts)
    if listed and not _has_relation(gold + other):
        return False
    return algebra(gold, other)


def _only_value(parts: Parts | None) -> str | None:
    if parts is None or parts.shape not in (Shape.LIST, Shape.SET):
        return None
    values = _distinct(parts).items
    return values[0] if len(values) == 1 else None


def _order_counts(wanted: Parts, found: Parts) -> bool | None:
    """Whether parts are compared in order; None where the two shapes are not of a kind."""
    shapes = {wanted.shape, found.shape}
    if shapes <= {Shape.LIST, Shape.SET} or shapes == {Shape.UNION}:
        return _names_differ(wanted, found)
    if len(shapes) == 1 or shapes == {Shape.LIST, Shape.TUPLE}:
        return True
    return None


def _names_differ(wanted: Parts, found: Parts) -> bool:
    """x=4, y=5 against 4, 5: names that one side leaves out fix the order."""
    named = [[split_assignment(item) for item in parts.items] for parts in (wanted, found)]
    for pairs, others in (named, named[::-1]):
        if all(pairs) and not any(others):
            letters = {re.sub(r"_.*|\d", "", pair[0]) for pair in pairs if pair is not None}
            return len(letters) == len(pairs)
    return False


def _mixed_shapes(gold: str, other: str, wanted: Parts, found: Parts, algebra: Algebra) -> bool:
    """Shapes that are not of a kind: only sets of numbers written as intervals may still agree."""
    intervals = {Shape.BRACKET, Shape.TUPLE, Shape.UNION}
    if {wanted.shape, found.shape} <= intervals and Shape.UNION in (wanted.shape, found.shape):
        return algebra(gold, other)
    return False


def _distinct(parts: Parts) -> Parts:
    items = {comparison_key(item): item for item in parts.items}
    return Parts(shape=parts.shape, items=tuple(items.values()), frame=parts.frame)


def _compare_items(
    wanted: Parts, found: Parts, algebra: Algebra, depth: int, *, ordered: bool
) -> bool:
    if len(wanted.items) != len(found.items) or wanted.frame != found.frame:
        return False
    if ordered or len(wanted.items) > MAX_UNORDERED:
        return all(
            _same(gold, other, algebra, depth + 1)
            for gold, other in zip(wanted.items, found.items, strict=True)
        )
    left = list(found.items)
    for gold in wanted.items:
        match = next((item for item in left if _same(gold, item, algebra, depth + 1)), None)
        if match is None:
            return False
        left.remove(match)
    return True
