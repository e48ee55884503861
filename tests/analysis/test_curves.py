"""Training along its steps: the journal's own numbers, and no interval that was not measured."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from training_journals import eval_record, step_record, training_records, write_journal

from thr_probe.analysis.curves import (
    ACCURACY,
    CURVE_COLUMNS,
    QUANTITIES,
    curve_panels,
    run_rows,
    training_curves,
)
from thr_probe.analysis.result import SUMMARY_COLUMNS
from thr_probe.errors import DataError, UsageError


def series(analysis, run, quantity, column="value"):
    curve = analysis.curves["curve"]
    return curve.loc[(curve["run"] == run) & (curve["quantity"] == quantity), column].to_numpy()


def test_the_table_holds_every_measured_value_at_the_number_of_finished_steps(tmp_path):
    records = training_records(6, eval_every=3)
    analysis = training_curves([write_journal(tmp_path / "run", records)])
    curve = analysis.curves["curve"]
    assert tuple(curve.columns) == CURVE_COLUMNS
    assert set(curve["quantity"]) == set(QUANTITIES)
    for quantity in QUANTITIES:
        written = [record for record in records if quantity in record]
        assert_array_equal(series(analysis, "run", quantity), [row[quantity] for row in written])
        steps = [row["step"] for row in written]
        assert_array_equal(series(analysis, "run", quantity, "step"), steps)
    assert_array_equal(series(analysis, "run", ACCURACY, "step"), [0, 3, 6])
    assert set(series(analysis, "run", "reward_generated", "num_questions")) == {40}
    assert set(series(analysis, "run", "reward_kept", "num_questions")) == {32}


def test_only_validations_have_an_interval(tmp_path):
    analysis = training_curves([write_journal(tmp_path / "run", training_records(4, eval_every=2))])
    for quantity in QUANTITIES:
        value, low, high = (
            series(analysis, "run", quantity, column) for column in ("value", "low", "high")
        )
        if quantity == ACCURACY:
            assert_allclose([value - low, high - value], 0.1)
        else:
            assert np.isnan([low, high]).all()


def test_the_summary_has_the_first_and_last_values_and_the_best_validation(tmp_path):
    records = [
        *training_records(4),
        eval_record(0, greedy_accuracy=0.2),
        eval_record(2, greedy_accuracy=0.6, greedy_low=0.5, greedy_high=0.7, num_prompts=50),
        eval_record(4, greedy_accuracy=0.4),
    ]
    analysis = training_curves([write_journal(tmp_path / "run", records)])
    assert tuple(analysis.summary.columns) == SUMMARY_COLUMNS
    found = [
        analysis.value(f"{ACCURACY}_{word}", "run").value for word in ("first", "last", "best")
    ]
    assert found == [0.2, 0.4, 0.6]
    best = analysis.value(f"{ACCURACY}_best", "run")
    assert (best.low, best.high) == (0.5, 0.7)
    chosen = analysis.summary[analysis.summary["quantity"] == f"{ACCURACY}_best"]
    assert chosen["num_questions"].tolist() == [50]
    assert_allclose(analysis.value("length_mean_last", "run").value, 185)


def test_the_running_mean_is_over_the_last_steps_and_ignores_what_was_not_measured(tmp_path):
    values = [1.0, 2.0, None, 4.0, 9.0]
    records = [step_record(step, entropy=value) for step, value in enumerate(values)]
    del records[3]  # a step that left no record takes its place in the window
    run = write_journal(tmp_path / "run", records)
    analysis = training_curves([run], smooth=2)
    assert_array_equal(series(analysis, "run", "entropy"), [1, 2, 9])
    assert_array_equal(series(analysis, "run", "entropy", "smoothed"), [1, 1.5, 9])
    wider = training_curves([run], smooth=4)
    assert_array_equal(series(wider, "run", "entropy", "smoothed"), [1, 1.5, 5.5])
    plain = training_curves([run])
    assert np.isnan(series(plain, "run", "entropy", "smoothed")).all()
    assert "running mean over the last 2 steps" in analysis.caption
    assert "running mean" not in plain.caption
    assert analysis.value("entropy_last", "run").value == 9
    assert wider.value("entropy_last", "run").value == 5.5


def test_runs_may_differ_in_length_and_in_what_they_measured(tmp_path):
    grpo = [step_record(step, retained_share=None) for step in range(3)]
    paths = [
        write_journal(tmp_path / "thr_1", training_records(6, eval_every=2)),
        write_journal(tmp_path / "grpo", grpo),
        write_journal(tmp_path / "begun", []),
    ]
    analysis = training_curves(paths)
    assert analysis.facts["num_steps"] == {"thr_1": 6, "grpo": 3, "begun": 0}
    assert len(series(analysis, "grpo", "entropy")) == 3
    assert analysis.facts["exclusions"] == (
        "No step is finished yet in begun. Validation accuracy was not measured in grpo. "
        "The share of retained tokens was not measured in grpo."
    )
    assert r"thr\_1 (6 steps), grpo (3 steps), begun (0 steps)" in analysis.caption
    rows = {row["run"]: row for row in run_rows(analysis)}
    assert [rows[name]["steps"] for name in ("thr_1", "grpo", "begun")] == [6, 3, 0]
    assert np.isnan(rows["grpo"]["retained_share"])
    assert rows["grpo"]["accuracy"] is None
    assert rows["thr_1"]["accuracy"] == series(analysis, "thr_1", ACCURACY)[-1]


def test_the_caption_tells_the_two_rewards_apart_and_counts(tmp_path):
    run = write_journal(tmp_path / "run", training_records(2, eval_every=1))
    caption = training_curves([run]).caption
    assert "(a) Mean reward after filtering, of the completions trained on" in caption
    assert "it is not the accuracy of the policy" in caption
    assert "(b) Mean reward before filtering, of all completions generated" in caption
    assert "(c) Greedy accuracy on lab:validation (64 questions); bands are 95" in caption
    assert r"Of 80 groups generated, 64 (80.0\,\%) were trained on" in caption
    assert "a value of a step is that of its one batch and has no interval" in caption


def test_every_validation_set_has_a_panel_and_a_row_of_its_own(tmp_path):
    records = [*training_records(2), eval_record(0, "amc_23"), eval_record(2, "aime")]
    analysis = training_curves([write_journal(tmp_path / "run", records)])
    panels = curve_panels(analysis.curves["curve"])
    assert [dataset for quantity, dataset in panels if quantity == ACCURACY] == ["aime", "amc_23"]
    assert [row["validation"] for row in run_rows(analysis)] == ["aime", "amc_23"]
    assert analysis.value(f"{ACCURACY}_last", "run: aime").value == 0.29
    assert r"(d) Greedy accuracy on amc\_23 (64 questions)" in analysis.caption


def test_a_validation_of_one_question_has_no_interval_and_no_word_of_bands(tmp_path):
    record = eval_record(1, num_prompts=1)
    del record["greedy_low"], record["greedy_high"]
    analysis = training_curves([write_journal(tmp_path / "run", [*training_records(1), record])])
    assert np.isnan(series(analysis, "run", ACCURACY, "low")).all()
    assert "(1 question)." in analysis.caption
    assert "bands" not in analysis.caption


@pytest.mark.parametrize("records", [[], [eval_record(0)]])
def test_a_run_that_has_only_begun_says_so(tmp_path, records):
    analysis = training_curves([write_journal(tmp_path / "new", records)])
    assert analysis.empty_reason == "No step is finished yet in new."
    assert run_rows(analysis) == []


def test_steps_without_any_of_the_quantities_say_so(tmp_path):
    run = write_journal(tmp_path / "run", [{"kind": "step", "step": 0, "loss": 0.5}])
    reason = training_curves([run]).empty_reason
    assert reason is not None
    assert reason.endswith("was measured in run (1 step).")


def test_equal_names_are_told_apart_by_the_folders_above(tmp_path):
    paths = [
        write_journal(tmp_path / name, training_records(1)) for name in ("a/x/r", "b/x/r", "a/q")
    ]
    assert training_curves(paths).curves["curve"]["run"].unique().tolist() == [
        "a/x/r", "b/x/r", "q",
    ]  # fmt: skip


def test_a_run_may_be_given_as_the_folder_one_stands_in_or_above(tmp_path, monkeypatch):
    run = write_journal(tmp_path / "run", training_records(1))
    (run / "inner").mkdir()
    monkeypatch.chdir(run)
    assert set(training_curves([Path()]).curves["curve"]["run"]) == {"run"}
    monkeypatch.chdir(run / "inner")
    assert set(training_curves([Path("..")]).curves["curve"]["run"]) == {"run"}


def test_what_cannot_be_is_refused(tmp_path):
    run = write_journal(tmp_path / "run", training_records(1))
    with pytest.raises(UsageError, match="--smooth must be at least 1 step, got 0"):
        training_curves([run], smooth=0)
    with pytest.raises(UsageError, match="no run was given"):
        training_curves([])
    with pytest.raises(UsageError, match="run was given 2 times"):
        training_curves([run, tmp_path / "." / "run"])
    with pytest.raises(DataError, match="is not a training run: there is no such folder"):
        training_curves([run, tmp_path / "nowhere"])
    with pytest.raises(DataError, match=r"is not a training run: it has no metrics\.jsonl"):
        training_curves([tmp_path])
    text = write_journal(tmp_path / "text", [step_record(0, entropy="high")])
    message = r"text/metrics\.jsonl, line 1: entropy: found 'high', expected a number"
    with pytest.raises(DataError, match=message):
        training_curves([text])


def test_curves_and_timing_are_drawn_without_torch(tmp_path):
    run = write_journal(tmp_path / "run", training_records(3, eval_every=1))
    program = """
import sys
from pathlib import Path
from thr_probe.gallery import analyze_training
for name in ("curves", "timing"):
    analyze_training(name, [Path(sys.argv[1])], Path(sys.argv[2]))
print([name for name in ("torch", "transformers", "scipy") if name in sys.modules])
"""
    words = [sys.executable, "-c", program, str(run), str(tmp_path / "out")]
    ran = subprocess.run(words, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
