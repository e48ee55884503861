"""Options of train: where values come from, and what is refused."""

from __future__ import annotations

import dataclasses
import math

import pytest
from numpy.testing import assert_allclose

from thr_probe.config import Origin, differences
from thr_probe.errors import DataError, UsageError
from thr_probe.train.config import CHOICES, TrainConfig
from thr_probe.train.engine import learning_rate
from thr_probe.train.plan import model_size, plan_rows
from thr_probe.train.presets import PRESETS
from thr_probe.train.resolve import resolve_train, warnings_of


def resolved(**flags):
    return resolve_train(flags, environment={})[0]


def test_the_defaults_are_the_papers():
    config = TrainConfig()
    assert (config.method, config.p, config.beta, config.tau) == ("thr", 0.0, 1.0, "auto")
    assert (config.clip_low, config.clip_high, config.kl_coef) == (0.2, 0.2, 1e-4)
    assert (config.aggregate, config.mini_batch_unit) == ("group-token-mean", "prompts")
    assert (config.adv_std, config.mix, config.chi, config.k) == ("population", "paper", 0.2, 4)


@pytest.mark.parametrize(
    ("preset", "updates", "p_or_entropy"),
    [
        ("qwen-math-1.5b", 32, 0.0),
        ("qwen-math-7b", 32, 0.0),
        ("qwen2.5-0.5b-instruct", 2, 0.2),
        ("llama3.2-3b-instruct", 16, 0.2),
        ("lab", 8, 0.0),
    ],
)
def test_presets_make_the_updates_that_the_paper_states(preset, updates, p_or_entropy):
    config = resolved(preset=preset, dataset="problems.jsonl")
    assert config.updates_per_step == updates
    assert config.keep_entropy == p_or_entropy
    assert config.preset == preset


def test_every_preset_holds_known_options_only():
    names = {item.name for item in dataclasses.fields(TrainConfig)}
    for values in PRESETS.values():
        assert values.keys() <= names


APPLICABLE = {"thr": {"p": -0.1}, "entropy-top": {"entropy_share": 0.1}}


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("method", CHOICES["method"])
def test_every_method_goes_with_every_preset(preset, method):
    flags = {"preset": preset, "dataset": "problems.jsonl"} | APPLICABLE.get(method, {})
    config, given = resolve_train(flags | {"method": method}, environment={})
    kept = PRESETS[preset].get("keep_entropy", 0.0) if method == "thr" else 0.0
    assert (config.method, config.preset, config.keep_entropy) == (method, preset, kept)
    assert ("keep_entropy" in given) == (kept > 0)


def test_a_keep_entropy_that_was_asked_for_is_not_dropped_with_the_presets():
    options = {"preset": "llama3.2-3b-instruct", "dataset": "problems.jsonl", "method": "grpo"}
    with pytest.raises(UsageError, match=r"--keep-entropy adds tokens to those of --method thr"):
        resolve_train(options, environment={"THR_PROBE_KEEP_ENTROPY": "0.2"})


def test_a_resumed_run_keeps_its_options_and_tells_of_another_preset():
    saved = resolved(p=-0.1, steps=7)
    for again in ({}, {"preset": "auto"}, {"preset": "lab"}):
        assert resolve_train(again, environment={}, saved=saved)[0] == saved
    other, given = resolve_train({"preset": "none"}, environment={}, saved=saved)
    assert differences(saved, other) == ["preset is 'lab' there, 'none' here"]
    assert given["steps"].origin is Origin.FILE


