from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from thr_probe.errors import DataError
from thr_probe.lab import policy_directory
from thr_probe.traces.importers.foreign import ImportOptions, Refused
from thr_probe.traces.importers.nemo_rl import IMPORTER

FIXTURES = Path(__file__).parent / "fixtures" / "nemo_rl"
PROMPT = "Question: Find the number: 9 times it plus 40 is 247.\nAnswer:"


def read(path, **options):
    return list(IMPORTER.read(IMPORTER.find(path), ImportOptions(**options)))


def row(**changes):
    values = {
        "content": [["P", "C"]],
        "rewards": [1.0],
        "input_lengths": [5],
        "token_ids": [[11, 12, 13, 14, 15, 0]],
        "token_loss_mask": [[0, 0, 1, 1, 1, 0]],
        "generation_logprobs": [[0.0, 0.0, -0.5, -0.25, -1.0, 0.0]],
        "idx": 0,
        **changes,
    }
    return {name: value for name, value in values.items() if value is not None}


def written(folder, *rows, name="train_data_step4.jsonl"):
    path = folder / name
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    return path


def only(tmp_path, **changes):
    return read(written(tmp_path, row(**changes)))[0]


def test_a_training_file_is_read_with_the_ids_of_its_mask():
    tokenizer = AutoTokenizer.from_pretrained(policy_directory())
    rows = read(FIXTURES / "train_data_step3.jsonl")
    assert len(rows) == 8
    for each in rows:
        assert tokenizer.decode(each.prompt_token_ids) == each.prompt_text
        assert tokenizer.decode(each.token_ids[:-1]) == each.text
        assert each.token_ids[-1] == tokenizer.eos_token_id
        assert each.sampler_logprobs == [-0.5 - place / 64 for place in range(len(each.token_ids))]
    first = rows[0]
    assert (first.prompt_text, first.step, first.reward) == (PROMPT, 3, 1.0)
    assert (first.dataset, first.verifier) == ("train", "nemo-rl:rewards")
    assert (first.answer, first.correct, first.finish_reason) == (None, None, None)


def test_validation_and_old_files_have_the_same_texts():
    train = read(FIXTURES / "train_data_step3.jsonl")
    for path in (FIXTURES / "val_data_step3.jsonl", FIXTURES / "old"):
        rows = read(path)
        assert [(each.prompt_text, each.text, each.reward) for each in rows] == [
            (each.prompt_text, each.text, each.reward) for each in train
        ]
        assert {each.token_ids for each in rows} == {None}
        assert {each.sampler_logprobs for each in rows} == {None}


def test_groups_are_the_prompts_of_a_file():
    members = defaultdict(list)
    for path in (FIXTURES, FIXTURES / "val_data_step3.jsonl"):
        for each in read(path):
            members[each.step, each.group].append(each.prompt_text)
    assert [len(group) for group in members.values()] == [4] * 6
    assert all(len(set(group)) == 1 for group in members.values())


def test_files_come_in_the_order_of_their_steps(tmp_path):
    for name in ("train_data_step10", "train_data_step9", "val_data_step5", "metrics"):
        written(tmp_path, row(), name=f"{name}.jsonl")
    written(tmp_path, {"content": "x", "rewards": 1}, name="train_data_step1.jsonl")
    assert [path.stem for path in IMPORTER.find(tmp_path)] == [
        "train_data_step9",
        "train_data_step10",
    ]
    assert IMPORTER.find(tmp_path / "metrics.jsonl") == [tmp_path / "metrics.jsonl"]
    assert read(tmp_path / "metrics.jsonl")[0].step is None


def test_validation_is_read_where_it_is_named_or_alone(tmp_path):
    train, val = (
        written(tmp_path, row(), name=f"{name}_data_step5.jsonl") for name in ("train", "val")
    )
    assert (IMPORTER.find(tmp_path), IMPORTER.left_out(tmp_path)) == ([train], [val])
    assert (IMPORTER.find(val), IMPORTER.left_out(val)) == ([val], [])
    train.unlink()
    assert (IMPORTER.find(tmp_path), IMPORTER.left_out(tmp_path)) == ([val], [])


