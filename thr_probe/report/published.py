"""The paper's published numbers as data, its slips corrected and marked (`paper.toml`)."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

from thr_probe.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A published number."""

    value: float
    """The number, in the unit of its table; where it was corrected, what its rows give."""
    printed: float
    """As printed."""
    digits: int
    """Behind the point, as printed."""
    erratum: int | None = None
    """Row of the list of errata, where the two differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedRow:
    """A row of a published table."""

    model: str
    """The base model."""
    dataset: str
    """The set, where the table has rows for each; `average` for their mean; empty otherwise."""
    method: str
    """As the paper calls it."""
    entries: Mapping[str, Entry]
    """By column."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedTable:
    """A table of the paper."""

    number: int
    """In the paper."""
    name: str
    """The table of `thr-probe table` that it belongs to."""
    title: str
    """What it shows."""
    unit: str
    """percent or seconds."""
    columns: tuple[str, ...]
    """K of Pass@K, sets, or modules."""
    rows: tuple[PublishedRow, ...]
    """In order."""
    note: str
    """What is odd about it; empty for most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A number that the paper's text says of its tables."""

    text: str
    """What is said, and of which table."""
    printed: float
    """The number in the text."""
    value: float
    """What the table gives."""
    erratum: int
    """Row of the list of errata."""
    recompute: tuple[str, ...]
    """How: model, dataset, column, method, and another method to subtract; `mean` for columns."""
    table: int
    """The table it is recomputed from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """Everything that is transcribed."""

    tables: tuple[PublishedTable, ...]
    """By number."""
    statements: tuple[Statement, ...]
    """Numbers of the text that the tables do not bear out."""
    missing_tables: tuple[int, ...]
    """Tables that the transcribed text lacks."""

    @property
    def models(self) -> list[str]:
        """The base models, in order of appearance."""
        return list(dict.fromkeys(row.model for table in self.tables for row in table.rows))

    def of(self, name: str, model: str) -> list[PublishedTable]:
        """The tables of a kind that hold a model, or any for `all`.

        Raises:
            UsageError: no table has that model.
        """
        check_model(self, model)
        return [
            table
            for table in self.tables
            if table.name == name and any(model in {ALL, row.model} for row in table.rows)
        ]


ALL = "all"
"""Every model."""


def check_model(published: Published, model: str) -> None:
    """Raises a UsageError for a model that the paper has no numbers of."""
    known = [ALL, *published.models]
    if model not in known:
        lower = {name.lower(): name for name in known}
        close = difflib.get_close_matches(model.lower(), lower, n=1, cutoff=0.4)
        raise UsageError(
            f"the paper has no numbers of {model!r}",
            (f"did you mean {lower[close[0]]}? " if close else "") + f"known: {', '.join(known)}",
        )


@lru_cache(maxsize=1)
def read_published() -> Published:
    """The published numbers, read once."""
    content = tomllib.loads(files("thr_probe.report").joinpath("paper.toml").read_text("utf-8"))
    return Published(
        tables=tuple(_table(table) for table in content["tables"]),
        statements=tuple(
            Statement(**{**each, "recompute": tuple(each["recompute"])})
            for each in content["statements"]
        ),
        missing_tables=tuple(content["missing_tables"]),
    )


def _table(content: Mapping[str, Any]) -> PublishedTable:
    columns = tuple(content["columns"])
    return PublishedTable(
        number=content["number"],
        name=content["name"],
        title=content["title"],
        unit=content["unit"],
        columns=columns,
        rows=tuple(_rows(content["blocks"], columns)),
        note=content.get("note", ""),
    )


def _rows(blocks: list[Mapping[str, Any]], columns: tuple[str, ...]) -> Iterator[PublishedRow]:
    for block in blocks:
        for method, numbers in block["rows"].items():
            entries = map(_entry, numbers)
            yield PublishedRow(
                model=block["model"],
                dataset=block.get("dataset", ""),
                method=method,
                entries=dict(zip(columns, entries, strict=True)),
            )


def _entry(number: int | float | Mapping[str, Any]) -> Entry:
    if isinstance(number, Mapping):
        return Entry(
            value=float(number["value"]),
            printed=float(number["printed"]),
            digits=_digits(number["printed"]),
            erratum=int(number["erratum"]),
        )
    return Entry(value=float(number), printed=float(number), digits=_digits(number))


def _digits(number: int | float) -> int:
    return len(str(number).partition(".")[2])
