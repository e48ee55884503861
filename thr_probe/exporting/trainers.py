"""THR(p) token advantages beside their rollouts, for verl and TRL: one row per completion.

Letters of shapes: R completions of a table, N their tokens.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import torch
from jaxtyping import Float, Int

from thr_probe.core.advantages import thr_advantages
from thr_probe.errors import DataError, UsageError
from thr_probe.exporting.layouts import LAYOUTS, SOURCES, STEP_FILES, layout_columns
from thr_probe.exporting.record import (
    Exported,
    ExportedColumn,
    Selection,
    arrow_schema,
    check_target,
    parquet_writer,
)
from thr_probe.traces.atomic import put_in_place, temporary_folder, write_streamed
from thr_probe.traces.lists import list_values
from thr_probe.traces.schema import KEY_COLUMNS

_READ = (
    *KEY_COLUMNS,
    "text",
    "token_ids",
    "reward",
    "correct",
    "advantage",
    "tau",
    "thr",
    "logprob",
)
_LINES_AT_ONCE = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """What is written for one run."""

    name: str
    """`verl` or `trl`."""
    p: float
    """Of THR(p)."""
    columns: list[ExportedColumn]
    """Those that the run can fill."""
    problems: pa.Table
    """prompt_id, prompt_text, answer, and prompt_token_ids where they are stored."""
    schema: pa.Schema
    """Of the files."""


def write_for_trainer(
    selection: Selection, path: Path, *, to: str, p: float = 0.0, overwrite: bool = False
) -> Exported:
    """Write the rollouts of a run with their THR(p) token advantages.

    Memory is that of one row group of the trace.

    Args:
        selection: the run, its scores and the groups wanted.
        path: a .parquet file (verl: or .jsonl) for all, or a folder (no ending) for a file per step
            under the names of the trainer's own dumps; whole or not there at all.
        to: `verl` or `trl`.
        p: > 0 exploits, < 0 explores (equation 5); 0 keeps dominant tokens as they are.
        overwrite: replace what is there.

    Raises:
        UsageError: an unknown trainer or ending, |p| >= 1, or a target that is there.
        DataError: a run without scores or token ids, or a damaged one.
    """
    if to not in LAYOUTS:
        raise UsageError(f"unknown trainer {to!r}", f"choose {' or '.join(LAYOUTS)}")
    if not abs(p) < 1:
        raise UsageError(f"p must lie strictly between -1 and 1, got {p}")
    endings = (".parquet", ".jsonl") if to == "verl" else (".parquet",)
    if path.suffix and path.suffix not in endings:
        raise UsageError(
            f"{path} ends in {path.suffix}",
            f"give a file in {' or '.join(endings)}, or a folder for a file per step",
        )
    layout = _layout(selection, to, p)
    exported = Exported(columns=layout.columns)
    tables = _tables(selection, layout, exported)
    if path.suffix:
        check_target(path, overwrite=overwrite)
        write_streamed(path, _writer(path.suffix)(layout.schema, tables))
        exported.files.append(path)
    else:
        _check_folder(path, to, overwrite=overwrite)
        exported.files += _write_folder(layout, path, tables)
    return exported


def _layout(selection: Selection, to: str, p: float) -> _Layout:
    stored = selection.stored()
    score_id = selection.run.resolve_score_id(selection.score_id)
    if "token_ids" not in stored:
        raise DataError(
            f"{selection.run.path} has no token ids, which a trainer needs",
            "import it with the policy's tokenizer, or collect it with thr-probe",
        )
    frame = selection.run.problems()
    names = [
        name
        for name in ("prompt_id", "prompt_text", "answer", "prompt_token_ids")
        if name in frame and not (name == "prompt_token_ids" and frame[name].isna().any())
    ]
    available = stored | set(names)
    columns = [
        column
        for column in layout_columns(to)
        if available.issuperset(SOURCES[LAYOUTS[to][column.name]].needs)
    ]
    facts = {"p": p, "temperature": selection.run.score_info(score_id).get("temperature")}
    return _Layout(
        name=to,
        p=p,
        columns=columns,
        problems=_problems(frame[names]),
        schema=arrow_schema(selection, columns, to, **facts),
    )


def _problems(frame: pd.DataFrame) -> pa.Table:
    table = pa.Table.from_pandas(frame, preserve_index=False)
    if "prompt_token_ids" in table.column_names:
        index = table.column_names.index("prompt_token_ids")
        ids = table["prompt_token_ids"].cast(SOURCES["prompt_ids"].type)
        table = table.set_column(index, "prompt_token_ids", ids)
    return table.combine_chunks()


def _tables(selection: Selection, layout: _Layout, exported: Exported) -> Iterator[pa.Table]:
    made_from = [LAYOUTS[layout.name][column.name] for column in layout.columns]
    optional = [name for name in ("sampler_logprobs", "ref_logprobs") if name in made_from]
    for found in selection.tables([*_READ, *optional]):
        table = found.filter(found["token_ids"].is_valid())
        exported.num_left_out += found.num_rows - table.num_rows
        exported.num_completions += table.num_rows
        sources = _sources(table, layout)
        exported.num_tokens += len(list_values(table["token_ids"])[0])
        yield pa.table(
            [sources[name]() for name in made_from],
            names=[column.name for column in layout.columns],
        )


def _sources(table: pa.Table, layout: _Layout) -> Mapping[str, Callable[[], pa.Array]]:
    """How each column is made for the completions of a table."""
    values, offsets = list_values(table["token_ids"])
    place_R = pc.index_in(table["prompt_id"], layout.problems["prompt_id"].combine_chunks())
    problems = layout.problems

    def prompts() -> pa.ListArray:
        return problems["prompt_token_ids"].take(place_R).combine_chunks()

    made: dict[str, Callable[[], pa.Array]] = {
        name: functools.partial(table.column, name) for name in table.column_names
    }
    made |= {
        "group": lambda: _groups(table),
        "prompt_text": lambda: problems["prompt_text"].take(place_R),
        "answer": lambda: problems["answer"].take(place_R),
        "prompt_ids": prompts,
        "prompt_mask": lambda: _ones(list_values(prompts())[1]),
        "input_ids": lambda: _end_to_end(prompts(), values, offsets),
        "mask": lambda: _ones(offsets),
        "advantages": lambda: _lists(offsets, _advantages(table, offsets, layout.p)),
        "last_score": lambda: _lists(offsets, _at_the_end(table, offsets)),
    }
    return made


def _advantages(
    table: pa.Table, offsets: Int[np.ndarray, " bounds"], p: float
) -> Float[np.ndarray, " N"]:
    """THR(p) of every token by the trainer's own function, a completion at a time."""
    advantages_N = np.zeros(int(offsets[-1]), dtype=np.float32)
    thr_N, thr_offsets = list_values(table["thr"])
    tau_R = table["tau"].to_numpy(zero_copy_only=False).astype(np.float64)
    advantage_R = table["advantage"].to_numpy()
    defined_R = table["thr"].is_valid().to_numpy()
    if np.isnan(tau_R[defined_R]).any():
        raise DataError("column tau is null for completions that have THR", "score the run again")
    for row in np.flatnonzero(defined_R & (advantage_R != 0)):
        thr = torch.from_numpy(thr_N[thr_offsets[row] : thr_offsets[row + 1]].astype(np.float64))
        base = torch.full_like(thr, float(advantage_R[row]))
        weighted = thr_advantages(base, thr, float(tau_R[row]), p)
        advantages_N[offsets[row] : offsets[row + 1]] = weighted.numpy()
    return advantages_N


