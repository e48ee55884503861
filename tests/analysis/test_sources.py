"""Which runs a path stands for, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from source_folders import MakeRun, labelled, make_evaluation, with_options

from thr_probe.analysis.sources import read_sources
from thr_probe.errors import DataError, UsageError

SETS = {
    "greedy": {"one": {"a": "1", "b": "0"}, "two": {"c": "1"}},
    "sampled": {"one": {"a": "10", "b": "00"}},
}


def test_a_run_is_greedy_where_its_temperature_is_zero(tmp_path: Path, make_run: MakeRun) -> None:
    cold = make_run(tmp_path / "cold", labelled({"a": "1"}))
    warm = make_run(tmp_path / "warm", labelled({"a": "10"}))
    unknown = make_run(tmp_path / "unknown", labelled({"a": "10"}))
    with_options(cold, temperature=0.0)
    with_options(warm, temperature=0.6)
    found = read_sources([cold, str(warm), unknown])
    assert [source.name for source in found] == ["cold", "warm", "unknown"]
    assert [len(source.greedy) for source in found] == [1, 0, 0]
    assert [len(source.sampled) for source in found] == [0, 1, 1]
    assert [source.checkpoint for source in found] == [None, None, None]
    assert found[0].runs[0].path == cold


def test_equal_names_are_told_apart_by_the_folder_above(tmp_path: Path, make_run: MakeRun) -> None:
    paths = [make_run(tmp_path / name / "run", labelled({"a": "1"})) for name in "xy"]
    assert [source.name for source in read_sources(paths)] == ["x/run", "y/run"]


def test_an_evaluation_holds_the_runs_of_its_sets(tmp_path: Path, make_run: MakeRun) -> None:
    folder = make_evaluation(make_run, tmp_path / "eval", SETS)
    (source,) = read_sources([folder])
    assert (source.name, source.checkpoint) == ("eval", "final")
    names = [[run.path.name for run in runs] for runs in (source.greedy, source.sampled)]
    assert names == [["one", "two"], ["one"]]
    assert len(source.runs) == 3


def test_of_several_checkpoints_it_is_the_best_or_the_one_named(
    tmp_path: Path, make_run: MakeRun
) -> None:
    several = ("step-000002", "final")
    best = make_evaluation(
        make_run, tmp_path / "best", SETS, checkpoints=several, best="step-000002"
    )
    plain = make_evaluation(make_run, tmp_path / "plain", SETS, checkpoints=several)
    found = read_sources([best, f"{best}:final", f"{plain}:step-000002"])
    assert [source.checkpoint for source in found] == ["step-000002", "final", "step-000002"]
    assert [source.name for source in found] == ["best", "best:final", "plain:step-000002"]
    assert found[1].greedy[0].path == best / "final" / "greedy" / "one"
    with pytest.raises(UsageError, match="holds 2 checkpoints: step-000002, final") as caught:
        read_sources([plain])
    assert caught.value.hint == f"name one, as {plain}:final"
    with pytest.raises(UsageError, match="has no checkpoint 'step-000009'") as caught:
        read_sources([f"{plain}:step-000009"])
    assert caught.value.hint == "it has: step-000002, final"
    with pytest.raises(UsageError, match="no checkpoint behind the colon"):
        read_sources([f"{plain}:"])


def test_a_folder_may_have_a_colon_in_its_name(tmp_path: Path, make_run: MakeRun) -> None:
    path = make_run(tmp_path / "a:b", labelled({"a": "1"}))
    assert read_sources([path])[0].name == "a:b"


def test_the_same_run_twice_is_refused_however_it_is_written(
    tmp_path: Path, make_run: MakeRun
) -> None:
    path = make_run(tmp_path / "run", labelled({"a": "1"}))
    (tmp_path / "x").mkdir()
    with pytest.raises(UsageError, match=r"^run was given 2 times$"):
        read_sources([path, tmp_path / "." / "run"])
    with pytest.raises(UsageError, match=r"^run was given 2 times$"):
        read_sources([path, tmp_path / "x" / ".." / "run"])
    folder = make_evaluation(make_run, tmp_path / "eval", SETS)
    with pytest.raises(UsageError, match=r"^eval \(checkpoint final\) was given 2 times$"):
        read_sources([folder, f"{folder}:final"])


def test_what_is_neither_run_nor_evaluation_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="neither a run nor an evaluation"):
        read_sources([tmp_path / "empty"])
    with pytest.raises(DataError, match="there is no such folder"):
        read_sources([tmp_path / "nothing"])
    with pytest.raises(UsageError, match="no run was given"):
        read_sources([])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"runs": 3}', "field runs is not a list"),
        ('{"runs": []}', "holds no runs"),
        ('{"runs": [{"checkpoint": "final", "measure": "odd", "path": "x"}]}', "measure 'odd'"),
        ("{", "cannot be read as JSON"),
    ],
)
def test_a_damaged_evaluation_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "eval.json").write_text(content)
    with pytest.raises(DataError, match=message):
        read_sources([tmp_path])
