"""A second grader: math-verify alone, on the completion as it stands.

It shares nothing with our verifier but the process limits: math-verify finds the answer in the
whole text by its own rules, reads it by its own grammar, and compares it by its own rules.
Imported by the worker processes only: it loads sympy.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from math_verify import parse, verify

EQUAL, DIFFERENT = "equal", "different"
NO_ANSWER, GOLD_UNREAD = "no-answer", "gold-unread"


def judge(gold: str, completion: str) -> str:
    """A JSON list: the verdict, and the answer that was found (empty without one).

    It keeps no time limit: the pool does.
    """
    wanted, found = _gold(gold), parse(completion, parsing_timeout=None)
    extracted = _text(found)
    if not wanted:
        return json.dumps([GOLD_UNREAD, extracted])
    if not found:
        return json.dumps([NO_ANSWER, ""])
    equal = verify(wanted, found, timeout_seconds=None)
    return json.dumps([EQUAL if equal else DIFFERENT, extracted])


@lru_cache(maxsize=512)
def _gold(gold: str) -> list[Any]:
    """A gold is boxed as math-verify wants it, unless it is a solution with its own marks."""
    is_marked = any(mark in gold for mark in ("\\boxed", "$", "####"))
    return list(parse(gold if is_marked else f"\\boxed{{{gold}}}", parsing_timeout=None))


def _text(found: list[Any]) -> str:
    """What was read: math-verify lists it behind the expressions."""
    texts = [each for each in found if isinstance(each, str)]
    return texts[-1] if texts else ""
