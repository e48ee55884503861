"""The health of a run: every check by counting by hand, and runs of every kind."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from thr_probe.analysis.health import CHECKS, Check, run_health
from thr_probe.core.stats import question_weights
from thr_probe.traces import read_run


def completion(**columns):
    return {"extracted": "1", **columns}


def sick_groups():
    """Four questions of different troubles, 13 completions, 4 tokens each."""
    cut = completion(finish_reason="length", extracted=None, token_ids=[1, 2, 3, 9])
    return [
        {
            "prompt_id": "a",
            "question": "What is  1 + 1?",
            "completions": [
                completion(correct=True, token_ids=[5, 6, 7, 8], text="two"),
                completion(token_ids=[5, 6, 7, 8], text="two"),  # text and ids again
                completion(token_ids=[5, 6, 7, 1], text="two"),  # text again
                cut,
            ],
        },
        {
            "prompt_id": "b",
            "question": "What is 1 + 1? ",
            "completions": [
                completion(text="x", verify_status="timeout"),
                completion(text=" ", token_ids=[4, 4, 4, 4], verify_status="error"),
                completion(text="y", token_ids=None),
                completion(text="z", token_ids=[1, 1, 1, 2], ids_source="retokenized"),
            ],
        },
        {
            "prompt_id": "c",
            "completions": [
                completion(correct=True, text=str(index), token_ids=[index] * 4)
                for index in range(4)
            ],
        },
        {
            "prompt_id": "d",
            "completions": [
                completion(
                    correct=True,
                    text="two",  # as in another group, which is no repeat
                    token_ids=[1, 2, 3, 4],
                    finish_reason="abort",
                    verify_status="parse_fail",
                    extracted=None,
                )
            ],
        },
    ]


EXPECTED = {
    "truncated": (1, 13),
    "aborted": (1, 13),
    "empty completion": (1, 13),
    "no extracted answer": (2, 13),
    "verifier timeout": (1, 13),
    "verifier parse failure": (1, 13),
    "verifier error": (1, 13),
    "text repeated in its group": (2, 13),
    "ids repeated in its group": (1, 12),
    "token ids retokenized": (1, 13),
    "token ids absent": (1, 13),
    "group none correct": (1, 4),
    "group all correct": (2, 4),
    "group mixed": (1, 4),
    "group of another size": (1, 4),
    "question repeated": (1, 4),
    "THR undefined": (4, 13),
    "THR missing": (0, 13),
    "number not finite": (0, 3 * 52),
    "scores missing": (0, 13),
    "scores of another completion": (0, 13),
    "lists of unequal length": (0, 13),
    "state that does not exist": (0, 13),
}


@pytest.fixture(scope="module")
def analysis(tmp_path_factory, make_run):
    path = tmp_path_factory.mktemp("health") / "run"
    return run_health(read_run(make_run(path, sick_groups(), groups_per_part=3)), seed=4)


def test_every_check_counts_what_was_counted_by_hand(analysis):
    table = analysis.curves["checks"].set_index("check")
    found = {name: (row["count"], row["of"]) for name, row in table.iterrows()}
    assert found == EXPECTED
    shares = {name: count / whole for name, (count, whole) in EXPECTED.items()}
    assert dict(table["value"]) == pytest.approx(shares)


def test_the_caption_counts_verdicts_in_grammar(analysis, tmp_path, make_run):
    number = {word: analysis.facts[f"num_{word}"] for word in ("ok", "look", "bad")}
    assert min(number.values()) > 1
    assert (
        f"Of 23 checks, {number['ok']} are ok, {number['look']} are worth a look and "
        f"{number['bad']} are bad by" in analysis.caption
    )
    one = [{"completions": [completion(correct=True), completion(extracted=None)]}]
    healthy = run_health(read_run(make_run(tmp_path / "run", one)))
    assert "2 are worth a look and 1 is bad by" in healthy.caption


def test_a_run_without_sampler_logprobs_says_which_checks_were_not_made(analysis):
    assert analysis.facts["checks_not_made"] == [
        "logprob gap over 0.1 nats", "mean logprob gap", "largest logprob gap",
    ]  # fmt: skip
    assert analysis.facts["logprobs_not_compared"]


def test_intervals_resample_questions(analysis):
    truncated, whole = np.array([1, 0, 0, 0]), np.array([4, 4, 4, 1])
    weights = question_weights(4, seed=4)
    draws = (weights @ truncated) / (weights @ whole)
    found = analysis.value("truncated")
    np.testing.assert_allclose([found.low, found.high], np.quantile(draws, [0.025, 0.975]))
    assert np.isnan(analysis.value("question repeated").low)


def test_verdicts_follow_their_rule():
    much = Check(name="truncated", of="completions", ok=0.05, look=0.2)
    assert [much.verdict(value) for value in (0.0, 0.05, 0.1, 0.2, 0.21)] == [
        "ok", "ok", "look", "look", "bad",
    ]  # fmt: skip
    assert much.rule == "ok up to 5 %, look up to 20 %, else bad"
    scarce = Check(name="group mixed", of="groups", ok=0.2, look=0.05, scarce=True)
    assert [scarce.verdict(value) for value in (0.2, 0.1, 0.05, 0.0)] == [
        "ok",
        "look",
        "look",
        "bad",
    ]
    assert scarce.rule == "ok from 20 %, look from 5 %, else bad"
    never = Check(name="THR missing", of="completions", ok=0.0, look=0.0)
    assert never.rule == "ok up to 0 %, else bad"
    assert len({check.name for check in CHECKS}) == len(CHECKS)


def gapped(tmp_path, make_run, *, sampled=1.0, top_p=1.0, scored=1.0):
    logprob = [[-0.5, -1.0, -2.0], [-0.1, -0.2]]
    sampler = [[-0.5, -1.05, -2.5], [-0.1, -0.2]]
    completions = [
        completion(correct=not index, logprob=policy, sampler_logprobs=other)
        for index, (policy, other) in enumerate(zip(logprob, sampler, strict=True))
    ]
    path = make_run(tmp_path / "run", [{"completions": completions}])
    (path / "config.toml").write_text(f"temperature = {sampled}\ntop_p = {top_p}\n")
    (info,) = path.glob("scores/*/score.json")
    info.write_text(info.read_text().replace("{", f'{{"temperature": {scored}, ', 1))
    return run_health(read_run(path))


def test_log_probabilities_of_sampler_and_policy_are_compared(tmp_path, make_run):
    analysis = gapped(tmp_path, make_run)
    table = analysis.curves["checks"].set_index("check")
    row = table.loc["logprob gap over 0.1 nats"]
    assert (row["count"], row["of"], row["verdict"]) == (1, 5, "bad")
    np.testing.assert_allclose(table.loc["mean logprob gap", "value"], 0.55 / 5, rtol=1e-6)
    np.testing.assert_allclose(table.loc["largest logprob gap", "value"], 0.5, rtol=1e-6)
    assert table.loc["mean logprob gap", "count"] is None
    assert "differ by $0.11$ nats in the mean" in analysis.caption


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"sampled": 0.7}, "sampled at temperature 0.7, scored at 1.0"),
        ({"top_p": 0.9}, "cut its distribution"),
    ],
)
def test_unlike_distributions_are_not_compared(tmp_path, make_run, options, reason):
    analysis = gapped(tmp_path, make_run, **options)
    assert reason in str(analysis.facts["logprobs_not_compared"])
    assert not analysis.curves["checks"]["check"].str.contains("gap").any()


def test_numbers_that_are_not_finite_and_thr_that_is_missing_are_counted(tmp_path, make_run):
    groups = [{"completions": [completion(correct=True), completion()]} for _ in range(2)]
    path = make_run(tmp_path / "run", groups)
    part = path / "scores" / "default" / "part-00000.parquet"
    table = pq.read_table(part)
    thr = table["thr"].to_pylist()
    thr[0][1], thr[1][2], thr[3] = float("nan"), float("inf"), None
    place = table.column_names.index("thr")
    damaged = table.set_column(
        place, table.schema.field("thr"), pa.array(thr, table.schema.field("thr").type)
    )
    pq.write_table(damaged, part)
    checks = run_health(read_run(path)).curves["checks"].set_index("check")
    assert (checks.loc["number not finite", "count"], checks.loc["number not finite", "of"]) == (
        2,
        3 * 16,
    )
    assert checks.loc["number not finite", "verdict"] == "bad"
    assert checks.loc["THR missing", "count"] == 1


def test_runs_without_scores_ids_or_completions_are_judged_too(tmp_path, make_run):
    groups = [{"completions": [completion(correct=True, token_ids=None), completion()]}]
    unscored = run_health(read_run(make_run(tmp_path / "a", groups, scored=False)))
    names = set(unscored.curves["checks"]["check"])
    assert "THR missing" not in names
    assert "truncated" in names
    assert unscored.value("token ids absent").value == 0.5
    assert np.isnan(unscored.value("truncated").low)
    none = [{"completions": [completion(token_ids=None, correct=True)] * 2}]
    bare = run_health(read_run(make_run(tmp_path / "b", none)))
    assert "ids repeated in its group" in bare.facts["checks_not_made"]
    empty = run_health(read_run(make_run(tmp_path / "c", [])))
    assert empty.empty_reason == "This run holds no completions."


def test_questions_of_several_steps_are_one_unit_and_their_groups_apart(tmp_path, make_run):
    groups = [
        {"prompt_id": "a", "step": step, "completions": [completion(text="same")] * 2}
        for step in (0, 1)
    ]
    analysis = run_health(read_run(make_run(tmp_path / "run", groups)))
    assert (analysis.facts["num_questions"], analysis.facts["num_groups"]) == (1, 2)
    assert analysis.value("text repeated in its group").value == 0.5
    assert analysis.value("question repeated").value == 0


def rewritten(path, change):
    """A Parquet file of a trace with its table changed, its metadata kept."""
    table = pq.read_table(path)
    pq.write_table(change(table).replace_schema_metadata(table.schema.metadata), path)


def with_column(name, values):
    def change(table):
        index = table.column_names.index(name)
        return table.set_column(index, table.schema.field(name), pa.array(values(table[name])))

    return change


def counts_of(path):
    table = run_health(read_run(path)).curves["checks"].set_index("check")
    return table["count"].to_dict(), table["verdict"].to_dict(), table["rule"].to_dict()


@pytest.fixture
def two_parts(tmp_path, make_run):
    """Two groups of two completions of four tokens, a part each."""
    groups = [
        {"prompt_id": name, "completions": [completion(correct=True), completion()]}
        for name in "ab"
    ]
    return make_run(tmp_path / "run", groups, groups_per_part=1)


def test_completions_whose_part_of_the_scores_is_gone_are_counted(two_parts):
    (two_parts / "scores/default/part-00001.parquet").unlink()
    counts, verdicts, rules = counts_of(two_parts)
    assert counts["scores missing"] == 2
    assert verdicts["scores missing"] == "bad"
    assert "thr-probe data validate RUN names the places" in rules["scores missing"]


def test_an_incomplete_run_may_wait_for_scores(tmp_path, make_run):
    groups = [{"prompt_id": name, "completions": [{"correct": True}, {}]} for name in "ab"]
    path = make_run(tmp_path / "run", groups, groups_per_part=1, complete=False)
    (path / "scores/default/part-00001.parquet").unlink()
    assert counts_of(path)[0]["scores missing"] == 0


def test_scores_shifted_by_a_row_are_counted_where_their_key_is_anothers(two_parts):
    rewritten(
        two_parts / "scores/default/part-00000.parquet",
        with_column("rollout_id", lambda ids: pa.array([1, 0], pa.int32())),
    )
    counts, verdicts, _ = counts_of(two_parts)
    assert counts["scores of another completion"] == 2
    assert verdicts["scores of another completion"] == "bad"


def test_a_part_of_the_scores_with_other_rows_counts_as_missing(two_parts):
    rewritten(two_parts / "scores/default/part-00000.parquet", lambda table: table.slice(0, 1))
    assert counts_of(two_parts)[0]["scores missing"] == 2


def test_scores_beyond_the_rollouts_do_not_end_in_a_crash(two_parts):
    last = two_parts / "scores/default/part-00001.parquet"
    (two_parts / "scores/default/part-00002.parquet").write_bytes(last.read_bytes())
    assert counts_of(two_parts)[0]["scores missing"] == 0


@pytest.mark.parametrize(
    ("file", "name"),
    [("rollouts", "token_ids"), ("scores/default", "entropy"), ("scores/default", "thr")],
)
def test_lists_of_unequal_length_are_counted(two_parts, file, name):
    def cut(column):
        first, *others = column.to_pylist()
        return pa.array([first[:-1], *others], column.type)

    rewritten(two_parts / file / "part-00001.parquet", with_column(name, cut))
    counts, verdicts, _ = counts_of(two_parts)
    assert counts["lists of unequal length"] == 1
    assert verdicts["lists of unequal length"] == "bad"


def test_a_state_that_does_not_exist_is_counted(two_parts):
    rewritten(
        two_parts / "rollouts/part-00000.parquet",
        with_column("finish_reason", lambda _: pa.array(["stop", "tired"])),
    )
    counts, _, _ = counts_of(two_parts)
    assert counts["state that does not exist"] == 1
