"""One spelling for what LaTeX and prose write in many: the answer's text before any comparison."""

from __future__ import annotations

import re

MAX_ANSWER = 4000
"""A longer answer is only compared as it stands: rewriting costs, no real one is longer."""

MAX_STRIPPED = 8
"""Pairs of outer parentheses that are taken off."""

_UNICODE = str.maketrans(
    {
        "−": "-", "–": "-", "—": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": "/",
        "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "∞": r"\infty ", "∪": r"\cup ",
        "∩": r"\cap ", "∈": r"\in ", "±": r"\pm ", "∓": r"\mp ", "π": r"\pi ", "θ": r"\theta ",
        "°": r"^\circ", "√": r"\sqrt ", "²": "^2", "³": "^3", "½": r"\frac{1}{2}", "，": ",",
        "：": ":", "（": "(", "）": ")", "％": "%", "\xa0": " ", "\u2009": " ", "\u202f": " ",
        "€": "", "£": "", "¥": "", "₹": "", "℃": r"^\circ", "∅": r"\emptyset ", "…": r"\ldots ",
    }
)  # fmt: skip
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f]")
# commands whose backslash is doubled where LaTeX went through JSON or a Python literal twice
_DOUBLED = re.compile(
    r"\\\\(?=(?:[dtc]?frac|sqrt|text|mathrm|mathbf|left|right|begin|end|pi|theta|infty|in|cup|cap|le|ge|leq|"
    r"geq|times|cdot|pm|circ|boxed|sin|cos|tan|log|ln|alpha|beta|lambda|quad|dots)(?![A-Za-z]))"
)
_SINGLE_COMMAND = re.compile(r"(?<!\\)(?:\\\\)*\\[A-Za-z]")
_TEXT = re.compile(
    r"\\(?:text|textbf|textit|textrm|texttt|textnormal|mathrm|mathbf|mathit|mathsf|mbox|hbox|"
    r"operatorname\*?|bf|rm)\s*\{([^{}]*)\}"
)
_JOIN_WORD = re.compile(r"\s*[,;]?\s*(and|or)\s*", re.IGNORECASE)

_REWRITES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (
            r"(\d)\s?(?:,\s*\\!|\\!\s*,|\{\s*,\s*\}|\\,|,\\[ ,;:])\s*(?=\d{3}(?!\d))",
            r"\1",
        ),  # thousands of LaTeX
        (r"(?<!\\)\\!", ""),
        (r"\\(?:left|right|[bB]igg?[lrm]?|displaystyle|textstyle|limits|nolimits)(?![A-Za-z])", ""),
        (r"\\(?:q?quad|hfill|enspace|thinspace)(?![A-Za-z])|(?<!\\)\\[,;:> ]|~", " "),
        (r"\\hspace\*?\{[^{}]*\}|\\v?phantom\{[^{}]*\}|\\label\{[^{}]*\}", " "),
        (r"(?<!\\)\\[()\[\]]", " "),
        (r"\\?\$", ""),
        (r"\\%", "%"),
        (r"(?<=[\d\s}])\s*(?:[Pp]er\s?cent(?:age)?|pct)(?![A-Za-z])", "%"),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}"),
        (r"\\frac\s*(\d)\s*\{", r"\\frac{\1}{"),
        (r"(\\frac\s*\{[^{}]*\})\s*(\w)", r"\1{\2}"),
        (r"\\sqrt\s*(\w)", r"\\sqrt{\1}"),
        (r"(?<![\\A-Za-z])sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"(?<![\\A-Za-z])pi(?![A-Za-z])", r"\\pi"),
        (r"(?:\^\s*\{?\s*\\circ\s*\}?|\\degree(?![A-Za-z]))(?:\s*[CFK](?![A-Za-z]))?", ""),
        (r"(?<=\d)\s*\^\s*\{?\s*(?:\\prime(?![A-Za-z])\s*)+\}?", ""),  # arc minutes and seconds
        (r"\^\s*\{?\s*\\prime\s*\\prime\s*\}?", "''"),
        (r"\^\s*\{?\s*\\prime(?![A-Za-z])\s*\}?", "'"),
        (r"(?<=[\d}\s])\s*degrees?(?:\s+(?:Celsius|Fahrenheit|C|F))?(?![A-Za-z])", ""),
        (r"(?<=\d)\s*(?:\^\s*\{\s*)?(?:st|nd|rd|th)\s*\}?(?![A-Za-z])", ""),  # 12th, 12^{th}
        (r"\*\*", "^"),
        (r"\\(?:lt|less)(?![A-Za-z])", "<"),
        (r"\\(?:gt)(?![A-Za-z])", ">"),
        (r"<=|\\leq(?:slant)?(?![A-Za-z])", r"\\le "),
        (r">=|\\geq(?:slant)?(?![A-Za-z])", r"\\ge "),
        (r"!=|\\neq(?![A-Za-z])", r"\\ne "),
        (r"\\(?:approx|simeq|equiv|coloneqq)(?![A-Za-z])|:=", "="),
        (r"\\p?mod\s*\{[^{}]*\}|\(mod [^()]*\)", " "),
        (r"\\(?:varnothing)(?![A-Za-z])", r"\\emptyset"),
        (r"\\langle(?![A-Za-z])", "("),
        (r"\\rangle(?![A-Za-z])", ")"),
        (r"\\(?:lbrace)(?![A-Za-z])", r"\\{"),
        (r"\\(?:rbrace)(?![A-Za-z])", r"\\}"),
        (r"\+\s*\\infty", r"\\infty"),
        (r"\\backslash(?![A-Za-z])|\\setminus(?![A-Za-z])", r"\\setminus "),
        (r"\\mathbb\s*([A-Z])", r"\\mathbb{\1}"),
        (r"\s+", " "),
        (r"(?<!\\)\{ ", "{"),
        (r" (?<!\\)\}", "}"),
        (r"([_^]) ?\{(\w)\}", r"\1\2"),
    )
)
_EDGE = " \t\n.,;:*`'\"\u201c\u201d\u2019"


