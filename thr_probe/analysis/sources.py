"""What the analyses of several runs are given: runs of `collect`, folders of `thr-probe eval`.

A path is one of

- a run directory; its completions are greedy where it was sampled at temperature 0, else sampled;
- a folder that `thr-probe eval` wrote, which holds a run for each set and measure. Of one with
  several checkpoints it is the `best` of its `eval.json`, where `--select best` asked for it;
  where not, the checkpoint has to be named, `PATH:step-000020`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from thr_probe.analysis.training_runs import run_names
from thr_probe.errors import DataError, UsageError
from thr_probe.traces.manifest import MANIFEST_NAME, read_json_object
from thr_probe.traces.reader import Run, read_run

EVAL_NAME = "eval.json"
"""What makes a folder one of `thr-probe eval`."""

GREEDY, SAMPLED = "greedy", "sampled"
"""How completions were drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What one policy answered."""

    name: str
    """Its folder's name, as `run_names` gives it; with `:CHECKPOINT` where that was named."""
    path: Path
    """The folder that was given."""
    checkpoint: str | None
    """Which checkpoint of an evaluation it is; None for a run directory."""
    greedy: tuple[Run, ...]
    """Runs of the likeliest completion of each question, one per set."""
    sampled: tuple[Run, ...]
    """Runs of sampled completions, one per set."""

    @property
    def runs(self) -> tuple[Run, ...]:
        """All of them, the greedy ones first."""
        return self.greedy + self.sampled


def read_sources(paths: Sequence[str | Path]) -> list[Source]:
    """Open the runs behind some paths, in the order given.

    Raises:
        UsageError: no path, one given twice, or a checkpoint that has to be named or is not there.
        DataError: a folder that is neither a run nor an evaluation, or a damaged one.
    """
    if not paths:
        raise UsageError(
            "no run was given", "give run directories, or folders that thr-probe eval wrote"
        )
    places = [_place(path) for path in paths]
    folders = [folder for folder, _ in places]
    names = run_names(list(dict.fromkeys(folders)))
    name_of = dict(zip(dict.fromkeys(folders), names, strict=True))
    sources = [
        _source(folder, asked, name_of[folder] + (f":{asked}" if asked else ""))
        for folder, asked in places
    ]
    for key, times in Counter((each.path.resolve(), each.checkpoint) for each in sources).items():
        if times > 1:
            what = key[0].name + (f" (checkpoint {key[1]})" if key[1] else "")
            raise UsageError(f"{what} was given {times} times", "give each run once")
    return sources


def _place(path: str | Path) -> tuple[Path, str | None]:
    """The folder, and the checkpoint named behind it."""
    text = str(path)
    head, colon, checkpoint = text.rpartition(":")
    # a folder may have a colon in its name
    if not colon or Path(text).exists() or not (Path(head) / EVAL_NAME).is_file():
        return Path(text), None
    if not checkpoint:
        raise UsageError(f"{text}: no checkpoint behind the colon", "write PATH:CHECKPOINT")
    return Path(head), checkpoint


def _source(folder: Path, asked: str | None, name: str) -> Source:
    if (folder / EVAL_NAME).is_file():
        return _evaluation(folder, asked, name)
    if folder.is_dir() and not (folder / MANIFEST_NAME).is_file():
        raise DataError(
            f"{folder} is neither a run nor an evaluation: it has no {MANIFEST_NAME} and no "
            f"{EVAL_NAME}",
            "give a folder that thr-probe collect or thr-probe eval wrote (a finished one)",
        )
    run = read_run(folder)
    greedy = is_greedy(run)
    return Source(
        name=name,
        path=folder,
        checkpoint=None,
        greedy=(run,) if greedy else (),
        sampled=() if greedy else (run,),
    )


def is_greedy(run: Run) -> bool:
    """Whether a run was sampled at temperature 0; one whose temperature is not known was not."""
    return run.config.get("temperature") == 0


def _evaluation(folder: Path, asked: str | None, name: str) -> Source:
    path = folder / EVAL_NAME
    content = read_json_object(path)
    records = content.get("runs")
    if not isinstance(records, list) or not all(isinstance(each, dict) for each in records):
        raise DataError(f"{path}: field runs is not a list of runs", "evaluate again")
    checkpoint = _checkpoint(folder, asked, content.get("best"), records)
    runs: dict[str, list[Run]] = {GREEDY: [], SAMPLED: []}
    for record in records:
        if str(record.get("checkpoint")) == checkpoint:
            measure = str(record.get("measure"))
            if measure not in runs:
                raise DataError(
                    f"{path}: unknown measure {measure!r}, expected {GREEDY} or {SAMPLED}"
                )
            runs[measure].append(read_run(folder / str(record.get("path"))))
    return Source(
        name=name,
        path=folder,
        checkpoint=checkpoint,
        greedy=tuple(runs[GREEDY]),
        sampled=tuple(runs[SAMPLED]),
    )


def _checkpoint(
    folder: Path, asked: str | None, best: object, records: Sequence[Mapping[str, object]]
) -> str:
    """The one named, else the best, else the only one."""
    there = list(dict.fromkeys(str(record.get("checkpoint")) for record in records))
    if not there:
        raise DataError(f"{folder} holds no runs", "evaluate again with thr-probe eval")
    if asked is not None:
        if asked not in there:
            raise UsageError(f"{folder} has no checkpoint {asked!r}", f"it has: {', '.join(there)}")
        return asked
    if best is not None:
        return str(best)
    if len(there) > 1:
        raise UsageError(
            f"{folder} holds {len(there)} checkpoints: {', '.join(there)}",
            f"name one, as {folder}:{there[-1]}",
        )
    return there[0]
