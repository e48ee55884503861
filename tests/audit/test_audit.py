"""Labels graded again: agreement, the second grader, kinds of disagreement, what is written."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from thr_probe.audit import AuditOptions, audit_run, write_audit
from thr_probe.core.stats import question_weights
from thr_probe.errors import DataError
from thr_probe.problems.direct import judge
from thr_probe.progress import Monitor
from thr_probe.traces import read_run

CASES = [
    # gold, completion, stored label, first, second, kind of a disagreement of the graders
    ("12", r"So \boxed{12}.", True, True, True, None),
    ("12", r"So \boxed{13}.", False, False, False, None),
    ("12", r"So \boxed{12}.", False, True, True, None),
    ("1,22", r"Hence \boxed{1.22}", True, True, False, "sets, order or relations"),
    ("8.7e8", r"We get \boxed{8.7 \times 10^{8}}", True, True, False, "numeric form"),
    (r"\$10", r"It costs \boxed{10}", True, True, None, "gold not readable by the second"),
    ("3", "No idea at all.", True, False, False, None),
]


@pytest.fixture(scope="module")
def run_path(tmp_path_factory, make_run):
    groups = [
        {
            "prompt_id": f"q{index}",
            "answer": gold,
            "completions": [{"correct": label, "text": text}],
        }
        for index, (gold, text, label, *_) in enumerate(CASES)
    ]
    return make_run(tmp_path_factory.mktemp("audit") / "run", groups, scored=False)


@pytest.fixture(scope="module")
def audited(run_path):
    return audit_run(read_run(run_path), AuditOptions(second=True, num_workers=1))


def value(audit, quantity):
    return audit.summary.set_index("quantity").loc[quantity, "value"]


def test_shares_are_those_of_the_cases(audited):
    firsts = [first for *_, first, _, _ in CASES]
    assert value(audited, "agreement") == np.mean(
        [label == first for _, _, label, first, _, _ in CASES]
    )
    decided = [case for case in CASES if case[4] is not None]
    assert value(audited, "second_agreement") == np.mean(
        [second == first for *_, first, second, _ in decided]
    )
    assert value(audited, "label_noise") == np.mean(
        [label != second for _, _, label, _, second, _ in decided]
    )
    assert value(audited, "label_noise_right") == np.mean(
        [second and not label for _, _, label, _, second, _ in decided]
    )
    assert audited.facts["num_completions"] == len(firsts)
    assert audited.facts["num_second_verdicts"] == len(decided)


def test_the_interval_resamples_questions(audited):
    noise = np.array([label != second for _, _, label, _, second, _ in CASES if second is not None])
    padded = [float(label != second) if second is not None else 0.0
              for _, _, label, _, second, _ in CASES]  # fmt: skip
    decided = [float(second is not None) for *_, second, _ in CASES]
    weights = question_weights(len(CASES), seed=0)
    draws = (weights @ np.array(padded)) / (weights @ np.array(decided))
    row = audited.summary.set_index("quantity").loc["label_noise"]
    np.testing.assert_allclose(row["value"], noise.mean())
    np.testing.assert_allclose([row["low"], row["high"]], np.quantile(draws, [0.025, 0.975]))


def test_disagreements_are_named_by_kind_with_an_example_each(audited):
    expected = {(f"q{index}", kind) for index, (*_, kind) in enumerate(CASES) if kind is not None}
    second = audited.examples[audited.examples["comparison"] == "second"]
    assert set(zip(second["prompt_id"], second["kind"], strict=True)) == expected
    counts = audited.kinds[audited.kinds["comparison"] == "second"]["count"]
    assert counts.sum() == len(expected)
    stored = audited.kinds[audited.kinds["comparison"] == "stored"]
    assert set(stored["direction"]) == {"now right, stored wrong", "stored right, now wrong"}
    assert set(stored["kind"]) == {"verifier: ok", "no answer"}
    one = second[second["prompt_id"] == "q3"].iloc[0]
    assert (one["gold"], one["first"], one["second"]) == ("1,22", "1.22", "1.22")


def test_without_audit_only_the_labels_are_compared(run_path):
    found = audit_run(read_run(run_path), AuditOptions(num_workers=1))
    assert list(found.summary["quantity"]) == ["agreement"]
    assert set(found.kinds["comparison"]) == {"stored"}
    assert found.facts["second_grader"] is None


def test_the_run_stays_as_it_is_and_the_tables_hold_the_numbers(run_path, audited, tmp_path):
    def stamp():
        return {path: path.stat().st_mtime_ns for path in run_path.rglob("*")}

    before = stamp()
    audit_run(read_run(run_path), AuditOptions(num_workers=1))
    assert stamp() == before
    paths = write_audit(audited, tmp_path / "out")
    assert [path.name for path in paths] == [
        "verify.csv", "verify-kinds.csv", "verify-examples.csv", "verify.json",
    ]  # fmt: skip
    content = json.loads(paths[-1].read_text())
    with paths[1].open() as file:
        kinds = list(csv.DictReader(file))
    assert [int(row["count"]) for row in kinds] == [row["count"] for row in content["kinds"]]
    assert content["summary"][0]["value"] == value(audited, "agreement")


def test_a_second_gold_is_as_good_as_the_first(make_run, tmp_path):
    completions = [
        {"correct": True, "text": r"\boxed{7}"},
        {"correct": False, "text": r"\boxed{9}"},
    ]
    group = {"answer": "5", "answer_alt": "7", "completions": completions}
    run = read_run(make_run(tmp_path / "run", [group], scored=False))
    found = audit_run(run, AuditOptions(second=True, num_workers=1))
    assert value(found, "agreement") == value(found, "second_agreement") == 1
    assert np.isnan(found.summary["low"]).all()


def test_a_comparison_that_takes_too_long_is_counted_apart(make_run, tmp_path):
    """The end point of the gold is a root whose exact form neither grader gets to in time."""
    completions = [{"correct": True, "text": r"Thus \boxed{[1,+\infty)}"}]
    gold = r"[2^{\frac{1}{2^{1000}}}, \infty)"
    run = read_run(make_run(tmp_path / "run", [{"answer": gold, "completions": completions}]))
    found = audit_run(run, AuditOptions(second=True, num_workers=1, limit_s=0.5))
    assert found.facts["num_second_verdicts"] == 0
    kinds = found.kinds.set_index("comparison")
    assert kinds.loc["second", ["direction", "kind"]].tolist() == [
        "second without a verdict",
        "timeout",
    ]
    assert kinds.loc["stored", "kind"] == "verifier: timeout"


def test_stopping_between_tables_yields_nothing(run_path):
    class Stop(Monitor):
        def should_stop(self):
            return True

    assert audit_run(read_run(run_path), AuditOptions(num_workers=1), monitor=Stop()) is None


def test_progress_counts_the_groups_that_are_there_not_those_planned(tmp_path, make_run):
    class Count(Monitor):
        planned = done = 0

        def begin(self, num_prompts):
            self.planned = num_prompts

        def advance(self, advance):
            self.done += advance.prompts

    groups = [
        {"prompt_id": name, "step": step, "completions": [{"text": r"\boxed{1}"}]}
        for name, step in (("a", 0), ("b", 0), ("a", 1))
    ]
    path = make_run(tmp_path / "run", groups, scored=False, manifest={"num_prompts": 4000})
    monitor = Count()
    audit_run(read_run(path), AuditOptions(num_workers=1), monitor=monitor)
    assert (monitor.planned, monitor.done) == (3, 3)


def test_the_second_grader_reads_and_compares_by_itself():
    assert json.loads(judge("1/2", "The answer is 0.5")) == ["equal", "0.5"]
    assert json.loads(judge("1/2", r"so $x = \frac{2}{3}$"))[0] == "different"
    assert json.loads(judge("1/2", "no idea")) == ["no-answer", ""]
    assert json.loads(judge("3 + 4 = 7\n#### 7", r"\boxed{7}"))[0] == "equal"


def test_completions_without_a_gold_answer_are_left_out_and_counted(make_run, tmp_path):
    texts = [{"correct": True, "text": r"So \boxed{2}."}] * 3
    groups = [{"answer": "2", "completions": texts[:2]}, {"answer": "", "completions": texts}]
    run = make_run(tmp_path / "run", groups, scored=False)
    found = audit_run(read_run(run), AuditOptions(num_workers=1))
    assert found.facts["num_without_gold"] == 3
    assert found.facts["num_completions"] == 2
    assert value(found, "agreement") == 1
    assert found.kinds.empty


def test_a_run_without_gold_answers_cannot_be_graded(make_run, tmp_path):
    groups = [{"answer": "", "completions": [{"correct": True, "text": "2"}]}]
    run = make_run(tmp_path / "run", groups, scored=False)
    with pytest.raises(DataError, match="has no gold answers"):
        audit_run(read_run(run), AuditOptions(num_workers=1))
