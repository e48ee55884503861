"""What a run is and holds: its manifest, counts, states, lengths and bytes, in one stream.

Memory is that of a row group and a few numbers per group of completions.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from thr_probe.errors import DataError
from thr_probe.traces.layout import ROLLOUTS, SCORES, TableFile, inspect_table
from thr_probe.traces.reader import Run
from thr_probe.traces.schema import TABLES

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
"""Of lengths, by nearest rank: each is a length that occurs."""

_STATES = ("ids_source", "finish_reason", "verify_status")
_LENGTHS = ("token_ids", "sampler_logprobs")
_NOT_OPTIONS = ("schema_version", "score_id", "versions")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFact:
    """One line about a run."""

    section: str
    """What it belongs to, such as `counts` or `scores/default`."""
    name: str
    """What is told."""
    value: object
    """Text, a number, or None where it is not known."""
    unit: str = ""
    """Of a number."""
    share: float | None = None
    """Share of its whole, where it is a part of one, in [0, 1]."""
    per_token: float | None = None
    """Of bytes: over the completion tokens of the run."""


@dataclass(slots=True, kw_only=True)
class _Tally:
    """What is summed over the stream."""

    states: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(column, state) -> completions."""
    lengths: Counter[int] = field(default_factory=Counter)
    """Tokens of a completion -> completions; only where they are known."""
    characters: Counter[int] = field(default_factory=Counter)
    """Characters of a completion -> completions; where no tokens are known."""
    groups: list[pd.DataFrame] = field(default_factory=list)
    """Per row group and group: completions and correct ones."""

    @property
    def num_tokens(self) -> int:
        """Completion tokens."""
        return sum(length * number for length, number in self.lengths.items())


def run_info(run: Run) -> list[RunFact]:
    """Everything that `thr-probe data info` prints, in its order.

    Args:
        run: any run: incomplete, of training, without token ids or scores.
    """
    tally = _tally(run)
    groups = _groups(tally)
    return [
        *_manifest(run),
        *_counts(run, tally, groups),
        *_outcomes(tally, groups, run.num_completions),
        *_lengths(run, tally, groups),
        *_score_sets(run),
        *_bytes(run, tally.num_tokens),
    ]


def quantiles_of(lengths: Mapping[int, int]) -> dict[float, int]:
    """The quantiles of a distribution by nearest rank.

    Args:
        lengths: value -> how often it occurs.

    >>> quantiles_of({10: 1, 20: 2, 90: 1})[0.5]
    20
    """
    values = np.array(sorted(lengths))
    up_to = np.cumsum([lengths[value] for value in values.tolist()])
    ranks = np.maximum(np.ceil(np.array(QUANTILES) * up_to[-1]), 1)
    places = np.searchsorted(up_to, ranks)
    return dict(zip(QUANTILES, values[places].tolist(), strict=True))


def _tally(run: Run) -> _Tally:
    tally = _Tally()
    stored = {name for part in run.rollout_parts for name in part.columns}
    of_length = [name for name in _LENGTHS if name in stored]
    columns = ["step", "prompt_id", "correct", *_STATES, *of_length[:1]]
    for table in run.iter_completions(columns):
        for name in _STATES:
            for entry in table[name].value_counts().to_pylist():
                tally.states[name, entry["values"]] += entry["counts"]
        if of_length:
            _count(tally.lengths, pc.list_value_length(table[of_length[0]]))
        keys = table.select(["step", "prompt_id", "correct"]).to_pandas()
        keys["step"] = keys["step"].fillna(-1).astype(np.int64)
        grouped = keys.groupby(["step", "prompt_id"], sort=False)["correct"]
        tally.groups.append(grouped.agg(["size", "sum"]).reset_index())
    if not tally.lengths:  # an imported run may have no ids: then the texts tell the lengths
        for table in run.iter_completions(["text"]):
            _count(tally.characters, pc.utf8_length(table["text"]))
    return tally


