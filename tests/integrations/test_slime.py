from __future__ import annotations

import enum
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from thr_probe.errors import DataError, UsageError
from thr_probe.integrations.slime import IMPORTER
from thr_probe.lab import policy_directory
from thr_probe.traces.importers.foreign import ImportOptions, Refused

FIXTURES = Path(__file__).parents[1] / "traces" / "importers" / "fixtures" / "slime"


class Status(enum.Enum):
    COMPLETED = "completed"


def read(path, **options):
    return list(IMPORTER.read(IMPORTER.find(path), ImportOptions(trust=True, **options)))


def sample(**changes):
    values = {
        "group_index": 2,
        "index": 8,
        "prompt": "P",
        "tokens": [11, 12, 13, 14, 15],
        "response": "C",
        "response_length": 3,
        "label": "4",
        "reward": 1.0,
        "loss_mask": None,
        "rollout_log_probs": [-0.5, -0.25, -1.0],
        "status": "completed",
        "metadata": {},
        **changes,
    }
    return {name: value for name, value in values.items() if value != "left out"}


def written(folder, *samples, name="rollout_7.pt", rollout_id=7):
    path = folder / name
    torch.save({"rollout_id": rollout_id, "samples": list(samples)}, path)
    return path


def only(tmp_path, **changes):
    return read(written(tmp_path, sample(**changes)))[0]


def groups(rows):
    found = defaultdict(list)
    for each in rows:
        found[each.step, each.group].append(each)
    return list(found.values())


def test_a_dump_is_read_with_the_sampled_ids():
    tokenizer = AutoTokenizer.from_pretrained(policy_directory())
    rows = read(FIXTURES / "rollout_3.pt")
    assert len(rows) == 8
    for each in rows:
        assert tokenizer.decode(each.prompt_token_ids) == each.prompt_text
        assert tokenizer.decode(each.token_ids[:-1]) == each.text
        assert each.token_ids[-1] == tokenizer.eos_token_id
        assert each.sampler_logprobs == [-0.5 - place / 64 for place in range(len(each.token_ids))]
    first = rows[0]
    assert (first.step, first.reward, first.answer, first.finish_reason) == (3, 1.0, "23", "stop")
    assert (first.verifier, first.dataset, first.correct) == ("slime", None, None)
    assert [len(group) for group in groups(rows)] == [4, 4]


def test_evaluation_is_grouped_by_prompt_and_kept_apart():
    rows = read(FIXTURES / "rollout_eval_3.pt")
    assert [len(group) for group in groups(rows)] == [4, 4]
    assert {each.dataset for each in rows} == {"eval"}
    assert len({each.group for each in [*rows, *read(FIXTURES)]}) == 4


def test_evaluation_is_read_where_it_is_named_or_alone(tmp_path):
    train = written(tmp_path, sample(), name="rollout_7.pt")
    evaluation = written(tmp_path, sample(), name="rollout_eval_7.pt")
    assert (IMPORTER.find(tmp_path), IMPORTER.left_out(tmp_path)) == ([train], [evaluation])
    assert (IMPORTER.find(evaluation), IMPORTER.left_out(evaluation)) == ([evaluation], [])
    train.unlink()
    assert (IMPORTER.find(tmp_path), IMPORTER.left_out(tmp_path)) == ([evaluation], [])


def test_files_come_in_the_order_of_their_steps(tmp_path):
    for step in (10, 9):
        written(tmp_path, sample(), name=f"rollout_{step}.pt", rollout_id=step)
    torch.save({"weight": torch.zeros(2)}, tmp_path / "policy.pt")
    (tmp_path / "broken.pt").write_bytes(b"PK\x03\x04")
    (tmp_path / "old.pt").write_bytes(b"\x80\x02rollout_id")
    assert [path.name for path in IMPORTER.find(tmp_path)] == ["rollout_9.pt", "rollout_10.pt"]


def test_a_dump_is_only_opened_when_it_is_trusted(tmp_path):
    path = written(tmp_path, sample())
    with pytest.raises(UsageError, match=r"rollout_7\.pt is a pickle of torch") as caught:
        list(IMPORTER.read([path], ImportOptions()))
    assert "--trust" in caught.value.hint


def test_trusted_or_not_a_dump_cannot_run_a_program(tmp_path):
    class Program:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    path = written(tmp_path, sample(metadata=Program()))
    with pytest.raises(DataError, match="holds more than plain data and tensors"):
        read(path)
    assert not (tmp_path / "ran").exists()


def test_a_status_that_was_saved_as_an_enum_is_refused_with_a_way_out(tmp_path):
    path = written(tmp_path, sample(status=Status.COMPLETED))
    with pytest.raises(DataError, match=r"rollout_7\.pt holds more") as caught:
        read(path)
    assert "save it again" in caught.value.hint


