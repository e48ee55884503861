"""The sources of a table: paths with labels, opened as far as they can be."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from thr_probe.analysis.sources import EVAL_NAME, Source, read_sources
from thr_probe.analysis.training_runs import run_names
from thr_probe.errors import DataError, UsageError
from thr_probe.traces.manifest import MANIFEST_NAME
from thr_probe.traces.metrics import METRICS_NAME
from thr_probe.traces.reader import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSource:
    """A source under the label of its row."""

    label: str
    """As given before the path, or the name of its folder."""
    path: Path
    """Its folder."""
    source: Source | None
    """Its runs; None for a training run of which only the journal is there."""
    is_training: bool
    """Whether it has the journal of a training run."""

    @property
    def is_evaluation(self) -> bool:
        """Whether it has a run for each set, in a folder of the set's name."""
        return self.source is not None and self.source.checkpoint is not None


def read_table_sources(sources: Sequence[str | Path]) -> list[TableSource]:
    """Open what stands behind some paths, in the order given.

    Args:
        sources: `PATH`, `PATH:CHECKPOINT`, each also as `LABEL=...`.

    Raises:
        UsageError: nothing given, a label or a source twice, an empty label.
        DataError: a path that is neither a run, an evaluation nor a training run.
    """
    split = [_split(source) for source in sources]
    journals = [_is_journal_only(path) for _, path in split]
    opened = [path for (_, path), journal in zip(split, journals, strict=True) if not journal]
    runs = iter(read_sources(opened) if opened or not split else [])
    names = iter(run_names([Path(path) for (_, path) in split if _is_journal_only(path)]))
    read = []
    for (label, path), journal in zip(split, journals, strict=True):
        source = None if journal else next(runs)
        folder = Path(path) if source is None else source.path
        read.append(
            TableSource(
                label=label or (next(names) if source is None else source.name),
                path=folder,
                source=source,
                is_training=(folder / METRICS_NAME).is_file(),
            )
        )
        if source is None and label:
            next(names)
    _check_labels(read)
    return read


def _split(source: str | Path) -> tuple[str, str]:
    """The label, which may be empty, and the path."""
    text = str(source)
    # a folder may have an equals sign in its name, and so may a label: THR (p = -0.1)=PATH
    if "=" not in text or _is_there(text):
        return "", text
    places = [place for place, character in enumerate(text) if character == "="]
    place = next((place for place in places if _is_there(text[place + 1 :])), places[-1])
    label, path = text[:place], text[place + 1 :]
    if not label.strip() or not path:
        what = "label" if path else "path"
        raise UsageError(f"{text!r}: there is no {what}", "write LABEL=PATH")
    return label.strip(), path


def _is_there(path: str) -> bool:
    """Whether it is a path, also with a checkpoint behind it."""
    folder = path.rpartition(":")[0] or path
    return bool(path) and (Path(path).exists() or Path(folder).is_dir())


def _is_journal_only(path: str) -> bool:
    folder = Path(path)
    has_runs = (folder / MANIFEST_NAME).is_file() or (folder / EVAL_NAME).is_file()
    return (folder / METRICS_NAME).is_file() and not has_runs


def _check_labels(sources: Iterable[TableSource]) -> None:
    for label, times in Counter(each.label for each in sources).items():
        if times > 1:
            raise UsageError(
                f"{times} sources are called {label}", "give each a label of its own: LABEL=PATH"
            )


def baseline_of(sources: Sequence[TableSource], versus: str | None) -> TableSource:
    """The source that the others are compared with.

    Raises:
        UsageError: no source has that label.
    """
    labels = [each.label for each in sources]
    if versus is None:
        return sources[0]
    if versus not in labels:
        close = difflib.get_close_matches(versus, labels, n=1)
        raise UsageError(
            f"--versus {versus}: no source is called so",
            (f"did you mean {close[0]}? " if close else "") + f"there are: {', '.join(labels)}",
        )
    return sources[labels.index(versus)]


def runs_of(
    sources: Sequence[TableSource],
    choose: Callable[[TableSource], tuple[Sequence[Run], str]],
) -> tuple[list[tuple[TableSource, Sequence[Run]]], list[str]]:
    """The sources that have runs for a table, with these, and why others have none.

    Args:
        sources: in order.
        choose: the runs of a source, or none and what it lacks.
    """
    chosen: list[tuple[TableSource, Sequence[Run]]] = []
    lacks: list[str] = []
    for each in sources:
        runs, lack = choose(each)
        if runs:
            chosen.append((each, runs))
        else:
            lacks.append(f"{each.label} {lack}: it has no row.")
    return chosen, lacks


def check_filled(found: Collection[object], lacks: Sequence[str], hint: str) -> None:
    """Raises a DataError that says what every source lacks, where none has anything."""
    if not found:
        raise DataError(" ".join(lacks).rstrip("."), hint)
