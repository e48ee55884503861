"""The preview against literal loops, the trainer's own functions and a real gradient step."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from thr_probe.analysis.advantage import thr_by_advantage
from thr_probe.errors import DataError, UsageError
from thr_probe.figures import plot_preview, save_analysis
from thr_probe.policy import load_policy
from thr_probe.preview import PreviewOptions, preview
from thr_probe.traces import read_run
from thr_probe.train.config import TrainConfig
from thr_probe.train.first_order import first_order_check

LAB_RUN = Path(__file__).parents[2] / "reports" / "lab" / "run"
PS = (-0.5, 0.0, 0.3)


def config(**options):
    return TrainConfig(**({"group_size": 4, "prompts": 3, "mini_batch": 2} | options))


def groups(num_groups=8, seed=4):
    """Mixed groups with THR of both signs; the third all correct, the sixth without a correct."""
    rng = np.random.default_rng(seed)
    found = []
    for index in range(num_groups):
        correct = [True, False, bool(rng.random() < 0.5), bool(rng.random() < 0.5)]
        correct = {2: [True] * 4, 5: [False] * 4}.get(index, correct)
        completions = []
        for label in correct:
            length = int(rng.integers(4, 12))
            thr = np.float32(rng.normal(0.1, 1, length)).tolist() if any(correct) else None
            completions.append(
                {
                    "correct": label,
                    "thr": thr,
                    "entropy": np.float32(rng.random(length)).tolist(),
                    "logprob": np.float32(-rng.exponential(1, length)).tolist(),
                }
            )
        group = {"prompt_id": f"q{index}", "completions": completions}
        found.append(group | ({"tau": 0.5} if any(correct) else {}))
    return found


@pytest.fixture(scope="module")
def listed():
    return groups()


@pytest.fixture(scope="module")
def run(tmp_path_factory, make_run, listed):
    return read_run(make_run(tmp_path_factory.mktemp("preview") / "run", listed, groups_per_part=3))


@pytest.fixture(scope="module")
def steered(run):
    return preview(run, PreviewOptions(config=config(), ps=PS))


def mixed(listed):
    return [
        group for group in listed if len({each["correct"] for each in group["completions"]}) == 2
    ]


def token_rows(listed):
    """Every token of the mixed groups with its GRPO advantage, in plain Python."""
    rows = []
    for place, group in enumerate(mixed(listed)):
        tokens = sum(len(each["thr"]) for each in group["completions"])
        labels = [each["correct"] for each in group["completions"]]
        q = sum(labels) / len(labels)
        for each in group["completions"]:
            advantage = math.sqrt((1 - q) / q) if each["correct"] else -math.sqrt(q / (1 - q))
            for k in range(len(each["thr"])):
                row = {name: each[name][k] for name in ("thr", "entropy", "logprob")}
                row |= {"group": place, "correct": each["correct"], "group_tokens": tokens}
                rows.append(row | {"advantage": advantage, "length": len(each["thr"])})
    return rows


@pytest.mark.parametrize("p", PS)
def test_weights_gradient_shares_and_drift_are_those_of_a_loop_over_tokens(steered, listed, p):
    weights, parts, drift, plain = [], dict.fromkeys(range(4), 0.0), 0.0, 0.0
    for row in token_rows(listed):
        sign = (row["thr"] > 0) - (row["thr"] < 0)
        weight = 1 + sign * p if abs(row["thr"]) > 0.5 else 0.0
        weights.append(weight)
        size = weight * abs(row["advantage"])
        drift += size * row["thr"]
        # Equation 2: over the tokens of the group
        parts[2 * row["correct"] + (row["thr"] > 0)] += size / row["group_tokens"]
        plain += abs(row["advantage"]) / row["group_tokens"]
    total, split = sum(parts.values()), f"p = {p:+g}"
    expected = {
        "weight_mean": np.mean(weights),
        "weight_q10": np.quantile(weights, 0.1, method="inverted_cdf"),
        "weight_median": np.quantile(weights, 0.5, method="inverted_cdf"),
        "weight_q90": np.quantile(weights, 0.9, method="inverted_cdf"),
        "weight_zero_share": weights.count(0.0) / len(weights),
        "gradient_kept": total / plain,
        "gradient_share_correct": (parts[2] + parts[3]) / total,
        "gradient_share_incorrect": (parts[0] + parts[1]) / total,
        "gradient_share_thr_positive": (parts[1] + parts[3]) / total,
        "gradient_share_thr_negative": (parts[0] + parts[2]) / total,
        "drift": drift / len(mixed(listed)),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(steered.value(name, split).value, value, rtol=1e-6, err_msg=name)


def test_the_drift_is_affine_in_p_with_the_slope_and_zero_of_the_summary(steered):
    net, slope = (steered.value(name).value for name in ("net_drift", "steering_slope"))
    for p in PS:
        drift = steered.value("drift", f"p = {p:+g}").value
        np.testing.assert_allclose(drift, net + p * slope, rtol=1e-9)
    curve = steered.curves["drift"]
    np.testing.assert_allclose(curve["drift"], net + slope * curve["p"], rtol=1e-9)
    assert (curve["p"].iloc[0], curve["p"].iloc[-1]) == (-1, 1)
    np.testing.assert_allclose(steered.value("p_zero").value, -net / slope, rtol=1e-9)
    assert (curve["low"] <= curve["drift"]).all()
    assert (curve["drift"] <= curve["high"]).all()


def test_intervals_resample_questions(steered, listed):
    """The drift's interval is that of the mean of the groups' drifts under the same weights."""
    per_group = np.zeros(len(mixed(listed)))
    for row in token_rows(listed):
        kept = abs(row["thr"]) > 0.5
        per_group[row["group"]] += kept * abs(row["advantage"]) * row["thr"]
    rng = np.random.default_rng(0)
    drawn = per_group[rng.integers(len(per_group), size=(20_000, len(per_group)))].mean(axis=1)
    found = steered.value("drift", "p = +0")
    spread = drawn.std()
    np.testing.assert_allclose(
        [found.low, found.high], np.quantile(drawn, [0.025, 0.975]), atol=0.15 * spread
    )


def test_masks_are_taken_over_steps_and_mini_batches(steered, listed):
    """Entropy over a step of 3 groups, covariance over a mini-batch of 2, THR by group."""
    table = pd.DataFrame(token_rows(listed))
    table["THR"] = table["thr"].abs() > 0.5
    table["entropy mask"], table["KL-Cov"] = False, False
    for step in range(0, table["group"].max() + 1, 3):
        inside = table["group"].between(step, step + 2)
        bound = np.quantile(np.float32(table.loc[inside, "entropy"]).astype(float), 0.8)
        table.loc[inside, "entropy mask"] = table.loc[inside, "entropy"] >= bound
        for first in (step, step + 2):
            last = min(first + 1, step + 2)
            batch = table[table["group"].between(first, last)]
            if len(batch) == 0:
                continue
            covariance = (batch["advantage"] - batch["advantage"].mean()) * (
                batch["logprob"] - batch["logprob"].mean()
            )
            count = max(1, math.floor(2e-3 * len(batch)))
            table.loc[covariance.sort_values(ascending=False).index[:count], "KL-Cov"] = True
    names = {"THR": "THR", "entropy": "entropy mask", "KL-Cov": "KL-Cov"}
    for name, column in names.items():
        np.testing.assert_allclose(
            steered.value("mask_share", name).value, table[column].mean(), err_msg=name
        )
    for one, other in (("THR", "entropy"), ("THR", "KL-Cov"), ("entropy", "KL-Cov")):
        first, second = table[names[one]], table[names[other]]
        jaccard = (first & second).sum() / (first | second).sum()
        np.testing.assert_allclose(steered.value("jaccard", f"{one} and {other}").value, jaccard)
        share = steered.value("mask_share_in", f"{one} in {other}").value
        np.testing.assert_allclose(share, (first & second).sum() / first.sum())


def test_groups_without_an_advantage_contribute_nothing_and_are_counted(steered, run):
    facts = steered.facts
    assert (facts["num_groups"], facts["excluded_groups_all_correct"]) == (6, 1)
    assert facts["excluded_groups_no_correct"] == 1
    assert set(steered.curves["groups"]["prompt_id"]) == {"q0", "q1", "q3", "q4", "q6", "q7"}
    pure = preview(run, PreviewOptions(config=config(pass_at_k="pure", k=4)))
    assert pure.empty_reason is not None
    assert "6 mixed groups are 0 under this rule" in pure.empty_reason
    some = preview(run, PreviewOptions(config=config(pass_at_k="pure", k=3)))
    assert some.count("excluded_groups_zero_advantage") > 0
    assert some.count("num_groups") + some.count("excluded_groups_zero_advantage") == 6
    assert "with advantages of 0 under the rule" in some.caption


def test_other_methods_have_no_p_and_their_own_weights(run, listed):
    rows = token_rows(listed)
    sizes = np.array([abs(row["advantage"]) / row["group_tokens"] for row in rows])
    correct = np.array([row["correct"] for row in rows])
    positive = preview(run, PreviewOptions(config=config(method="pos-only")))
    found = positive.value("gradient_kept", "pos-only").value
    np.testing.assert_allclose(found, sizes[correct].sum() / sizes.sum())
    np.testing.assert_allclose(
        positive.value("weight_zero_share", "pos-only").value, 1 - correct.mean()
    )
    assert positive.value("net_drift") == positive.value("drift", "pos-only")
    plain = preview(run, PreviewOptions(config=config(method="grpo")))
    assert plain.value("weight_mean", "grpo").value == 1
    assert plain.value("drift", "grpo") == plain.value("plain_drift")
    with pytest.raises(KeyError):
        plain.value("p_zero")
    with pytest.raises(UsageError, match="--p belongs to --method thr"):
        PreviewOptions(config=config(method="grpo"), ps=(0.1,))
    with pytest.raises(UsageError, match="strictly between -1 and 1"):
        PreviewOptions(config=config(), ps=(1.0,))


@pytest.mark.parametrize("aggregate", ["token-mean", "sequence-mean", "dr-grpo"])
def test_gradient_shares_weigh_tokens_as_the_loss_does(run, listed, aggregate):
    found = preview(run, PreviewOptions(config=config(aggregate=aggregate), ps=(0.0,)))
    kept = total = 0.0
    for row in token_rows(listed):
        size = abs(row["advantage"]) / (row["length"] if aggregate == "sequence-mean" else 1)
        total += size
        kept += size * (abs(row["thr"]) > 0.5)
    np.testing.assert_allclose(found.value("gradient_kept", "p = +0").value, kept / total)


def test_at_p_zero_the_gradient_kept_is_that_on_dominant_tokens():
    """The same number by the analysis of the advantage, which reads the trace by itself."""
    run = read_run(LAB_RUN)
    found = preview(run, PreviewOptions(config=config(group_size=16), ps=(0.0,)))
    kept, other = found.value("gradient_kept", "p = +0"), thr_by_advantage(run)
    expected = other.value("weight_dominant_share")
    np.testing.assert_allclose(
        [kept.value, kept.low, kept.high], [expected.value, expected.low, expected.high], rtol=1e-6
    )


def test_the_caption_counts_groups_whose_threshold_keeps_every_token(make_run, tmp_path):
    given = groups()
    given[0]["tau"], given[1]["tau"] = -0.1, 0.0
    found = preview(
        read_run(make_run(tmp_path / "run", given)), PreviewOptions(config=config(), ps=PS)
    )
    assert r"In 2 groups $\tau \le 0$ makes every token dominant." in found.caption


def test_the_caption_writes_small_numbers_in_latex(make_run, tmp_path):
    given = groups()
    for group in given:
        for each in group["completions"]:
            if each["thr"] is not None:
                each["thr"] = [value * 1e-7 for value in each["thr"]]
    found = preview(
        read_run(make_run(tmp_path / "run", given)), PreviewOptions(config=config(tau="0"), ps=PS)
    )
    assert r"\times 10^{-6}$" in found.caption or r"\times 10^{-7}$" in found.caption
    assert not re.search(r"\d(\.\d+)?e-", found.caption)


def test_tau_and_kept_entropy_are_the_trainers(run, listed):
    rows = token_rows(listed)
    higher = preview(run, PreviewOptions(config=config(tau="1.5"), ps=(0.0,)))
    zero = np.mean([abs(row["thr"]) <= 1.5 for row in rows])
    np.testing.assert_allclose(higher.value("weight_zero_share", "p = +0").value, zero)
    kept = preview(run, PreviewOptions(config=config(keep_entropy=0.2), ps=(0.3,)))
    without = preview(run, PreviewOptions(config=config(), ps=(0.3,)))
    weights = kept.curves["weights"].set_index("weight")["tokens"]
    assert set(weights.index) == {0.0, 0.7, 1.0, 1.3}
    before = without.curves["weights"].set_index("weight")["tokens"]
    assert weights[0.7] == before[0.7]
    assert weights[0.0] + weights[1.0] == before[0.0]


@pytest.fixture(scope="module")
def lab_policy():
    return load_policy("lab", device="cpu")


def test_the_predicted_drift_is_that_of_a_real_step_on_the_unembedding(lab_policy):
    run = read_run(LAB_RUN)
    found = preview(run, PreviewOptions(config=config(group_size=16), ps=(-0.5, 0.5)))
    tables = run.iter_completions(["prompt_id", "token_ids", "correct"])
    rollouts = pd.DataFrame([row for table in tables for row in table.to_pylist()])
    lengths = rollouts["token_ids"].map(len).groupby(rollouts["prompt_id"]).sum()
    drawn = found.curves["groups"]
    prompt_id = min(set(drawn["prompt_id"]), key=lambda each: lengths[each])
    rows = rollouts[rollouts["prompt_id"] == prompt_id]
    problems = run.problems().set_index("prompt_id")
    checked = first_order_check(
        lab_policy,
        problems.loc[prompt_id, "prompt_token_ids"].tolist(),
        rows["token_ids"].tolist(),
        rows["correct"].tolist(),
        ps=(-0.5, 0.5),
    )
    own = drawn[drawn["prompt_id"] == prompt_id].set_index("setting")
    for row in checked:
        scale = max(abs(row.steering.net), row.steering.slope)
        drift = own.loc[f"p = {row.p:+g}", "drift"]
        np.testing.assert_allclose(drift, row.predicted, atol=2e-3 * scale)
        np.testing.assert_allclose(drift, row.measured, atol=1e-2 * scale)


def test_nthr_is_replayed_by_the_policy_that_is_named(make_run, tmp_path, lab_policy):
    """Two short groups of the lab's tokens: NTHR joins the masks, and its method runs."""
    prompt = lab_policy.encode_prompt("Question: 1 + 1 = ?")
    completions = [
        {"correct": bool(index % 2), "token_ids": [5 + index, 7, 9 + index, 11]}
        for index in range(4)
    ]
    problem = {"prompt_token_ids": prompt, "completions": completions}
    path = make_run(
        tmp_path / "run",
        [{"prompt_id": "a", **problem}, {"prompt_id": "b", **problem}],
        tokens=lab_texts(lab_policy),
    )
    run = read_run(path)
    replayed = preview(run, PreviewOptions(config=config(), with_nthr=True))
    assert replayed.facts["nthr_policy"] == "lab"
    assert float(str(replayed.facts["replayed_logprob_gap"])) > 0.1  # the fixture's are made up
    assert len(replayed.curves["overlap"]) == 6
    damped = preview(run, PreviewOptions(config=config(method="nthr")))
    share = damped.value("mask_share", "NTHR").value
    weights = damped.curves["weights"].set_index("weight")["share"]
    # q = 1/2: eta = 2 |1/2 - q| = 0 at what NTHR selects
    np.testing.assert_allclose(weights.get(0.0, 0.0), share)


