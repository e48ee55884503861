"""Pass@K of several runs against that of each alone and against resampling by a plain loop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from source_folders import MakeRun, labelled, make_evaluation, with_options

from thr_probe.analysis.passk import pass_at_k_curve
from thr_probe.analysis.passk_runs import pass_at_k_runs
from thr_probe.analysis.sources import read_sources
from thr_probe.core.pass_at_k import pass_at_k
from thr_probe.core.stats import question_weights
from thr_probe.errors import DataError, UsageError
from thr_probe.evaluate.table import mean_over_sets
from thr_probe.traces import read_run


def random_labels(seed: int, names: list[str], n: int = 4) -> dict[str, str]:
    rng = np.random.default_rng(seed)
    share = rng.random(len(names))
    return {
        name: "".join("1" if rng.random() < each else "0" for _ in range(n))
        for name, each in zip(names, share, strict=True)
    }


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, make_run: MakeRun) -> list[Path]:
    folder = tmp_path_factory.mktemp("overlay")
    names = [f"q{i}" for i in range(15)]
    return [
        make_run(folder / name, labelled(random_labels(seed, names)), scored=False)
        for seed, name in enumerate(("base", "thr", "nthr"))
    ]


def test_each_run_has_the_numbers_it_has_alone(runs: list[Path]) -> None:
    values = pass_at_k_runs(read_sources(runs), seed=3).curves["values"]
    assert values["split"].unique().tolist() == ["all"]
    for path in runs:
        alone = pass_at_k_curve(read_run(path), seed=3).curves["curve"]
        mine = values[values["row"] == path.name]
        assert mine["k"].tolist() == alone["k"].tolist() == [1, 2, 4]
        for column in ("value", "low", "high"):
            assert_allclose(mine[column], alone[column], rtol=1e-12)


def test_differences_are_paired_and_to_the_first(runs: list[Path]) -> None:
    analysis = pass_at_k_runs(read_sources(runs), ks=[2], seed=1)
    found = analysis.curves["differences"]
    assert found["row"].tolist() == ["thr", "nthr"]
    value = {}
    for path in runs:
        tables = read_run(path).iter_completions(["prompt_id", "correct"])
        table = next(iter(tables)).to_pandas()
        right = table.groupby("prompt_id", sort=False)["correct"].sum().to_numpy()
        value[path.name] = pass_at_k(4, right, 2)
    for row in found.to_dict("records"):
        change = value[row["row"]] - value["base"]
        drawn = [
            np.mean([change[q] for q, times in enumerate(weights) for _ in range(times)])
            for weights in question_weights(15, seed=1)
        ]
        low, high = np.quantile(drawn, [0.025, 0.975])
        assert_allclose([row["value"], row["low"], row["high"]], [change.mean(), low, high])
    assert analysis.value("pass_at_2", "thr minus base").value == found["value"].iloc[0]
    assert "15 questions that all of them answered" in analysis.caption
    assert "Paired differences to base: thr" in analysis.caption


def test_sets_are_averaged_as_an_evaluation_averages_them(tmp_path, make_run) -> None:
    sizes = {"aime": 4, "amc": 9}
    paths, right = [], []
    for seed, name in enumerate(("base", "thr")):
        sets = {
            each: random_labels(10 * seed + index, [f"{each}{i}" for i in range(size)])
            for index, (each, size) in enumerate(sizes.items())
        }
        paths.append(make_evaluation(make_run, tmp_path / name, {"sampled": sets}))
        right.append(
            [np.array([text.count("1") for text in each.values()]) for each in sets.values()]
        )
    analysis = pass_at_k_runs(read_sources(paths), seed=2)
    values = analysis.curves["values"]
    assert values["split"].unique().tolist() == ["dataset aime", "dataset amc", "mean of datasets"]
    for name, counts in zip(("base", "thr"), right, strict=True):
        for k in (1, 2, 4):
            expected = mean_over_sets([pass_at_k(4, each, k) for each in counts], seed=2)
            mean = values[
                (values["row"] == name)
                & (values["split"] == "mean of datasets")
                & (values["k"] == k)
            ].iloc[0]
            assert_allclose(
                [mean["value"], mean["low"], mean["high"]],
                [expected.value, expected.low, expected.high],
                rtol=1e-12,
            )
            assert mean["num_questions"] == 13
    changes = analysis.curves["differences"]
    last = changes[(changes["split"] == "mean of datasets") & (changes["k"] == 4)].iloc[0]
    expected_4 = [np.mean([pass_at_k(4, each, 4).mean() for each in counts]) for counts in right]
    assert_allclose(last["value"], expected_4[1] - expected_4[0], rtol=1e-12)
    assert "the unweighted mean of the datasets" in analysis.caption
    assert analysis.facts["num_questions_by_split"] == {"dataset aime": 4, "dataset amc": 9}
    pooled = pass_at_k_runs(read_sources(paths), by="none").curves["values"]
    assert pooled["split"].unique().tolist() == ["all"]


def test_a_single_evaluation_has_no_differences(tmp_path, make_run) -> None:
    sets = {"one": {"a": "10", "b": "01"}, "two": {"c": "11", "d": "00"}}
    path = make_evaluation(make_run, tmp_path / "eval", {"sampled": sets})
    analysis = pass_at_k_runs(read_sources([path]))
    assert analysis.curves["differences"].empty
    mean = analysis.value("pass_at_1", "eval, mean of datasets")
    assert_allclose(mean.value, 0.5)
    assert "Paired" not in analysis.caption


def test_only_what_all_runs_have_is_compared_and_that_is_told(tmp_path, make_run) -> None:
    first = make_run(tmp_path / "first", labelled({"a": "1010", "b": "1000", "c": "1111"}))
    second = make_run(tmp_path / "second", labelled({"b": "11", "c": "00", "d": "11"}))
    analysis = pass_at_k_runs(read_sources([first, second]))
    assert analysis.facts["ks"] == [1, 2]
    assert analysis.facts["num_questions"] == 2
    told = " / ".join(analysis.facts["warnings"])
    assert "1 question only in first, left out; 2 are compared" in told
    assert "completions per question: 4 for first, 2 for second" in told
    with pytest.raises(UsageError, match="Pass@4 needs 4 completions per question, but n = 2"):
        pass_at_k_runs(read_sources([first, second]), ks=[4])


def test_what_cannot_be_overlaid_is_refused(tmp_path, make_run, runs) -> None:
    other = make_run(tmp_path / "other", labelled({"z": "10"}))
    with pytest.raises(DataError, match="other and the runs before it have no question in common"):
        pass_at_k_runs(read_sources([*runs, other]))
    greedy = with_options(make_run(tmp_path / "cold", labelled({"q0": "1"})), temperature=0.0)
    with pytest.raises(DataError, match="cold has greedy completions"):
        pass_at_k_runs(read_sources([runs[0], greedy]))
    with pytest.raises(UsageError, match="cannot be split by 'level'"):
        pass_at_k_runs(read_sources(runs), by="level")


@pytest.mark.parametrize(("text", "value"), [("1111", 1.0), ("0000", 0.0)])
def test_all_correct_and_none_correct_have_no_difference(tmp_path, make_run, text, value) -> None:
    paths = [
        make_run(tmp_path / name, labelled({"a": text, "b": text})) for name in ("first", "second")
    ]
    analysis = pass_at_k_runs(read_sources(paths))
    assert_array_equal(analysis.curves["values"]["value"], np.full(6, value))
    assert_array_equal(analysis.curves["differences"][["value", "low", "high"]], np.zeros((3, 3)))


def test_one_question_gives_no_interval(tmp_path, make_run) -> None:
    paths = [
        make_run(tmp_path / name, labelled({"a": text}))
        for name, text in (("first", "10"), ("second", "11"))
    ]
    analysis = pass_at_k_runs(read_sources(paths))
    assert np.isnan(analysis.curves["differences"]["low"]).all()
    assert "A single question gives no interval." in analysis.caption
    assert "nan" not in analysis.caption
