"""THR under several policies: every quantity by a loop, and score sets cut in other places."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import stats

from thr_probe.analysis.drift import AT_REFERENCE, beside, thr_drift
from thr_probe.analysis.stream import CompletionStream
from thr_probe.core.stats import question_weights
from thr_probe.errors import UsageError
from thr_probe.traces import read_run, write_part, write_score_info
from thr_probe.traces.schema import TABLES

LISTS = ("thr", "entropy", "logprob")


def groups_of(num_groups, seed=0):
    """The same lengths for every seed, other values."""
    lengths = np.random.default_rng(1).integers(3, 12, (num_groups, 3))
    rng = np.random.default_rng(seed)
    base = np.random.default_rng(99)
    groups = []
    for index in range(num_groups):
        completions = []
        for place, correct in enumerate((True, False, False)):
            length = int(lengths[index, place])
            thr = base.normal(0.2, 1, length) + (0.5 * rng.normal(size=length) if seed else 0)
            thr[0] = 0.0
            lists = (thr, rng.random(length), -rng.random(length))
            completions.append(
                {"correct": correct}
                | {
                    name: np.float32(value).tolist()
                    for name, value in zip(LISTS, lists, strict=True)
                }
            )
        tau = 0.5 + 0.1 * seed
        groups.append({"prompt_id": f"q{index}", "tau": tau, "completions": completions})
    return groups


def scored_twice(path, make_run, num_groups=8, *, seeds=(0, 1), groups_per_part=3):
    """A run with a score set for each seed, `a`, `b` ..."""
    make_run(path, groups_of(num_groups, seeds[0]), score_id="a", groups_per_part=groups_per_part)
    for name, seed in zip("bcd", seeds[1:], strict=False):
        other = make_run(
            path.with_name(f"{path.name}-{name}"), groups_of(num_groups, seed),
            groups_per_part=groups_per_part,
        )  # fmt: skip
        run = read_run(other)
        columns = list(TABLES["scores"])
        stored = [each for each in columns if each in run.score_parts["default"][0].columns]
        for part, file in enumerate(run.score_parts["default"]):
            table = pq.read_table(file.path, columns=stored)
            write_part(path, f"scores/{name}", part, table.to_pylist())
        write_score_info(path, name, {"model": f"checkpoint {seed}", "beta": float(seed)})
    return path


def completions_of(num_groups, seed):
    return [
        (group["prompt_id"], completion["correct"], group["tau"], completion)
        for group in groups_of(num_groups, seed)
        for completion in group["completions"]
    ]


def numbers(pairs):
    """Every quantity, from loops over completions and tokens."""
    rank, moved, logprob, entropy = [], [], [], []
    same = signed = both = either = dominant = 0
    sums = np.zeros(4)
    for (_, _, old_tau, old), (_, _, new_tau, new) in pairs:
        left, right = (np.float64(np.float32(each["thr"])) for each in (old, new))
        rank.append(stats.spearmanr(left, right)[0])
        shares = [np.abs(each) / np.abs(each).sum() for each in (left, right)]
        moved.append(np.abs(shares[0] - shares[1]).sum() / 2)
        for first, second in zip(left, right, strict=True):
            one = np.float32(abs(first)) > np.float32(old_tau)
            two = np.float32(abs(second)) > np.float32(new_tau)
            both, either, dominant = both + (one and two), either + (one or two), dominant + one
            if first and second:
                signed, same = signed + 1, same + ((first > 0) == (second > 0))
        for name, values in (("logprob", logprob), ("entropy", entropy)):
            values.extend(np.float64(new[name]) - np.float64(old[name]))
        sums += [left.sum(), np.abs(left).sum(), right.sum(), np.abs(right).sum()]
    return {
        "rank_correlation": np.mean(rank),
        "sign_agreement": same / signed,
        "dominant_jaccard": both / either,
        "dominant_kept": both / dominant,
        "mass_moved": np.mean(moved),
        "logprob_change": np.mean(logprob),
        "entropy_change": np.mean(entropy),
        "balance_change": sums[2] / sums[3] - sums[0] / sums[1],
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory, make_run):
    return read_run(scored_twice(tmp_path_factory.mktemp("drift") / "run", make_run))


PAIRS = list(zip(completions_of(8, 0), completions_of(8, 1), strict=True))


@pytest.mark.parametrize("split", ["b", "b, correct", "b, incorrect"])
def test_every_quantity_is_that_of_a_loop_over_tokens(run, split):
    analysis = thr_drift(run)
    wanted = {"b": (True, False), "b, correct": (True,), "b, incorrect": (False,)}[split]
    expected = numbers([pair for pair in PAIRS if pair[0][1] in wanted])
    found = {name: analysis.value(name, split).value for name in AT_REFERENCE}
    assert found == pytest.approx(expected, rel=1e-6)


def test_intervals_are_those_of_a_loop_over_resampled_questions(run):
    analysis = thr_drift(run, seed=6)
    draws = []
    for weight in question_weights(8, seed=6)[:300]:
        chosen = np.repeat(np.arange(8), weight)
        draws.append(numbers([pair for q in chosen for pair in PAIRS[3 * q : 3 * q + 3]]))
    for name in AT_REFERENCE:
        found = analysis.value(name, "b")
        bounds = np.quantile([draw[name] for draw in draws], [0.025, 0.975])
        size = bounds[1] - bounds[0]
        np.testing.assert_allclose([found.low, found.high], bounds, atol=0.2 * size)


def test_a_score_set_against_its_own_copy_does_not_move(tmp_path, make_run):
    path = scored_twice(tmp_path / "run", make_run, seeds=(0, 0))
    analysis = thr_drift(read_run(path))
    for name, value in AT_REFERENCE.items():
        np.testing.assert_allclose(analysis.value(name, "b").value, value, atol=1e-12)
    table = analysis.curves["checkpoints"]
    first = table[table["score_id"] == "a"].set_index("quantity")["value"]
    assert dict(first) == AT_REFERENCE


def test_streams_cut_in_other_places_are_laid_side_by_side(run):
    whole = list(CompletionStream(run, ["thr"], score_id="a"))
    fine = [batch for pair in beside(whole, _halves(whole)) for batch in pair]
    left, right = (np.concatenate([b.tokens["thr"] for b in fine[side::2]]) for side in (0, 1))
    np.testing.assert_array_equal(left, right)
    assert sum(len(batch.lengths) for batch in fine[::2]) == 24
    for one, two in zip(fine[::2], fine[1::2], strict=True):
        np.testing.assert_array_equal(one.offsets, two.offsets)
        assert one.offsets[0] == 0


def _halves(batches):
    """Each batch in two, cut by taking it beside shorter ones."""
    for batch in batches:
        number = len(batch.lengths) // 3
        first = type(batch)(
            group_R=batch.group_R[:number], stratum_R=batch.stratum_R[:number],
            tau_R=batch.tau_R[:number], offsets=batch.offsets[: number + 1],
            tokens={"thr": batch.tokens["thr"][: batch.offsets[number]]},
            completions={name: value[:number] for name, value in batch.completions.items()},
        )  # fmt: skip
        second = type(batch)(
            group_R=batch.group_R[number:], stratum_R=batch.stratum_R[number:],
            tau_R=batch.tau_R[number:], offsets=batch.offsets[number:] - batch.offsets[number],
            tokens={"thr": batch.tokens["thr"][batch.offsets[number] :]},
            completions={name: value[number:] for name, value in batch.completions.items()},
        )  # fmt: skip
        yield first
        yield second


def test_sets_are_taken_by_name_or_in_the_order_given(tmp_path, make_run):
    path = scored_twice(tmp_path / "run", make_run, seeds=(0, 1, 2))
    run = read_run(path)
    analysis = thr_drift(run)
    assert analysis.facts["score_ids"] == ["a", "b", "c"]
    assert analysis.facts["models"] == ["fake", "checkpoint 1", "checkpoint 2"]
    assert analysis.facts["options_that_differ"] == ["beta"]
    assert "differ in options too: beta" in analysis.caption
    swapped = thr_drift(run, score_ids=["b", "a"])
    assert set(swapped.summary["split"].str[0]) == {"a"}
    np.testing.assert_allclose(
        swapped.value("logprob_change", "a").value, -analysis.value("logprob_change", "b").value
    )
    with pytest.raises(UsageError, match="no score set 'z'"):
        thr_drift(run, score_ids=["a", "z"])
    with pytest.raises(UsageError, match="named twice"):
        thr_drift(run, score_ids=["a", "a"])


def test_the_caption_tells_where_every_token_is_dominant(tmp_path, make_run, monkeypatch, run):
    assert r"\tau" not in thr_drift(run).caption
    assert thr_drift(run).facts["groups_tau_nonpositive_by_set"] == {"a": 0, "b": 0}
    whole = groups_of

    def with_nonpositive(num_groups, seed=0):
        found = whole(num_groups, seed)
        for index in (0, 3) if seed == 0 else (3, 5, 6):
            found[index]["tau"] = -0.5
        return found

    monkeypatch.setitem(globals(), "groups_of", with_nonpositive)
    analysis = thr_drift(read_run(scored_twice(tmp_path / "run", make_run)))
    assert analysis.facts["groups_tau_nonpositive_by_set"] == {"a": 2, "b": 3}
    kept = [
        pair
        for pair in zip(completions_of(8, 0), completions_of(8, 1), strict=True)
        if pair[0][2] > 0
    ]
    expected = numbers(kept)["dominant_jaccard"]
    assert analysis.value("dominant_jaccard", "b, tau > 0").value == pytest.approx(expected)
    assert (
        r"$\tau \le 0$ makes every token dominant in 2 groups of a and 3 of b; without the groups "
        f"of a the overlap is {expected:.2f} [" in analysis.caption
    )


def test_too_few_score_sets_or_correct_completions_become_a_sentence(tmp_path, make_run, run):
    alone = read_run(make_run(tmp_path / "a", groups_of(2), score_id="a"))
    for named in (thr_drift(run, score_ids=["a"]), thr_drift(alone)):
        assert str(named.empty_reason).startswith("There is only one score set to look at (a)")
        assert "thr-probe score RUN --model CHECKPOINT" in str(named.empty_reason)
    none = make_run(tmp_path / "b", groups_of(2), scored=False)
    assert "no score set" in str(thr_drift(read_run(none)).empty_reason)


def test_one_question_has_no_intervals(tmp_path, make_run):
    path = scored_twice(tmp_path / "run", make_run, num_groups=1)
    assert thr_drift(read_run(path)).summary["low"].isna().all()
