from __future__ import annotations

import json
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from thr_probe.errors import DataError
from thr_probe.traces.importers.foreign import ForeignCompletion, ImportOptions, Refused
from thr_probe.traces.importers.inspect_ai import IMPORTER

FIXTURES = Path(__file__).parent / "fixtures" / "inspect"
SAID = [json.loads(line) for line in (FIXTURES / "lab_completions.jsonl").read_text().splitlines()]
HEADER = {"version": 2, "status": "success", "eval": {"task": "sums", "model": "m"}}


def read(*paths, **options):
    found = [file for path in paths for file in IMPORTER.find(path)]
    return list(IMPORTER.read(found, ImportOptions(**options)))


def completions(rows):
    return [row for row in rows if isinstance(row, ForeignCompletion)]


def reasons(rows):
    return [row.reason for row in rows if isinstance(row, Refused)]


def sample(**changes):
    choice = {"message": {"role": "assistant", "content": "4"}, "stop_reason": "stop"}
    values = {
        "id": "a",
        "epoch": 2,
        "input": "2 + 2?",
        "target": "4",
        "output": {"choices": [choice]},
        "scores": {"match": {"value": "C", "answer": "4"}},
    }
    return {**values, **changes}


def archived(path, *samples, header=HEADER):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        if header is not None:
            archive.writestr("header.json", json.dumps(header))
        for number, one in enumerate(samples):
            archive.writestr(f"samples/{number}_epoch_1.json", json.dumps(one))
    return path


def test_logs_are_told_by_how_they_start(tmp_path):
    assert [path.name for path in IMPORTER.find(FIXTURES)] == [
        "killed.eval",
        "lab_arithmetic.eval",
        "lab_arithmetic.json",
        "reasoning.json",
    ]
    (tmp_path / "config.json").write_text('{"version": 2}')
    (tmp_path / "notes.eval").write_text("no archive")
    assert IMPORTER.find(tmp_path) == []


def test_an_archive_packed_with_zstd_gives_what_the_policy_said():
    found = read(FIXTURES / "lab_arithmetic.eval")
    assert len(found) == len(SAID) == 24
    assert set(Counter(one.group for one in found).values()) == {4}
    by_place = {(one.prompt_text, one.rollout): one for one in found}
    for row in SAID:
        one = by_place[row["prompt"], row["rollout"]]
        assert one.text == row["text"]
        assert one.answer == row["answer"]
        assert one.finish_reason == row["finish_reason"]
        assert one.question == row["prompt"]
        assert (one.dataset, one.model, one.verifier) == ("lab", "lab/policy", "match")
        # inspect's scorer takes the last number, which here is the boxed one only at times
        assert (one.reward, one.correct) in ((1.0, True), (0.0, False))
    # its logprobs stand beside token texts
    assert {one.sampler_logprobs for one in found} == {None}


def test_the_json_log_gives_the_same_as_the_archive():
    whole = {one.where.split("/")[-1]: one for one in read(FIXTURES / "lab_arithmetic.eval")}
    found = read(FIXTURES / "lab_arithmetic.json")
    assert [one.rollout for one in found] == [0, 1, 2, 3]
    for epoch, one in enumerate(found, start=1):
        other = whole[f"2_epoch_{epoch}.json"]
        for name in ("group", "text", "prompt_text", "reward", "correct", "extracted", "answer"):
            assert getattr(one, name) == getattr(other, name), name
        assert one.where.endswith(f"lab_arithmetic.json, sample {epoch}")


def test_reasoning_comes_before_the_answer_and_the_system_message_before_the_question():
    right, wrong = read(FIXTURES / "reasoning.json")
    assert right.text == "<think>two and two</think>4"
    assert wrong.text == "<think>two and two</think>five, no"
    assert right.prompt_text == "system: Think first.\n\nuser: What is 2 + 2?"
    assert right.prompt_messages == [
        {"role": "system", "content": "Think first."},
        {"role": "user", "content": "What is 2 + 2?"},
    ]
    assert right.question == "What is 2 + 2?"
    assert (right.answer, right.answer_alt) == ("4", "four")
    assert (right.correct, wrong.correct) == (True, False)
    assert (right.finish_reason, wrong.finish_reason) == ("stop", "length")
    assert (right.dataset, right.extracted) == ("reasoning", "4")


def test_a_killed_run_gives_its_finished_samples_and_says_so():
    found = read(FIXTURES / "killed.eval")
    said = {(row["prompt"], row["rollout"]): row["text"] for row in SAID}
    assert len(completions(found)) == 10
    for one in completions(found):
        assert one.text == said[one.prompt_text, one.rollout]
    assert reasons(found) == ["the run did not end, its finished samples are read"]


def test_a_sample_that_two_logs_hold_is_taken_once():
    found = read(FIXTURES)
    assert len(completions(found)) == 36
    assert Counter(reasons(found)) == {
        "a sample that another log holds too": 4,
        "the run did not end, its finished samples are read": 1,
    }