def _at_the_end(table: pa.Table, offsets: Int[np.ndarray, " bounds"]) -> Float[np.ndarray, " N"]:
    scores_N = np.zeros(int(offsets[-1]), dtype=np.float32)
    some_R = np.diff(offsets) > 0
    scores_N[offsets[1:][some_R] - 1] = table["reward"].to_numpy()[some_R]
    return scores_N


def _groups(table: pa.Table) -> pa.ChunkedArray:
    in_training = pc.binary_join_element_wise(
        table["step"].cast(pa.string()), table["prompt_id"], "/"
    )
    return pc.coalesce(in_training, table["prompt_id"])


def _end_to_end(
    prompts: pa.ListArray, values: Int[np.ndarray, " N"], offsets: Int[np.ndarray, " bounds"]
) -> pa.ListArray:
    """Each prompt followed by its completion."""
    prompt_values, prompt_offsets = list_values(prompts)
    lengths = np.stack([np.diff(prompt_offsets), np.diff(offsets)], axis=1).ravel()
    is_prompt = np.repeat(np.tile([True, False], len(offsets) - 1), lengths)
    joined = np.empty(len(is_prompt), dtype=values.dtype)
    joined[is_prompt], joined[~is_prompt] = prompt_values, values
    return _lists(offsets + prompt_offsets, joined)


