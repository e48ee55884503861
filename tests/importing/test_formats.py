"""Which format a path holds, named or recognised."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from foreign_rows import importer_of

from thr_probe.errors import DataError, UsageError
from thr_probe.importing import formats
from thr_probe.importing.formats import FORMATS, find_source, load_importer
from thr_probe.traces.importers.foreign import Importer


def test_every_format_has_an_importer_of_its_name() -> None:
    assert [load_importer(name).name for name in FORMATS] == list(FORMATS)
    assert all(load_importer(name).meaning for name in FORMATS)


def test_formats_load_without_torch() -> None:
    code = (
        "import sys; from thr_probe.importing.formats import FORMATS, load_importer;"
        "[load_importer(name) for name in FORMATS];"
        "print(sorted({'torch', 'transformers', 'matplotlib'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_an_unknown_format_names_the_closest() -> None:
    with pytest.raises(UsageError) as caught:
        load_importer("lm_eval")
    assert caught.value.hint == "did you mean --from lm-eval?"


def named(name: str, *endings: str) -> Importer:
    def find(path: Path) -> list[Path]:
        entries = sorted(path.iterdir()) if path.is_dir() else [path]
        return [entry for entry in entries if entry.name.endswith(endings)]

    return Importer(name=name, meaning=f"files of {name}", find=find, read=importer_of([]).read)


@pytest.fixture
def two_formats(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"one": named("one", ".one", ".both"), "two": named("two", ".two", ".both")}
    monkeypatch.setattr(formats, "FORMATS", dict.fromkeys(known, ""))
    monkeypatch.setattr(formats, "load_importer", known.__getitem__)


@pytest.mark.usefixtures("two_formats")
def test_the_only_format_that_fits_every_path_is_used(tmp_path: Path) -> None:
    for name in ("a.one", "b.two", "c.both"):
        (tmp_path / name).touch()
    source = find_source([tmp_path / "a.one", tmp_path / "c.both"], None)
    assert source.importer.name == "one"
    assert [path.name for path in source.files] == ["a.one", "c.both"]
    with pytest.raises(UsageError, match="could be one and two"):
        find_source([tmp_path / "c.both"], None)
    with pytest.raises(DataError, match="one: files of one; two: files of two"):
        find_source([tmp_path / "a.one", tmp_path / "b.two"], None)


@pytest.mark.usefixtures("two_formats")
def test_a_format_that_is_named_wants_its_files_in_every_path(tmp_path: Path) -> None:
    (tmp_path / "c.both").touch()
    (tmp_path / "other").mkdir()
    assert find_source([tmp_path], "two").importer.name == "two"
    with pytest.raises(DataError, match=r"other: no file of the format two .*holds nothing"):
        find_source([tmp_path, tmp_path / "other"], "two")


@pytest.mark.usefixtures("two_formats")
def test_a_file_named_twice_or_through_a_link_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "a.one").touch()
    (tmp_path / "b.one").symlink_to(tmp_path / "a.one")
    source = find_source([tmp_path / "a.one", tmp_path], None)
    assert source.files == (tmp_path / "a.one",)


def test_a_path_that_does_not_exist_names_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "rollouts.jsonl").touch()
    with pytest.raises(DataError, match=r"rolouts\.jsonl does not exist") as caught:
        find_source([tmp_path / "rolouts.jsonl"], None)
    assert caught.value.hint == f"did you mean {tmp_path / 'rollouts.jsonl'}?"
    with pytest.raises(DataError) as caught:
        find_source([tmp_path / "no" / "x.jsonl"], None)
    assert caught.value.hint == f"the folder {tmp_path / 'no'} does not exist either"


def test_evaluations_beside_training_are_told_and_read_where_they_are_named(
    tmp_path: Path,
) -> None:
    row = '{"content": [["P", "C"]], "rewards": [1.0], "idx": [0]}\n'
    train, val = (tmp_path / f"{name}_data_step3.jsonl" for name in ("train", "val"))
    train.write_text(row)
    val.write_text(row * 2)
    source = find_source([tmp_path], "nemo-rl")
    assert (source.files, source.left_out) == ((train,), (val,))
    both = find_source([tmp_path, val], None)
    assert (both.files, both.left_out) == ((train, val), ())
