"""Which checkpoints and sets an evaluation has, and what is wrong with a request."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
from importlib.util import find_spec

import pytest

from thr_probe.errors import DataError, PrerequisiteError, UsageError
from thr_probe.evaluate import sets
from thr_probe.evaluate.plan import Measure, plan_evaluation
from thr_probe.evaluate.sets import BENCHMARKS, resolve_set
from thr_probe.evaluate.settings import EvalConfig, values_of_k
from thr_probe.train.checkpoint import checkpoint_model, checkpoint_steps


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    row = '{"question": "What is 1 plus 1?", "answer": "2"}\n'
    for benchmark in BENCHMARKS.values():
        (folder / f"{benchmark.stems[-1]}.jsonl").write_text(row)
    return folder


def planned(model, tmp_path, **options):
    return plan_evaluation(str(model), EvalConfig(**options), tmp_path / "out")


def names(plan, measure):
    return [task.problems.name for task in plan.tasks if task.measure is measure]


def test_the_six_sets_are_answered_greedily_and_three_of_them_sampled(tmp_path, data):
    plan = planned("some/model", tmp_path, data_dir=str(data))
    assert names(plan, Measure.GREEDY) == list(BENCHMARKS)
    assert names(plan, Measure.SAMPLED) == ["aime24", "aime25", "amc23"]
    assert plan.ks == (1, 2, 4, 8, 16, 32, 64, 128, 256)
    greedy, sampled = plan.tasks[0].config, plan.tasks[-1].config
    assert (greedy.temperature, greedy.top_p, greedy.group_size) == (0.0, 1.0, 1)
    assert (sampled.temperature, sampled.top_p, sampled.group_size) == (1.0, 1.0, 256)
    for task in plan.tasks:
        assert (task.config.score, task.config.truncated_wrong) == (False, True)
        assert task.run_path.relative_to(tmp_path / "out").parts == (
            "final",
            task.measure.value,
            task.problems.name,
        )


def test_the_policy_of_the_lab_is_evaluated_on_the_lab_unless_told(tmp_path, training_run):
    for model in ("lab", training_run):
        assert names(planned(model, tmp_path), Measure.GREEDY) == ["lab-test"]
        assert names(planned(model, tmp_path), Measure.SAMPLED) == ["lab-test"]


def test_sets_without_pass_at_k_in_the_paper_are_sampled_only_on_request(tmp_path, data):
    options = {"data_dir": str(data), "dataset": "math500,minerva"}
    plan = planned("m", tmp_path, **options)
    assert not names(plan, Measure.SAMPLED)
    assert plan.ks == ()
    assert "no Pass@K" in plan.notes[0]
    assert not planned("m", tmp_path, samples=0, **options).notes
    asked = planned("m", tmp_path, pass_at_k_dataset="math500,aime24", **options)
    assert names(asked, Measure.SAMPLED) == ["math500", "aime24"]


def test_a_set_is_a_path_then_a_file_of_the_folder_then_the_hub(tmp_path, data, monkeypatch):
    path = tmp_path / "minerva_math.jsonl"
    path.write_text("{}")
    assert resolve_set(str(path), str(data)).name == "minerva"
    assert resolve_set(str(path), str(data)).source == str(path)
    assert resolve_set("minerva", str(data)).source == str(data / "minerva_math.jsonl")
    monkeypatch.setattr(sets, "find_spec", lambda name: find_spec("json"))
    assert resolve_set("math500", None).source == "HuggingFaceH4/MATH-500:test"
    assert resolve_set("org/name:train", None).name == "org-name-train"


def test_a_benchmark_that_is_nowhere_is_told_where_to_put(tmp_path, monkeypatch):
    monkeypatch.setattr(sets, "find_spec", lambda name: None)
    with pytest.raises(PrerequisiteError, match=f"no file of aime24 in {tmp_path}") as error:
        resolve_set("aime24", str(tmp_path))
    assert "put aime24.parquet (or .jsonl, .csv" in error.value.hint
    assert "thr_probe[hub]" in error.value.hint
    with pytest.raises(UsageError, match="there is no such folder"):
        resolve_set("aime24", str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("aime42", UsageError, "unknown set 'aime42'"),
        ("lab:tset", UsageError, "the lab has no split 'tset'"),
        ("none.jsonl", DataError, r"none\.jsonl does not exist"),
    ],
)
def test_a_set_that_does_not_exist_is_told_before_any_work(tmp_path, name, error, message):
    with pytest.raises(error, match=message):
        planned("lab", tmp_path, dataset=f"lab:test,{name}")


def test_a_misspelt_benchmark_is_told_its_name():
    with pytest.raises(UsageError) as error:
        resolve_set("minerv", None)
    assert error.value.hint.startswith("did you mean minerva?")


def test_training_limits_and_template_are_those_of_the_run(tmp_path, training_run, data):
    [task] = planned(training_run, tmp_path, samples=0).tasks
    assert task.config.max_new_tokens == 40
    assert task.config.template is None
    assert task.config.model == str(training_run / "model")
    options = {"samples": 0, "dataset": "aime24", "data_dir": str(data)}
    [task] = planned(training_run, tmp_path, **options).tasks
    assert task.config.template == "lab"
    [task] = planned(training_run, tmp_path, template="abel", max_new_tokens=9, **options).tasks
    assert (task.config.template, task.config.max_new_tokens) == ("abel", 9)
    [task] = planned("lab", tmp_path, samples=0).tasks
    assert task.config.max_new_tokens is None


def test_checkpoints_are_those_asked_for_and_doubles_are_left_out(tmp_path, training_run):
    def labels(**options):
        return planned(training_run, tmp_path, samples=0, **options).checkpoints

    assert labels() == ["final"]
    assert labels(checkpoints="all") == ["step-000002", "final"]
    assert labels(checkpoints="4,2") == ["step-000002", "step-000004"]
    assert labels(checkpoints="2", select="best") == ["step-000002", "final"]
    [first, *_] = planned(training_run, tmp_path, checkpoints="2").tasks
    assert first.config.model == str(checkpoint_model(training_run, 2))
    assert checkpoint_steps(training_run) == [2, 4]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"checkpoints": "3"}, DataError, "no checkpoint of step 3"),
        ({"checkpoints": "last"}, UsageError, "takes all, final, or steps, got 'last'"),
        ({"checkpoints": "2,,4"}, UsageError, "holds an empty name"),
        ({"select": "best"}, UsageError, "needs several checkpoints"),
        ({"dataset": "lab:test,lab:test"}, UsageError, "holds lab:test twice"),
        ({"samples": 8, "k": "1,16"}, UsageError, "Pass@16 needs 16 .* but --samples is 8"),
        ({"k": "1,x"}, UsageError, "whole numbers from 1, got 'x'"),
    ],
)
def test_requests_that_cannot_be_met_are_named(tmp_path, training_run, options, error, message):
    with pytest.raises(error, match=message):
        planned(training_run, tmp_path, **options)


def test_checkpoints_need_a_training_run(tmp_path):
    with pytest.raises(UsageError, match="--checkpoints all needs a training run, and lab is none"):
        planned("lab", tmp_path, checkpoints="all")
    run = tmp_path / "run"
    run.mkdir()
    (run / "manifest.json").write_text("{}")
    with pytest.raises(DataError, match="is a run without a policy in it"):
        planned(run, tmp_path)


def test_a_run_that_is_still_training_has_no_final_model(tmp_path, training_run):
    run = tmp_path / "run"
    shutil.copytree(training_run, run)
    shutil.rmtree(run / "model")
    with pytest.raises(DataError, match="has no final model yet") as error:
        planned(run, tmp_path)
    assert "--checkpoints 2, 4" not in error.value.hint
    assert "--checkpoints 2,4" in error.value.hint
    assert planned(run, tmp_path, checkpoints="all").checkpoints == ["step-000002", "step-000004"]


def test_two_sets_of_one_name_are_refused(tmp_path, data):
    other = tmp_path / "aime24.jsonl"
    shutil.copy(data / "aime24.jsonl", other)
    with pytest.raises(UsageError, match="two sets are called aime24"):
        planned("m", tmp_path, dataset=f"aime24,{other}", data_dir=str(data))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0, "k": "1"}, "--k needs samples, but --samples is 0"),
        ({"samples": 0, "pass_at_k_dataset": "lab"}, "--pass-at-k-dataset needs samples"),
        ({"temperature": 0.0}, "--temperature 0"),
        ({"select": "worst"}, "--select is final or best, got 'worst'"),
        ({"samples": -1}, "--samples must be at least 0"),
    ],
)
def test_options_that_exclude_each_other_are_named(options, message):
    with pytest.raises(UsageError, match=message):
        EvalConfig(**options)


def test_k_is_as_asked_for_or_the_powers_of_two():
    config = EvalConfig(samples=12)
    assert values_of_k(config) == [1, 2, 4, 8, 12]
    assert values_of_k(dataclasses.replace(config, k="12,3")) == [3, 12]


def test_the_dry_run_needs_no_torch(tmp_path):
    code = (
        "import sys; from thr_probe.cli import app\n"
        "try: app(['eval', 'lab', '-o', 'out', '--dry-run'])\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert "out/final/sampled/lab-test" in ran.stdout
    assert not (tmp_path / "out").exists()