def test_a_file_that_was_cut_off_is_named(tmp_path):
    path = written(tmp_path, *[sample()] * 50)
    path.write_bytes(path.read_bytes()[:-200])
    assert IMPORTER.find(tmp_path) == [path]
    with pytest.raises(DataError, match=r"rollout_7\.pt cannot be read, it is damaged or cut off"):
        list(IMPORTER.read([path], ImportOptions(trust=True)))


def test_a_file_without_samples_names_what_is_there(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"rollout_id": 1, "rows": []}, path)
    with pytest.raises(DataError, match="key samples is missing or no list, found rollout_id"):
        read(path)
    path = written(tmp_path, sample(tokens="left out"))
    with pytest.raises(DataError, match="sample 1: key tokens is missing, found group_index"):
        read(path)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"response": "left out"}, "key response is missing, found group_index"),
        ({"status": "pending"}, "the status is pending: nothing was sampled yet"),
        ({"response_length": 6}, "response_length is 6, of 5 tokens"),
        (
            {"loss_mask": [1, 0, 1]},
            "several turns: tokens that were not sampled stand in the completion",
        ),
        ({"reward": "good"}, "reward is 'good', expected a number"),
        ({"reward": float("nan")}, "reward is nan, expected a number"),
        ({"prompt": 3}, "prompt is a int, expected text or messages"),
        ({"tokens": 3}, "a list of numbers was expected, found a int"),
    ],
)
def test_bad_samples_are_refused_and_the_rest_is_read(tmp_path, changes, reason):
    rows = read(written(tmp_path, sample(), sample(**changes), sample()))
    assert [isinstance(each, Refused) for each in rows] == [False, True, False]
    assert rows[1].reason.startswith(reason)


def test_a_sample_that_is_no_dictionary_is_refused(tmp_path):
    assert read(written(tmp_path, sample(), [1]))[1].reason == "a list, expected a dictionary"


@pytest.mark.parametrize(
    ("status", "finish"),
    [("completed", "stop"), ("truncated", "length"), ("aborted", "abort"), ("failed", None)],
)
def test_the_status_says_why_a_completion_ended(tmp_path, status, finish):
    assert only(tmp_path, status=status).finish_reason == finish


@pytest.mark.parametrize("mask", [[1, 1, 1], [0, 0, 0], [1, 1, 0], None, torch.ones(3)])
def test_masks_of_a_single_turn_are_fine(tmp_path, mask):
    assert only(tmp_path, loss_mask=mask).token_ids == [13, 14, 15]


def test_tensors_and_messages_are_read_too(tmp_path):
    prompt = [{"role": "user", "content": "1 + 1?"}]
    tensors = {"tokens": torch.tensor([11, 12, 13]), "rollout_log_probs": torch.tensor([-0.5])}
    each = only(tmp_path, prompt=prompt, response_length=1, **tensors)
    assert (each.prompt_token_ids, each.token_ids) == ([11, 12], [13])
    assert each.sampler_logprobs == [-0.5]
    assert (each.prompt_text, each.question) == ("1 + 1?", "1 + 1?")
    assert each.prompt_messages == [{"role": "user", "content": "1 + 1?"}]


def test_a_sample_without_logprobs_or_tokens_of_a_completion(tmp_path):
    each = only(tmp_path, rollout_log_probs=None, response_length=0)
    assert (each.sampler_logprobs, each.token_ids) == (None, [])


def test_rewards_of_several_parts_need_a_choice(tmp_path):
    path = written(tmp_path, sample(reward={"right": 1.0, "format": 0.5}))
    assert read(path, reward_column="format")[0].reward == 0.5
    assert read(path, reward_column="right")[0].verifier == "slime:right"
    with pytest.raises(UsageError, match="the reward has several parts: right, format"):
        read(path)
    with pytest.raises(DataError, match="the reward has no part score, found right, format"):
        read(path, reward_column="score")
    assert only(tmp_path, reward={"right": 0.0}).reward == 0.0


def test_a_sample_without_reward_is_left_to_be_graded(tmp_path):
    each = only(tmp_path, reward=None)
    assert (each.reward, each.correct, each.answer) == (None, None, "4")
    assert only(tmp_path, label=None).answer is None


def test_torch_is_not_loaded_to_list_or_find_files():
    program = (
        "import sys, pathlib\n"
        "from thr_probe.integrations.slime import IMPORTER\n"
        f"assert len(IMPORTER.find(pathlib.Path({str(FIXTURES)!r}))) == 1\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