def lab_texts(policy) -> dict[int, str]:
    return {token_id: policy.decode([token_id]) for token_id in range(32)}


def test_nthr_without_token_ids_says_what_it_needs(make_run, tmp_path, lab_policy):
    completions = [{"correct": True}, {"correct": False}]
    run = read_run(
        make_run(tmp_path / "run", [{"completions": completions}], tokens=lab_texts(lab_policy))
    )
    with pytest.raises(DataError, match="token ids were not stored"):
        preview(run, PreviewOptions(config=config(group_size=2, k=2), with_nthr=True))


def test_runs_with_nothing_to_train_on_say_why_and_draw_a_notice(make_run, tmp_path):
    right = [{"completions": [{"correct": True}] * 4}]
    for name, given, words in (
        ("right", {"groups": right}, "only correct completions"),
        ("bare", {"groups": right, "scored": False}, "has no scores"),
        ("wrong", {"groups": [{"completions": [{"correct": False}] * 4}]}, "is correct, and THR"),
    ):
        run = read_run(make_run(tmp_path / name, **given))
        found = preview(run, PreviewOptions(config=config()))
        assert found.empty_reason is not None
        assert words in found.empty_reason
        save_analysis(found, plot_preview(found), tmp_path / f"{name}-out")


def test_one_question_has_no_interval_and_can_be_drawn(make_run, tmp_path):
    completions = [{"correct": True}, {"correct": False}]
    run = read_run(make_run(tmp_path / "run", [{"completions": completions}]))
    found = preview(run, PreviewOptions(config=config(group_size=2, k=2)))
    assert math.isnan(found.value("drift", "p = +0").low)
    assert "A single question gives no interval." in found.caption
    for venue in ("neurips", "icml"):
        save_analysis(found, plot_preview(found, venue=venue), tmp_path / venue)


def test_the_figure_draws_the_tables_and_nothing_else(steered):
    left, right = plot_preview(steered).axes
    line = next(each for each in left.lines if len(each.get_xdata()) == 81)
    np.testing.assert_allclose(line.get_ydata(), steered.curves["drift"]["drift"])
    dots = next(each for each in left.lines if each.get_label() == "p asked for")
    np.testing.assert_allclose(dots.get_xdata(), PS)
    overlap = steered.curves["overlap"]
    jaccard = next(each for each in right.lines if each.get_label() == "Jaccard index")
    np.testing.assert_allclose(jaccard.get_xdata(), overlap["jaccard"])
    assert [each.get_text() for each in right.get_yticklabels()] == [
        f"{row.smaller}, {row.larger}" for row in overlap.itertuples()
    ]
