from __future__ import annotations

import json
import tracemalloc

import pytest

from thr_probe.traces.importers import nested


def collected(path, listed="items"):
    return list(nested.members(path, listed))


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
def test_members_come_in_order_and_the_list_entry_by_entry(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(nested, "_CHUNK", chunk)
    values = {
        "n": -12.5e3,
        "s": 'a"\\,]}é😀',
        "items": [{"a": [1, 2]}, 345678, "x,y", [], None, True],
        "nested": {"items": [1]},
        "last": 12,
    }
    path = tmp_path / "a.json"
    for indent in (None, 2):
        path.write_text(json.dumps(values, indent=indent, ensure_ascii=False), encoding="utf-8")
        assert collected(path) == [
            ("n", -12500.0),
            ("s", 'a"\\,]}é😀'),
            *(("items", entry) for entry in values["items"]),
            ("nested", {"items": [1]}),
            ("last", 12),
        ]


def test_a_list_of_that_name_may_be_no_list(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"items": 3, "b": []}')
    assert collected(path) == [("items", 3), ("b", [])]


@pytest.mark.parametrize(
    ("text", "given", "reason"),
    [
        ('{"items": [1, ', [("items", 1)], "the file ends before its JSON does"),
        ('{"items": [{"a": 1}, {"a": ', [("items", {"a": 1})], "the file ends inside a value"),
        ('{"items": [1], ', [("items", 1)], "the file ends before its JSON does"),
        ("[1]", [], "found '[', expected '{'"),
        ("", [], "the file ends before its JSON does"),
        (
            '{"items": [1 ' + "oops " * 50 + "]}",
            [("items", 1)],
            "a value is no JSON: Expecting value",
        ),
    ],
)
def test_what_is_there_is_given_before_the_error(tmp_path, text, given, reason):
    path = tmp_path / "a.json"
    path.write_text(text)
    found = []
    with pytest.raises(nested.CutOffError) as caught:
        found.extend(nested.members(path, "items"))
    assert str(caught.value) == reason
    assert found == given


def test_memory_does_not_grow_with_the_list(tmp_path):
    path = tmp_path / "a.json"
    entry = json.dumps({"text": "word " * 2000})
    with path.open("w") as file:
        file.write('{"items": [' + ",".join([entry] * 3000) + "]}")
    assert path.stat().st_size > 25e6
    tracemalloc.start()
    count = sum(1 for _ in nested.members(path, "items"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 3000
    assert peak < 8e6
