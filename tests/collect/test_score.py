"""Score sets beside the one that collecting wrote."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lab_runs import StopAfter, rows

from thr_probe.config import ScoreConfig
from thr_probe.errors import DataError, UsageError
from thr_probe.lab import policy_directory
from thr_probe.score import score_run
from thr_probe.traces import read_run, validate_run


def test_another_checkpoint_adds_a_score_set_beside_the_first(lab_run, checkpoint, tmp_path):
    path = tmp_path / "run"
    shutil.copytree(lab_run, path)
    before = rows(path, ["logprob"], score_id="default")
    assert score_run(path, ScoreConfig(model=str(checkpoint))) == "step-1"
    assert read_run(path).score_ids == ("default", "step-1")
    assert rows(path, ["logprob"], score_id="default") == before
    after = rows(path, ["logprob"], score_id="step-1")
    assert [len(row["logprob"]) for row in after] == [len(row["logprob"]) for row in before]
    assert after != before
    assert not validate_run(path)


def test_scoring_with_the_policy_that_sampled_gives_the_scores_of_collect(lab_run, tmp_path):
    path = tmp_path / "run"
    shutil.copytree(lab_run, path)
    score_run(path, ScoreConfig(score_id="again", split=True))
    columns = ["thr", "entropy", "logprob", "tau", "advantage"]
    assert rows(path, columns, score_id="again") == rows(path, columns, score_id="default")
    split = [row for row in rows(path, ["thr_self", "thr_within", "correct"], score_id="again")
             if row["thr_within"] is not None]  # fmt: skip
    assert any(np.any(row["thr_within"]) for row in split if row["correct"])
    assert not any(np.any(row["thr_within"]) for row in split if not row["correct"])


def test_a_score_set_is_not_overwritten_and_resumes_only_with_its_options(
    lab_run, checkpoint, tmp_path
):
    path = tmp_path / "run"
    shutil.copytree(lab_run, path)
    config = ScoreConfig(model=str(checkpoint), score_id="step")
    assert score_run(path, config, monitor=StopAfter(1)) is None
    with pytest.raises(UsageError, match="has a score set 'step' already"):
        score_run(path, config)
    with pytest.raises(UsageError, match="was started with model"):
        score_run(path, ScoreConfig(score_id="step"), resume=True)
    assert score_run(path, config, resume=True) == "step"
    score_run(path, ScoreConfig(model=str(checkpoint), score_id="whole"))
    columns = ["thr", "logprob"]
    assert rows(path, columns, score_id="step") == rows(path, columns, score_id="whole")


@pytest.mark.parametrize("options", [{"tolerance": -1.0}, {"vocab": "sparce"}])
def test_options_that_do_not_exist_leave_no_score_set(lab_run, tmp_path, options):
    path = tmp_path / "run"
    shutil.copytree(lab_run, path)
    with pytest.raises(UsageError):
        score_run(path, ScoreConfig(score_id="wrong", **options))
    assert read_run(path).score_ids == ("default",)


def test_a_checkpoint_with_another_tokenizer_is_refused(lab_run, tmp_path):
    path, folder = tmp_path / "run", tmp_path / "other"
    shutil.copytree(lab_run, path)
    shutil.copytree(policy_directory(), folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["merges"].pop()
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(DataError, match="another tokenizer"):
        score_run(path, ScoreConfig(model=str(folder)))
    assert read_run(path).score_ids == ("default",)


def test_rollouts_without_token_ids_are_not_scored(make_run, tmp_path):
    completions = [{"correct": True, "token_ids": None, "text": "so 1"}]
    path = make_run(tmp_path / "r", groups=[{"completions": completions}], scored=False)
    with pytest.raises(DataError, match="token_ids is absent"):
        score_run(path, ScoreConfig())
    assert read_run(path).score_ids == ()


def test_a_run_with_ids_of_some_completions_says_how_many_lack_them(make_run, tmp_path):
    completions = [{"correct": True, "token_ids": [1]}, {"token_ids": None}, {"token_ids": None}]
    path = make_run(tmp_path / "r", groups=[{"completions": completions}], scored=False)
    with pytest.raises(DataError, match="2 of 3 completions have no token ids"):
        score_run(path, ScoreConfig())
    assert read_run(path).score_ids == ()


def test_completions_without_their_prompts_token_ids_are_not_scored(make_run, tmp_path):
    completions = [{"correct": True, "token_ids": [1, 2]}]
    path = make_run(tmp_path / "r", groups=[{"completions": completions}], scored=False)
    with pytest.raises(DataError, match=r"problems\.parquet: column prompt_token_ids"):
        score_run(path, ScoreConfig())
    assert read_run(path).score_ids == ()


def as_imported(path, *, shift=0):
    """The run without the digest of its tokenizer, and with other ids."""
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | {"tokenizer_digest": None}))
    for part in (path / "rollouts").iterdir():
        table = pq.read_table(part)
        ids = pa.array([[each + shift for each in row] for row in table["token_ids"].to_pylist()])
        index = table.schema.get_field_index("token_ids")
        field = table.schema.field(index)
        pq.write_table(table.set_column(index, field, ids.cast(field.type)), part)


@pytest.mark.parametrize(
    ("ids", "words"), [([1] * 2000, "2002 tokens with its prompt; lab takes"), ([], "is empty")]
)
def test_completions_that_cannot_be_replayed_leave_no_score_set(make_run, tmp_path, ids, words):
    completions = [{"correct": True, "token_ids": [1, 2]}, {"token_ids": ids}]
    groups = [{"prompt_token_ids": [3, 4], "completions": completions}]
    path = make_run(tmp_path / "r", groups, scored=False, manifest={"tokenizer_digest": None})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("thr_probe.score.check_tokenizer", lambda run, policy: None)
        with pytest.raises(DataError, match=words):
            score_run(path, ScoreConfig())
    assert read_run(path).score_ids == ()


def test_a_run_that_names_no_tokenizer_is_scored_where_its_texts_agree(lab_run, tmp_path):
    path = tmp_path / "run"
    shutil.copytree(lab_run, path)
    as_imported(path)
    before = (path / "tokens.parquet").read_bytes()
    (path / "tokens.parquet").unlink()
    score_run(path, ScoreConfig(score_id="again"))
    assert (path / "tokens.parquet").read_bytes() == before
    assert rows(path, ["thr"], score_id="again") == rows(path, ["thr"], score_id="default")


def test_a_run_that_names_no_tokenizer_is_refused_where_its_texts_differ(lab_run, tmp_path):
    path = tmp_path / "run"
    shutil.copytree(lab_run, path)
    as_imported(path, shift=1)
    with pytest.raises(DataError, match=r"another tokenizer than that of lab \(it reads \d+ of"):
        score_run(path, ScoreConfig(score_id="again"))
