"""What every export shares: which completions, the column as its file describes it, what was done.

Letters of shapes: R completions of a table, N their tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Bool, Int

from thr_probe import __version__
from thr_probe.errors import DataError, UsageError
from thr_probe.traces.lists import list_values
from thr_probe.traces.reader import Run

GROUPS = ("all", "has-correct", "mixed")
"""Every completion; of groups with a correct one, so that THR is defined; with a wrong one too."""

_TOKEN_LISTS = ("token_ids", "entropy", "sampler_logprobs")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedColumn:
    """One column of an exported file; unit and meaning are in the file's metadata."""

    name: str
    """As the reading program expects it."""
    type: pa.DataType
    """Arrow type."""
    unit: str
    """Unit of the values, or what kind of value it is."""
    meaning: str
    """What a value says, and when it is null."""

    def field(self) -> pa.Field:
        """The Arrow field with unit and meaning as metadata."""
        return pa.field(self.name, self.type, metadata={"unit": self.unit, "meaning": self.meaning})


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which completions of a run, and with which scores."""

    run: Run
    """The trace."""
    score_id: str | None = None
    """The score set; the only one, or "default", when not given."""
    groups: str = "all"
    """One of `GROUPS`."""

    def __post_init__(self) -> None:
        if self.groups not in GROUPS:
            raise UsageError(f"unknown groups {self.groups!r}", f"choose {', '.join(GROUPS)}")

    @property
    def resolved(self) -> str | None:
        """The score set that is read; None where the run has none and none was asked for."""
        if self.score_id is None and not self.run.score_ids:
            return None
        return self.run.resolve_score_id(self.score_id)

    def stored(self) -> frozenset[str]:
        """The columns of rollouts and of the score set that any part has."""
        parts = list(self.run.rollout_parts)
        if self.resolved is not None:
            parts += self.run.score_parts[self.resolved]
        return frozenset(name for part in parts for name in part.columns)

    def tables(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """The chosen completions, a row group at a time, with these columns.

        Raises:
            DataError: `groups` needs scores, or a damaged part.
        """
        extra = () if self.groups == "all" else ("q", "num_correct")
        wanted = list(dict.fromkeys([*columns, *extra]))
        for table in self.run.iter_completions(wanted, score_id=self.resolved):
            yield table.filter(self._chosen(table)).select(list(columns)) if extra else table

    def _chosen(self, table: pa.Table) -> pa.ChunkedArray:
        has_correct = pc.greater(table["num_correct"], 0)
        if self.groups == "has-correct":
            return has_correct
        return pc.and_(has_correct, pc.less(table["q"], 1))


@dataclass(slots=True, kw_only=True)
class Exported:
    """What was written."""

    files: list[Path] = field(default_factory=list)
    """In the order written."""
    columns: list[ExportedColumn] = field(default_factory=list)
    """Of every file."""
    num_completions: int = 0
    """Completions written."""
    num_tokens: int = 0
    """Their tokens."""
    num_left_out: int = 0
    """Completions left out because they have no tokens."""


def arrow_schema(
    selection: Selection, columns: Sequence[ExportedColumn], layout: str, **facts: object
) -> pa.Schema:
    """The schema of an exported file: the columns, and what it was made from as metadata.

    Args:
        selection: the run.
        columns: of the file.
        layout: `long`, `trl` or `verl`.
        facts: what else a reader should know, such as `p`.
    """
    told = {
        "layout": layout,
        "documentation": f"thr-probe data schema --of {layout}",
        "tool_version": __version__,
        "model": selection.run.manifest.model,
        "score_id": selection.resolved,
        "groups": selection.groups,
        **facts,
    }
    metadata = {
        f"thr_probe.{name}": str(value) for name, value in told.items() if value is not None
    }
    return pa.schema([column.field() for column in columns], metadata=metadata)


def token_lists(stored: frozenset[str]) -> list[str]:
    """The stored lists that tell how many tokens a completion has.

    Raises:
        DataError: there is none.
    """
    found = [name for name in _TOKEN_LISTS if name in stored]
    if not found:
        raise DataError(
            "this run has no token ids and no scores, so there is nothing per token to export",
            "import it with the policy's tokenizer, or collect it with thr-probe",
        )
    return found


def token_counts(table: pa.Table, lists: Sequence[str]) -> Int[np.ndarray, " R"]:
    """Tokens of each completion, from whichever of its lists is there; -1 where none is."""
    lengths = pc.coalesce(*(pc.list_value_length(table[name]) for name in lists))
    counts_R: np.ndarray = pc.fill_null(lengths, -1).to_numpy().astype(np.int64)
    return counts_R


def flat_column(column: pa.ChunkedArray, lengths_R: Int[np.ndarray, " R"]) -> pa.Array:
    """A list column end to end; where a completion has no list, a null for each of its tokens."""
    values, _ = list_values(column)
    if column.null_count == 0:
        return pa.array(values)
    present_N: Bool[np.ndarray, " N"] = np.repeat(column.is_valid().to_numpy(), lengths_R)
    filled_N = np.zeros(len(present_N), dtype=values.dtype)
    filled_N[present_N] = values
    return pa.array(filled_N, mask=~present_N)


def check_target(path: Path, *, overwrite: bool) -> None:
    """Refuse a file that is there already.

    Raises:
        UsageError: it is there, and `overwrite` is not asked for.
    """
    if path.exists() and not overwrite:
        raise UsageError(
            f"{path} exists already", "replace it with --overwrite, or choose another -o"
        )


def parquet_writer(schema: pa.Schema, tables: Iterable[pa.Table]) -> Callable[[BinaryIO], None]:
    """What fills a Parquet file with tables, one row group or more each."""
    columns = {item.name: _element(item.type) for item in schema}
    floats = {name for name, kind in columns.items() if pa.types.is_floating(kind)}
    encodings = {
        f"{name}.list.element" if pa.types.is_list(schema.field(name).type) else name: (
            "BYTE_STREAM_SPLIT"
        )
        for name in floats
    }

    def write(file: BinaryIO) -> None:
        with pq.ParquetWriter(
            file,
            schema,
            compression="zstd",
            use_dictionary=[name for name in columns if name not in floats],
            column_encoding=encodings,
        ) as writer:
            for table in tables:
                writer.write_table(table.cast(schema))

    return write


def _element(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_list(kind) else kind