def _count(counter: Counter[int], lengths: pa.ChunkedArray) -> None:
    for entry in lengths.drop_null().value_counts().to_pylist():
        counter[entry["values"]] += entry["counts"]


def _groups(tally: _Tally) -> pd.DataFrame:
    """A row per group: step (-1 outside training), prompt_id, size, sum (the correct ones)."""
    empty = pd.DataFrame({"step": [], "prompt_id": [], "size": [], "sum": []})
    rows = pd.concat(tally.groups) if tally.groups else empty
    return rows.groupby(["step", "prompt_id"], sort=False).sum().reset_index()


def _manifest(run: Run) -> Iterator[RunFact]:
    manifest = run.manifest
    told = {
        "path": str(run.path),
        "status": manifest.status.value,
        "model": manifest.model,
        "revision": manifest.revision,
        "dataset": manifest.dataset,
        "sampler": manifest.sampler,
        "verifier": manifest.verifier,
        "temperature": run.config.get("temperature"),
        "top_p": run.config.get("top_p"),
        "seed": manifest.seed,
        "group_size": manifest.group_size,
        "tool_version": manifest.tool_version,
        "schema_version": manifest.schema_version,
        "tokenizer_digest": manifest.tokenizer_digest,
        "dataset_digest": manifest.dataset_digest,
        "command": shlex.join(manifest.argv) or None,
    }
    for name, value in told.items():
        yield RunFact(section="run", name=name, value=value)


def _counts(run: Run, tally: _Tally, groups: pd.DataFrame) -> Iterator[RunFact]:
    problems = run.problems()
    with_tokens = sum(tally.lengths.values())
    steps = sorted(set(groups.loc[groups["step"] >= 0, "step"]))
    told: dict[str, object] = {
        "problems": len(problems),
        "problems_with_completions": int(groups["prompt_id"].nunique()),
        "groups": len(groups),
        "completions": run.num_completions,
        "completions_with_tokens": with_tokens,
        "tokens": tally.num_tokens if with_tokens else None,
        "parts": len(run.rollout_parts),
        "steps": len(steps),
    }
    if steps:
        told |= {"first_step": int(steps[0]), "last_step": int(steps[-1])}
    for name, value in told.items():
        yield RunFact(section="counts", name=name, value=value)


def _outcomes(tally: _Tally, groups: pd.DataFrame, total: int) -> Iterator[RunFact]:
    """Correct completions, groups by outcome and size, and the states."""
    size, correct = groups["size"], groups["sum"]
    yield _part("outcomes", "correct_completions", int(correct.sum()), total)
    for name, chosen in (
        ("mixed_groups", (correct > 0) & (correct < size)),
        ("groups_all_correct", correct == size),
        ("groups_all_wrong", correct == 0),
    ):
        yield _part("outcomes", name, int(chosen.sum()), len(groups))
    if len(groups):
        bounds = {"smallest_group": int(size.min()), "largest_group": int(size.max())}
        for name, value in bounds.items():
            yield RunFact(section="outcomes", name=name, value=value, unit="completions")
        usual = int(size.mode().iloc[0])
        yield _part("outcomes", "groups_of_another_size", int((size != usual).sum()), len(groups))
    for name in _STATES:
        for (column, state), number in tally.states.most_common():
            if column == name:
                yield _part(name, state, number, total)


def _part(section: str, name: str, number: int, total: int) -> RunFact:
    share = number / total if total else None
    return RunFact(section=section, name=name, value=number, share=share)


def _lengths(run: Run, tally: _Tally, groups: pd.DataFrame) -> Iterator[RunFact]:
    """Quantiles of the lengths of prompts (of problems with completions) and completions."""
    problems = run.problems()
    asked = problems[problems["prompt_id"].isin(groups["prompt_id"])]
    unit, lengths = "characters", asked["prompt_text"].str.len()
    if "prompt_token_ids" in asked and asked["prompt_token_ids"].notna().all():
        unit, lengths = "tokens", asked["prompt_token_ids"].map(len)
    yield from _quantiles("prompt length", Counter(lengths.tolist()), unit)
    of_tokens = bool(tally.lengths)
    chosen = tally.lengths if of_tokens else tally.characters
    known = sum(tally.lengths.values())
    if of_tokens and known < run.num_completions:  # an import of files with and without ids
        yield _part("completion length", "with token ids", known, run.num_completions)
    yield from _quantiles("completion length", chosen, "tokens" if of_tokens else "characters")