def normalise(text: str) -> str:
    r"""The one spelling of an answer; what it says is not changed.

    Currency signs, degree signs, spacing commands, delimiters and end punctuation go; fractions,
    roots, relations, thousands and percent signs are written one way; \text{...} keeps its words.

    >>> normalise(r"$\dfrac12\,\text{ and }\;12{,}000^{\circ}$.")
    '\\frac{1}{2} and 12000'
    """
    text = text.replace("\\\x0crac", r"\frac").replace("\x0crac", r"\frac")  # \f of a lone \frac
    text = " ".join(_CONTROL.sub("", text.translate(_UNICODE)).split())
    text = _single_backslashes(text)
    for pattern, replacement in _REWRITES[:1]:
        text = pattern.sub(replacement, text)
    text = _plain_text(text)
    for pattern, replacement in _REWRITES[1:]:
        text = pattern.sub(replacement, text)
    return strip_outer(_strip_edges(text))


def comparison_key(text: str) -> str:
    """A normalised answer without spaces, save those between digits: "1 2" is not "12".

    >>> comparison_key("x + 1"), comparison_key("1 2")
    ('x+1', '1 2')
    """
    return re.sub(r"(?<!\d) | (?!\d)", "", text)


def strip_outer(text: str) -> str:
    """Without parentheses or braces around the whole that hold no list.

    >>> strip_outer("(x+1)"), strip_outer("(1,2)"), strip_outer("(a)(b)"), strip_outer("{5}")
    ('x+1', '(1,2)', '(a)(b)', '5')
    """
    for _ in range(MAX_STRIPPED):
        if text[:1] + text[-1:] not in ("()", "{}") or not closes_at_end(text):
            break
        inner = text[1:-1].strip()
        if text[0] == "(" and has_separator(inner):
            return text
        text = inner
    return text


def closes_at_end(text: str) -> bool:
    """Whether the bracket that opens the text is closed by its last character and not before."""
    depth = 0
    for index, char in enumerate(text):
        if char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
            if depth == 0:
                return index == len(text) - 1
    return False


def has_separator(text: str) -> bool:
    """Whether a comma or semicolon stands outside all brackets."""
    depth = 0
    for char in text:
        depth += (char in "([{") - (char in ")]}")
        if depth == 0 and char in ",;":
            return True
    return False


def _strip_edges(text: str) -> str:
    stripped = text.strip().strip(_EDGE).lstrip("= ")
    start = text.find(stripped)
    if start > 0 and text[start - 1] == "." and stripped[:1].isdigit():
        return "." + stripped  # .5 keeps its point
    return stripped


def _single_backslashes(text: str) -> str:
    """Undo doubled escaping: everywhere if every command is doubled, else command by command."""
    if not _DOUBLED.search(text):
        return text
    if not _SINGLE_COMMAND.search(_DOUBLED.sub("", text)):
        return text.replace("\\\\", "\\")
    if "\\begin" in text:  # there \\ ends a row
        return text
    return _DOUBLED.sub(r"\\", text)


def _plain_text(text: str) -> str:
    r"""Words out of \text{...}; joining words get spaces, others stay apart from what precedes."""
    for _ in range(3):  # \text{\textbf{...}}
        text, count = _TEXT.subn(_words, text)
        if not count:
            break
    return text


def _words(match: re.Match[str]) -> str:
    content = match[1].replace("~", " ")
    joined = _JOIN_WORD.fullmatch(content)
    if joined:
        return f" {joined[1].lower()} "
    before = match.string[: match.start()].rstrip()
    # a subscript or a lone letter is part of a formula, not a word beside it
    if before.endswith(("_", "^", "_{", "^{")) or len(content.strip()) == 1:
        return content.strip() if not before[-1:].isdigit() else f" {content.strip()}"
    return f" {content} "
