"""Options: precedence, unknown keys, wrong types, and what a run was started with."""

from __future__ import annotations

from pathlib import Path

import pytest

from thr_probe.config import (
    CollectConfig,
    ScoreConfig,
    config_dict,
    differences,
    from_saved,
    resolve_config,
)
from thr_probe.errors import DataError, UsageError


def resolved(tmp_path, *, flags=None, environment=None, text=None):
    path = None
    if text is not None:
        path = tmp_path / "options.toml"
        path.write_text(text)
    return resolve_config(
        CollectConfig,
        flags or {},
        command="collect",
        environment=environment or {},
        config_file=path,
    )


def test_flags_go_before_environment_before_file_before_defaults(tmp_path):
    text = "seed = 1\ngroup_size = 2\ntop_p = 0.5\n"
    environment = {"THR_PROBE_SEED": "3", "THR_PROBE_GROUP_SIZE": "4"}
    config = resolved(
        tmp_path, flags={"seed": 5, "top_p": None}, environment=environment, text=text
    )
    assert (config.seed, config.group_size, config.top_p, config.temperature) == (5, 4, 0.5, 1.0)


def test_a_file_may_hold_a_table_per_command(tmp_path):
    text = "seed = 1\n[collect]\nseed = 2\n[score]\nscore_id = 'x'\n"
    assert resolved(tmp_path, text=text).seed == 2
    score = resolve_config(
        ScoreConfig,
        {},
        command="score",
        environment={},
        config_file=write(tmp_path, "[collect]\nseed = 2\n[score]\nscore_id = 'x'\n"),
    )
    assert score.score_id == "x"


def test_an_option_may_have_the_name_of_a_command(tmp_path):
    assert resolved(tmp_path, text="score = false\n").score is False
    with pytest.raises(UsageError, match="unknown key 'score'"):
        resolve_config(
            ScoreConfig,
            {},
            command="score",
            environment={},
            config_file=write(tmp_path, "score = false\n"),
        )


def write(tmp_path, text):
    path = tmp_path / "both.toml"
    path.write_text(text)
    return path


def test_an_unknown_key_is_refused_with_the_closest_known_one(tmp_path):
    with pytest.raises(UsageError, match="unknown key 'temprature'") as error:
        resolved(tmp_path, text="temprature = 1.0\n")
    assert error.value.hint == "did you mean 'temperature'?"


def test_values_of_the_wrong_type_are_refused_by_name(tmp_path):
    with pytest.raises(UsageError, match="seed: found 'one', expected int"):
        resolved(tmp_path, text="seed = 'one'\n")
    with pytest.raises(UsageError, match="THR_PROBE_SEED: found 'one', expected int"):
        resolved(tmp_path, environment={"THR_PROBE_SEED": "one"})
    with pytest.raises(UsageError, match="THR_PROBE_SPLIT: found 'maybe', expected bool"):
        resolved(tmp_path, environment={"THR_PROBE_SPLIT": "maybe"})


def test_whole_numbers_pass_as_floats_and_infinity_is_read(tmp_path):
    config = resolved(tmp_path, text="temperature = 2\nbeta = -inf\n")
    assert config.temperature == 2.0
    assert config.beta == float("-inf")
    assert resolved(tmp_path, environment={"THR_PROBE_SPLIT": "true"}).split is True


def test_a_config_file_that_is_missing_or_broken_is_named(tmp_path):
    with pytest.raises(DataError, match="no such config file"):
        resolve_config(
            CollectConfig, {}, command="collect", environment={}, config_file=tmp_path / "no.toml"
        )
    with pytest.raises(DataError, match="cannot be read as TOML"):
        resolved(tmp_path, text="seed = = 1")


def test_saved_options_come_back_as_they_were():
    config = CollectConfig(seed=7, max_prompts=3, split=True)
    saved = {name: value for name, value in config_dict(config).items() if value is not None}
    assert from_saved(CollectConfig, saved, Path("config.toml")) == config


def test_differences_name_every_option_that_changed():
    found = differences(CollectConfig(seed=1), CollectConfig(seed=2, top_p=0.9))
    assert found == ["top_p is 1.0 there, 0.9 here", "seed is 1 there, 2 here"]


@pytest.mark.parametrize("name", ["shard_prompts", "max_new_tokens", "batch_tokens", "chunk_size"])
def test_counts_below_one_are_refused_by_their_flag(name):
    with pytest.raises(UsageError, match=f"--{name.replace('_', '-')} must be at least 1, got 0"):
        CollectConfig(**{name: 0})


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_seeds_that_no_trace_can_hold_are_refused(seed):
    with pytest.raises(UsageError, match="--seed must lie in"):
        CollectConfig(seed=seed)


def test_keys_of_a_file_may_be_written_as_flags(tmp_path):
    assert resolved(tmp_path, text="group-size = 2\n").group_size == 2