@pytest.mark.parametrize("name", ["lab_arithmetic.eval", "lab_arithmetic.json"])
def test_a_file_that_was_cut_off_is_read_up_to_the_cut(name, tmp_path):
    data = (FIXTURES / name).read_bytes()
    cut = tmp_path / name
    cut.write_bytes(data[: len(data) * 2 // 3])
    found = read(cut)
    whole = read(FIXTURES / name)
    assert 1 < len(completions(found)) < len(whole)
    assert [one.text for one in completions(found)] == [
        one.text for one in whole[: len(completions(found))]
    ]
    assert reasons(found) == [
        "the archive is cut off, it is read up to the cut"
        if name.endswith("eval")
        else "cut off: the file ends inside a value"
    ]


def test_a_damaged_sample_is_refused_alone(tmp_path):
    data = bytearray((FIXTURES / "lab_arithmetic.eval").read_bytes())
    place = data.index(b"samples/2_epoch_1.json") + 600
    data[place : place + 40] = bytes(40)
    damaged = tmp_path / "damaged.eval"
    damaged.write_bytes(data)
    found = read(damaged)
    assert len(completions(found)) == 23
    (reason,) = reasons(found)
    assert reason.startswith("the sample cannot be read: damaged")


@pytest.mark.parametrize(
    ("value", "reward", "correct"),
    [
        ("C", 1.0, True),
        ("I", 0.0, False),
        ("N", 0.0, False),
        ("P", 0.5, None),
        (1, 1.0, True),
        (False, 0.0, False),
        (0.25, 0.25, None),
        ({"acc": 1}, None, None),
        ("good", None, None),
    ],
)
def test_scores_become_rewards(tmp_path, value, reward, correct):
    path = archived(tmp_path / "a.eval", sample(scores={"match": {"value": value}}))
    (one,) = read(path)
    assert (one.reward, one.correct, one.rollout) == (reward, correct, 1)


def test_the_reward_column_names_a_score_or_an_entry_of_it(tmp_path):
    scores = {"match": {"value": "I"}, "judge": {"value": {"acc": 1.0}, "answer": "four"}}
    path = archived(tmp_path / "a.eval", sample(scores=scores))
    (one,) = read(path, reward_column="judge/acc")
    assert (one.reward, one.correct, one.verifier, one.extracted) == (
        *(1.0, True),
        *("judge/acc", "four"),
    )
    (one,) = read(path, reward_column="other")
    assert one.reason == "no score other, found match, judge"


def test_samples_that_are_no_rollouts_are_refused_with_the_reason(tmp_path):
    said = {"role": "assistant", "content": "4", "source": "generate"}
    asked = {"role": "user", "content": "2 + 2?"}
    calls = {"role": "assistant", "content": "", "tool_calls": [{"function": "add"}]}
    seen = {"role": "user", "content": [{"type": "image", "image": "data:"}]}
    redacted = {"role": "assistant", "content": [{"type": "reasoning", "redacted": True}]}
    path = archived(
        tmp_path / "a.eval",
        sample(error={"message": "timeout"}),
        sample(messages=[asked, said, asked, said]),
        sample(output={"choices": [{"message": calls}]}),
        sample(output={"choices": []}),
        sample(input=[seen]),
        sample(output={"choices": [{"message": redacted}]}),
        {"id": "a", "epoch": 1},
        sample(output=None),
    )
    assert reasons(read(path)) == [
        "the sample ended with an error",
        "several turns: no single prompt was continued",
        "the completion calls tools, its text alone is not what was sampled",
        "the output has no completion",
        "a message with content of type image, expected text",
        "the reasoning is redacted, so the completion is not all there",
        "field input is missing",
        "a field is missing or of another kind: "
        "AttributeError(\"'NoneType' object has no attribute 'get'\")",
    ]


def test_tokens_written_as_ids_keep_their_logprobs(tmp_path):
    content = [
        {"token": "token_id:441", "logprob": -1.5},
        {"token": "token_id:13", "logprob": -0.25},
    ]
    message = {"role": "assistant", "content": " 4"}
    choice = {"message": message, "logprobs": {"content": content}, "stop_reason": "unknown"}
    (one,) = read(archived(tmp_path / "a.eval", sample(output={"choices": [choice]})))
    assert (one.token_ids, one.sampler_logprobs) == ([441, 13], [-1.5, -0.25])
    assert one.finish_reason is None


def test_choices_beside_the_first_have_no_score(tmp_path):
    choice = {"message": {"role": "assistant", "content": "4"}, "stop_reason": "stop"}
    first, second = read(
        archived(tmp_path / "a.eval", sample(output={"choices": [choice, choice]}))
    )
    assert (first.reward, second.reward) == (1.0, None)
    assert (first.rollout, second.rollout) == (None, None)
    assert second.where.endswith("choice 2")


def test_a_run_that_failed_says_how_it_ended(tmp_path):
    path = archived(tmp_path / "a.eval", sample(), header={**HEADER, "status": "cancelled"})
    assert reasons(read(path)) == ["the run ended as cancelled, its finished samples are read"]


def test_other_archives_and_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r"holds neither header\.json nor _journal/start\.json"):
        read(archived(tmp_path / "a.eval", sample(), header=None))
    with pytest.raises(DataError, match=r"field eval\.task is missing"):
        read(archived(tmp_path / "b.eval", header={"status": "success"}))
    other = tmp_path / "c.json"
    other.write_text('{"version": 2, "status": "success", "samples": []}')
    with pytest.raises(DataError, match="field eval is missing"):
        read(other)
    other.write_text('{"version": 2, "status": "succ')
    with pytest.raises(DataError, match="holds no whole sample: the file ends inside a value"):
        list(IMPORTER.read([other], ImportOptions()))


def test_chunked_samples_are_refused(tmp_path):
    path = archived(tmp_path / "a.eval", sample())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("samples/b_epoch_1/sample.json", "{}")
        archive.writestr("samples/b_epoch_1/messages/0.json", "[]")
    found = read(path)
    assert (len(completions(found)), reasons(found)) == (
        1,
        ["a sample of many turns, kept in chunks"],
    )
