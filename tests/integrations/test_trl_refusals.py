"""What does not go together with THR inside TRL is refused by name."""

from __future__ import annotations

import pytest

pytest.importorskip("trl", reason="TRL is not installed")

from tiny_families import small_model
from trl.trainer.utils import add_fused_lm_head
from trl_runs import (
    arguments,
    lab_groups,
    lab_policy,
    trainer_of,
)

from thr_probe.errors import PrerequisiteError, UsageError
from thr_probe.integrations.trl import THROptions, THRTrainer
from thr_probe.integrations.trl_options import check_groups, check_trainer
from thr_probe.integrations.trl_parts import check_fused_head, policy_of

# TRL uses names that transformers has changed
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"importance_sampling_level": "sequence"}, "importance_sampling_level='sequence'"),
        ({"loss_type": "luspo", "importance_sampling_level": "token"}, "loss_type='luspo'"),
        ({"loss_type": "vespo"}, "loss_type='vespo'"),
        ({"top_entropy_quantile": 0.2}, "top_entropy_quantile=0.2"),
        (
            {"multi_objective_aggregation": "normalize_then_sum"},
            "multi_objective_aggregation='normalize_then_sum'",
        ),
        ({"cast_lm_head_to_fp32": True}, "cast_lm_head_to_fp32"),
        ({"use_transformers_continuous_batching": True}, "use_transformers_continuous_batching"),
    ],
)
def test_options_that_do_not_go_with_thr_are_refused_by_name(changes, sentence, tmp_path):
    with pytest.raises(UsageError, match=f"does not go with {sentence}") as caught:
        trainer_of(tmp_path, lab_groups()[0][:2], **changes)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("option", "value"),
    [("use_liger_kernel", True), ("fsdp", [True]), ("deepspeed", {"zero_optimization": {}})],
)
def test_options_that_need_what_is_not_installed_are_refused_before_it_is_asked_for(
    option, value, tmp_path
):
    given = arguments(tmp_path)
    object.__setattr__(given, option, value)
    with pytest.raises(UsageError, match=f"does not go with {option}"):
        THRTrainer(model="no/such", reward_funcs=[], args=given)


def test_a_group_that_would_be_split_between_processes_is_refused():
    with pytest.raises(UsageError, match=r"2 processes generates 6 .* num_generations=4") as caught:
        check_groups(6, 4, 2)
    assert "per_device_train_batch_size" in caught.value.hint


def calculator(expression: str) -> str:
    """Evaluates.

    Args:
        expression: what.

    Returns:
        The value.
    """
    return expression


@pytest.mark.parametrize(
    ("part", "value"),
    [("tools", [calculator]), ("rollout_func", print), ("environment_factories", {"a": 1})],
)
def test_tokens_of_another_source_are_refused(part, value, tmp_path):
    trainer = trainer_of(tmp_path, lab_groups()[0][:2])
    setattr(trainer, part, value)
    with pytest.raises(UsageError, match="THRTrainer does not go with"):
        check_trainer(trainer, trainer.thr, ["verified"])


def test_images_are_refused(tmp_path):
    trainer = trainer_of(tmp_path, lab_groups()[0][:2])
    trainer._is_vlm = True
    with pytest.raises(UsageError, match="does not go with a processor"):
        check_trainer(trainer, trainer.thr, ["verified"])


def test_a_stream_of_prompts_is_refused_for_dynamic_sampling_alone(tmp_path):
    trainer = trainer_of(tmp_path, lab_groups()[0][:2])
    trainer.train_dataset = iter([])
    with pytest.raises(UsageError, match="this one is a stream"):
        check_trainer(trainer, THROptions(), ["verified"])
    check_trainer(trainer, THROptions(dynamic_sampling=False), ["verified"])


def test_a_reward_function_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"correct_by='format' is none of .*: verified"):
        trainer_of(tmp_path, lab_groups()[0][:2], thr=THROptions(correct_by="format"))


def test_another_version_of_trl_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("trl.__version__", "1.17.0")
    with pytest.raises(PrerequisiteError, match=r"TRL 1[.]16[.]x .* TRL 1[.]17[.]0") as caught:
        trainer_of(tmp_path, lab_groups()[0][:2])
    assert caught.value.hint == 'pip install "trl>=1.16,<1.17"'


@pytest.mark.parametrize("family", ["xlstm", "recurrent_gemma", "inkling_text"])
def test_a_family_whose_logits_trl_does_not_know_is_refused(family):
    model = small_model(family)
    add_fused_lm_head(model, temperature=1.0)
    policy = policy_of(model, lab_policy().tokenizer)
    with pytest.raises(PrerequisiteError, match=f"log-probabilities of family '{family}' d"):
        check_fused_head(policy, 1.0)


@pytest.mark.parametrize("family", ["qwen2", "gemma2", "cohere", "granite", "minicpm3", "phi"])
def test_trl_and_thr_read_the_same_distribution(family):
    model = small_model(family)
    add_fused_lm_head(model, temperature=0.7)
    check_fused_head(policy_of(model, lab_policy().tokenizer), 0.7)
