"""Table 10: mean seconds per step of every module."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from training_journals import step_record, training_records, write_journal

from thr_probe.analysis.timing import MODULES, TOTAL, module_timing, timing_rows
from thr_probe.errors import DataError, UsageError

PUBLISHED = {
    "Qwen2.5-Math-1.5B": (347, 210, 37, 120, 120, 834),
    "Qwen2.5-Math-7B": (422, 371, 39, 187, 187, 1206),
    "Llama3.2-3B-Instruction": (625, 139, 26, 89, 89, 968),
}
COLUMNS = ["Data Gen", "Model Upd", "THR", "Ref", "Old Prob", "Total (Sec)"]


def timers(*seconds):
    names = [*MODULES, "total"]
    return dict(zip(names, seconds, strict=True))


def test_the_published_table_comes_back_in_its_columns_and_order(tmp_path):
    paths = [
        write_journal(tmp_path / name, [step_record(0, **timers(*row))])
        for name, row in PUBLISHED.items()
    ]
    rows = timing_rows(module_timing(paths))
    assert [list(row) for row in rows] == [["run", "steps", *COLUMNS]] * 3
    found = {row["run"]: tuple(row[column] for column in COLUMNS) for row in rows}
    assert found == PUBLISHED


def test_seconds_are_means_over_the_steps_and_shares_are_of_the_mean_total(tmp_path):
    seconds = np.array([[9.0, 1, 2, 3, 4], [3, 5, 0, 1, 2], [3, 3, 1, 2, 6]])
    records = [
        step_record(step, **timers(*row, row.sum()), wall=row.sum() + 1)
        for step, row in enumerate(seconds)
    ]
    analysis = module_timing([write_journal(tmp_path / "run", records)])
    modules = analysis.curves["modules"]
    assert modules["module"].tolist() == [*MODULES, "total"]
    mean = seconds.mean(axis=0)
    assert_allclose(modules["seconds"], [*mean, mean.sum()])
    assert_allclose(modules["share"], [*mean / mean.sum(), 1])
    assert_allclose(modules["std"].iloc[:5], seconds.std(axis=0, ddof=1))
    assert analysis.value("wall_seconds", "run").value == mean.sum() + 1
    assert_allclose(analysis.value("thr_share", "run").value, 1 / mean.sum())
    assert analysis.summary[["low", "high"]].isna().all(axis=None)
    (percent,) = timing_rows(analysis, unit="percent")
    assert list(percent)[2:] == [
        "Data Gen (%)", "Model Upd (%)", "THR (%)", "Ref (%)", "Old Prob (%)", "Total (%)",
    ]  # fmt: skip
    assert_allclose(list(percent.values())[2:], [*100 * mean / mean.sum(), 100])


def test_no_step_is_skipped_unless_asked(tmp_path):
    records = [step_record(0, **timers(100, 0, 0, 0, 0, 100)), *training_records(3)[1:]]
    run = write_journal(tmp_path / "run", records)
    everything, later = module_timing([run]), module_timing([run], skip_steps=1)
    assert_allclose(everything.value("total_seconds", "run").value, (100 + 834 + 834) / 3)
    assert later.value("total_seconds", "run").value == 834
    assert later.facts["num_steps_timed"] == {"run": 2}
    assert "Without the first 1 step of each run." in later.caption
    assert "Without the first" not in everything.caption


def test_prompts_of_steps_that_are_left_out_do_not_count(tmp_path):
    untimed = {"kind": "step", "step": 3, "prompts_generated": 1000}
    records = [step_record(0, prompts_generated=500), *training_records(3)[1:], untimed]
    run = write_journal(tmp_path / "run", records)
    for skipped, number in ((0, 580), (1, 80)):
        summary = module_timing([run], skip_steps=skipped).summary
        assert set(summary["num_questions"]) == {number}


def test_a_module_that_never_ran_is_a_gap_and_one_that_ran_at_times_adds_up(tmp_path):
    never = [step_record(0, thr=None, total=797.0)]
    at_times = [step_record(0), step_record(1, thr=None, total=797.0)]
    paths = [write_journal(tmp_path / "a", never), write_journal(tmp_path / "b", at_times)]
    first, second = timing_rows(module_timing(paths))
    assert np.isnan(first["THR"])
    assert second["THR"] == 18.5
    assert_allclose(sum(second[column] for column in COLUMNS[:5]), second[TOTAL])


def test_runs_without_a_row_are_named(tmp_path):
    untimed = [{"kind": "step", "step": 0, "loss": 1.0}]
    paths = [
        write_journal(tmp_path / "long", training_records(5)),
        write_journal(tmp_path / "short", training_records(2)),
        write_journal(tmp_path / "new_1", []),
        write_journal(tmp_path / "bare", [*untimed, {"kind": "step", "step": 4}]),
    ]
    analysis = module_timing(paths, skip_steps=3)
    assert [row["run"] for row in timing_rows(analysis)] == ["long"]
    reason = (
        "No step is finished yet in new_1. short has 2 steps, all within the first 3 skipped. "
        "The steps of bare have no timers."
    )
    assert analysis.facts["exclusions"] == reason
    assert r"No step is finished yet in new\_1." in analysis.caption
    nothing = module_timing(paths[1:], skip_steps=3)
    assert nothing.empty_reason == reason
    assert timing_rows(nothing) == []


def test_the_caption_says_what_thr_takes(tmp_path):
    one = write_journal(tmp_path / "thr", training_records(2))
    other = write_journal(tmp_path / "grpo", [step_record(0, **timers(347, 210, 0, 120, 120, 797))])
    assert r"THR takes 4.4\,\% of the total" in module_timing([one, other]).caption
    assert "THR takes" not in module_timing([other]).caption


def test_what_cannot_be_is_refused(tmp_path):
    run = write_journal(tmp_path / "run", training_records(1))
    with pytest.raises(UsageError, match="--skip-steps must be 0 or positive, got -1"):
        module_timing([run], skip_steps=-1)
    with pytest.raises(UsageError, match="unknown unit 'hours'"):
        timing_rows(module_timing([run]), unit="hours")
    with pytest.raises(DataError, match="is not a training run"):
        module_timing([tmp_path])
