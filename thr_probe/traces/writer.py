"""Writing a run: atomic, resumable, and byte for byte the same for equal rows.

A run is started with `create_run`, filled with `write_part`, and closed with `write_tokens` and
`finish_run`. Every file is whole or absent at any moment, so a killed run is continued with the
parts that `completed_parts` lists.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tomli_w
from jaxtyping import Int

from thr_probe.errors import DataError, UsageError
from thr_probe.traces.atomic import (
    make_folder,
    remove_temporaries,
    write_atomically,
    write_error,
    write_text,
)
from thr_probe.traces.layout import (
    CONFIG_NAME,
    ROLLOUTS,
    SCORE_INFO_NAME,
    SCORES,
    declared_table,
    inspect_table,
    part_indices,
    part_path,
)
from thr_probe.traces.manifest import MANIFEST_NAME, Manifest, RunStatus, write_manifest
from thr_probe.traces.rows import table_from_rows
from thr_probe.traces.schema import SCHEMA_VERSION, TABLE_KEY, TABLES

ROWS_PER_GROUP = 512
_OWN_NAMES = (
    MANIFEST_NAME,
    CONFIG_NAME,
    "problems.parquet",
    "tokens.parquet",
    ROLLOUTS,
    SCORES,
    "logs",
    "metrics.jsonl",  # this and the following of a training run
    "checkpoints",
    "model",
    "tensorboard",
    "import.json",  # of an imported run
    "analysis",  # where analyze writes by default: figures of rollouts that are gone would mislead
)


def create_run(
    run_path: Path,
    *,
    manifest: Manifest,
    config: Mapping[str, object],
    problems: Iterable[object] | pa.Table,
    overwrite: bool = False,
) -> None:
    """Start a run: folders, resolved config, problems, and last the manifest.

    Args:
        run_path: the run directory; it may exist when it is empty.
        manifest: what the run is; its status is written as incomplete.
        config: the resolved options; TOML has no null, so options that are None are left out.
        problems: one row per problem (mappings, `Problem` records, or an Arrow table).
        overwrite: replace a run that stands there. Only files of the run are removed.
    """
    _make_room(run_path, overwrite=overwrite)
    table = table_from_rows("problems", problems)
    ids = table["prompt_id"].to_pylist()
    if len(set(ids)) < len(ids):
        repeated = next(value for value in ids if ids.count(value) > 1)
        raise DataError(f"problems: column prompt_id: found {repeated!r} twice, expected once")
    make_folder(run_path / ROLLOUTS)
    make_folder(run_path / "logs")
    write_text(run_path / CONFIG_NAME, _config_toml(config))
    _write_table(run_path / "problems.parquet", table)
    # last: a folder is a run once its manifest stands
    write_manifest(run_path, replace(manifest, status=RunStatus.INCOMPLETE))


def write_part(
    run_path: Path,
    table: str,
    part_index: int,
    rows: Iterable[object] | pa.Table,
    *,
    overwrite: bool = False,
) -> Path:
    """Write one part of "rollouts" or "scores/<score_id>"; returns its path.

    Rows of one group must follow each other: no row group ends inside a group. The part of a score
    set holds the rows of the rollouts part of the same number, in the same order.
    """
    path = part_path(run_path, table, part_index)
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists already", "a part is written once")
    content = table_from_rows(declared_table(table), rows)
    make_folder(path.parent)
    _write_table(path, content)
    return path


def write_tokens(run_path: Path, rows: Iterable[object] | pa.Table) -> Path:
    """Write `tokens.parquet`: bytes and text of every token id that occurs, sorted by id."""
    table = table_from_rows("tokens", rows).sort_by("token_id").combine_chunks()
    ids = table["token_id"].to_numpy()
    repeated = ids[1:][ids[1:] == ids[:-1]]
    if repeated.size:
        raise DataError(f"tokens: column token_id: found {repeated[0]} twice, expected once")
    path = run_path / "tokens.parquet"
    _write_table(path, table)
    return path


def write_score_info(run_path: Path, score_id: str, info: Mapping[str, object]) -> Path:
    """Write `score.json` of a score set: model, options, versions; the schema version is added."""
    folder = run_path / SCORES / score_id
    declared_table(f"{SCORES}/{score_id}")
    content = {**info, "schema_version": SCHEMA_VERSION}
    try:
        text = json.dumps(content, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DataError(f"{folder / SCORE_INFO_NAME}: not expressible as JSON: {error}") from error
    make_folder(folder)
    write_text(folder / SCORE_INFO_NAME, text + "\n")
    return folder / SCORE_INFO_NAME


def finish_run(run_path: Path, manifest: Manifest) -> Manifest:
    """Mark a run complete; adds the counts of parts and completions found on disk."""
    parts = [
        inspect_table(part_path(run_path, ROLLOUTS, index), ROLLOUTS)
        for index in part_indices(run_path, ROLLOUTS)
    ]
    counts = {
        **manifest.counts,
        "parts": len(parts),
        "completions": sum(part.num_rows for part in parts),
    }
    finished = replace(manifest, status=RunStatus.COMPLETE, counts=counts)
    write_manifest(run_path, finished)
    return finished


def completed_parts(run_path: Path, table: str) -> list[int]:
    """The parts to keep when a run is resumed, after removing what killed processes left behind.

    A part that is there but unreadable is an error, never silently written again. Call it before
    the processes of a sharded run start: their temporary files would be removed too.
    """
    declared_table(table)
    for folder in (run_path, run_path / table):
        remove_temporaries(folder)
    indices = part_indices(run_path, table)
    for index in indices:
        inspect_table(part_path(run_path, table, index), table)
    return indices


def check_room(run_path: Path, *, overwrite: bool) -> None:
    """Refuse a folder that a run cannot be started in; `create_run` does it too.

    Raises:
        UsageError: a run stands there already, or other files do.
        DataError: rollouts without their manifest.
    """
    present = {entry.name for entry in run_path.iterdir()} if run_path.is_dir() else set()
    if MANIFEST_NAME in present and not overwrite:
        raise UsageError(
            f"{run_path} holds a run already",
            "continue it with --resume, replace it with --overwrite, or choose another -o",
        )
    if MANIFEST_NAME not in present and not overwrite and part_indices(run_path, ROLLOUTS):
        raise DataError(
            f"{run_path / MANIFEST_NAME} is missing, but there are rollouts beside it",
            "restore it from a copy of the run, or choose another -o",
        )
    foreign = sorted(name for name in present - set(_OWN_NAMES) if not name.endswith(".tmp"))
    if foreign and MANIFEST_NAME not in present:
        raise UsageError(
            f"{run_path} is not empty and not a run (it holds {foreign[0]})", "choose another -o"
        )


def _make_room(run_path: Path, *, overwrite: bool) -> None:
    check_room(run_path, overwrite=overwrite)
    # what is there are files of a run: of the one to replace, or of one killed before it stood
    try:
        for name in _OWN_NAMES:
            entry = run_path / name
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink(missing_ok=True)
    except OSError as error:
        raise write_error(run_path, error) from error
    remove_temporaries(run_path)


def _config_toml(config: Mapping[str, object]) -> str:
    try:
        return tomli_w.dumps(_without_none(config))
    except TypeError as error:
        raise DataError(f"{CONFIG_NAME}: not expressible as TOML: {error}") from error


def _without_none(config: Mapping[str, object]) -> dict[str, object]:
    return {
        key: _without_none(value) if isinstance(value, Mapping) else value
        for key, value in config.items()
        if value is not None
    }


def _write_table(path: Path, table: pa.Table) -> None:
    declared = TABLES[table.schema.metadata[TABLE_KEY].decode()]
    floats = [
        name for name in table.column_names if declared[name].is_list and declared[name].is_float
    ]
    categories = [
        name
        for name in table.column_names
        if pa.types.is_string(declared[name].type)
        and name not in ("text", "question", "prompt_text")
    ]

    # token ids stay plain: zstd finds the phrases that a group's completions share (0.71 bytes a
    # token on real text), which bit-packed dictionary codes hide from it (0.94)
    def write(file: BinaryIO) -> None:
        with pq.ParquetWriter(
            file,
            table.schema,
            compression="zstd",
            use_dictionary=categories,
            column_encoding={f"{name}.list.element": "BYTE_STREAM_SPLIT" for name in floats},
            write_page_checksum=True,
        ) as writer:
            for start, stop in _row_groups(table):
                writer.write_table(table.slice(start, stop - start), row_group_size=stop - start)

    write_atomically(path, write)


def _row_groups(table: pa.Table) -> list[tuple[int, int]]:
    """Cut into row groups of about ROWS_PER_GROUP rows without dividing a group of completions."""
    num_rows = table.num_rows
    if num_rows == 0:
        return []
    starts = np.arange(num_rows)
    if "rollout_id" in table.column_names:
        starts = _group_starts(table)
    cuts = [0]
    for start, stop in zip(starts, [*starts[1:], num_rows], strict=True):
        if stop - cuts[-1] > ROWS_PER_GROUP and start > cuts[-1]:
            cuts.append(int(start))
    return list(zip(cuts, [*cuts[1:], num_rows], strict=True))


def _group_starts(table: pa.Table) -> Int[np.ndarray, " groups"]:
    keys = [
        table[name].combine_chunks().dictionary_encode(null_encoding="encode").indices.to_numpy()
        for name in ("step", "prompt_id")
    ]
    is_new = np.any([key[1:] != key[:-1] for key in keys], axis=0)
    return np.concatenate([[0], np.flatnonzero(is_new) + 1])
