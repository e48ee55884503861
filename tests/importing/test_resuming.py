"""An import that is stopped or killed is continued, and equals one that was not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from foreign_rows import Letters, foreign, imported, rows_of, source_of

from thr_probe.errors import UsageError
from thr_probe.importing import ImportSettings, import_rollouts, plan, run, writing
from thr_probe.importing.report import read_report
from thr_probe.progress import Advance, Monitor
from thr_probe.traces import RunStatus, read_manifest, read_run
from thr_probe.traces.importers.foreign import Refused

ROWS = [
    foreign(str(number), correct=None if turn else False, text=f"\\boxed{{{turn + number}}}")
    for turn in range(3)
    for number in range(10)
] + [Refused(where="line 9", reason="not JSON")]


class Killed(BaseException):
    """The process ends here."""


class Stopping(Monitor):
    """Stops before the part of a number."""

    def __init__(self, part: int) -> None:
        self.part = part
        self.done: list[bool] = []
        self.started = False

    def begin(self, num_prompts: int) -> None:
        self.started = True

    def advance(self, advance: Advance) -> None:
        self.done.append(advance.resumed)

    def should_stop(self) -> bool:
        return (self.started or self.part < 0) and len(self.done) >= self.part


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "GROUPS_PER_PART", 3)
    monkeypatch.setattr(plan, "LEAST_BYTES", 0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of an import that was not interrupted, parts of three groups."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "GROUPS_PER_PART", 3)
        patch.setattr(plan, "LEAST_BYTES", 0)
        imported(folder, ROWS, words=Letters())
    return files_of(folder / "run", folder)


def files_of(run_path: Path, folder: Path) -> dict[str, bytes]:
    """Every file of a run, paths of the folder left out."""
    return {
        str(path.relative_to(run_path)): path.read_bytes().replace(str(folder).encode(), b"")
        for path in sorted(run_path.rglob("*"))
        if path.is_file()
    }


def start(folder: Path, monitor: Monitor, *, resume: bool = False) -> object:
    source = source_of(folder, ROWS)
    settings = ImportSettings()
    return import_rollouts(
        source, folder / "run", settings, words=Letters(), resume=resume, monitor=monitor
    )


@pytest.mark.parametrize("part", [-1, 0, 1, 3])
def test_stopped_before_a_part_it_is_continued_to_the_same_run(
    tmp_path: Path, whole: dict[str, bytes], part: int
) -> None:
    assert start(tmp_path, Stopping(part)) is None
    assert (tmp_path / "run").exists() == (part >= 0)
    monitor = Stopping(99)
    assert start(tmp_path, monitor, resume=True) is not None
    assert monitor.done == [True] * max(part, 0) + [False] * (4 - max(part, 0))
    assert files_of(tmp_path / "run", tmp_path) == whole


@pytest.mark.parametrize(
    ("module", "name", "call"),
    [
        (run, "create_run", 1),
        (run, "write_rows", 1),
        (run, "write_rows", 3),
        (run, "write_occurring_tokens", 1),
        (run, "write_report", 1),
        (run, "finish_run", 1),
        (writing.PartMaker, "make", 2),
    ],
)
def test_killed_at_any_stage_it_is_continued_to_the_same_run(
    tmp_path: Path,
    whole: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    module: object,
    name: str,
    call: int,
) -> None:
    calls: Sequence[None] = []
    real = getattr(module, name)

    def dying(*args: object, **values: object) -> object:
        nonlocal calls
        calls = [*calls, None]
        if len(calls) == call:
            raise Killed
        return real(*args, **values)

    with monkeypatch.context() as patch:
        patch.setattr(module, name, dying)
        with pytest.raises(Killed):
            start(tmp_path, Monitor())
    if name != "create_run":
        assert not read_run(tmp_path / "run").is_complete
    (tmp_path / ".run.spool.tmp").write_bytes(b"left by a killed process")
    start(tmp_path, Monitor(), resume=True)
    assert files_of(tmp_path / "run", tmp_path) == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.fake", "run"]


def test_a_complete_import_is_left_as_it_is(tmp_path: Path) -> None:
    report = imported(tmp_path, ROWS)
    before = files_of(tmp_path / "run", tmp_path)
    assert imported(tmp_path, ROWS, resume=True) == report
    assert files_of(tmp_path / "run", tmp_path) == before
    assert read_report(tmp_path / "run") == report


def test_other_files_or_options_are_not_resumed(tmp_path: Path) -> None:
    assert start(tmp_path, Stopping(1)) is None
    with pytest.raises(UsageError, match=r"files is .*bytes.* there"):
        imported(tmp_path, ROWS[1:], words=Letters(), resume=True)
    with pytest.raises(UsageError, match="regrade is False there, True here"):
        imported(tmp_path, ROWS, words=Letters(), resume=True, regrade=True)
    with pytest.raises(UsageError, match="the tokenizer's files changed"):
        imported(tmp_path, ROWS, words=Letters(digest="other"), resume=True)


def test_a_run_is_not_replaced_unless_asked(tmp_path: Path) -> None:
    imported(tmp_path, ROWS)
    with pytest.raises(UsageError, match="holds a run already"):
        imported(tmp_path, ROWS[:1])
    imported(tmp_path, [foreign("x")], overwrite=True)
    assert len(rows_of(tmp_path / "run")) == 1


def test_a_run_is_kept_where_the_files_to_replace_it_are_no_good(tmp_path: Path) -> None:
    imported(tmp_path, ROWS)
    bad = [foreign("a", correct=None, reward=0.3)]
    with pytest.raises(UsageError, match=r"the reward is 0\.3"):
        imported(tmp_path, bad, overwrite=True)
    assert len(rows_of(tmp_path / "run")) == 30


def test_a_dry_run_reports_the_same_and_writes_nothing(tmp_path: Path) -> None:
    report = imported(tmp_path, ROWS, dry_run=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.fake"]
    assert imported(tmp_path, ROWS) == report


def test_the_manifest_says_where_the_run_came_from(tmp_path: Path) -> None:
    imported(tmp_path, ROWS, model_name="org/policy", dataset_name="sums")
    manifest = read_manifest(tmp_path / "run")
    assert manifest.status is RunStatus.COMPLETE
    assert (manifest.model, manifest.sampler, manifest.seed) == (
        "org/policy",
        "imported:fake",
        None,
    )
    assert (manifest.dataset, manifest.num_prompts, manifest.group_size) == ("sums", 10, 3)
    assert (manifest.counts["rows_read"], manifest.counts["rows_refused"]) == (31, 1)
    saved = json.loads((tmp_path / "run" / "import.json").read_text())
    assert saved["files"][0]["path"] == str(tmp_path / "rows.fake")
    assert len(saved["files"][0]["sha256"]) == 64
    assert saved["refused"] == [{"reason": "not JSON", "rows": 1, "examples": ["line 9"]}]


def test_prompts_that_became_others_are_not_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = [{"role": "user", "content": "1+1?"}]
    rows = [foreign(str(number), prompt_messages=messages) for number in range(5)]
    source, words = source_of(tmp_path, rows), Letters(has_template=True)
    path, settings = tmp_path / "run", ImportSettings()
    assert import_rollouts(source, path, settings, words=words, monitor=Stopping(1)) is None
    with monkeypatch.context() as patch:
        patch.setattr(Letters, "chat_prompt", lambda *_: "today 1+1?")
        with pytest.raises(UsageError, match="chat template changed, or writes the date"):
            import_rollouts(source, path, settings, words=words, resume=True)
    report = import_rollouts(source, path, settings, words=words, resume=True)
    assert report is not None
    assert report.completions == 5
