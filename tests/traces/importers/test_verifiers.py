from __future__ import annotations

import copy
import itertools
import json
from collections import Counter
from pathlib import Path

import pytest

from thr_probe.errors import DataError
from thr_probe.traces.importers.foreign import ForeignCompletion, ImportOptions, Refused
from thr_probe.traces.importers.verifiers import IMPORTER

FIXTURES = Path(__file__).parent / "fixtures"
HERE = FIXTURES / "verifiers"
SAID = [
    json.loads(line)
    for line in (FIXTURES / "inspect" / "lab_completions.jsonl").read_text().splitlines()
]


def read(path, **options):
    return list(IMPORTER.read(IMPORTER.find(path), ImportOptions(**options)))


def first_row(folder):
    name = "results.jsonl" if folder == "results" else "traces.jsonl"
    return json.loads((HERE / folder / name).read_text().splitlines()[0])


def written(tmp_path, *rows, name="traces.jsonl"):
    path = tmp_path / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_results_and_traces_are_found_by_name_and_first_line(tmp_path):
    assert [path.relative_to(HERE).as_posix() for path in IMPORTER.find(HERE)] == [
        "results/results.jsonl",
        "traces/traces.jsonl",
        "traces_with_tokens/traces.jsonl",
    ]
    (tmp_path / "results.jsonl").write_text('{"accuracy": 0.5}\n')
    (tmp_path / "traces.jsonl").write_text("")
    assert IMPORTER.find(tmp_path) == []


@pytest.mark.parametrize("folder", ["results", "traces"])
def test_evaluations_give_what_the_policy_said(folder):
    found = read(HERE / folder)
    assert len(found) == len(SAID) == 24
    assert set(Counter(one.group for one in found).values()) == {4}
    wanted = sorted((row["prompt"], row["text"], row["correct"], row["answer"]) for row in SAID)
    given = sorted((one.prompt_text, one.text, one.reward == 1.0, one.answer) for one in found)
    assert given == wanted
    assert {one.finish_reason for one in found} == {"stop"}
    assert {(one.dataset, one.model) for one in found} == {("lab_arithmetic", "lab/policy")}
    assert {one.step for one in found} == {None}
    assert {one.question for one in found} == {row["prompt"] for row in SAID}
    for one in found:
        assert one.prompt_messages == [{"role": "user", "content": one.prompt_text}]


def test_results_are_grouped_by_example_and_traces_by_task():
    assert read(HERE / "results")[0].group == "results::0"
    task = first_row("traces")["task"]
    assert read(HERE / "traces")[0].group == f"traces:lab_arithmetic:{task['key']}"
    assert read(HERE / "traces")[0].verifier == "right_answer"


def test_rewards_by_group_give_the_pass_at_k_that_verifiers_computed():
    metadata = json.loads((HERE / "results" / "metadata.json").read_text())
    groups: dict[str, list[float]] = {}
    for one in read(HERE / "results"):
        groups.setdefault(one.group, []).append(one.reward)
    for k, wanted in metadata["pass_at_k"].items():
        chosen = [list(itertools.combinations(group, int(k))) for group in groups.values()]
        solved = [sum(max(one) for one in each) / len(each) for each in chosen]
        assert sum(solved) / len(solved) == pytest.approx(wanted, rel=1e-12)


def test_traces_of_a_training_client_give_ids_and_logprobs():
    found = read(HERE / "traces_with_tokens")
    assert len(found) == 8
    for one, row in zip(found, SAID[:8], strict=True):
        assert one.prompt_token_ids == row["prompt_token_ids"]
        assert one.token_ids == row["token_ids"]
        assert one.text == row["text"]
        # verifiers writes four decimals
        assert one.sampler_logprobs == [round(value, 4) for value in row["logprobs"]]
        assert one.group == f"traces_with_tokens:{row['question']}"
        assert one.step == 3


def test_the_reward_column_names_a_reward_or_a_metric():
    (one, *_) = read(HERE / "results", reward_column="num_turns")
    assert (one.reward, one.verifier) == (1.0, "num_turns")
    (one, *_) = read(HERE / "traces", reward_column="right_answer")
    assert (one.reward, one.verifier) == (0.0, "right_answer")
    found = read(HERE / "traces", reward_column="style")
    assert {one.reason for one in found} == {"no reward or metric style"}


def test_rewards_are_summed_by_their_weights(tmp_path):
    row = first_row("traces")
    row["traces"][0]["rewards"] = {
        "right": {"score": 1.0, "weight": 0.8},
        "style": {"score": 0.5, "weight": 0.2},
        "unscored": None,
    }
    (one,) = read(written(tmp_path, row))
    assert one.reward == pytest.approx(0.9)
    assert one.verifier is None
    row["traces"][0]["rewards"] = {}
    (one,) = read(written(tmp_path, row))
    assert one.reward is None


