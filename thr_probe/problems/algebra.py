"""math-verify on one pair of answers. Imported by the worker processes only: it loads sympy."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

from math_verify import parse, verify
from math_verify.parser import LatexExtractionConfig

from thr_probe.problems.equivalence import same_answer
from thr_probe.problems.numbers import Numeral, read_numeral, within_last_place

EQUAL, DIFFERENT, UNPARSED = "equal", "different", "unparsed"

# signs in subscripts (the sun's, parallel ...) that the LaTeX grammar does not know: names instead
_SCRIPT_SIGN = re.compile(
    r"([A-Za-z}])_\{?\s*\\(odot|oplus|otimes|star|ast|dagger|parallel|perp|infty|circ|ell|hbar|prime)"
    r"\s*\}?(?![A-Za-z])"
)
_BOXED = (LatexExtractionConfig(boxed_match_priority=0),)


def judge(gold: str, other: str) -> str:
    """EQUAL, DIFFERENT, or UNPARSED where math-verify could not read a side; without any time limit."""
    unparsed: list[str] = []

    def algebra(wanted: str, found: str) -> bool:
        left, right = _parsed(wanted), _parsed(found)
        unparsed.extend(text for text, read in ((wanted, left), (found, right)) if not read)
        if not left or not right:
            return False
        # the process itself is limited from outside: signals inside would not stop C code
        if verify(left, right, timeout_seconds=None, allow_set_relation_comp=True):
            return True
        numeral = read_numeral(wanted)
        return numeral is not None and _rounds_to(numeral, right[0])

    if same_answer(gold, other, algebra):
        return EQUAL
    return UNPARSED if unparsed else DIFFERENT


def _parsed(text: str) -> list[Any]:
    text = _SCRIPT_SIGN.sub(r"\1_{\2}", text)
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


def _rounds_to(gold: Numeral, expression: Any) -> bool:
    """Whether an exact expression is a decimal gold within the last of its four or more digits."""
    if not getattr(expression, "is_number", False) or expression.is_Float:
        return False
    value = expression.evalf(30)
    if not value.is_Float or not value.is_finite:
        return False
    return within_last_place(gold, abs(Fraction(str(value)) - gold.value))
