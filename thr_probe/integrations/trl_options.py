"""The options of THR inside TRL, and which of TRL's own options go with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from thr_probe.errors import PrerequisiteError, UsageError
from thr_probe.probe import ProbeOptions

SUPPORTED_TRL = "1.16"
"""Minor version of TRL whose trainer is known; another one may move what is built on here."""

TRL_HINT = 'pip install "trl>=1.16,<1.17"'

LOSS_TYPES = ("grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo")
"""Losses of TRL in which every token has a weight of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class THROptions:
    """How THR weighs the tokens of a group, and which groups are kept."""

    p: float = 0.0
    """Of THR(p): > 0 exploits, < 0 explores, 0 keeps dominant tokens as they are; |p| < 1."""
    correct_above: float = 0.5
    """A completion is correct where its reward is greater than this."""
    correct_by: str | None = None
    """The reward function whose reward decides that, by its name; None: the weighted sum."""
    dynamic_sampling: bool = True
    """Generate again in place of groups that teach nothing; else they stay, with weights of 0."""
    max_rounds: int = 10
    """Rounds of generation per batch, the first included, until giving up."""
    probe: ProbeOptions = field(default_factory=ProbeOptions)
    """Route of THR and threshold tau; the temperature is TRL's."""

    def __post_init__(self) -> None:
        if not abs(self.p) < 1:
            raise UsageError(f"p must lie strictly between -1 and 1, got {self.p}")
        if self.max_rounds < 1:
            raise UsageError(f"max_rounds must be at least 1, got {self.max_rounds}")


def check_version(version: str) -> None:
    """Refuse a TRL that is not known.

    Raises:
        PrerequisiteError: another minor version.
    """
    if ".".join(version.split(".")[:2]) != SUPPORTED_TRL:
        raise PrerequisiteError(
            f"THRTrainer is built on TRL {SUPPORTED_TRL}.x (>=1.16,<1.17); TRL {version} is "
            "installed",
            hint=TRL_HINT,
        )


def check_arguments(given: Any) -> None:
    """Refuse options of GRPOConfig that contradict weights on single tokens, or are not known to.

    Args:
        given: a GRPOConfig.

    Raises:
        UsageError: naming the option, what it does, and what to set.
    """
    refusals: list[tuple[bool, str, str]] = [
        (
            given.importance_sampling_level != "token",
            f"importance_sampling_level={given.importance_sampling_level!r}",
            "its ratio spreads a token's weight over the whole completion; use 'token'",
        ),
        (
            given.loss_type not in LOSS_TYPES,
            f"loss_type={given.loss_type!r}",
            "it weighs whole completions; use " + ", ".join(LOSS_TYPES),
        ),
        (
            given.top_entropy_quantile < 1,
            f"top_entropy_quantile={given.top_entropy_quantile}",
            "it would drop dominant tokens; leave it at 1",
        ),
        (
            given.multi_objective_aggregation != "sum_then_normalize",
            f"multi_objective_aggregation={given.multi_objective_aggregation!r}",
            "its advantages compare different prompts; use 'sum_then_normalize'",
        ),
        (
            given.cast_lm_head_to_fp32,
            "cast_lm_head_to_fp32",
            "it replaces the unembedding's forward pass; THR is computed in float32 without it",
        ),
        (given.use_liger_kernel, "use_liger_kernel", "its kernels are not known to THR"),
        (
            given.use_transformers_continuous_batching,
            "use_transformers_continuous_batching",
            "it is not tested with THR; leave it off, or use vLLM",
        ),
        (bool(given.fsdp), "fsdp", _SHARDED),
        (given.deepspeed is not None, "deepspeed", _SHARDED),
    ]
    for is_refused, option, reason in refusals:
        if is_refused:
            raise UsageError(f"THRTrainer does not go with {option}", hint=reason)


_SHARDED = (
    "THR reads the whole unembedding on every process; train with DDP, or with thr-probe train, "
    "which shards"
)


def check_groups(rows: int, group_size: int, processes: int) -> None:
    """Refuse batches that split a prompt's completions between processes.

    Args:
        rows: completions that one process generates at a time.
        group_size: completions of a prompt.
        processes: of the run.

    Raises:
        UsageError: they do not divide.
    """
    if rows % group_size:
        raise UsageError(
            f"each of the {processes} processes generates {rows} completions at a time, which is "
            f"no multiple of num_generations={group_size}: a group would be split",
            hint="THR needs all completions of a prompt on one process: make "
            "per_device_train_batch_size * steps_per_generation a multiple of num_generations",
        )


def check_trainer(trainer: Any, options: THROptions, names: Sequence[str]) -> None:
    """Refuse what a trainer was given besides its arguments.

    Raises:
        UsageError: naming it.
    """
    for part in ("tools", "rollout_func", "environment_factories"):
        if getattr(trainer, part, None):
            raise UsageError(
                f"THRTrainer does not go with {part.replace('factories', 'factory')}",
                hint="tokens that the policy did not sample have no THR",
            )
    if trainer._is_vlm:
        raise UsageError("THRTrainer does not go with a processor: it takes text alone")
    if options.dynamic_sampling and not hasattr(trainer.train_dataset, "__len__"):
        raise UsageError(
            "dynamic sampling draws other prompts from the dataset, and this one is a stream",
            hint="use a dataset that can be indexed, or THROptions(dynamic_sampling=False)",
        )
    if options.correct_by is not None and options.correct_by not in names:
        raise UsageError(
            f"correct_by={options.correct_by!r} is none of the reward functions: "
            + ", ".join(names)
        )