def test_ids_and_logprobs_are_cut_at_the_mask(tmp_path):
    each = only(tmp_path)
    assert (each.prompt_token_ids, each.token_ids) == ([11, 12], [13, 14, 15])
    assert each.sampler_logprobs == [-0.5, -0.25, -1.0]


def test_logprobs_of_another_length_are_left_out(tmp_path):
    assert only(tmp_path, generation_logprobs=[[0.0, -1.0]]).sampler_logprobs is None
    assert only(tmp_path, generation_logprobs=None).sampler_logprobs is None


def test_what_the_environment_said_is_left_out(tmp_path):
    content, mask = [["S", "P", "C", "well done"]], [[0, 0, 1, 1, 0, 0]]
    each = only(tmp_path, content=content, token_loss_mask=mask)
    assert (each.prompt_text, each.text, each.token_ids) == ("SP", "C", [13, 14])
    each = only(tmp_path, content=[["S", "P", "C"]])
    assert (each.prompt_text, each.text) == ("SP", "C")


def test_the_filtered_rewards_of_dynamic_sampling_count(tmp_path):
    each = only(tmp_path, rewards=[0.0], filtered_rewards=[1.0])
    assert (each.reward, each.verifier) == (1.0, "nemo-rl:filtered_rewards")
    path = tmp_path / "train_data_step4.jsonl"
    assert read(path, reward_column="rewards")[0].reward == 0.0


def test_the_question_is_taken_out_of_the_template(tmp_path):
    prompt = "<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n"
    each = only(tmp_path, content=[[prompt, "2"]])
    assert (each.prompt_text, each.question) == (prompt, "1+1?")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"token_loss_mask": [[0, 1, 0, 1, 1, 0]]},
            "several turns: tokens of the environment stand between sampled ones",
        ),
        ({"token_loss_mask": [[0] * 6]}, "token_loss_mask marks no token of a completion"),
        (
            {"token_loss_mask": [[0, 1]]},
            "6 token_ids, 2 of token_loss_mask, input_lengths 5: they do not fit together",
        ),
        (
            {"input_lengths": [9]},
            "6 token_ids, 6 of token_loss_mask, input_lengths 9: they do not fit together",
        ),
        ({"rewards": ["good"]}, "rewards is a JSON str, expected a number"),
        ({"content": ["C"]}, "content holds one text, expected those of prompt and completion"),
        ({"content": [["P", 3]]}, "content holds what is no text"),
        (
            {"content": [["S", "P", "C"]], "token_ids": None},
            "content holds 3 texts, and no mask says which was sampled",
        ),
        (
            {"content": [[{"role": "user", "content": "P"}, {"role": "user", "content": "P"}]]},
            "content holds 0 messages of the policy, expected one",
        ),
    ],
)
def test_bad_rows_are_refused_and_the_rest_is_read(tmp_path, changes, reason):
    rows = read(written(tmp_path, row(), row(**changes), row()))
    assert [isinstance(each, Refused) for each in rows] == [False, True, False]
    assert rows[1].reason == reason


def test_a_damaged_file_of_a_step_is_refused_not_passed_over(tmp_path):
    written(tmp_path, row())
    (tmp_path / "train_data_step5.jsonl").write_bytes(b"")
    (tmp_path / "train_data_step6.jsonl").write_bytes(b"{")
    rows = read(tmp_path)
    assert [each.reason for each in rows[1:]] == [
        "the file is empty",
        "not JSON, the file seems cut off",
    ]


def test_a_line_that_was_cut_off_is_refused(tmp_path):
    path = written(tmp_path, row(), row())
    path.write_text(path.read_text()[:-40])
    rows = read(path)
    assert rows[1].reason == "not JSON, the file seems cut off"


def test_a_missing_field_names_file_field_and_what_is_there(tmp_path):
    message = r"train_data_step4\.jsonl, line 1: field rewards is missing, found content, idx"
    path = written(tmp_path, {"content": [["P", "C"]], "idx": 0})
    assert IMPORTER.find(path) == []
    with pytest.raises(DataError, match=message):
        list(IMPORTER.read([path], ImportOptions()))
    rows = read(written(tmp_path, row(), row(rewards=None)))
    assert rows[1].reason == "field rewards is missing"
    with pytest.raises(DataError, match="field accuracy is missing"):
        read(tmp_path, reward_column="accuracy")
