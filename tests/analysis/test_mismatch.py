"""Sampler against policy: every number against loops over the tokens, and what is not compared."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from thr_probe.analysis.mismatch import sampler_mismatch
from thr_probe.core.stats import question_weights
from thr_probe.errors import DataError, UsageError
from thr_probe.traces import read_run

close = np.testing.assert_allclose
TOKENS = {index: f" t{index}" for index in range(1, 41)}


def random_groups(num_groups=12, *, seed=0, in_steps=False):
    """Groups of three; every fifth has no correct completion, every fourth a tau below 0.

    Of training: five groups a step, of nine questions.
    """
    rng = np.random.default_rng(seed)
    groups = []
    for index in range(num_groups):
        labels = [index % 5 != 4, False, index % 5 != 4 and index % 2 == 0]
        completions = []
        for correct in labels:
            length = int(rng.integers(1, 30))
            logprob = np.float32(-rng.gamma(0.7, 1.0, length))
            noise = 0.3 * rng.standard_t(3, length) * (rng.random(length) < 0.8)
            completions.append(
                {
                    "correct": correct,
                    "logprob": logprob.tolist(),
                    "sampler_logprobs": np.float32(np.minimum(logprob + noise, 0)).tolist(),
                    "thr": np.float32(rng.normal(0, 1, length)).tolist() if any(labels) else None,
                }
            )
        group = {"prompt_id": f"q{index % 9}", "completions": completions}
        if any(labels):
            group["tau"] = -0.5 if index % 4 == 3 else 0.5
        if in_steps:
            group["step"] = index // 5
        groups.append(group)
    return groups


def recorded(path, *, sampled=1.0, scored=1.0, more=""):
    (path / "config.toml").write_text(f"temperature = {sampled}\n{more}\n")
    (info,) = path.glob("scores/*/score.json")
    info.write_text(info.read_text().replace("{", f'{{"temperature": {scored}, ', 1))
    return path


@pytest.fixture(scope="module")
def path(tmp_path_factory, make_run):
    folder = tmp_path_factory.mktemp("mismatch") / "run"
    return recorded(
        make_run(folder, random_groups(in_steps=True), tokens=TOKENS, groups_per_part=5)
    )


@pytest.fixture(scope="module")
def analysis(path):
    return sampler_mismatch(read_run(path), bound=0.25, cap=1.5, seed=4)


def rows_of(path):
    """One row per completion, straight from the files."""
    parts = sorted((path / "rollouts").glob("*.parquet"))
    tables = []
    for part in parts:
        scores = pd.read_parquet(path / "scores" / "default" / part.name)
        kept = scores[["thr", "tau", "logprob"]]
        tables.append(pd.concat([pd.read_parquet(part), kept], axis=1))
    return pd.concat(tables, ignore_index=True)


def token_list(path):
    """Every token as a tuple of Python numbers."""
    listed = []
    for row in rows_of(path).to_dict("records"):
        for place, (policy, sampler) in enumerate(
            zip(row["logprob"], row["sampler_logprobs"], strict=True)
        ):
            kind = None
            if row["thr"] is not None and row["tau"] > 0:
                thr = float(row["thr"][place])
                kind = "|THR| <= tau"
                if abs(thr) > np.float32(row["tau"]):
                    kind = "THR > tau" if thr > 0 else "THR < -tau"
            listed.append(
                {
                    "question": row["prompt_id"],
                    "correct": bool(row["correct"]),
                    "step": row["step"],
                    "rollout": row["rollout_id"],
                    "position": place,
                    "kind": kind,
                    "difference": float(policy) - float(sampler),
                }
            )
    return listed


SPLITS = {
    "all": lambda token: True,
    "correct": lambda token: token["correct"],
    "incorrect": lambda token: not token["correct"],
    "THR > tau": lambda token: token["kind"] == "THR > tau",
    "THR < -tau": lambda token: token["kind"] == "THR < -tau",
    "|THR| <= tau": lambda token: token["kind"] == "|THR| <= tau",
}


@pytest.mark.parametrize("split", SPLITS)
def test_numbers_of_tokens_are_those_of_loops(path, analysis, split):
    differences = [token["difference"] for token in token_list(path) if SPLITS[split](token)]
    ratios = [math.exp(value) for value in differences]
    number = len(differences)
    assert number > 20
    literal = {
        "kl_k1": -sum(differences) / number,
        "kl_k3": sum(r - 1 - d for r, d in zip(ratios, differences, strict=True)) / number,
        "mean_gap": sum(map(abs, differences)) / number,
        "beyond_share": sum(abs(value) > 0.25 for value in differences) / number,
        "mean_ratio": sum(ratios) / number,
        "truncated_share": sum(ratio > 1.5 for ratio in ratios) / number,
        "ess_share": sum(ratios) ** 2 / sum(ratio**2 for ratio in ratios) / number,
        "largest_ratio": max(ratios),
        "largest_gap": max(map(abs, differences)),
    }
    for quantity, value in literal.items():
        close(analysis.value(quantity, split).value, value, rtol=1e-9, err_msg=quantity)
    assert 0 < literal["truncated_share"] < literal["beyond_share"] < 1


@pytest.mark.parametrize("split", ["all", "correct", "incorrect"])
def test_numbers_of_completions_are_those_of_loops(path, analysis, split):
    sums = {}
    for token in filter(SPLITS[split], token_list(path)):
        key = (token["step"], token["question"], token["rollout"])
        sums[key] = sums.get(key, 0.0) + token["difference"]
    values = list(sums.values())
    ratios = [math.exp(value) for value in values]
    close(analysis.value("sequence_kl_k1", split).value, -np.mean(values))
    share = sum(ratios) ** 2 / sum(ratio**2 for ratio in ratios) / len(ratios)
    close(analysis.value("sequence_ess_share", split).value, share)
    for name, at in {"q05": 0.05, "median": 0.5, "q95": 0.95}.items():
        found = analysis.value(f"sequence_log_ratio_{name}", split)
        close(found.value, np.quantile(values, at))
        assert found.low <= found.value <= found.high


def test_intervals_resample_questions(path, analysis):
    tokens = token_list(path)
    questions = list(dict.fromkeys(token["question"] for token in tokens))
    place = np.array([questions.index(token["question"]) for token in tokens])
    difference = np.array([token["difference"] for token in tokens])
    ratio = np.exp(difference)
    draws = {"kl_k3": [], "ess_share": []}
    for weights in question_weights(len(questions), seed=4):
        weight = weights[place]
        number, total = weight.sum(), weight @ ratio
        draws["kl_k3"].append(weight @ (ratio - 1 - difference) / number)
        draws["ess_share"].append(total**2 / (weight @ ratio**2) / number)
    for quantity, values in draws.items():
        found = analysis.value(quantity)
        close([found.low, found.high], np.quantile(values, [0.025, 0.975]), rtol=1e-9)


def test_curves_by_size_position_and_step_are_those_of_loops(path, analysis):
    tokens = token_list(path)
    tails = analysis.curves["tails"]
    assert set(tails["split"]) == set(SPLITS) - {"correct", "incorrect"}
    for row in tails.to_dict("records"):
        some = [token for token in tokens if SPLITS[row["split"]](token)]
        beyond = sum(abs(token["difference"]) > row["difference"] for token in some)
        close(row["share"], beyond / len(some))
    positions = analysis.curves["positions"]
    assert positions["tokens"].sum() == len(tokens)
    for row in positions.to_dict("records"):
        some = [t["difference"] for t in tokens if row["left"] <= t["position"] < row["right"]]
        assert len(some) == row["tokens"]
        close(row["kl_k1"], -np.mean(some))
        close(row["mean_gap"], np.mean(np.abs(some)))
    steps = analysis.curves["steps"]
    assert steps["step"].tolist() == [0, 1, 2]
    for row in steps.to_dict("records"):
        some = np.array([t["difference"] for t in tokens if t["step"] == row["step"]])
        close(row["kl_k3"], np.mean(np.exp(some) - 1 - some))
        close(row["truncated_share"], np.mean(np.exp(some) > 1.5))
        close(row["largest_ratio"], np.exp(some).max())
    sequences = analysis.curves["sequences"]
    close(sequences["share"].sum(), 1.0)


def test_the_worst_tokens_are_listed_with_their_places(path, analysis):
    worst = analysis.curves["worst"]
    tokens = token_list(path)
    listed = sorted((abs(token["difference"]) for token in tokens), reverse=True)[:20]
    close(worst["difference"].abs(), listed)
    rows = rows_of(path).set_index(["step", "prompt_id", "rollout_id"])
    for row in worst.to_dict("records"):
        completion = rows.loc[(row["step"], row["prompt_id"], row["rollout_id"])]
        assert completion["token_ids"][row["position"]] == row["token_id"]
        assert row["token"] == TOKENS[row["token_id"]]
        close(completion["logprob"][row["position"]], row["logprob"])
        close(completion["sampler_logprobs"][row["position"]], row["sampler_logprob"])
        close(row["ratio"], math.exp(row["difference"]))


def test_the_caption_tells_the_numbers_and_how_they_were_made(analysis):
    assert "12 questions" not in analysis.caption
    assert "36 completions to 9 questions" in analysis.caption
    assert "$C = 1.5$" in analysis.caption
    assert "more than 0.25 nats" in analysis.caption
    assert "(c) Both by step of training" in analysis.caption
    assert "bootstrap resamples of the questions" in analysis.caption
    assert analysis.facts["caution"] == ""


def damaged(path, change):
    """The rollouts of a run with another column or two."""
    for part in path.glob("rollouts/*.parquet"):
        table = pq.read_table(part)
        for name, values in change(table.to_pydict()).items():
            place = table.column_names.index(name)
            field = table.schema.field(name)
            table = table.set_column(place, field, pa.array(values, field.type))
        pq.write_table(table, part)
    return path


def test_completions_that_cannot_be_compared_are_left_out_and_counted(tmp_path, make_run):
    def change(columns):
        logprobs, sources = columns["sampler_logprobs"], columns["ids_source"]
        logprobs[1], sources[0], sources[2] = None, "retokenized", "absent"
        return {"sampler_logprobs": logprobs, "ids_source": sources}

    path = recorded(damaged(make_run(tmp_path / "run", random_groups(6)), change))
    analysis = sampler_mismatch(read_run(path))
    rows = rows_of(path).iloc[3:]
    differences = np.concatenate(
        [
            np.subtract(policy, sampler, dtype=np.float64)
            for policy, sampler in zip(rows["logprob"], rows["sampler_logprobs"], strict=True)
        ]
    )
    close(analysis.value("mean_gap").value, np.abs(differences).mean())
    assert analysis.facts["num_completions"] == 15
    assert analysis.facts["excluded_completions_unsampled_ids"] == 2
    assert analysis.facts["excluded_completions_no_sampler_logprobs"] == 1
    assert "2 completions whose token ids are not those that were drawn" in analysis.caption
    assert "steps" not in analysis.curves
    worst = analysis.curves["worst"]
    assert "step" not in worst.columns
    assert worst["token"].isna().all()  # the run has ids, and no table of their texts


def test_a_run_without_ids_lists_places_alone(tmp_path, make_run):
    groups = random_groups(3)
    for group in groups:
        group["completions"] = [{**each, "token_ids": None} for each in group["completions"]]
    path = make_run(tmp_path / "run", groups)
    damaged(path, lambda columns: {"ids_source": ["sampled"] * len(columns["ids_source"])})
    worst = sampler_mismatch(read_run(path)).curves["worst"]
    assert {"step", "token", "token_id"}.isdisjoint(worst.columns)
    assert len(worst) == 20


def test_a_run_without_the_column_or_without_scores_says_so(tmp_path, make_run):
    plain = [{"completions": [{"correct": True}, {"correct": False}]}]
    with pytest.raises(DataError, match="column sampler_logprobs was not stored"):
        sampler_mismatch(read_run(make_run(tmp_path / "a", plain)))
    unscored = make_run(tmp_path / "b", random_groups(2), scored=False)
    assert "no scores" in str(sampler_mismatch(read_run(unscored)).empty_reason)
    nothing = damaged(
        recorded(make_run(tmp_path / "c", random_groups(2))),
        lambda columns: {"sampler_logprobs": [None] * len(columns["sampler_logprobs"])},
    )
    reason = str(sampler_mismatch(read_run(nothing)).empty_reason)
    assert reason == (
        "No token could be compared. Left out: 6 completions without log-probabilities of the "
        "sampler."
    )


@pytest.mark.parametrize("turned", [np.negative, np.exp], ids=["negative", "probabilities"])
def test_what_is_no_log_probability_is_refused(tmp_path, make_run, turned):
    path = damaged(
        recorded(make_run(tmp_path / "run", random_groups(2))),
        lambda columns: {
            "sampler_logprobs": [turned(row).tolist() for row in columns["sampler_logprobs"]]
        },
    )
    with pytest.raises(DataError, match="log-probabilities are at most 0") as caught:
        sampler_mismatch(read_run(path))
    assert "right column" in (caught.value.hint or "")


def test_a_capped_ratio_is_told_as_one(tmp_path, make_run):
    lists = {"logprob": [-0.5, -1.0], "sampler_logprobs": [-0.5, -9999.0]}
    groups = [{"completions": [{"correct": True, **lists}, {"correct": False, **lists}]}]
    analysis = sampler_mismatch(read_run(recorded(make_run(tmp_path / "run", groups))))
    np.testing.assert_allclose(analysis.value("largest_ratio").value, math.exp(20))
    assert r"ratio $\pi/\mu$ is $e^{20}$ or more (ratios are capped there)" in analysis.caption


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sampled": 0.7}, "sampled at temperature 0.7, scored at 1.0"),
        ({"sampled": 0.0, "scored": 0.5}, "sampled at temperature 0.0, scored at 0.5"),
    ],
)
def test_different_temperatures_are_not_compared(tmp_path, make_run, options, words):
    path = recorded(make_run(tmp_path / "run", random_groups(3)), **options)
    analysis = sampler_mismatch(read_run(path))
    assert words in str(analysis.empty_reason)
    assert "Score the run at the temperature" in str(analysis.empty_reason)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"more": "top_p = 0.9"}, "renormalised over the tokens kept"),
        ({"more": "top_k = 20"}, "renormalised over the tokens kept"),
        ({"sampled": 0.0, "more": "top_p = 0.9"}, "nothing was drawn"),
        (None, "The temperature of the sampler or of the scores is not recorded"),
    ],
)
def test_what_makes_distributions_differ_by_design_is_told(tmp_path, make_run, options, words):
    path = make_run(tmp_path / "run", random_groups(3))
    analysis = sampler_mismatch(read_run(recorded(path, **options) if options else path))
    assert analysis.empty_reason is None
    assert words in str(analysis.facts["caution"])
    assert words in analysis.caption


def test_one_question_has_no_interval_and_equal_lists_no_difference(tmp_path, make_run):
    same = {"logprob": [-0.5, -1.0, -2.0], "sampler_logprobs": [-0.5, -1.0, -2.0]}
    groups = [{"completions": [{"correct": True, **same}, {"correct": False, **same}]}]
    analysis = sampler_mismatch(read_run(recorded(make_run(tmp_path / "run", groups))))
    for quantity, value in {"kl_k1": 0, "kl_k3": 0, "ess_share": 1, "mean_ratio": 1}.items():
        found = analysis.value(quantity)
        assert found.value == value
        assert math.isnan(found.low)
    assert analysis.curves["tails"].empty
    assert "A single question gives no interval" in analysis.caption


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cap": 0.9}, "cap must be a number of at least 1"),
        ({"cap": math.nan}, "cap must be"),
        ({"bound": 0.0}, "bound must be a positive number"),
        ({"bound": math.inf}, "bound must be"),
    ],
)
def test_bounds_that_are_none_are_refused(path, options, words):
    with pytest.raises(UsageError, match=words):
        sampler_mismatch(read_run(path), **options)
