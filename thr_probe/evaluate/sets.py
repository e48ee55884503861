"""Problem sets by name: the paper's six benchmarks, where their files are, how large they are."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from thr_probe.errors import PrerequisiteError, UsageError
from thr_probe.evaluate.settings import EvalConfig
from thr_probe.problems import load_problems
from thr_probe.problems.tables import looks_like_path

ENDINGS = (".parquet", ".jsonl", ".csv")


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """A test set of the paper."""

    size: int
    """Problems (METHOD 8)."""
    hub: str
    """Where the hub has it, with question and answer in columns of their own."""
    stems: tuple[str, ...]
    """Names that its file goes by."""


BENCHMARKS = {
    "aime24": Benchmark(size=30, hub="HuggingFaceH4/aime_2024:train", stems=("aime24",)),
    "aime25": Benchmark(size=30, hub="math-ai/aime25:test", stems=("aime25",)),
    "amc23": Benchmark(size=40, hub="math-ai/amc23:test", stems=("amc23",)),
    "math500": Benchmark(size=500, hub="HuggingFaceH4/MATH-500:test", stems=("math500",)),
    "minerva": Benchmark(
        size=272, hub="math-ai/minervamath:test", stems=("minerva", "minerva_math")
    ),
    "olympiadbench": Benchmark(
        size=675, hub="knoveleng/OlympiadBench:train", stems=("olympiadbench",)
    ),
}
"""By the names of `--dataset`, in the order of METHOD 8."""

HARD = ("aime25", "aime24", "amc23")
STANDARD = ("math500", "minerva", "olympiadbench")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalSet:
    """A problem set of an evaluation."""

    name: str
    """In tables and as the name of its folder."""
    source: str
    """What `load_problems` is given."""

    @property
    def size(self) -> int | None:
        """Problems that a benchmark has; None for other sets."""
        return BENCHMARKS[self.name].size if self.name in BENCHMARKS else None

    @property
    def is_sampled(self) -> bool:
        """Whether Pass@K is reported on it where nothing else is asked for."""
        return self.name in HARD or self.name not in BENCHMARKS


def resolve_set(name: str, data_dir: str | None) -> EvalSet:
    """Where a set comes from: a path as given, a file of the folder, the hub, or the lab.

    Raises:
        UsageError: a folder that is not there.
        PrerequisiteError: a benchmark without a file and without the hub's package.
    """
    if Path(name).expanduser().is_file():
        return EvalSet(name=set_name(Path(name).stem), source=name)
    if data_dir is not None:
        found = _in_folder(name, Path(data_dir).expanduser())
        if found is not None:
            return EvalSet(name=name, source=str(found))
    if name not in BENCHMARKS:
        _check_name(name)
        return EvalSet(name=_folder_name(name), source=name)
    if find_spec("datasets") is None:
        raise PrerequisiteError(
            f"there is no file of {name}" + (f" in {data_dir}" if data_dir else ""),
            f"put {name}.parquet (or .jsonl, .csv; columns question and answer) into a folder and "
            'name it with --data-dir, or pip install "thr_probe[hub]" to fetch '
            f"{BENCHMARKS[name].hub}",
        )
    return EvalSet(name=name, source=BENCHMARKS[name].hub)


def _check_name(name: str) -> None:
    """A bare word is neither a file nor a hub id, but a benchmark misspelt."""
    if not re.fullmatch(r"[\w-]+", name) or name == "lab":
        return
    close = difflib.get_close_matches(name, BENCHMARKS, n=1)
    raise UsageError(
        f"unknown set {name!r}",
        (f"did you mean {close[0]}? " if close else "")
        + f"known: {', '.join(BENCHMARKS)}, lab:test, lab:validation, a file, or a hub id org/name",
    )


def check_readable(item: EvalSet, config: EvalConfig) -> None:
    """Read a set that lies here, so that what is wrong with it is told before hours of work.

    Raises:
        UsageError, DataError: no such file or split, no column of questions or golds.
    """
    is_file = Path(item.source).expanduser().exists() or looks_like_path(item.source)
    if is_file or item.source.partition(":")[0] == "lab":
        load_problems(
            item.source,
            question_column=config.question_column,
            answer_column=config.answer_column,
            max_prompts=1,
            default_template="plain",
        )


def _in_folder(name: str, folder: Path) -> Path | None:
    if not folder.is_dir():
        raise UsageError(f"--data-dir {folder}: there is no such folder")
    stems = BENCHMARKS[name].stems if name in BENCHMARKS else (name,)
    paths = (folder / f"{stem}{ending}" for stem in stems for ending in ENDINGS)
    return next((path for path in paths if path.is_file()), None)


def set_name(stem: str) -> str:
    """A benchmark's file is that benchmark, whatever folder it lies in; others as a folder's name.

    >>> set_name("minerva_math"), set_name("lab:test")
    ('minerva', 'lab-test')
    """
    known = (name for name, benchmark in BENCHMARKS.items() if stem in benchmark.stems)
    return next(known, _folder_name(stem))


def _folder_name(source: str) -> str:
    """A source as the name of a folder.

    >>> _folder_name("lab:test"), _folder_name("org/name:train"), _folder_name("my set.v2")
    ('lab-test', 'org-name-train', 'my-set.v2')
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "-", source).strip("-.") or "set"
