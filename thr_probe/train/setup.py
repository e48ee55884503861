"""Everything a training run needs before its first step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from thr_probe.config import config_dict
from thr_probe.engine_options import OPENAI, VLLM
from thr_probe.errors import UsageError
from thr_probe.policy import Policy
from thr_probe.policy.load import resolve_dtype
from thr_probe.problems import ProblemSet, Verifier, load_problems, load_verifier
from thr_probe.processes import World
from thr_probe.prompts import (
    TokenizedProblem,
    default_template,
    longest_completion,
    longest_sequence,
    tokenized,
)
from thr_probe.resume import SCORE_ID
from thr_probe.sampling import Sampler, SamplingSettings
from thr_probe.sampling.engines import load_sampler
from thr_probe.score import policy_of, recorded
from thr_probe.traces import Manifest
from thr_probe.train.config import TrainConfig
from thr_probe.train.module import PolicyModule, build_module
from thr_probe.train.objective import check_objective, described, objective_of
from thr_probe.train.rollouts import PromptStream, RolloutJob
from thr_probe.train.rules import completion_advantage
from thr_probe.train.scoring import check_token_rule, probe_options
from thr_probe.train.steer import Steerer
from thr_probe.train.trace import StepTrace
from thr_probe.train.updates import Learner
from thr_probe.versions import library_versions


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainJob:
    """A training run between its steps."""

    config: TrainConfig
    """The resolved options."""
    run_path: Path
    """The run directory."""
    world: World
    """The processes."""
    learner: Learner
    """The trained policy, its optimiser and objective."""
    snapshot: Policy
    """What samples and is probed: the weights at the start of the step."""
    reference: Policy | None
    """The initial policy, where the objective asks for it."""
    rollouts: RolloutJob
    """How a step's groups are generated."""
    stream: PromptStream
    """The training problems."""
    validation: Sequence[TokenizedProblem]
    """The problems that the policy is evaluated on."""
    steerer: Steerer
    """p over the steps."""
    trace: StepTrace
    """The stored steps."""
    manifest: Manifest
    """What the run is."""


def prepare(
    config: TrainConfig, run_path: Path, world: World, *, argv: Sequence[str] = ()
) -> TrainJob:
    """Load policy, problems and verifier, and put the parts of the run together.

    Args:
        config: the resolved options.
        run_path: the run directory, not touched here.
        world: the processes.
        argv: the command line, for the manifest.

    Raises:
        UsageError: options that do not fit the machine or the policy.
        DataError, PrerequisiteError: what is wrong with the problems or the policy.
    """
    # before anything is loaded: options that the first group, step or update would refuse
    probe_options(config)
    check_token_rule(config)
    check_objective(config)
    _check_engine(config)
    policy = _load(config, world, "float32")
    compute = _compute_dtype(config, world, policy.device)
    data = _data(config, policy)
    # one process on a CPU trains the very weights it samples from: between updates they are equal
    is_shared = world.size == 1 and policy.device.type == "cpu"
    snapshot = policy if is_shared else _load(config, world, _name(compute))
    verifier = load_verifier(
        config.verifier, correct_above=config.correct_above, num_workers=config.verify_workers
    )
    manifest = _manifest(config, data, snapshot, verifier, argv)
    module = build_module(policy, world, compute_dtype=compute, recompute=config.recompute)
    return TrainJob(
        config=config,
        run_path=run_path,
        world=world,
        learner=_learner(config, module, world, data),
        snapshot=snapshot,
        reference=_load(config, world, _name(compute)) if config.needs_reference else None,
        rollouts=_rollout_job(config, snapshot, verifier, world, data.max_new_tokens),
        stream=PromptStream(tasks=data.tasks, seed=config.seed),
        validation=data.validation,
        steerer=Steerer.of(config),
        trace=StepTrace(
            run_path=run_path,
            every=config.trace_every,
            verifier=verifier.name,
            world=world,
        ),
        manifest=manifest,
    )


THR_OPTIONS = (
    "vocab",
    "tolerance",
    "eps",
    "exact",
    "chunk_size",
    "tau",
    "beta",
    "reduce",
    "self_influence",
    "split",
    "thr_error",
    "model",
)


