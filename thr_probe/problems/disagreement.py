"""In what the answers differ over which two graders disagree."""

from __future__ import annotations

import re

from thr_probe.problems.numbers import read_numeral


def disagreement_kind(gold: str, first: str, second: str) -> str:
    r"""The trait of a gold and of the answers that two graders extracted; the first that fits.

    >>> disagreement_kind("50", r"50\%", r"50\%"), disagreement_kind("7", "7", "8")
    ('units or percent', 'another answer extracted')
    >>> disagreement_kind("1,2", "2,1", "2,1"), disagreement_kind("8e2", "800", "800")
    ('sets, order or relations', 'numeric form')
    """
    if not _similar(first, second):
        return "another answer extracted"
    return _form(gold, first, second)


def _form(*texts: str) -> str:
    """The trait of a gold and answers over which graders differ."""
    joined = " ".join(texts)
    if _UNITS.search(joined):
        return "units or percent"
    if re.search(r"[,;]|\\cup|\\pm|\\in(?![a-z])|[<>=]|\\[lg]eq?(?![a-z])", joined):
        return "sets, order or relations"
    if all(read_numeral(text) is not None for text in texts):
        return "numeric form"
    return "LaTeX form" if "\\" in joined else "other form"


_UNITS = re.compile(
    r"%|\\circ(?![a-z])|°|\\\$|\\(?:text|mathrm|mbox)\s*\{\s*(?!and\b|or\b|[A-Za-z]\s*\})"
)
_DECORATION = re.compile(
    r"\\(?:text|mathrm|mbox|boxed|left|right|displaystyle)(?![a-z])|\\circ|\\[,;!: ]|[\s{}$%°\\]"
    r"|^[A-Za-z]\s*="
)


def _similar(first: str, second: str) -> bool:
    """Whether two extractions are the same text but for decoration, or one holds the other."""
    one, other = (
        _DECORATION.sub("", re.sub(r"\\[dt]frac", r"\\frac", text)).rstrip(".").lower()
        for text in (first, second)
    )
    numbers = [read_numeral(text.strip("$ .")) for text in (first, second)]
    if numbers[0] is not None and numbers[1] is not None:
        return bool(numbers[0].value == numbers[1].value)
    return bool(one) and bool(other) and (one in other or other in one)
