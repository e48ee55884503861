"""All analyses of a run at once: what is left out, what fails, where it cannot be written."""

from __future__ import annotations

from pathlib import Path

import pytest

from thr_probe.errors import DataError
from thr_probe.gallery import ANALYSES, OPT_IN, analyze, analyze_all, analyze_training
from thr_probe.traces import read_run

MIXED = {"completions": [{"correct": True}, {"correct": False}]}


def test_columns_that_a_sound_run_may_lack_are_no_failure(tmp_path, make_run):
    groups = [
        {
            "completions": [
                {"correct": label, "token_ids": None, "thr": [1.0, -0.5]} for label in row
            ]
        }
        for row in ([True, False], [False, True])
    ]
    outcomes = analyze_all(read_run(make_run(tmp_path / "run", groups)), tmp_path / "out")
    assert {one.name for one in outcomes} == set(ANALYSES)
    left_out = {one.name for one in outcomes if one.opted_out}
    assert left_out == set(OPT_IN)
    assert not any(one.failed for one in outcomes)
    assert all("is not stored" in one.note and one.hint for one in outcomes if one.opted_out)


def test_a_file_in_place_of_the_folder_is_refused_before_anything_is_computed(tmp_path, make_run):
    run = read_run(make_run(tmp_path / "run", [MIXED]))
    (tmp_path / "file").write_text("kept")
    for compute in (
        lambda out: analyze_all(run, out),
        lambda out: analyze("density", run, out),
        lambda out: analyze_training("curves", [run.path], out),
    ):
        with pytest.raises(DataError, match="is a file, and a folder is needed"):
            compute(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "kept"
    assert Path(tmp_path / "run" / "manifest.json").is_file()
