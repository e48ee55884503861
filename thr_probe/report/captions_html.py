r"""LaTeX captions as HTML and as plain text: an exact converter of what the captions use.

It knows the escapes of `latex_escape`, spaces, dashes, quotes, the text commands and the formulae
listed here. Anything else is an error, so that a caption is never shown wrong.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence

from markupsafe import Markup, escape

_ESCAPED = {rf"\{symbol}": symbol for symbol in "&%$#_{}"} | {
    r"\,": "\u202f",
    r"\ ": " ",
    r"\;": "\u2005",
    r"\!": "",
    r"\|": "‖",
    r"\\": " ",
}
_SYMBOLS = {
    "textbackslash": "\\",
    "textasciitilde": "~",
    "textasciicircum": "^",
    "textless": "<",
    "textgreater": ">",
    "textbar": "|",
    "tau": "τ",
    "pi": "π",
    "beta": "β",
    "rho": "ρ",
    "alpha": "α",
    "eta": "η",
    "mu": "μ",
    "sigma": "σ",
    "epsilon": "ε",
    "Delta": "Δ",
    "theta": "θ",
    "le": "≤",
    "leq": "≤",
    "ge": "≥",
    "geq": "≥",
    "ne": "≠",
    "neq": "≠",
    "approx": "≈",
    "sim": "∼",
    "to": "→",
    "rightarrow": "→",
    "pm": "±",
    "times": "×",
    "cdot": "·",
    "sum": "∑",
    "infty": "∞",
    "in": "∈",
    "langle": "⟨",
    "rangle": "⟩",
    "ldots": "…",
    "dots": "…",
    "log": "log",
    "ln": "ln",
    "max": "max",
    "min": "min",
    "cos": "cos",
    "quad": "\u2003",
    "left": "",
    "right": "",
}
_NAMES = frozenset({"log", "ln", "max", "min", "cos"})
_UPRIGHT = {"mathrm", "text", "operatorname", "textrm", "mathbf"}
_MARKED = {"emph": "em", "textit": "em", "textbf": "strong", "texttt": "code"}
_MARKS = {"hat": "\u0302", "bar": "\u0304", "tilde": "\u0303"}
_TOKENS = re.compile(r"\\[A-Za-z]+\s?|\\.|---|--|``|''|[$~^_{}`']|[^\\$~^_{}`'-]+|-", re.DOTALL)
_TEXT = {"---": "—", "--": "–", "``": "“", "''": "”", "~": "\u00a0", "`": "‘", "'": "’"}
_PIECES = re.compile(r"[A-Za-z]+|[0-9.,]+|\S")
_RELATIONS = frozenset("=<>≤≥≠≈∼→∈")
_OPERATORS = frozenset("+−±×·")


def caption_html(caption: str) -> Markup:
    r"""The caption as HTML: letters of formulae italic, indices lowered, everything escaped.

    Args:
        caption: LaTeX as in `Analysis.caption`.

    Raises:
        ValueError: a construct that this converter does not know.
    """
    return _Converter(caption, html=True).whole()


def caption_text(caption: str) -> str:
    r"""The caption as plain text, `$|\mathrm{THR}| > \tau$` as `|THR| > τ`.

    Args:
        caption: LaTeX as in `Analysis.caption`.

    Raises:
        ValueError: a construct that this converter does not know.
    """
    return str(_Converter(caption, html=False).whole())


def first_sentence(caption: str) -> str:
    """The first sentence of a caption, plain, for those who cannot see the figure."""
    text = caption_text(caption)
    end = re.search(r"[.:](?=\s|$)", text)
    return f"{text[: end.start()]}." if end else text


def caption_of_file(tex: str) -> str:
    r"""The argument of `\caption{...}` in the text of a file that holds it.

    Raises:
        ValueError: no caption, or one that is not closed.
    """
    start = tex.find(r"\caption{")
    depth = 0
    begin = start + len(r"\caption{")
    for match in re.finditer(r"\\.|[{}]", tex[begin:], flags=re.DOTALL):
        if match[0] == "}" and depth == 0 and start >= 0:
            return tex[begin : begin + match.start()]
        depth += {"{": 1, "}": -1}.get(match[0], 0)
    raise ValueError("no whole \\caption{...} in the text")


class _Converter:
    """Walks once over the tokens of a caption."""

    def __init__(self, caption: str, *, html: bool) -> None:
        self._caption = caption
        self._tokens = deque(match[0] for match in _TOKENS.finditer(caption))
        self._html = html

    def whole(self) -> Markup:
        """The text to its end."""
        return self._text(end=None)

    def _text(self, end: str | None) -> Markup:
        """Text up to a closing token, which is consumed."""
        parts: list[Markup] = []
        while self._tokens:
            token = self._tokens.popleft()
            if token == end:
                return _joined(parts)
            parts.append(self._text_token(token))
        if end is not None:
            raise self._unknown(f"no closing {end}")
        return _joined(parts)

    def _text_token(self, token: str) -> Markup:
        if token == "$":
            return self._tag("span", self._formula(end="$"), ' class="formula"')
        if token == "{":
            return self._text(end="}")
        if token in {"^", "_", "}"}:
            raise self._unknown(token)
        if _is_command(token):
            return self._text_command(token[1:].strip())
        return self._plain(self._character(token, _TEXT))

    def _text_command(self, name: str) -> Markup:
        if name in _MARKED or name in _UPRIGHT:
            self._open()
            inner = self._text(end="}")
            return self._tag(_MARKED[name], inner) if name in _MARKED else inner
        return self._plain(self._symbol(name))

    def _formula(self, end: str) -> Markup:
        """Its white space means nothing; relations and operators between two things are spaced."""
        atoms: list[Markup] = []
        while self._tokens:
            token = self._tokens.popleft()
            if token == end:
                return _joined(self._spaced(atoms))
            atoms += self._atoms(token)
        raise self._unknown(f"no closing {end}")

    def _atoms(self, token: str) -> list[Markup]:
        if token in {"^", "_"}:
            return [self._index(token)]
        if token == "{":
            return [self._formula(end="}")]
        if token in {"}", "$"}:
            raise self._unknown(token)
        if _is_command(token):
            return [self._formula_command(token[1:].strip())]
        if token in {"--", "---"}:
            raise self._unknown(token)
        text = self._character(token, {"-": "−", "~": "\u00a0", "'": "′"})
        return [self._letter(piece) for piece in _PIECES.findall(text)] or [self._plain(text)]

    def _formula_command(self, name: str) -> Markup:
        if name in _UPRIGHT:
            self._open()
            return self._text(end="}")
        if name in _MARKS:
            return self._argument() + _MARKS[name]
        return self._letter(self._symbol(name))

    def _index(self, token: str) -> Markup:
        inner = self._argument()
        if self._html:
            return self._tag("sup" if token == "^" else "sub", inner)
        return self._plain(token) + inner

    def _argument(self) -> Markup:
        """What a mark or an index belongs to: a group, a command, or the next character."""
        token = self._next()
        if len(token) > 1 and not token.startswith("\\"):
            self._tokens.appendleft(token[1:])
            token = token[0]
        if not token.strip():
            raise self._unknown("an index without its argument")
        return _joined(self._atoms(token))

    def _letter(self, text: str) -> Markup:
        """Variables are italic: Latin letters and small Greek ones, not names such as `log`."""
        variable = text.isalpha() and text.islower() and text not in _NAMES
        variable |= text.isalpha() and text.isascii() and text not in _NAMES
        return self._tag("i", self._plain(text)) if variable else self._plain(text)

    def _spaced(self, atoms: Sequence[Markup]) -> Iterator[Markup]:
        operand_before = False
        for place, atom in enumerate(atoms):
            text = atom.unescape()
            between = operand_before and place + 1 < len(atoms)
            if text in _RELATIONS or (text in _OPERATORS and between):
                before = "\u00a0" if operand_before else ""
                after = "\u00a0" if place + 1 < len(atoms) else ""
                yield self._plain(before) + atom + self._plain(after)
            else:
                yield atom
            operand_before = text not in _RELATIONS | _OPERATORS | {"(", "["}

    def _character(self, token: str, special: Mapping[str, str]) -> str:
        if token.startswith("\\"):
            if token not in _ESCAPED:
                raise self._unknown(token)
            return _ESCAPED[token]
        return special.get(token, token)

    def _plain(self, text: str) -> Markup:
        return escape(text) if self._html else Markup(text)

    def _tag(self, name: str, inner: Markup, attributes: str = "") -> Markup:
        if not self._html:
            return inner
        return Markup(f"<{name}{attributes}>{inner}</{name}>")

    def _open(self) -> None:
        if self._next() != "{":
            raise self._unknown("a command without its argument")

    def _next(self) -> str:
        return self._tokens.popleft() if self._tokens else ""

    def _symbol(self, name: str) -> str:
        if name not in _SYMBOLS:
            raise self._unknown(rf"\{name}")
        return _SYMBOLS[name]

    def _unknown(self, what: str) -> ValueError:
        return ValueError(f"a caption has {what!r}, which is not known here: {self._caption}")


def _joined(parts: Iterable[Markup]) -> Markup:
    return Markup("").join(parts)


def _is_command(token: str) -> bool:
    return token.startswith("\\") and token[1:2].isalpha()
