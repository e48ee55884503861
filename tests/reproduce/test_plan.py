"""Which jobs there are, in which order, with which commands and options."""

from __future__ import annotations

import pytest

from thr_probe.errors import DataError, UsageError
from thr_probe.reproduce.kept import keep_settings
from thr_probe.reproduce.measure import jobs_on_disk
from thr_probe.reproduce.plan import Job, Stage, commands, planned_jobs
from thr_probe.reproduce.rows import ROWS, row_named
from thr_probe.reproduce.settings import ReproduceConfig, rows_of, seeds_of


def names(**options):
    return [job.name for job in planned_jobs(ReproduceConfig(**options))]


def test_the_quick_replication_is_the_core_rows_with_one_seed():
    core = ["base-s0", "grpo-s0", "thr-s0", "thr-p+0.1-s0", "thr-p-0.1-s0", "passk-mixed-s0"]
    assert names(quick=True) == core


def test_core_rows_come_first_and_further_seeds_last():
    listed = names()
    assert listed[:6] == names(quick=True)
    assert len(listed) == len(ROWS) + 2 * 6
    assert listed[len(ROWS) :] == [
        name.replace("-s0", f"-s{seed}") for seed in (1, 2) for name in names(quick=True)
    ]


def test_named_rows_have_every_seed():
    assert names(rows="nthr", seeds="3,1") == ["nthr-s3", "nthr-s1"]
    assert len(names(rows="all", seeds="0,1")) == 2 * len(ROWS)


def test_each_stage_of_a_job_has_its_command(tmp_path):
    job = Job(row=row_named("clip-high"), seed=2)
    config = ReproduceConfig(train_options="--steps 3 --lr 1e-5")
    listed = dict(commands(job, tmp_path, config))
    assert list(listed) == [Stage.TRAIN, Stage.GREEDY, Stage.SAMPLED, Stage.SCORED]
    assert listed[Stage.TRAIN] == [
        *("train", "--preset", "lab", "--method", "grpo", "--clip-high", "0.28", "--seed", "2"),
        *("--steps", "3", "--lr", "1e-5", "-o", str(tmp_path / "runs" / "clip-high-s2")),
    ]
    for stage in (Stage.GREEDY, Stage.SAMPLED):
        assert "--no-score" in listed[stage]
        assert str(tmp_path / "runs" / "clip-high-s2" / "model") in listed[stage]
    assert "--no-score" not in listed[Stage.SCORED]
    assert Stage.TRAIN not in Job(row=row_named("base"), seed=0).stages


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": "0,0"}, "different whole numbers"),
        ({"seeds": "one"}, "different whole numbers"),
        ({"seeds": "0,²"}, "different whole numbers"),
        ({"rows": "grpoo"}, "no row 'grpoo'"),
        ({"rows": ","}, "--rows takes one or more rows, got ','"),
        ({"rows": ""}, "--rows takes one or more rows"),
        ({"rows": "all", "quick": True}, "--rows all and --quick exclude each other"),
        ({"train_options": "'open"}, "No closing quotation"),
    ],
)
def test_options_that_do_not_exist_are_told(options, message, tmp_path):
    config = ReproduceConfig(**options)

    def plan():
        return [list(commands(job, tmp_path, config)) for job in planned_jobs(config)]

    with pytest.raises(UsageError, match=message):
        plan()


def test_rows_and_seeds_are_in_the_order_of_tables():
    config = ReproduceConfig(rows="thr,base", seeds="2,0")
    assert [row.name for row in rows_of(config)] == ["base", "thr"]
    assert seeds_of(config) == (2, 0)


def test_later_pieces_must_have_the_options_that_rows_share(tmp_path):
    keep_settings(tmp_path, ReproduceConfig(samples=8))
    keep_settings(tmp_path, ReproduceConfig(samples=8, seeds="4", workers=1))
    with pytest.raises(UsageError, match="--samples 8, not 16"):
        keep_settings(tmp_path, ReproduceConfig(samples=16))
    (tmp_path / "reproduce.toml").write_text("samples = ")
    with pytest.raises(DataError, match="cannot be read as TOML"):
        keep_settings(tmp_path, ReproduceConfig(samples=8))


def test_only_finished_runs_of_known_rows_are_found(fake_root, tmp_path):
    found = [job.name for job in jobs_on_disk(fake_root)]
    assert found[:4] == ["base-s0", "grpo-s0", "grpo-s1", "thr-s0"]
    assert len(found) == 8
    for name in ("grpo-s0", "grpo-sx", "other-s0"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    assert jobs_on_disk(tmp_path) == []
