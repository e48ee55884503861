"""math-verify on one pair of answers. Imported by the worker processes only: it loads sympy."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from typing import Any

from math_verify import parse, verify
from math_verify.parser import LatexExtractionConfig
from sympy import Derivative, Expr, Integral, Rational, Symbol, UnevaluatedExpr
from sympy.core.function import AppliedUndef

from thr_probe.problems.equivalence import same_answer
from thr_probe.problems.numbers import Numeral, read_numeral, within_last_place

EQUAL, DIFFERENT, UNPARSED = "equal", "different", "unparsed"

_BOXED = (LatexExtractionConfig(boxed_match_priority=0),)
# signs in subscripts (the sun's, parallel) that the LaTeX grammar does not know: names instead
_SIGN = r"\\(odot|oplus|otimes|dagger|parallel|perp|infty|max|min)"
_SCRIPT_SIGN = re.compile(rf"_(?:\{{\s*{_SIGN}\s*\}}|\s*{_SIGN}(?![A-Za-z]))")
_NO_VALUE = (Derivative, Integral, UnevaluatedExpr, AppliedUndef)
_MAX_SYMBOLS = 12
_CLEAR_GAP = 1e-5


def judge(gold: str, other: str) -> str:
    """EQUAL, DIFFERENT, or UNPARSED where math-verify could not read a side; it keeps no limit."""
    unparsed: list[str] = []

    def algebra(wanted: str, found: str) -> bool:
        left, right = _parsed(wanted), _parsed(found)
        unparsed.extend(text for text, read in ((wanted, left), (found, right)) if not read)
        return bool(left and right) and _equal(wanted, left, right)

    if same_answer(gold, other, algebra):
        return EQUAL
    return UNPARSED if unparsed else DIFFERENT


@lru_cache(maxsize=2048)
def _parsed(text: str) -> list[Any]:
    text = _SCRIPT_SIGN.sub(lambda sign: f"_{{{sign[1] or sign[2]}}}", text)
    # boxed, and boxed only: our extraction has already chosen what the answer is
    return list(
        parse(
            f"\\boxed{{{text}}}",
            _BOXED,
            fallback_mode="no_fallback",
            extraction_mode="first_match",
            parsing_timeout=None,
        )
    )


def _equal(gold: str, left: list[Any], right: list[Any]) -> bool:
    numeral = read_numeral(gold)
    if numeral is not None and _rounds_to(numeral, right[0]):
        return True
    if clearly_different(left[0], right[0]):
        return False
    # the process itself is limited from outside: signals inside would not stop C code
    return bool(verify(left, right, timeout_seconds=None, allow_set_relation_comp=True))


def clearly_different(left: Any, right: Any) -> bool:
    """Whether two expressions take clearly different values at a point.

    Proving the same by simplification takes math-verify up to seconds. A value that is not there
    (undefined functions, percentages, words read as symbols) settles nothing.
    """
    for side in (left, right):
        if not isinstance(side, Expr) or isinstance(side, Symbol) or side.has(*_NO_VALUE):
            return False
    symbols = sorted(left.free_symbols | right.free_symbols, key=str)
    if len(symbols) > _MAX_SYMBOLS:
        return False
    values = [_value(side, symbols) for side in (left, right)]
    if None in values:
        return False
    first, second = values
    assert first is not None
    assert second is not None
    return abs(first - second) > _CLEAR_GAP * max(abs(first), abs(second))


def _value(expression: Any, symbols: list[Any]) -> complex | None:
    point = {symbol: Rational(17 + 12 * index, 23) for index, symbol in enumerate(symbols)}
    try:
        return complex(expression.evalf(15, subs=point))
    except (TypeError, ValueError, ArithmeticError, AttributeError, NotImplementedError):
        return None


def _rounds_to(gold: Numeral, expression: Any) -> bool:
    """Whether an exact expression is a decimal gold within the last of its four or more digits."""
    if not getattr(expression, "is_number", False) or expression.is_Float:
        return False
    value = expression.evalf(30)
    if not value.is_Float or not value.is_finite:
        return False
    return within_last_place(gold, abs(Fraction(str(value)) - gold.value))