def score_info(job: TrainJob) -> dict[str, object]:
    """What the stored THR was computed with, and the objective in use, for `score.json`."""
    config = config_dict(job.config)
    return {
        **{name: recorded(config[name]) for name in THR_OPTIONS},
        "score_id": SCORE_ID,
        "temperature": job.config.temperature,
        "objective": described(job.config),
        "versions": library_versions(),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Data:
    """The problems of a run."""

    problem_set: ProblemSet
    """As loaded."""
    tasks: list[TokenizedProblem]
    """Those that are trained on."""
    num_long: int
    """Those left out for their length."""
    validation: list[TokenizedProblem]
    """Those evaluated on."""
    max_new_tokens: int
    """Longest completion."""


def _data(config: TrainConfig, policy: Policy) -> _Data:
    problem_set, tasks, num_long = _problems(config, policy, config.dataset, config.max_prompts)
    if config.prompts > len(tasks):
        raise UsageError(
            f"--prompts {config.prompts} asks for more questions per step than the {len(tasks)} "
            f"of {problem_set.name}",
            "lower --prompts, or take more problems",
        )
    validation: list[TokenizedProblem] = []
    if config.validation not in {None, "none"}:
        assert config.validation is not None
        _, validation, _ = _problems(config, policy, config.validation, config.validation_prompts)
    return _Data(
        problem_set=problem_set,
        tasks=tasks,
        num_long=num_long,
        validation=validation,
        max_new_tokens=longest_completion([*tasks, *validation], policy, config.max_new_tokens),
    )


def _problems(
    config: TrainConfig, policy: Policy, source: str, max_prompts: int | None
) -> tuple[ProblemSet, list[TokenizedProblem], int]:
    is_training = source == config.dataset
    problem_set = load_problems(
        source,
        template=config.template,
        question_column=config.question_column if is_training else None,
        answer_column=config.answer_column if is_training else None,
        max_prompts=max_prompts,
        tokenizer=policy.tokenizer,
        default_template=default_template(config.model),
    )
    tasks, num_long = tokenized(
        problem_set,
        policy,
        max_prompt_tokens=config.max_prompt_tokens,
        max_new_tokens=config.max_new_tokens,
    )
    return problem_set, tasks, num_long


SHARE_BESIDE_TRAINING = 0.4
"""Of a GPU's memory, for vLLM beside trained weights, gradients and the optimiser's state."""


def _check_engine(config: TrainConfig) -> None:
    """Whether an engine can follow the weights.

    Raises:
        UsageError: it cannot.
    """
    if config.engine == OPENAI:
        raise UsageError(
            "--engine openai cannot train: a server does not take over the new weights",
            f"choose transformers or {VLLM}",
        )
    if config.tensor_parallel not in {None, 1}:
        raise UsageError(
            f"--tensor-parallel {config.tensor_parallel}: in training every process samples with "
            "an engine of its own on its own GPU",
            "leave it out; more GPUs are used with torchrun",
        )


def _sampler(config: TrainConfig, snapshot: Policy) -> Sampler:
    return load_sampler(
        config_dict(config),
        snapshot,
        max_length=longest_sequence(snapshot, config.max_prompt_tokens, config.max_new_tokens),
        gpu_share=SHARE_BESIDE_TRAINING,
    )


def _load(config: TrainConfig, world: World, dtype: str) -> Policy:
    return policy_of(replace(config, dtype=dtype), world)


def _compute_dtype(config: TrainConfig, world: World, device: torch.device) -> torch.dtype:
    compute = resolve_dtype(config.dtype, device)
    if compute is not torch.float32 and world.size == 1 and device.type == "cpu":
        raise UsageError(
            f"--dtype {config.dtype} needs a GPU: on a CPU the policy is trained in float32",
            "leave --dtype out",
        )
    return compute


def _name(dtype: torch.dtype) -> str:
    return "bfloat16" if dtype is torch.bfloat16 else "float32"


def _learner(config: TrainConfig, module: PolicyModule, world: World, data: _Data) -> Learner:
    return Learner(
        module=module,
        optimizer=torch.optim.AdamW(
            module.parameters(), lr=config.lr, weight_decay=config.weight_decay
        ),
        objective=objective_of(config),
        config=config,
        device=next(module.parameters()).device,
        filler_ids=(data.tasks[0].token_ids * 2)[:2],
        world=world,
    )


def _rollout_job(
    config: TrainConfig,
    snapshot: Policy,
    verifier: Verifier,
    world: World,
    max_new_tokens: int,
) -> RolloutJob:
    return RolloutJob(
        policy=snapshot,
        sampler=_sampler(config, snapshot),
        verifier=verifier,
        settings=SamplingSettings(
            group_size=config.group_size,
            temperature=config.temperature,
            top_p=config.top_p,
            max_new_tokens=max_new_tokens,
            seed=config.seed,
        ),
        advantage=completion_advantage(config),
        prompts=config.prompts,
        first_prompts=config.gen_prompts or config.prompts,
        max_rounds=config.max_gen_batches,
        world=world,
    )


def _manifest(
    config: TrainConfig, data: _Data, snapshot: Policy, verifier: Verifier, argv: Sequence[str]
) -> Manifest:
    return Manifest(
        model=snapshot.name,
        revision=snapshot.revision,
        model_digest=snapshot.weights_digest,
        tokenizer_digest=snapshot.tokenizer_digest,
        dataset=data.problem_set.name,
        dataset_digest=data.problem_set.digest,
        sampler=config.engine,
        verifier=verifier.name,
        seed=config.seed,
        argv=tuple(argv),
        num_prompts=len(data.tasks),
        group_size=config.group_size,
        counts={
            "skipped_empty_gold": data.problem_set.num_empty_gold,
            "skipped_repeated": data.problem_set.num_duplicates,
            "skipped_long_prompt": data.num_long,
            "max_new_tokens": data.max_new_tokens,
        },
        versions=library_versions(),
    )
