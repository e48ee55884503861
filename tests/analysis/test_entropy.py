"""THR against entropy and probability: recomputed from the whole table with other tools."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from thr_probe.analysis.entropy import log_quantile, thr_against_entropy
from thr_probe.analysis.entropy_passes import chosen_completions
from thr_probe.core.stats import question_weights
from thr_probe.traces import read_run

LEVELS = np.float32([0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0])


def groups_of(num_groups, *, tau=0.4):
    """Values on few levels, so that every level is a class of its own."""
    rng = np.random.default_rng(6)
    groups = []
    for index in range(num_groups):
        completions = []
        for correct in (True, False, True):
            length = int(rng.integers(6, 25))
            level = rng.integers(0, 6, length)
            thr = LEVELS[level + rng.integers(0, 3, length)] * rng.choice([-1, 1], length)
            logprob = -LEVELS[np.clip(level + rng.integers(-1, 2, length), 0, 7)]
            completions.append(
                {
                    "correct": correct,
                    "thr": thr.tolist(),
                    "entropy": LEVELS[level].tolist(),
                    "logprob": logprob.tolist(),
                }
            )
        groups.append({"prompt_id": f"q{index}", "tau": tau, "completions": completions})
    return groups


def tokens_of(groups):
    rows = []
    for group in groups:
        for number, completion in enumerate(group["completions"]):
            length = len(completion["thr"])
            for place in range(length):
                thr, entropy, logprob = (
                    np.float32(completion[name][place]) for name in ("thr", "entropy", "logprob")
                )
                rows.append(
                    {
                        "question": group["prompt_id"],
                        "completion": number,
                        "magnitude": float(abs(thr)) / float(np.float32(group["tau"])),
                        "entropy": float(entropy),
                        "one_minus_p": float(1 - np.exp(np.float64(logprob))),
                        "position": place / (length - 1),
                        "dominant": abs(thr) > np.float32(group["tau"]),
                    }
                )
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def tokens():
    return tokens_of(groups_of(14))


@pytest.fixture(scope="module")
def analysis(tmp_path_factory, make_run):
    path = make_run(tmp_path_factory.mktemp("entropy") / "run", groups_of(14), groups_per_part=4)
    return thr_against_entropy(read_run(path), seed=5)


def partial(table):
    ranks = [stats.rankdata(table[name]) for name in ("magnitude", "entropy")]
    others = np.column_stack(
        [
            np.ones(len(table)),
            *(stats.rankdata(table[name]) for name in ("one_minus_p", "position")),
        ]
    )
    left, right = (rank - others @ np.linalg.lstsq(others, rank, rcond=None)[0] for rank in ranks)
    return stats.pearsonr(left, right).statistic


def test_correlations_within_completions_are_means_of_scipys(analysis, tokens):
    each = [table for _, table in tokens.groupby(["question", "completion"], sort=False)]
    expected = {
        "spearman_entropy": [stats.spearmanr(t["magnitude"], t["entropy"])[0] for t in each],
        "spearman_one_minus_p": [
            stats.spearmanr(t["magnitude"], t["one_minus_p"])[0] for t in each
        ],
        "partial_entropy": [
            partial(t)
            for t in each
            # ranked alike by entropy and probability: nothing is left to be correlated
            if stats.spearmanr(t["entropy"], t["one_minus_p"])[0] < 1 - 1e-9
        ],
    }
    for quantity, values in expected.items():
        np.testing.assert_allclose(analysis.value(quantity).value, np.mean(values), rtol=1e-9)
    undefined = 14 * 3 - len(expected["partial_entropy"])
    assert undefined > 0
    assert analysis.facts["num_completions_partial_entropy_undefined"] == undefined
    questions = np.repeat(np.arange(14), 3)
    values = np.asarray(expected["spearman_entropy"])
    draws = [
        np.average(values, weights=weight[questions]) for weight in question_weights(14, seed=5)
    ]
    found = analysis.value("spearman_entropy")
    np.testing.assert_allclose([found.low, found.high], np.quantile(draws, [0.025, 0.975]))


def test_pooled_correlations_and_areas_are_exact_on_few_levels_in_every_resample(analysis, tokens):
    # the positions have more levels than there are classes: of the partial one it is near
    def pooled(table):
        return {
            "pooled_spearman_entropy": stats.spearmanr(table["magnitude"], table["entropy"])[0],
            "auc_entropy": roc_auc_score(table["dominant"], table["entropy"]),
            "auc_one_minus_p": roc_auc_score(table["dominant"], table["one_minus_p"]),
        }

    for quantity, value in pooled(tokens).items():
        np.testing.assert_allclose(analysis.value(quantity).value, value, rtol=1e-9)
    np.testing.assert_allclose(
        analysis.value("pooled_partial_entropy").value, partial(tokens), atol=0.01
    )
    by_question = [table for _, table in tokens.groupby("question", sort=False)]
    weights = question_weights(14, seed=5)[:150]
    draws = pd.DataFrame(
        pooled(pd.concat([by_question[i] for i in np.repeat(np.arange(14), weight)]))
        for weight in weights
    )
    for quantity in draws:
        found = analysis.value(quantity)
        low, high = np.quantile(draws[quantity], [0.025, 0.975])
        np.testing.assert_allclose([found.low, found.high], [low, high], atol=0.015)


def test_the_regression_is_scikit_learns_own_cross_validation(analysis, tokens):
    features = tokens[["entropy", "one_minus_p", "position"]].to_numpy()
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    groups = tokens["question"].str[1:].astype(int)
    scores = cross_val_predict(
        model, features, tokens["dominant"], groups=groups, cv=GroupKFold(5),
        method="decision_function",
    )  # fmt: skip
    expected = roc_auc_score(tokens["dominant"], scores)
    np.testing.assert_allclose(analysis.value("auc_regression").value, expected, atol=2e-3)
    assert analysis.facts["num_tokens_regression"] == len(tokens)


def test_the_maps_count_every_token_once_and_the_bins_tell_shares(analysis, tokens):
    for name in ("entropy", "one_minus_p"):
        assert analysis.curves[f"{name}-map"]["tokens"].sum() == len(tokens)
        rows = analysis.curves[name]
        assert rows["tokens"].sum() == len(tokens)
        dominant = (rows["dominant_share"] * rows["tokens"]).sum()
        np.testing.assert_allclose(dominant, tokens["dominant"].sum(), rtol=1e-9)
    row = analysis.curves["entropy"].iloc[0]
    part = tokens[tokens["entropy"] < row["right"]]
    assert row["tokens"] == len(part)
    np.testing.assert_allclose(row["dominant_share"], part["dominant"].mean())
    edges = np.unique(analysis.curves["entropy-map"]["lower"])
    width = edges[1] / edges[0]
    median = np.median(part["magnitude"])
    assert median / width <= row["median"] <= median * width


def test_a_quantile_of_counts_is_linear_in_the_logarithm():
    edges = np.array([1.0, 10.0, 100.0])
    count = np.array([[4, 0], [2, 2], [0, 4], [0, 0]])
    found = log_quantile(count.astype(float), edges, 0.5)
    np.testing.assert_allclose(found[:3], [10**0.5, 10, 10**1.5])
    assert np.isnan(found[3])


def test_whole_completions_are_drawn_up_to_the_number_of_tokens():
    length = np.array([5, 1, 7, 3, 9, 2])
    chosen = chosen_completions(length, 12, 0)
    assert 0 < length[chosen].sum() <= 12
    np.testing.assert_array_equal(chosen, chosen_completions(length, 12, 0))
    assert chosen_completions(length, 27, 1).all()


def test_groups_without_a_positive_threshold_are_left_out(tmp_path, make_run):
    groups = groups_of(3)
    groups[1]["tau"] = -0.1
    analysis = thr_against_entropy(read_run(make_run(tmp_path / "run", groups)))
    assert analysis.facts["num_questions"] == 2
    assert "1 group with a threshold of 0 or below" in analysis.caption


def test_one_question_has_values_without_intervals_and_no_regression(tmp_path, make_run):
    analysis = thr_against_entropy(read_run(make_run(tmp_path / "run", groups_of(1))))
    assert "auc_regression" not in set(analysis.summary["quantity"])
    assert analysis.summary["low"].isna().all()
    assert np.isfinite(analysis.value("auc_entropy").value)


@pytest.mark.parametrize("tau", [1e6, 0.001])
def test_without_dominant_or_other_tokens_there_is_no_area(tmp_path, make_run, tau):
    analysis = thr_against_entropy(read_run(make_run(tmp_path / "run", groups_of(4, tau=tau))))
    quantities = set(analysis.summary["quantity"])
    assert not any(name.startswith("auc") for name in quantities)
    assert "pooled_spearman_entropy" in quantities


def test_equal_tokens_and_runs_without_scores_become_what_can_be_said(tmp_path, make_run):
    flat = [{"tau": 0.015, "completions": [{"correct": True}, {"correct": False}]}]
    analysis = thr_against_entropy(read_run(make_run(tmp_path / "flat", flat)))
    assert analysis.summary["quantity"].str.startswith("auc").any()
    unscored = make_run(tmp_path / "unscored", groups_of(2), scored=False)
    assert "no scores" in str(thr_against_entropy(read_run(unscored)).empty_reason)
    wrong = make_run(tmp_path / "wrong", [{"completions": [{"correct": False}] * 2}])
    assert "None of the 2" in str(thr_against_entropy(read_run(wrong)).empty_reason)


def test_the_gallery_loads_neither_scikit_learn_nor_torch(tmp_path, make_run):
    path = make_run(tmp_path / "run", groups_of(2))
    program = f"""
import sys
from pathlib import Path
from thr_probe.gallery import analyze
from thr_probe.traces import read_run
analyze("density", read_run({str(path)!r}), Path({str(tmp_path / "out")!r}))
print([name for name in ("sklearn", "torch", "transformers") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]"