def _quantiles(section: str, lengths: Mapping[int, int], unit: str) -> Iterator[RunFact]:
    names = {0.0: "smallest", 0.5: "median", 1.0: "largest"}
    for quantile, value in quantiles_of(lengths).items() if lengths else ():
        name = names.get(quantile, f"{quantile:.0%}")
        yield RunFact(section=section, name=name, value=value, unit=unit)


def _score_sets(run: Run) -> Iterator[RunFact]:
    for score_id, parts in run.score_parts.items():
        section = f"{SCORES}/{score_id}"
        number = sum(part.num_rows for part in parts)
        yield _part(section, "completions", number, run.num_completions)
        yield RunFact(section=section, name="parts", value=len(parts))
        declared = [name for name in TABLES[SCORES] if any(name in part.columns for part in parts)]
        others = sorted({name for part in parts for name in part.columns} - set(declared))
        yield RunFact(section=section, name="columns", value=", ".join([*declared, *others]))
        try:
            options = run.score_info(score_id)
        except DataError as error:
            # collect writes it last, so an interrupted run has none yet
            yield RunFact(section=section, name="options", value=f"not known: {error.message}")
            continue
        for name, value in options.items():
            if name not in _NOT_OPTIONS:
                yield RunFact(section=section, name=name, value=_scalar(value))


def _scalar(value: object) -> object:
    return value if isinstance(value, str | int | float | None) else str(value)


def _bytes(run: Run, num_tokens: int) -> Iterator[RunFact]:
    """Bytes of the run's files, and of each column of rollouts and scores, compressed."""
    files = {path: path.stat().st_size for path in sorted(run.path.rglob("*")) if path.is_file()}
    total = sum(files.values())
    yield _size("bytes on disk", "all files", total, total, num_tokens)
    places: Counter[str] = Counter()
    for path, size in files.items():
        places[_place(path.relative_to(run.path))] += size
    for place, size in sorted(places.items()):
        yield _size("bytes on disk", place, size, total, num_tokens)
    tables: dict[str, Sequence[TableFile]] = {
        "problems": [inspect_table(run.path / "problems.parquet", "problems")],
        ROLLOUTS: run.rollout_parts,
        **{f"{SCORES}/{score_id}": parts for score_id, parts in run.score_parts.items()},
    }
    for table, parts in tables.items():
        for column, size in column_bytes(parts).items():
            yield _size("bytes by column", f"{table} {column}", size, total, num_tokens)


def _place(path: Path) -> str:
    """Rollouts, each score set and each other folder are one line, as is each single file."""
    inside = path.parts
    return "/".join(inside[: 2 if inside[0] == SCORES and len(inside) > 2 else 1])


def _size(section: str, name: str, size: int, total: int, num_tokens: int) -> RunFact:
    return RunFact(
        section=section,
        name=name,
        value=size,
        unit="bytes",
        share=size / total if total else None,
        per_token=size / num_tokens if num_tokens else None,
    )


def column_bytes(parts: Sequence[TableFile]) -> dict[str, int]:
    """Compressed bytes of each column over some files, from their footers, largest first."""
    sizes: Counter[str] = Counter()
    for part in parts:
        for group in range(part.footer.num_row_groups):
            row_group = part.footer.row_group(group)
            for index in range(row_group.num_columns):
                chunk = row_group.column(index)
                sizes[chunk.path_in_schema.split(".")[0]] += chunk.total_compressed_size
    return dict(sizes.most_common())