def changed(change):
    row = first_row("traces")
    change(row["traces"][0])
    return row


def second_turn(trace):
    trace["nodes"] += copy.deepcopy(trace["nodes"])
    trace["nodes"][2]["parent"], trace["nodes"][3]["parent"] = 1, 2


def branch(trace):
    trace["nodes"].append({"parent": None, "message": {"role": "user", "content": "b"}})


def failed(trace):
    trace["errors"] = [{"type": "Timeout", "message": "late"}]


def no_key(trace):
    trace["task"] = {"type": "LabTask", "data": {}}


def environment_tokens(trace):
    trace["nodes"][1].update(token_ids=[1, 2, 3], mask=[True, False, True])


def other_mask(trace):
    trace["nodes"][1].update(token_ids=[1, 2, 3], mask=[True])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (second_turn, "2 sampled messages: no single prompt was continued"),
        (branch, "messages after the completion or beside it: several turns"),
        (failed, "the rollout ended with an error"),
        (no_key, "the task has no key, so its group is unknown"),
        (
            environment_tokens,
            "tokens that were not sampled stand behind sampled ones: several turns",
        ),
        (other_mask, "3 token ids with a mask of 1"),
        (
            lambda trace: trace.pop("task"),
            "a field is missing or of another kind: KeyError('task')",
        ),
    ],
)
def test_traces_that_are_no_rollouts_are_refused(tmp_path, change, reason):
    assert [one.reason for one in read(written(tmp_path, changed(change)))] == [reason]


def test_results_that_are_no_rollouts_are_refused(tmp_path):
    row = first_row("results")
    said = row["completion"]
    called = [{**said[0], "tool_calls": [{"id": "1"}]}]
    rows = [
        {**row, "error": {"error": "Timeout"}},
        {**row, "completion": [*said, {"role": "user", "content": "sure?"}, *said]},
        {**row, "completion": called},
        {"accuracy": 1.0},
    ]
    found = read(written(tmp_path, row, *rows, name="results.jsonl"))
    assert isinstance(found[0], ForeignCompletion)
    assert [one.reason for one in found[1:]] == [
        "the rollout ended with an error",
        "3 messages after the prompt: no single prompt was continued",
        "the completion calls tools, its text alone is not what was sampled",
        "no rollout of verifiers",
    ]


def test_completions_of_text_and_saved_trajectories(tmp_path):
    row = first_row("results")
    tokens = {"prompt_ids": [1, 2], "completion_ids": [3], "completion_logprobs": [-0.5]}
    changes = {"completion": " 56", "prompt": "Q", "is_truncated": True, "task": "sums"}
    saved = {**row, **changes, "trajectory": [{"tokens": tokens}]}
    (one,) = read(written(tmp_path, saved, name="results.jsonl"))
    assert (one.text, one.prompt_text, one.finish_reason) == (" 56", "Q", "length")
    assert (one.prompt_token_ids, one.token_ids, one.sampler_logprobs) == ([1, 2], [3], [-0.5])
    assert (one.dataset, one.model) == ("sums", None)
    assert one.group.endswith(":sums:0")


def test_agents_of_an_episode_have_a_group_each(tmp_path):
    row = first_row("traces")
    (trace,) = row["traces"]
    agents = [("solver", True), ("critic", True), ("judge", False)]
    row["traces"] = [
        {**trace, "id": name, "agent": {**trace["agent"], "name": name, "trainable": trains}}
        for name, trains in agents
    ]
    solver, critic, judge = read(written(tmp_path, row))
    assert solver.group.endswith(f":{row['task']['key']}:solver")
    assert critic.group.endswith(f":{row['task']['key']}:critic")
    assert solver.where.endswith("line 1, trace 1")
    assert judge.reason == "an agent that is not the policy"


def test_a_trace_is_taken_once(tmp_path):
    row = first_row("traces")
    found = read(written(tmp_path, row, row))
    assert isinstance(found[1], Refused)
    assert found[1].reason == "a trace that was read before"


def test_an_episode_without_a_trace_and_a_line_cut_off_are_refused(tmp_path):
    row = {**first_row("traces"), "traces": []}
    path = written(tmp_path, row)
    with path.open("a") as file:
        file.write('{"id": "a", "tra')
    assert [one.reason for one in read(path)] == [
        "the episode ended without a trace",
        "not JSON, the file seems cut off",
    ]


def test_another_file_is_named(tmp_path):
    path = written(tmp_path, {"question": "a", "text": "b"}, name="results.jsonl")
    with pytest.raises(DataError) as caught:
        list(IMPORTER.read([path], ImportOptions()))
    assert caught.value.message == (
        f"{path}, line 1: no rollout, expected the fields traces, nodes or example_id, "
        "found question, text"
    )
