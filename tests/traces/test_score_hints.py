"""A missing part of the scores: the hint names the command that writes it."""

from __future__ import annotations

import json

import pytest

from thr_probe.traces import validate_run


@pytest.fixture
def broken(tmp_path, make_run):
    """A complete run of two parts whose second part of the scores is gone, made by one of three."""

    def make(score_id, info, argv=()):
        groups = [{"completions": [{"correct": True}]}] * 2
        groups = [{**group, "prompt_id": name} for group, name in zip(groups, "ab", strict=True)]
        path = make_run(
            tmp_path / "run",
            groups,
            groups_per_part=1,
            score_id=score_id,
            manifest={"argv": tuple(argv)},
        )
        folder = path / "scores" / score_id
        (folder / "part-00001.parquet").unlink()
        if info is None:
            (folder / "score.json").unlink()
        else:
            (folder / "score.json").write_text(json.dumps({"schema_version": 1, **info}))
        return path

    return make


def hint_of(path):
    (finding,) = [each for each in validate_run(path) if "parts have scores" in each.message]
    return finding.hint


@pytest.mark.parametrize("info", [{"model": "lab"}, None])
def test_collect_mends_the_set_that_it_writes_itself(broken, info):
    argv = ["thr-probe", "collect", "-o", "runs/a b", "-n", "4", "--overwrite"]
    path = broken("default", info, argv)
    wanted = f"thr-probe collect -o {path} -n 4 --resume"  # where the run is now
    assert hint_of(path) == f"complete them with the command that collected the run: {wanted}"


def test_without_its_command_the_folder_is_named(broken):
    path = broken("default", {"model": "lab"})
    assert f"thr-probe collect -o {path} ... --resume" in hint_of(path)


@pytest.mark.parametrize(
    ("score_id", "info"), [("default", {"model_digest": "abc"}), ("step-100", {"model": "x"})]
)
def test_score_mends_its_own_sets(broken, score_id, info):
    path = broken(score_id, info, ["thr-probe", "collect", "-o", "x"])
    assert hint_of(path) == f"complete them: thr-probe score {path} --score-id {score_id} --resume"


def test_scores_of_training_come_back_from_a_copy_or_as_another_set(broken):
    path = broken("default", {"objective": {"p": 0}}, ["thr-probe", "train"])
    assert "restore the part from a copy of the training run" in hint_of(path)
