from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from thr_probe.traces.importers.archive import content, entries

ZSTD = Path(__file__).parent / "fixtures" / "inspect" / "lab_arithmetic.eval"


def packed(method, texts):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, text in texts.items():
            archive.writestr(name, text)
    return file


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("is_cut", [False, True])
def test_entries_are_what_zipfile_reads_with_and_without_the_directory(method, is_cut):
    texts = {"a.json": "alpha" * 100, "b/c.json": "", "d.json": "delta"}
    file = packed(method, texts)
    if is_cut:
        with zipfile.ZipFile(file) as archive:
            file = io.BytesIO(file.getvalue()[: archive.start_dir + 10])
    found, is_whole = entries(file)
    assert is_whole is not is_cut
    assert {entry.name: content(file, entry).decode() for entry in found} == texts


def test_entries_packed_with_zstd_are_read():
    with ZSTD.open("rb") as file:
        found, is_whole = entries(file)
        assert is_whole
        assert {entry.method for entry in found} == {93}
        assert all(content(file, entry).startswith((b"{", b"[")) for entry in found)


def test_of_two_entries_of_a_name_the_last_counts():
    file = packed(zipfile.ZIP_STORED, {"a.json": "old"})
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(file, "a") as archive:
        archive.writestr("a.json", "new")
    (entry,), _ = entries(file)
    assert content(file, entry) == b"new"


def test_a_walk_ends_at_the_entry_that_is_cut():
    file = packed(zipfile.ZIP_STORED, {"a.json": "alpha", "b.json": "beta"})
    data = file.getvalue()
    cut = io.BytesIO(data[: data.index(b"beta") + 2])
    found, is_whole = entries(cut)
    assert ([entry.name for entry in found], is_whole) == (["a.json"], False)


def test_damage_is_told():
    file = packed(zipfile.ZIP_STORED, {"a.json": "alpha"})
    found, _ = entries(file)
    damaged = io.BytesIO(file.getvalue().replace(b"alpha", b"alphb", 1))
    with pytest.raises(ValueError, match="its checksum differs"):
        content(damaged, found[0])
    with pytest.raises(ValueError, match="no header where the directory says"):
        content(io.BytesIO(b""), found[0])


def test_an_unknown_packing_is_told():
    file = packed(zipfile.ZIP_LZMA, {"a.json": "alpha"})
    (entry,), _ = entries(file)
    with pytest.raises(ValueError, match="packed by method 14, expected deflate or zstd"):
        content(file, entry)
