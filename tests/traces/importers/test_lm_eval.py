from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from thr_probe.errors import DataError
from thr_probe.traces.importers.foreign import ForeignCompletion, ImportOptions, Refused
from thr_probe.traces.importers.lm_eval import IMPORTER

FIXTURES = Path(__file__).parent / "fixtures" / "lm_eval"
DATE = "2026-11-26T01-30-00.000000"


def read(path, **options):
    return list(IMPORTER.read(IMPORTER.find(path), ImportOptions(**options)))


def row(**changes):
    values = {
        "doc_id": 7,
        "doc": {"problem": "2 + 2?"},
        "target": "4",
        "arguments": {"gen_args_0": {"arg_0": "Q: 2 + 2?\nA:", "arg_1": {"until": []}}},
        "resps": [["four", " 4"]],
        "filtered_resps": [["four", "4"]],
        "filter": "none",
        "metrics": ["exact_match"],
        "exact_match": 0.5,
    }
    return {**values, **changes}


def written(tmp_path, *rows, name=f"samples_sums_{DATE}.jsonl"):
    path = tmp_path / name
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    return path


def test_a_folder_gives_its_samples_files_by_name():
    assert [path.name for path in IMPORTER.find(FIXTURES)] == [
        f"samples_lab_chat_{DATE}.jsonl",
        f"samples_lab_arithmetic_{DATE}.jsonl",
        f"samples_lab_choice_{DATE}.jsonl",
        f"samples_lab_greedy_{DATE}.jsonl",
    ]


def test_a_file_is_told_by_its_fields_whatever_its_name(tmp_path):
    assert IMPORTER.find(written(tmp_path, row(), name="mine.jsonl")) == [tmp_path / "mine.jsonl"]
    assert IMPORTER.find(written(tmp_path, {"doc_id": 1}, name="other.jsonl")) == []
    assert IMPORTER.find(FIXTURES / "problems.jsonl") == []


def test_repeats_are_a_group_without_labels_and_counted_once_for_two_filters():
    found = read(FIXTURES / f"samples_lab_arithmetic_{DATE}.jsonl")
    assert len(found) == 24
    assert set(Counter(one.group for one in found).values()) == {4}
    first = found[0]
    assert first.group == f"lm_eval/samples_lab_arithmetic_{DATE}.jsonl:0"
    assert first.text.startswith(" let me see, try 69: 3 times 69 gives 207")
    assert first.text.endswith("\\boxed{69}")
    assert first.prompt_text == "Question: Find x: 3 * x + 16 = 184.\nAnswer:"
    assert first.question == "Find x: 3 * x + 16 = 184."
    assert (first.answer, first.answer_alt) == ("56", None)
    assert (first.reward, first.correct, first.verifier, first.extracted) == (None,) * 4
    assert (first.dataset, first.model) == ("lab_arithmetic", "lab/policy")
    assert found[1].where.endswith("line 1, response 2")


def test_one_completion_has_its_metric_for_a_label():
    found = read(FIXTURES / f"samples_lab_greedy_{DATE}.jsonl")
    results = json.loads((FIXTURES / f"results_{DATE}.json").read_text())["results"]
    assert len(found) == 6
    right = results["lab_greedy"]["exact_match,strict-match"]
    assert sum(one.correct for one in found) == round(6 * right) == 3
    first = found[0]
    assert (first.reward, first.correct, first.extracted) == (1.0, True, "56")
    assert first.verifier == "exact_match,strict-match"
    assert first.where.endswith("line 1")


@pytest.mark.parametrize("wanted", ["flexible-extract", "exact_match,flexible-extract"])
def test_the_reward_column_names_a_filter(wanted):
    found = read(FIXTURES / f"samples_lab_greedy_{DATE}.jsonl", reward_column=wanted)
    assert [one.verifier for one in found] == ["exact_match,flexible-extract"] * 6
    assert found[0].where.endswith("line 7")


def test_the_reward_column_names_a_metric(tmp_path):
    one = {"resps": [["4"]], "filtered_resps": ["4"], "metrics": ["exact_match", "f1"]}
    path = written(tmp_path, row(**one, exact_match=0.0, f1=0.25))
    (found,) = read(path, reward_column="f1")
    assert (found.reward, found.correct, found.verifier) == (0.25, None, "f1,none")
    (found,) = read(path)
    assert (found.reward, found.correct, found.verifier) == (0.0, False, "exact_match,none")


