"""Answers inside sentences: formulas, the phrase behind a cue, texts that are only an answer."""

from __future__ import annotations

import re

MAX_BARE = 400
"""A text longer than this is a solution, not a bare answer."""
MAX_PHRASE = 400

_SEGMENT = re.compile(
    r"\$\$(.+?)\$\$|(?<![\\\d])\$([^$]+?)(?<!\\)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL
)
_MONEY = re.compile(r"\s*[\d.,]+\s+[A-Za-z]{2,}")  # $5 and $6: two prices, no formula
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3,}")
_SHORT_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_COMMAND_TEXT = re.compile(
    r"\\(?:text|mathrm|mbox|textbf|textnormal|operatorname|begin|end)\s*\{[^{}]*\}"
)
_MATH_WORDS = frozenset(
    {"sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh"}
    | {"log", "exp", "sqrt", "max", "min", "gcd", "lcm", "mod", "det", "and", "pct", "per"}
    | {"percent", "in", "or", "pi", "ln"}
)
_SENTENCE_END = re.compile(r"[.!?。](?=\s|$)|\n|</")
_BETWEEN = re.compile(r"\s*(?:,|;|,?\s*(?:and|or))\s*", re.IGNORECASE)
_LEAD = " \t\r\n:：=*_`'\"\u201c\u201d"
_TRAIL = " \t\r\n*_`'\"\u201c\u201d"
_FIRST_NUMBER = re.compile(r"(?<![\w.])[-+]?\\?\$?\d[\d,]*(?:\.\d+)?(?:/\d+)?\s?\\?%?")


def math_segments(text: str) -> list[tuple[int, str]]:
    r"""(end, content) of the formulas in $..$, $$..$$, \(..\), \[..\] that say more than a name."""
    return [
        (match.end(), content)
        for match in _SEGMENT.finditer(text)
        if _is_telling(content := _content(match))
    ]


def phrase_answer(tail: str) -> str | None:
    r"""The answer at the start of what follows "the answer is": a formula, a number, a phrase.

    >>> phrase_answer(": $12$ and $13$. Done."), phrase_answer(" 18 dollars. Next")
    ('12, 13', '18 dollars')
    """
    tail = tail.lstrip(_LEAD)[:MAX_PHRASE]
    formula = _leading_formulas(tail)
    if formula:
        return formula
    end = _SENTENCE_END.search(tail)
    phrase = (tail[: end.start()] if end else tail).strip(_TRAIL)
    phrase = re.sub(r"^.{0,60}?\bis\s+", "", phrase)  # "the answer is: x is 5"
    number = _FIRST_NUMBER.search(phrase)
    words = len(_prose_words(phrase))
    if number and (words > 3 or (words and number.start() > 0)):
        return number[0].strip()
    return phrase or None


def is_bare_answer(text: str) -> bool:
    """Whether a text is nothing but an answer: one short line, no sentence.

    >>> [is_bare_answer(text) for text in ("x^2+1", "125 miles", "It is 2/3", "No solution")]
    [True, True, False, True]
    """
    if not text or len(text) > MAX_BARE or ("\n" in text and "\\begin" not in text):
        return False
    if re.search(r"[.!?]\s+[A-Z]", text):
        return False
    beside = _SEGMENT.sub(" ", text)
    words = [
        word for word in _SHORT_WORD.findall(_COMMAND_TEXT.sub(" ", beside)) if _is_prose(word)
    ]
    if beside != text:  # words beside formulas: a sentence
        return not words
    if not any(char.isdigit() for char in text):
        return len(words) <= 2
    return not words or (len(words) <= 3 and not text[0].isalpha())


def _is_prose(word: str) -> bool:
    return word.lower() not in _MATH_WORDS and not word.isupper()


def _prose_words(text: str) -> list[str]:
    words = _WORD.findall(_COMMAND_TEXT.sub(" ", text))
    return [word for word in words if word.lower() not in _MATH_WORDS]


def _content(match: re.Match[str]) -> str:
    return next(group for group in match.groups() if group is not None).strip()


def _is_telling(content: str) -> bool:
    if _MONEY.match(content) or not re.search(r"\w", content):
        return False
    return re.fullmatch(r"\\?[A-Za-z]+", content) is None


def _leading_formulas(tail: str) -> str | None:
    """The formulas a phrase opens with, joined where only commas or `and` stand between them."""
    found: list[str] = []
    position = 0
    for match in _SEGMENT.finditer(tail):
        gap = tail[position : match.start()]
        joins = bool(_BETWEEN.fullmatch(gap)) if found else not _SENTENCE_END.search(gap)
        if not joins or not _is_telling(_content(match)):
            break
        if not found and (re.search(r"\d", gap) or len(_prose_words(gap)) > 6):
            break
        found.append(_content(match))
        position = match.end()
    return ", ".join(found) or None