def _ones(offsets: Int[np.ndarray, " bounds"]) -> pa.ListArray:
    return _lists(offsets, np.ones(int(offsets[-1]), dtype=np.int8))


def _lists(offsets: Int[np.ndarray, " bounds"], values: np.ndarray) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pa.array(values))


def _writer(
    suffix: str,
) -> Callable[[pa.Schema, Iterable[pa.Table]], Callable[[BinaryIO], None]]:
    return parquet_writer if suffix == ".parquet" else _lines


def _lines(schema: pa.Schema, tables: Iterable[pa.Table]) -> Callable[[BinaryIO], None]:
    """What fills a file with one JSON object per completion."""
    del schema  # JSON has no place for units: `thr-probe data schema --of verl` tells them

    def write(file: BinaryIO) -> None:
        for found in tables:
            table = _short(found)
            for start in range(0, table.num_rows, _LINES_AT_ONCE):
                for row in table.slice(start, _LINES_AT_ONCE).to_pylist():
                    file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")

    return write


def _short(table: pa.Table) -> pa.Table:
    """Float32 as the float64 with the fewest digits that reads back as it: half the file."""
    columns = []
    for column in table.columns:
        kind = column.type
        if kind == pa.float32():
            columns.append(column.cast(pa.string()).cast(pa.float64()))
        elif pa.types.is_list(kind) and kind.value_type == pa.float32():
            columns.append(column.cast(pa.list_(pa.string())).cast(pa.list_(pa.float64())))
        else:
            columns.append(column)
    return pa.table(columns, names=table.column_names)


def _check_folder(folder: Path, to: str, *, overwrite: bool) -> None:
    """Refuse a folder that holds anything, or with `overwrite` anything but such an export."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UsageError(f"{folder} is a file", "choose another -o")
    names = sorted(entry.name for entry in folder.iterdir())
    own = re.compile(r"completions_\d{5,}\.parquet" if to == "trl" else r"\d+\.jsonl")
    foreign = [name for name in names if not own.fullmatch(name)]
    if foreign:
        raise UsageError(
            f"{folder} holds {foreign[0]}, which is no export to {to}", "choose another -o"
        )
    if names and not overwrite:
        raise UsageError(
            f"{folder} is not empty", "replace what it holds with --overwrite, or choose another -o"
        )


def _write_folder(layout: _Layout, folder: Path, tables: Iterable[pa.Table]) -> list[Path]:
    """A file per step; the folder takes its name when all are written."""
    temporary = temporary_folder(folder)
    shutil.rmtree(temporary, ignore_errors=True)  # of a killed process
    names: list[str] = []
    try:
        for step, parts in itertools.groupby(_by_step(tables), key=lambda each: each[0]):
            name = STEP_FILES[layout.name].format(step=0 if step is None else step)
            if name in names:
                raise DataError(
                    f"the completions of step {step} do not follow each other in this run",
                    "write them to one file, such as -o rollouts.parquet",
                )
            names.append(name)
            write = _writer(Path(name).suffix)
            write_streamed(temporary / name, write(layout.schema, (part for _, part in parts)))
        temporary.mkdir(parents=True, exist_ok=True)  # of a run without completions
        put_in_place(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return [folder / name for name in names]


def _by_step(tables: Iterable[pa.Table]) -> Iterator[tuple[int | None, pa.Table]]:
    for table in tables:
        steps = table["step"].fill_null(-1).to_numpy()
        cuts = [0, *(np.flatnonzero(steps[1:] != steps[:-1]) + 1).tolist(), len(steps)]
        for start, stop in itertools.pairwise(cuts):
            if stop > start:
                step = int(steps[start])
                yield None if step < 0 else step, table.slice(start, stop - start)