def test_a_metric_that_no_line_has_is_told():
    (found,) = read(FIXTURES / f"samples_lab_greedy_{DATE}.jsonl", reward_column="f1")
    assert found.reason == (
        "no metric or filter f1, found exact_match,strict-match, exact_match,flexible-extract"
    )


def test_likelihoods_are_refused():
    found = read(FIXTURES / f"samples_lab_choice_{DATE}.jsonl")
    reason = "a likelihood was computed, nothing was sampled (multiple choice or perplexity)"
    assert [one.reason for one in found] == [reason] * 6
    assert found[0].where.endswith("line 1")


def test_what_a_filter_gives_for_each_completion_is_its_answer(tmp_path):
    rows = row(filtered_resps=[["[invalid]", "4"]], exact_match=[0.0, 1.0])
    found = read(written(tmp_path, rows))
    assert [one.extracted for one in found] == [None, "4"]
    assert [(one.reward, one.correct) for one in found] == [(0.0, False), (1.0, True)]
    assert [one.text for one in found] == ["four", " 4"]
    assert found[0].question == "2 + 2?"


def test_targets_may_be_lists_and_arguments_those_of_old_versions(tmp_path):
    old = [["Q: 2 + 2?\nA:", {"until": []}]]
    changes = {"target": "['4', 'four', 'IV']", "arguments": old}
    without = {key: value for key, value in row(**changes).items() if key not in ("metrics",)}
    one, _ = read(written(tmp_path, {**without, "resps": [["4", "5"]]}))
    assert (one.answer, one.answer_alt) == ("4", "four")
    assert one.prompt_text == "Q: 2 + 2?\nA:"


def test_a_chat_is_taken_out_of_its_json():
    first, second = read(FIXTURES / "chat")
    assert first.prompt_text == "Question: Find x: 3 * x + 16 = 184.\nAnswer:"
    assert first.question == "Find x: 3 * x + 16 = 184."
    assert (first.text, first.correct, second.correct) == (" so \\boxed{56}", True, False)


def test_a_question_that_the_document_does_not_name_is_the_users(tmp_path):
    template = "<|im_start|>user\n2 + 2?<|im_end|>\n<|im_start|>assistant\n"
    chat = json.dumps(
        [{"role": "system", "content": "Add."}, {"role": "user", "content": "1 + 1?"}]
    )
    picture = json.dumps([{"role": "user", "content": [{"type": "image"}]}])
    rows = [
        row(doc={}, arguments={"gen_args_0": {"arg_0": arg, "arg_1": {}}}, doc_id=number)
        for number, arg in enumerate((template, [chat], [picture], ["plain"]))
    ]
    found = read(written(tmp_path, *rows))
    assert [(one.prompt_text, one.question) for one in (found[0], found[2])] == [
        (template, "2 + 2?"),
        ("system: Add.\n\nuser: 1 + 1?", "1 + 1?"),
    ]
    assert [one.prompt_messages for one in (found[0], found[2])] == [None, json.loads(chat)]
    assert found[4].reason == "a message with content of type image, expected text"
    assert (found[5].prompt_text, found[5].question) == ("plain", None)


def test_damaged_lines_are_refused_and_the_rest_is_read(tmp_path):
    path = written(tmp_path, row(), {"doc_id": 8}, row(resps=[["a"], ["b"]]), row(doc_id=9))
    with path.open("a") as file:
        file.write('{"doc_id": 10, "do')
    found = read(path)
    kinds = [one.reason if isinstance(one, Refused) else one.group[-1] for one in found]
    assert kinds == [
        *("7", "7"),
        "field doc is missing",
        "resps holds no completion of one request",
        *("9", "9"),
        "not JSON, the file seems cut off",
    ]
    assert all(isinstance(one, ForeignCompletion | Refused) for one in found)


def test_another_file_is_named_with_what_was_found(tmp_path):
    path = tmp_path / "other.jsonl"
    path.write_text('{"doc_id": 1, "text": "a"}\n')
    with pytest.raises(DataError) as caught:
        list(IMPORTER.read([path], ImportOptions()))
    assert caught.value.message == f"{path}, line 1: field doc is missing, found doc_id, text"
    assert caught.value.hint is not None
    assert "--log_samples" in caught.value.hint
