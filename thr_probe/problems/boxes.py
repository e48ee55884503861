r"""Balanced \boxed{...} groups, found in one pass: linear in the text, whatever the braces do."""

from __future__ import annotations

import re
from dataclasses import dataclass

# \{ and \} are printed braces, not groups; a doubled backslash is a line break (or escaped text)
_TOKEN = re.compile(
    r"(?P<box>(?<![A-Za-z])boxed\s*\{)|\\(?!boxed)[\s\S]|(?P<open>\{)|(?P<close>\})"
)
_DRESSING = re.compile(
    r"\\\(|\\\)|\\\[|\\\]|\\(?:q?quad|text|mathrm|mbox|,|;|:|!|\s)|[$\s{}.*]|\\$"
)
_CONNECTOR = re.compile(r"[,;]?(?:[a-z]{0,20}(?:and|or))?[,;]?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """One balanced group."""

    start: int
    """Where `boxed{` begins."""
    end: int
    """Just behind the closing brace."""
    content: str
    """What stands between the braces."""


def balanced_boxes(text: str) -> list[Box]:
    r"""Every balanced \boxed{...} that is not blank, by where it starts.

    >>> [box.content for box in balanced_boxes(r"\boxed{1}, \boxed{\frac{1}{2}}, \boxed{3")]
    ['1', '\\frac{1}{2}']
    """
    if "boxed" not in text:
        return []
    boxes = []
    opened: list[tuple[int, int] | None] = []  # (start, content start) of a box, None for a group
    for token in _TOKEN.finditer(text):
        if token["box"]:
            opened.append((token.start(), token.end()))
        elif token["open"]:
            opened.append(None)
        elif token["close"] and opened:
            place = opened.pop()
            if place is not None:
                boxes.append((*place, token.start()))
    boxes.sort()
    return [
        Box(start=start, end=stop + 1, content=text[inner:stop])
        for start, inner, stop in boxes
        if not text[inner:stop].isspace() and inner < stop
    ]


def last_boxed(text: str) -> str | None:
    r"""Content of the last balanced, non-blank \boxed{...}; None without one."""
    boxes = balanced_boxes(text)
    return boxes[-1].content if boxes else None


def joined_boxes(text: str) -> list[str]:
    r"""Contents of the last run of boxes that only commas, `and`, `or` stand between.

    An answer of several parts is often written in several boxes; a box after more text than that
    starts anew.

    >>> joined_boxes(r"\boxed{0} so \boxed{1} and \boxed{2}")
    ['1', '2']
    """
    boxes = balanced_boxes(text)
    run: list[Box] = boxes[-1:]
    for box in reversed(boxes[:-1]):
        if box.end > run[0].start or not _connects(text[box.end : run[0].start]):
            break
        run.insert(0, box)
    return [box.content for box in run]


def _connects(gap: str) -> bool:
    if len(gap) > 60:
        return False
    return _CONNECTOR.fullmatch(_DRESSING.sub("", gap)) is not None
