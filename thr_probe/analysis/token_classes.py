"""Classes of tokens by their text, from rules in a TOML file: the shipped schemes, or one's own."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from thr_probe.analysis.token_types import TokenTypes, strip_markers
from thr_probe.errors import DataError, UsageError

SCHEMES = ("lexical", "paper")
"""Those that are shipped: by what a token is made of, and the categories of Appendix C.4."""

_RULES = ("words", "texts", "patterns")
_UNLISTED = -2
_HINT = "write it as the lexical scheme is written: rest, and [[class]] with name and rules"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenClass:
    """One class and the rules by which a token is in it."""

    name: str
    """As shown in tables and figures."""
    words: frozenset[str]
    """Texts in lower case, without white space and space markers."""
    texts: frozenset[str]
    """Texts as written, without white space and space markers."""
    patterns: tuple[re.Pattern[str], ...]
    """Expressions that match a whole text, its leading-space marker read as a space."""

    def has(self, text: str) -> bool:
        """Whether a token with this text meets one of the rules."""
        stripped = strip_markers(text)
        if stripped in self.texts or stripped.lower() in self.words:
            return True
        spaced = re.sub("^[Ġ▁]+", " ", text)
        return any(pattern.fullmatch(spaced) for pattern in self.patterns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """Classes in the order in which they are tried, and the class of all other tokens."""

    name: str
    """`lexical`, `paper`, or the file that it was read from."""
    classes: tuple[TokenClass, ...]
    """The first that a token meets is its class."""
    rest: str
    """Name of the class of the tokens that meet none."""

    @property
    def names(self) -> tuple[str, ...]:
        """All classes, the rest last."""
        return (*(each.name for each in self.classes), self.rest)

    def of(self, text: str) -> str:
        """The class of a token with this text."""
        return next((each.name for each in self.classes if each.has(text)), self.rest)


def read_scheme(scheme: str | Path) -> Scheme:
    """A shipped scheme by its name, or the one that a TOML file holds.

    Raises:
        UsageError: neither a name nor a TOML file.
        DataError: a file that cannot be read, or does not hold classes.
    """
    if str(scheme) in SCHEMES:
        path = Path(__file__).with_name(f"{scheme}.toml")
    elif Path(scheme).suffix == ".toml":
        path = Path(scheme)
    else:
        raise UsageError(
            f"unknown scheme {str(scheme)!r}; choose {' or '.join(SCHEMES)}, or name a .toml file"
        )
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(
            f"{path} cannot be read as a scheme of classes: {error.strerror or error}", _HINT
        ) from error
    except ValueError as error:
        raise DataError(f"{path} cannot be read as TOML: {error}", _HINT) from error
    return _scheme(str(scheme), path, content)


def _scheme(name: str, path: Path, content: dict[str, Any]) -> Scheme:
    listed = content.get("class")
    rest = content.get("rest", "other")
    unknown = sorted(set(content) - {"class", "rest"})
    if unknown:
        raise DataError(f"{path}: unknown key {unknown[0]!r}, expected rest and class", _HINT)
    if not isinstance(listed, list) or not listed or not isinstance(rest, str):
        raise DataError(f"{path}: found no [[class]], or a rest that is not a name", _HINT)
    scheme = Scheme(name=name, classes=tuple(_class(path, each) for each in listed), rest=rest)
    if len(set(scheme.names)) < len(scheme.names):
        raise DataError(f"{path}: two classes have one name: {', '.join(scheme.names)}", _HINT)
    return scheme


def _class(path: Path, table: Any) -> TokenClass:
    name = table.get("name") if isinstance(table, dict) else None
    if not isinstance(name, str) or not name:
        raise DataError(f"{path}: a class has no name", _HINT)
    unknown = sorted(set(table) - {"name", *_RULES})
    if unknown:
        expected = f"expected name, {', '.join(_RULES)}"
        raise DataError(f"{path}: class {name!r}: unknown key {unknown[0]!r}, {expected}", _HINT)
    rules = {rule: table.get(rule, []) for rule in _RULES}
    for rule, values in rules.items():
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise DataError(f"{path}: class {name!r}: {rule} must be a list of strings", _HINT)
    if not any(rules.values()):
        raise DataError(f"{path}: class {name!r} has no rule", _HINT)
    try:
        patterns = tuple(re.compile(pattern) for pattern in rules["patterns"])
    except re.error as error:
        raise DataError(
            f"{path}: class {name!r}: {error.pattern!r} is no regular expression: {error}", _HINT
        ) from error
    words = frozenset(word.lower() for word in rules["words"])
    return TokenClass(name=name, words=words, texts=frozenset(rules["texts"]), patterns=patterns)


def token_classes(tokens: pd.DataFrame, scheme: Scheme) -> TokenTypes:
    """The class of every id in tokens.parquet, as types whose words are the names of the classes.

    Args:
        tokens: token_id and text.
        scheme: the rules.
    """
    ids = tokens["token_id"].to_numpy()
    index = {name: place for place, name in enumerate(scheme.names)}
    of_id_V = np.full(int(ids.max(initial=0)) + 1, _UNLISTED)
    of_id_V[ids] = [index[scheme.of(text)] for text in tokens["text"]]
    return TokenTypes(np.asarray(scheme.names, dtype=object), of_id_V)
