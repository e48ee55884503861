"""Reading a run: its manifest, its small tables, and a stream over its completions."""

from __future__ import annotations

import difflib
import itertools
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pandas as pd
import pyarrow as pa

from thr_probe.errors import DataError, UsageError
from thr_probe.traces.checks import check_aligned, check_columns, check_keys, check_parts
from thr_probe.traces.layout import (
    CONFIG_NAME,
    ROLLOUTS,
    SCORE_INFO_NAME,
    SCORES,
    TableFile,
    inspect_table,
    part_indices,
    part_path,
    read_columns,
    score_ids,
)
from thr_probe.traces.manifest import (
    Manifest,
    RunStatus,
    check_version,
    read_json_object,
    read_manifest,
)
from thr_probe.traces.rows import check_lengths
from thr_probe.traces.schema import KEY_COLUMNS, TABLES, arrow_schema


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run on disk whose manifest, footers and keys were checked."""

    path: Path
    """The run directory."""
    manifest: Manifest
    """What the run is."""
    config: dict[str, Any]
    """The resolved options that it was started with."""
    rollout_parts: tuple[TableFile, ...]
    """The parts of the rollouts, in order."""
    score_parts: Mapping[str, tuple[TableFile, ...]]
    """For each score set its parts, in order."""

    @property
    def score_ids(self) -> tuple[str, ...]:
        """The score sets of the run."""
        return tuple(self.score_parts)

    @property
    def is_complete(self) -> bool:
        """Whether the run was finished; an incomplete one is readable as far as it goes."""
        return self.manifest.status is RunStatus.COMPLETE

    @property
    def num_completions(self) -> int:
        """Completions on disk."""
        return sum(part.num_rows for part in self.rollout_parts)

    def problems(self) -> pd.DataFrame:
        """The problems, one row each."""
        return _read_small(self.path / "problems.parquet", "problems")

    def tokens(self) -> pd.DataFrame | None:
        """Bytes and text of every token id that occurs; None where the run has no tokenizer."""
        path = self.path / "tokens.parquet"
        return _read_small(path, "tokens") if path.exists() else None

    def score_info(self, score_id: str) -> dict[str, object]:
        """What a score set was made with (`score.json`)."""
        path = self.path / SCORES / self.resolve_score_id(score_id) / SCORE_INFO_NAME
        info = read_json_object(path)
        check_version(path, info.get("schema_version"))
        return info

    def how_to_score(self) -> str:
        """What has to be done before this run can have scores, for a hint."""
        score = f"thr-probe score {self.path} --model with the policy that sampled"
        if any("token_ids" in part.columns for part in self.rollout_parts):
            return score
        return f"import it with the policy's tokenizer, as it has no token ids; then {score}"

    def resolve_score_id(self, score_id: str | None = None) -> str:
        """The score set to read: the one named, else the only one, else "default"."""
        if not self.score_parts:
            raise DataError(f"{self.path} has no scores", self.how_to_score())
        if score_id is None:
            if len(self.score_parts) > 1 and "default" not in self.score_parts:
                raise UsageError(
                    f"{self.path} has several score sets: {', '.join(self.score_ids)}",
                    "choose one with --score-id",
                )
            return "default" if "default" in self.score_parts else self.score_ids[0]
        if score_id not in self.score_parts:
            raise UsageError(
                f"{self.path} has no score set {score_id!r}",
                f"it has: {', '.join(self.score_ids)}",
            )
        return score_id

    def groups(self) -> pa.Table:
        """The groups with completions on disk, by step and prompt_id, in order of appearance."""
        keys = [read_columns(part, ["step", "prompt_id"]) for part in self.rollout_parts]
        empty = arrow_schema(ROLLOUTS, ["step", "prompt_id"]).empty_table()
        table = pa.concat_tables(keys) if keys else empty
        return table.group_by(["step", "prompt_id"], use_threads=False).aggregate([])

    def iter_completions(
        self, columns: Sequence[str], *, score_id: str | None = None
    ) -> Iterator[pa.Table]:
        """Stream the completions, rollouts and scores side by side, a row group at a time.

        Only the columns asked for are read. Rows that follow each other and belong to one group are
        in one table. Keys are taken from the rollouts and compared with those of the scores.

        Args:
            columns: names from the rollouts or the scores table, each once.
            score_id: the score set; the only one, or "default", when not given.
        """
        from_rollouts = [name for name in columns if self._is_rollout_column(name)]
        from_scores = [name for name in columns if name not in from_rollouts]
        if len(set(columns)) < len(columns):
            raise UsageError(f"a column is asked for twice: {', '.join(columns)}")
        scores: tuple[TableFile, ...] = ()
        if from_scores:
            resolved = self.resolve_score_id(score_id)
            scores = self.score_parts[resolved]
            check_parts(
                self.path,
                f"{SCORES}/{resolved}",
                scores,
                self.rollout_parts,
                is_complete=self.is_complete,
            )
            _check_present(from_scores, scores, SCORES)
        _check_present(from_rollouts, self.rollout_parts, ROLLOUTS)
        return self._stream(list(columns), from_rollouts, from_scores, scores)

    def _is_rollout_column(self, name: str) -> bool:
        if name in TABLES[ROLLOUTS]:
            return True
        if name in TABLES[SCORES]:
            return False
        extra_rollouts = {column for part in self.rollout_parts for column in part.columns}
        extra_scores = {
            column
            for parts in self.score_parts.values()
            for part in parts
            for column in part.columns
        }
        if name in extra_rollouts or name in extra_scores:
            return name in extra_rollouts
        known = sorted({*TABLES[ROLLOUTS], *TABLES[SCORES], *extra_rollouts, *extra_scores})
        close = difflib.get_close_matches(name, known, n=1)
        raise UsageError(
            f"a trace has no column {name!r}",
            f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}",
        )

    def _stream(
        self,
        columns: list[str],
        from_rollouts: list[str],
        from_scores: list[str],
        scores: tuple[TableFile, ...],
    ) -> Iterator[pa.Table]:
        parts = self.rollout_parts[: len(scores)] if from_scores else self.rollout_parts
        for index, part in enumerate(parts):
            score_part = scores[index] if from_scores else None
            for rollout_groups, score_groups in _matching_groups(part, score_part):
                # the keys are always read: errors name rows by them
                table = read_columns(part, [*from_rollouts, *KEY_COLUMNS], rollout_groups)
                check_columns(part.path, table)
                if score_part is not None:
                    scored = read_columns(score_part, [*from_scores, *KEY_COLUMNS], score_groups)
                    check_aligned(score_part.path, table, scored)
                    check_columns(score_part.path, scored)
                    for name in from_scores:
                        table = table.append_column(name, scored[name])
                check_lengths(part.path if score_part is None else score_part.path, table)
                yield table.select(columns)


def read_run(run_path: str | Path) -> Run:
    """Open a run; refuses what is not a run, damaged, of another schema version, or inconsistent.

    Footers and keys of all parts are checked here, the lists when they are read. An incomplete run
    is opened too (`Run.is_complete` tells).
    """
    path = Path(run_path)
    manifest = read_manifest(path)
    rollouts = _parts(path, ROLLOUTS)
    scores = {score_id: _parts(path, f"{SCORES}/{score_id}") for score_id in score_ids(path)}
    _check_counts(path, manifest, rollouts)
    inspect_table(path / "problems.parquet", "problems")
    if (path / "tokens.parquet").exists():
        inspect_table(path / "tokens.parquet", "tokens")
    check_keys(rollouts)
    return Run(
        path=path,
        manifest=manifest,
        config=read_config(path),
        rollout_parts=rollouts,
        score_parts=scores,
    )


def read_config(run_path: Path) -> dict[str, Any]:
    """The resolved options of a run, as `--resume` needs them."""
    path = run_path / CONFIG_NAME
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing", "restore it from a copy of the run") from error
    except (ValueError, OSError) as error:
        raise DataError(
            f"{path} cannot be read as TOML: {error}", "restore it from a copy of the run"
        ) from error


def _parts(run_path: Path, table: str) -> tuple[TableFile, ...]:
    indices = part_indices(run_path, table)
    gaps = sorted(set(range(len(indices))) - set(indices))
    if gaps:
        raise DataError(
            f"{part_path(run_path, table, gaps[0])} is missing, "
            f"but part {indices[-1]} of the same table is there",
            "restore the file, or run the command that wrote it again with --resume",
        )
    return tuple(inspect_table(part_path(run_path, table, index), table) for index in indices)


def _check_counts(run_path: Path, manifest: Manifest, rollouts: tuple[TableFile, ...]) -> None:
    expected = manifest.counts.get("completions")
    found = sum(part.num_rows for part in rollouts)
    if manifest.status is RunStatus.COMPLETE and expected not in (None, found):
        raise DataError(
            f"{run_path / ROLLOUTS}: found {found} completions, expected {expected} "
            "as the manifest says",
            "parts were added or removed since the run was finished: restore them from a copy",
        )


def _check_present(columns: list[str], parts: tuple[TableFile, ...], table: str) -> None:
    for name in columns:
        if parts and not any(name in part.columns for part in parts):
            declared = TABLES[table].get(name)
            raise DataError(
                f"{parts[0].path.parent}: column {name} was not stored",
                f"to get it: {declared.source}" if declared else "another score set has it",
            )


def _matching_groups(
    part: TableFile, score_part: TableFile | None
) -> Iterator[tuple[list[int], list[int]]]:
    """Row groups of two files that cover the same rows; both are usually cut at the same rows."""
    files = [part, part if score_part is None else score_part]
    ends = [list(itertools.accumulate(file.group_rows)) for file in files]
    low = 0
    for high in sorted(set(ends[0]) & set(ends[1])):
        left, right = (
            [index for index, end in enumerate(side) if low < end <= high] for side in ends
        )
        yield left, right
        low = high


def _read_small(path: Path, table: str) -> pd.DataFrame:
    file = inspect_table(path, table)
    in_order = [name for name in TABLES[table] if name in file.columns]
    content = read_columns(file, [*in_order, *sorted(file.columns - set(in_order))])
    return cast(pd.DataFrame, content.to_pandas())
