"""Comparisons of runs against counting by hand and against a second reading of the files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from numpy.testing import assert_allclose
from source_folders import MakeRun, labelled, make_evaluation, with_options

from thr_probe.analysis.compare import compare_sources, listed_questions, p_text
from thr_probe.analysis.result import Analysis
from thr_probe.analysis.sources import read_sources
from thr_probe.core.stats import question_weights
from thr_probe.errors import DataError, UsageError

TOKENS = {1: "wait", 2: " so", 3: " three", 4: " but"}


def compared(*paths: Path | str, **options: Any) -> Analysis:
    return compare_sources(read_sources(list(paths)), **options)


def row(analysis: Analysis, metric: str, split: str = "all", run: str | None = None) -> pd.Series:
    table = analysis.curves["metrics"]
    found = table[(table["metric"] == metric) & (table["split"] == split)]
    if run is not None:
        found = found[found["run"] == run]
    assert len(found) == 1
    return found.iloc[0]


def random_groups(seed: int, questions: int = 12) -> list[dict[str, Any]]:
    """Four completions of each question with random THR; some groups are not mixed."""
    rng = np.random.default_rng(seed)
    groups = []
    for index in range(questions):
        labels = rng.random(4) < 0.5
        if index % 4 == 0:
            labels[:] = seed % 2
        completions = []
        for correct in labels:
            length = int(rng.integers(2, 9))
            thr = np.float32(rng.normal(0.2, 1, length)).tolist() if labels.any() else None
            completions.append(
                {
                    "correct": bool(correct),
                    "thr": thr,
                    "entropy": np.float32(rng.random(length)).tolist(),
                    "token_ids": rng.integers(1, 5, length).tolist(),
                }
            )
        tau = float(np.float32(rng.uniform(0.1, 0.9) * (-1 if index == 5 else 1)))
        groups.append(
            {
                "prompt_id": f"{seed}-{index}",  # another prompt, the same question
                "question": f"question {index}",
                "completions": completions,
                **({"tau": tau} if labels.any() else {}),
            }
        )
    return groups


@pytest.fixture(scope="module")
def two_runs(
    tmp_path_factory: pytest.TempPathFactory, make_run: MakeRun
) -> tuple[tuple[Path, list[dict[str, Any]]], ...]:
    folder = tmp_path_factory.mktemp("compare")
    groups = [random_groups(seed) for seed in (2, 3)]
    names = ("base", "thr")
    return tuple(
        (make_run(folder / name, each, tokens=TOKENS, groups_per_part=5), each)
        for name, each in zip(names, groups, strict=True)
    )


@pytest.fixture(scope="module")
def of_two(two_runs) -> Analysis:
    (first, _), (second, _) = two_runs
    return compared(first, second, ks=[2, 4], seed=1)


def plain_sums(groups: list[dict[str, Any]], metric: str) -> list[tuple[float, float]]:
    """Numerator and denominator of each question, token by token."""
    found = []
    for group in groups:
        labels = [each["correct"] for each in group["completions"]]
        is_mixed = any(labels) and not all(labels)
        of_thr = metric in {"retained_share", "thr_balance", "mean_overlap"}
        parts = [
            plain_completion(each, metric, np.float32(group.get("tau", 0.0)))
            for each in group["completions"]
            if is_mixed or not of_thr
        ]
        found.append((float(sum(one for one, _ in parts)), float(sum(two for _, two in parts))))
    return found


def plain_completion(each: dict[str, Any], metric: str, tau: np.float32) -> tuple[float, float]:
    """What one completion adds to the numerator and to the denominator."""
    length = len(each["entropy"])
    if metric == "mean_length":
        return length, 1
    if metric == "mean_entropy":
        return sum(each["entropy"]), length
    if metric == "reflection_ratio":
        words = "".join(TOKENS[token] for token in each["token_ids"]).split()
        return words.count("wait") + words.count("but"), length
    dominant = [bool(abs(value) > tau) for value in np.float32(each["thr"])]
    if metric == "retained_share":
        return sum(dominant), length
    if metric == "thr_balance":
        return sum(each["thr"]), sum(map(abs, each["thr"]))
    if tau <= 0 or not any(dominant):
        return 0, 0
    order = sorted(range(length), key=lambda k: (-each["entropy"][k], k))
    top = order[: sum(dominant)]
    return sum(dominant[k] for k in top) / sum(dominant), 1


@pytest.mark.parametrize(
    "metric",
    [
        "mean_length",
        "mean_entropy",
        "reflection_ratio",
        "retained_share",
        "mean_overlap",
        "thr_balance",
    ],
)
def test_a_ratio_is_what_reading_it_token_by_token_gives(two_runs, of_two, metric: str) -> None:
    (_, first_groups), (_, second_groups) = two_runs
    found = row(of_two, metric)
    pairs = np.array([plain_sums(each, metric) for each in (first_groups, second_groups)])
    counts = (pairs[:, :, 1] > 0).all(axis=0)
    kept = pairs[:, counts]
    assert found["num_questions"] == counts.sum() >= 4
    values = kept[:, :, 0].sum(axis=1) / kept[:, :, 1].sum(axis=1)
    assert_allclose([found["baseline"], found["value"]], values, rtol=1e-6)
    assert_allclose(found["difference"], values[1] - values[0], rtol=1e-5)
    # the same resamples, in which questions that do not count in both add nothing
    weights = question_weights(pairs.shape[1], seed=1, num_resamples=10_000)
    both = np.where(counts[None, :, None], pairs, 0.0)
    sums = np.einsum("bp,spc->bsc", weights, both)
    with np.errstate(invalid="ignore"):
        drawn = sums[:, 1, 0] / sums[:, 1, 1] - sums[:, 0, 0] / sums[:, 0, 1]
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    assert_allclose([found["difference_low"], found["difference_high"]], [low, high], rtol=1e-5)
    fewer = min((drawn <= 0).sum(), (drawn >= 0).sum())
    p = min(1.0, 2 * (1 + fewer) / (np.isfinite(drawn).sum() + 1))
    assert_allclose(found["p"], p, atol=3e-4)


def test_pass_at_k_is_the_mean_over_shared_questions(two_runs, of_two) -> None:
    (_, first_groups), (_, second_groups) = two_runs
    found = row(of_two, "pass_at_2")
    values = []
    for groups in (first_groups, second_groups):
        wrong = [sum(not each["correct"] for each in group["completions"]) for group in groups]
        values.append(1 - sum(math.comb(w, 2) / math.comb(4, 2) for w in wrong) / len(wrong))
    assert_allclose([found["baseline"], found["value"]], values, rtol=1e-14)
    assert "pass_at_1" not in set(of_two.curves["metrics"]["metric"])


def test_greedy_accuracy_has_mcnemars_test_and_its_counts_in_a_sentence(
    tmp_path: Path, make_run: MakeRun
) -> None:
    base = {f"q{i}": "1" if i < 5 or i == 19 else "0" for i in range(20)}
    thr = {f"q{i}": "1" if 2 <= i < 12 else "0" for i in range(20)}
    paths = [
        with_options(make_run(tmp_path / name, labelled(each), scored=False), temperature=0.0)
        for name, each in (("base", base), ("thr", thr))
    ]
    analysis = compared(*paths)
    found = row(analysis, "greedy_accuracy")
    assert (found["only_baseline"], found["only_run"]) == (3, 7)
    assert_allclose(found["p"], scipy.stats.binomtest(3, 10).pvalue, rtol=1e-12)
    assert_allclose([found["baseline"], found["value"], found["difference"]], [0.3, 0.5, 0.2])
    assert found["test"] == "McNemar, exact"
    assert analysis.facts["gains"] == [
        "Of 20 shared questions, thr alone solves 7 and base alone 3 (greedily): a gain of 4 net "
        "questions of 20 for thr (exact McNemar p = 0.34)."
    ]
    only = [each["question"] for each in listed_questions(analysis, "baseline")]
    assert only == ["q0", "q1", "q19"]
    solved = analysis.curves["questions"]["solved_by"].value_counts().to_dict()
    assert solved == {"run": 7, "baseline": 3, "both": 3, "neither": 7}
    assert "a gain of 4 net questions of 20" in analysis.caption
    assert (
        "over 3 tests (exact McNemar for greedy accuracy, bootstrap of paired questions for the "
        "others), $p < 0.05$: none." in analysis.caption
    )


def test_holm_is_over_all_quantities_of_all_runs(two_runs, tmp_path, make_run) -> None:
    (first, _), (second, _) = two_runs
    third = make_run(tmp_path / "third", random_groups(5), tokens=TOKENS)
    analysis = compared(first, second, third)
    table = analysis.curves["metrics"]
    assert table["run"].unique().tolist() == ["thr", "third"]
    p = table["p"].to_numpy()
    assert analysis.facts["family"] == len(p) == 2 * (3 + 6)
    assert "over 18 tests (bootstrap of paired questions), " in analysis.caption
    ordered = np.sort(p)
    smallest = table.loc[table["p"].idxmin(), "p_holm"]
    assert_allclose(smallest, min(1.0, len(p) * ordered[0]), rtol=1e-12)
    assert_allclose(table["p_holm"].max(), min(1.0, max((len(p) - np.arange(len(p))) * ordered)))


def test_questions_that_only_one_has_are_counted_and_left_out(tmp_path, make_run) -> None:
    first = make_run(tmp_path / "first", labelled({f"q{i}": "10" for i in range(22)}))
    second = make_run(tmp_path / "second", labelled({f"q{i}": "11" for i in range(2, 25)}))
    analysis = compared(first, second)
    assert row(analysis, "pass_at_1")["num_questions"] == 20
    assert analysis.facts["warnings"] == [
        "sampled: 2 questions only in first, left out; 20 are compared",
        "sampled: 3 questions only in second, left out; 20 are compared",
    ]


def test_disjoint_questions_are_refused(tmp_path: Path, make_run: MakeRun) -> None:
    first = make_run(tmp_path / "first", labelled({"a": "10", "b": "10"}))
    second = make_run(tmp_path / "second", labelled({"c": "10"}))
    with pytest.raises(DataError, match=r"no question in common \(2 questions and 1\)"):
        compared(first, second)
    third = make_run(tmp_path / "third", labelled({"a": "10"}, dataset="other"))
    with pytest.raises(DataError, match="no question in common") as caught:
        compared(first, third)
    assert "sets of other names: fake and other" in str(caught.value.hint)


def test_greedy_and_sampled_completions_are_not_compared(tmp_path, make_run) -> None:
    first = with_options(make_run(tmp_path / "first", labelled({"a": "1"})), temperature=0.0)
    second = make_run(tmp_path / "second", labelled({"a": "10"}))
    with pytest.raises(DataError, match="first has greedy completions, second has sampled"):
        compared(first, second)
    with pytest.raises(UsageError, match="needs two runs"):
        compared(first)


def test_a_run_without_a_tokenizer_is_not_said_to_have_another(tmp_path, make_run) -> None:
    labels = labelled(dict.fromkeys(["a", "b"], "10"))
    first = make_run(tmp_path / "first", labels, manifest={"tokenizer_digest": "x"})
    second = make_run(tmp_path / "second", labels, manifest={"tokenizer_digest": None})
    assert not any("tokenizer" in each for each in compared(first, second).facts["warnings"])


def test_what_differs_besides_the_policy_is_told_or_refused(tmp_path, make_run) -> None:
    questions = [f"q{i}" for i in range(10)]
    first = make_run(
        tmp_path / "first",
        labelled(dict.fromkeys(questions, "1010")),
        manifest={"counts": {"max_new_tokens": 64}, "tokenizer_digest": "x"},
    )
    second = make_run(
        tmp_path / "second",
        labelled(dict.fromkeys(questions, "10"), answer="2", prompt_text="another"),
        manifest={"verifier": "other", "counts": {"max_new_tokens": 32}, "tokenizer_digest": "y"},
    )
    with_options(first, temperature=1.0, truncated_wrong=True)
    with_options(second, temperature=0.6, top_p=0.9)
    analysis = compared(first, second)
    told = " / ".join(analysis.facts["warnings"])
    for part in (
        "the prompts of 10 of 10 shared questions differ",
        "the gold answers of 10 of 10 shared questions differ",
        "completions per question: 4 for first, 2 for second; Pass@K is compared up to K = 2",
        "TEMPERATURE: 1.0 for first, 0.6 for second",
        "TOP-P: unknown for first, 0.9 for second",
        "longest completion: 64 for first, 32 for second",
        "verifier: fake for first, other for second",
        "cut-off completions: always wrong for first, judged by their text for second",
        "the tokenizers of first and second differ",
    ):
        assert part in told
    assert set(analysis.curves["metrics"]["metric"]) >= {"pass_at_1", "pass_at_2"}
    assert "pass_at_4" not in set(analysis.curves["metrics"]["metric"])
    with pytest.raises(UsageError, match=r"^--strict: the prompts of 10"):
        compared(first, second, strict=True)
    with pytest.raises(UsageError, match="Pass@4 needs 4 completions"):
        compared(first, second, ks=[4])


def test_a_run_without_scores_is_compared_in_what_it_has(tmp_path, make_run) -> None:
    labels = {f"q{i}": "1010" for i in range(20)}
    first = make_run(tmp_path / "first", labelled(labels))
    second = make_run(tmp_path / "second", labelled(labels), scored=False)
    analysis = compared(first, second, strict=True)
    assert analysis.facts["left_out"] == [
        "retained_share, mean_overlap, mean_entropy, thr_balance: no scores (second)"
    ]
    assert analysis.curves["forest"]["metric"].tolist()[-1:] == ["mean_length"]
    assert "Not drawn, as the baseline's is 0: reflection words of second." in analysis.caption
    found = set(analysis.curves["metrics"]["metric"])
    assert found == {"pass_at_1", "pass_at_2", "pass_at_4", "reflection_ratio", "mean_length"}


def test_a_run_without_token_ids_is_compared_in_the_rest(tmp_path, make_run) -> None:
    groups = labelled({f"q{i}": "10" for i in range(10)})
    for group in groups:
        for completion in group["completions"]:
            completion["token_ids"] = None
    first = make_run(tmp_path / "first", labelled({f"q{i}": "10" for i in range(10)}))
    second = make_run(tmp_path / "second", groups, scored=False)
    left_out = compared(first, second).facts["left_out"]
    assert "reflection_ratio, mean_length: completions without token ids (second)" in left_out


@pytest.mark.parametrize("text", ["1111", "0000"])
def test_all_correct_and_none_correct_have_no_difference_and_no_thr(
    tmp_path: Path, make_run: MakeRun, text: str
) -> None:
    labels = {f"q{i}": text for i in range(10)}
    paths = [make_run(tmp_path / name, labelled(labels)) for name in ("first", "second")]
    analysis = compared(*paths)
    for k in (1, 2, 4):
        found = row(analysis, f"pass_at_{k}")
        assert (found["difference"], found["p"], found["p_holm"]) == (0.0, 1.0, 1.0)
    assert any("thr_balance" in each for each in analysis.facts["left_out"])
    assert "no net gain for second" in str(analysis.facts["gains"])


def test_one_question_gives_values_without_intervals(tmp_path, make_run) -> None:
    first = make_run(tmp_path / "first", labelled({"a": "1000"}))
    second = make_run(tmp_path / "second", labelled({"a": "1110"}))
    analysis = compared(first, second)
    found = row(analysis, "pass_at_1")
    assert found["difference"] == 0.5
    assert np.isnan([found["p"], found["p_holm"], found["difference_low"]]).all()
    assert "A single question gives no interval." in analysis.caption
    assert analysis.facts["warnings"] == []


def test_a_handful_of_questions_is_warned_about(tmp_path, make_run) -> None:
    first = make_run(tmp_path / "first", labelled({"a": "10", "b": "00", "c": "10"}), scored=False)
    second = make_run(tmp_path / "second", labelled({"a": "11", "b": "10", "c": "11"}))
    analysis = compared(first, second)
    (told,) = analysis.facts["warnings"]
    assert told.startswith("3 questions are few for the bootstrap")
    assert "pass_at_1" in told
    assert "3 questions are few for the bootstrap: intervals of pass\\_at\\_1" in analysis.caption
    assert "Beside the policy differ" not in analysis.caption
    # that is no difference between the two
    assert compared(first, second, strict=True).facts["warnings"] == [told]


def test_several_sets_are_told_apart_and_averaged(tmp_path, make_run) -> None:
    rng = np.random.default_rng(0)

    def labels(share: float, sizes: dict[str, int], n: int) -> dict[str, dict[str, str]]:
        return {
            name: {
                f"{name}{i}": "".join("1" if rng.random() < share else "0" for _ in range(n))
                for i in range(size)
            }
            for name, size in sizes.items()
        }

    sizes = {"small": 5, "large": 15}
    sets = [
        {"greedy": labels(share, sizes, 1), "sampled": labels(share, sizes, 4)}
        for share in (0.3, 0.7)
    ]
    paths = [
        make_evaluation(make_run, tmp_path / name, each)
        for name, each in zip(("base", "thr"), sets, strict=True)
    ]
    analysis = compared(*paths)
    for measure, metric in (("greedy", "greedy_accuracy"), ("sampled", "pass_at_1")):
        means = {
            name: [
                np.mean([text.count("1") / len(text) for text in each[measure][name].values()])
                for each in sets
            ]
            for name in sizes
        }
        for name, (first, second) in means.items():
            found = row(analysis, metric, f"dataset {name}")
            assert_allclose([found["baseline"], found["value"]], [first, second])
            assert found["num_questions"] == sizes[name]
            assert math.isnan(found["p_holm"])
        mean = row(analysis, metric, "mean of datasets")
        assert_allclose(mean["baseline"], np.mean([first for first, _ in means.values()]))
        pooled = row(analysis, metric)
        weighted = sum(first * sizes[name] for name, (first, _) in means.items()) / 20
        assert_allclose(pooled["baseline"], weighted)
    assert len(analysis.facts["gains"]) == 2


def test_the_summary_and_the_drawn_numbers_are_those_of_the_table(of_two) -> None:
    analysis = of_two
    found = row(analysis, "mean_length")
    assert analysis.value("mean_length", "base").value == found["baseline"]
    assert analysis.value("mean_length", "thr").value == found["value"]
    assert analysis.value("mean_length", "thr minus base").low == found["difference_low"]
    forest = analysis.curves["forest"].set_index("metric")
    assert_allclose(forest.loc["mean_length", "value"], 100 * found["relative"])
    assert forest.loc["mean_length", "panel"] == "percent"
    balance = row(analysis, "thr_balance")
    assert_allclose(forest.loc["thr_balance", "high"], 100 * balance["difference_high"])


def test_seeds_decide_the_resamples_alone(two_runs, of_two) -> None:
    (first, _), (second, _) = two_runs
    again, other = (compared(first, second, ks=[2, 4], seed=seed) for seed in (1, 2))
    table = of_two.curves["metrics"]
    pd.testing.assert_frame_equal(table, again.curves["metrics"])
    assert_allclose(table["difference"], other.curves["metrics"]["difference"])
    assert np.any(table["difference_low"] != other.curves["metrics"]["difference_low"])


def test_p_values_are_written_with_two_digits() -> None:
    assert [p_text(p) for p in (0.5, 0.0123, 1e-9)] == ["0.5", "0.012", "1e-09"]
