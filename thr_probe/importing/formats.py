"""The formats by name, and which of them a path holds."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from thr_probe.errors import DataError, UsageError
from thr_probe.traces.importers.foreign import Importer

GENERIC = "generic"
_HERE = "thr_probe.traces.importers"

FORMATS: Mapping[str, str] = {
    "verl": f"{_HERE}.verl",
    "trl": f"{_HERE}.trl",
    "lighteval": f"{_HERE}.lighteval",
    "lm-eval": f"{_HERE}.lm_eval",
    "inspect": f"{_HERE}.inspect_ai",
    "slime": "thr_probe.integrations.slime",  # its files are torch's, which traces never load
    "nemo-rl": f"{_HERE}.nemo_rl",
    "prime-rl": f"{_HERE}.prime_rl",
    "verifiers": f"{_HERE}.verifiers",
    GENERIC: f"{_HERE}.generic",
}
"""Name of a format -> module whose IMPORTER reads it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Files of one format."""

    importer: Importer
    """What reads them."""
    files: tuple[Path, ...]
    """In the order of the paths, then the importer's."""
    left_out: tuple[Path, ...] = ()
    """Files of evaluations beside training, which are read where they are named themselves."""


def load_importer(name: str) -> Importer:
    """The importer of a format.

    Raises:
        UsageError: an unknown name, with the closest known one.
    """
    if name not in FORMATS:
        close = difflib.get_close_matches(name.lower().replace("_", "-"), FORMATS, n=1, cutoff=0.5)
        raise UsageError(
            f"unknown format {name!r}",
            f"did you mean --from {close[0]}?" if close else f"known: {', '.join(FORMATS)}",
        )
    return cast(Importer, importlib.import_module(FORMATS[name]).IMPORTER)


def find_source(paths: Sequence[Path], name: str | None) -> Source:
    """The files that paths stand for, in the format named or the only one that fits them.

    Raises:
        UsageError: an unknown format, or several that fit.
        DataError: a path that does not exist, or in which no file of a format is.
    """
    for path in paths:
        if not path.exists():
            raise DataError(f"{path} does not exist", _beside(path))
    return _recognised(paths) if name is None else _of_format(paths, load_importer(name))


def _of_format(paths: Sequence[Path], importer: Importer) -> Source:
    found = [importer.find(path) for path in paths]
    for path, files in zip(paths, found, strict=True):
        if not files:
            raise DataError(
                f"{path}: no file of the format {importer.name} ({importer.meaning}); "
                f"{_holds(path)}",
                "name the files themselves, or another format with --from",
            )
    return _source(importer, paths, found)


def _recognised(paths: Sequence[Path]) -> Source:
    """The only format of which every path holds files; generic fits every table and is none."""
    fitting = []
    for importer in (load_importer(other) for other in FORMATS if other != GENERIC):
        found = [importer.find(path) for path in paths]
        if all(found):
            fitting.append(_source(importer, paths, found))
    if len(fitting) == 1:
        return fitting[0]
    named = ", ".join(str(path) for path in paths)
    if fitting:
        names = " and ".join(source.importer.name for source in fitting)
        raise UsageError(f"{named} could be {names}", "say which with --from")
    meanings = "; ".join(f"{each}: {load_importer(each).meaning}" for each in FORMATS)
    raise DataError(
        f"{named}: the format is not recognised; looked for {meanings}. "
        + ". ".join(_holds(path) for path in paths),
        "say it with --from; any .parquet, .jsonl or .csv is read with --from generic --map "
        "question=COLUMN,answer=COLUMN,completion=COLUMN,correct=COLUMN",
    )


def _source(importer: Importer, paths: Sequence[Path], found: Iterable[Sequence[Path]]) -> Source:
    # by what links point to: rows that come twice would count twice
    files = {file.resolve(): file for part in reversed(list(found)) for file in reversed(part)}
    left = [file for path in paths for file in importer.left_out(path)]
    return Source(
        importer=importer,
        files=tuple(reversed(files.values())),
        left_out=tuple(file for file in left if file.resolve() not in files),
    )


def _holds(path: Path) -> str:
    if path.is_file():
        size = path.stat().st_size
        return f"{path.name} is a file of {size:,} bytes" if size else f"{path.name} is empty"
    names = sorted(entry.name for entry in path.iterdir())
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    return f"{path} holds {shown or 'nothing'}"


def _beside(path: Path) -> str:
    parent = path.parent
    if not parent.is_dir():
        return f"the folder {parent} does not exist either"
    close = difflib.get_close_matches(path.name, [entry.name for entry in parent.iterdir()], n=1)
    return f"did you mean {parent / close[0]}?" if close else _holds(parent)