def test_flags_go_before_environment_file_preset_and_default(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text("lr = 1e-3\nsteps = 7\n[train]\nprompts = 5\n")
    config, given = resolve_train(
        {"steps": 2},
        environment={"THR_PROBE_STEPS": "3", "THR_PROBE_K": "2"},
        config_file=path,
    )
    assert (config.steps, config.k, config.lr, config.prompts) == (2, 2, 1e-3, 5)
    assert config.max_prompts == PRESETS["lab"]["max_prompts"]
    origins = {name: item.origin for name, item in given.items()}
    assert origins["steps"] is Origin.FLAG
    assert origins["k"] is Origin.ENVIRONMENT
    assert origins["lr"] is Origin.FILE
    assert origins["max_prompts"] is Origin.PRESET
    assert "clip_low" not in origins


def test_the_lab_preset_belongs_to_the_labs_policy():
    assert resolved().preset == "lab"
    assert resolved(model="some/model").preset == "none"
    assert resolved(model="some/model").prompts == TrainConfig().prompts


def test_unknown_keys_and_presets_are_told_with_the_closest(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text("learning_rat = 1\n")
    with pytest.raises(UsageError, match="unknown key 'learning_rat'"):
        resolve_train({}, environment={}, config_file=path)
    with pytest.raises(UsageError, match="unknown preset 'qwen-math-2b'") as caught:
        resolved(preset="qwen-math-2b")
    assert "qwen-math-7b" in (caught.value.hint or "")


REFUSED = [
    ({"objective": "gspo"}, ("--objective gspo", "--method thr")),
    ({"objective": "gspo", "method": "nthr"}, ("--objective gspo", "--method nthr")),
    ({"objective": "gspo", "method": "entropy-top"}, ("--objective gspo", "--method entropy-top")),
    ({"method": "grpo", "keep_entropy": 0.2}, ("--keep-entropy", "--method thr")),
    ({"p": 1.0}, ("--p", "strictly between -1 and 1")),
    ({"p": -1.5}, ("--p", "strictly between -1 and 1")),
    ({"k": 9, "pass_at_k": "mixed"}, ("--k 9", "--group-size 8")),
    ({"k": 9, "advantage": "pkpo"}, ("--k 9", "--group-size 8")),
    ({"cov": "kl-cov", "clip_low": 0.1}, ("--clip-low", "--cov kl-cov")),
    ({"tis_cap": 3.0}, ("--tis-cap", "--importance-correction none")),
    ({"importance_correction": "mis"}, ("--importance-correction 'mis'", "does not exist")),
    ({"cov": "kl-cov", "clip_high": 0.2}, ("--clip-high", "--cov kl-cov")),
    ({"objective": "gspo-token", "aggregate": "token-mean"}, ("gspo-token", "--aggregate")),
    ({"objective": "gspo-token", "cov": "kl-cov"}, ("--cov kl-cov", "--objective gspo-token")),
    ({"pass_at_k": "pure", "advantage": "pkpo"}, ("--pass-at-k pure", "--advantage pkpo")),
    ({"mix": "chen"}, ("--mix", "--pass-at-k none")),
    ({"chi": 0.3, "pass_at_k": "mixed"}, ("--chi", "--pass-at-k mixed")),
    ({"p": 0.1, "method": "grpo"}, ("--p", "--method grpo")),
    ({"adaptive_p": "entropy", "method": "grpo"}, ("--adaptive-p entropy", "--method thr")),
    ({"p_final": 0.1}, ("--p-final", "--adaptive-p none")),
    ({"mini_batch_unit": "rollouts", "mini_batch": 12}, ("--mini-batch 12", "--group-size 8")),
    ({"preset": "qwen-math-7b"}, ("--preset qwen-math-7b", "--dataset")),
    ({"tau": "median"}, ("--tau", "median")),
    ({"lr": 0.0}, ("--lr", "positive")),
    ({"kl_coef": -1.0}, ("--kl-coef", "negative")),
    ({"temperature": 0.0}, ("--temperature", "positive")),
    ({"group_size": 1}, ("--group-size", "at least 2")),
    ({"lr": math.nan}, ("--lr", "finite")),
]


@pytest.mark.parametrize(("flags", "words"), REFUSED)
def test_impossible_combinations_are_refused_by_the_names_of_both(flags, words):
    with pytest.raises(UsageError) as caught:
        resolved(**flags)
    for word in words:
        assert word in caught.value.message


@pytest.mark.parametrize("name", CHOICES)
def test_a_word_that_does_not_exist_is_refused_with_those_that_do(name):
    with pytest.raises(UsageError, match="does not exist") as caught:
        resolved(**{name: "nonsense"})
    assert CHOICES[name][0] in (caught.value.hint or "")


def test_a_gspo_run_takes_the_sequence_mean_and_says_so_in_its_options():
    assert resolved(objective="gspo-token").aggregate == "sequence-mean"
    assert resolved(objective="gspo", method="grpo").aggregate == "sequence-mean"


def test_kl_cov_with_one_update_per_step_is_warned_of():
    assert any("one update per step" in text for text in warnings_of(resolved(
        method="grpo", cov="kl-cov", mini_batch=64
    )))  # fmt: skip
    assert not warnings_of(resolved(method="grpo", cov="kl-cov"))
    assert any(
        "hardly ever clips" in text for text in warnings_of(resolved(objective="gspo-token"))
    )


def test_the_plan_counts_updates_tokens_and_memory():
    config, given = resolve_train({"preset": "lab", "steps": 5}, environment={})
    rows = {row["what"]: row for row in plan_rows(config, given)}
    assert rows["updates per step"]["value"] == 8
    assert rows["updates in all"]["value"] == 40
    assert rows["completion tokens per step, at most"]["value"] == 32 * 8 * 160
    assert rows["steps"]["from"] == "flag"
    assert rows["parameters"]["value"] == model_size("lab").parameters == 936_576
    assert str(rows["memory per process, roughly"]["value"]).endswith("GiB")


def test_the_learning_rate_rises_over_the_warm_up_and_falls_in_a_line():
    config = resolved(lr=1.0, warmup_steps=2, steps=6)
    rates = [learning_rate(config, step) for step in range(6)]
    assert_allclose(rates, [1 / 3, 2 / 3, 1.0, 0.75, 0.5, 0.25])
    # a run that ends in its warm-up, as a short try of the lab preset does
    short = resolved(lr=1.0, warmup_steps=4, steps=2)
    assert_allclose([learning_rate(short, step) for step in range(2)], [0.2, 0.4])
    constant = resolved(lr=1.0, warmup_steps=0, steps=6, lr_decay="none")
    assert [learning_rate(constant, step) for step in range(6)] == [1.0] * 6


def test_the_size_of_a_model_that_is_not_there_or_broken(tmp_path):
    assert model_size("org/model") is None
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DataError, match="its size cannot be read"):
        model_size(str(tmp_path))
