"""From problems to a trace: sample groups, verify, probe, write; shard by shard.

A shard is `shard_prompts` consecutive problems. What it yields depends on the options and the
problems alone, so a run that was killed and resumed equals one that was not.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from thr_probe.config import CollectConfig, ScoringConfig, config_dict
from thr_probe.errors import UsageError
from thr_probe.policy import Policy, load_policy
from thr_probe.probe import ProbeOptions, score_group
from thr_probe.problems import (
    ProblemSet,
    Verdict,
    Verifier,
    load_problems,
    load_verifier,
)
from thr_probe.processes import World
from thr_probe.progress import SILENT, Advance, Monitor
from thr_probe.prompts import (
    LONGEST_COMPLETION,
    TokenizedProblem,
    default_template,
    problem_row,
    tokenized,
)
from thr_probe.resume import (
    SCORE_ID,
    check_same_inputs,
    check_same_options,
    finished_shards,
    has_manifest,
    is_whole,
)
from thr_probe.sampling import Completion, Prompt, Sampler, SamplingSettings
from thr_probe.sampling.hf import TransformersSampler
from thr_probe.score import probe_options, recorded, score_rows, scoring_temperature
from thr_probe.traces import (
    Manifest,
    create_run,
    finish_run,
    list_values,
    read_manifest,
    read_run,
    write_part,
    write_score_info,
    write_tokens,
)
from thr_probe.versions import library_versions


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Everything that a shard needs."""

    run_path: Path
    """The run being written."""
    config: CollectConfig
    """Its resolved options."""
    policy: Policy
    """Samples and scores."""
    sampler: Sampler
    """Generates the completions."""
    verifier: Verifier
    """Judges them."""
    settings: SamplingSettings
    """Of the sampler."""
    options: ProbeOptions
    """Of the probe."""


def collect(
    config: CollectConfig,
    run_path: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    argv: Sequence[str] = (),
    monitor: Monitor = SILENT,
) -> bool:
    """Sample, verify and score a problem set into a run directory.

    Args:
        config: the resolved options.
        run_path: the run directory to make, or to continue with `resume`.
        resume: continue an interrupted run; a complete one is left as it is.
        overwrite: replace a run that stands there.
        argv: the command line, for the manifest.
        monitor: told of every finished shard, and asked between shards whether to stop.

    Returns:
        Whether the run is complete.

    Raises:
        UsageError: a run that stands there already, options that do not fit, other options than
            those of the run to resume.
        DataError, PrerequisiteError: what is wrong with the problems, the policy or the trace.
    """
    world = World.from_environment()
    if resume and overwrite:
        raise UsageError("--resume continues a run, --overwrite replaces it: choose one")
    resuming = resume and has_manifest(run_path)
    if resuming:
        check_same_options(run_path, config)
        if is_whole(run_path, config):
            read_run(run_path)
            return True
    policy = load_policy(
        config.model,
        device=world.device(config.device),
        dtype=config.dtype,
        revision=config.revision,
        adapter=config.adapter,
    )
    problem_set = load_problems(
        config.dataset,
        template=config.template,
        question_column=config.question_column,
        answer_column=config.answer_column,
        max_prompts=config.max_prompts,
        tokenizer=policy.tokenizer,
        default_template=default_template(config),
    )
    tasks, num_long = tokenized(problem_set, policy, config)
    job = _job(run_path, config, policy, tasks)
    with job.verifier:
        manifest = _manifest(job, problem_set, tasks, num_long, argv)
        if resuming:
            check_same_inputs(run_path, manifest)
        elif world.is_first:
            _create(run_path, manifest, config, tasks, overwrite=overwrite)
        world.wait()
        if not _run_shards(job, tasks, world, monitor):
            return False
    world.wait()
    if world.is_first:
        _finish(job, read_manifest(run_path))
    world.wait()
    return True


def _job(
    run_path: Path, config: CollectConfig, policy: Policy, tasks: Sequence[TokenizedProblem]
) -> Job:
    longest_prompt = max(len(task.token_ids) for task in tasks)
    limit = config.max_new_tokens or LONGEST_COMPLETION
    if policy.max_length is not None:
        limit = min(limit, policy.max_length - longest_prompt)
    return Job(
        run_path=run_path,
        config=config,
        policy=policy,
        sampler=TransformersSampler(policy=policy, batch_tokens=config.batch_tokens),
        verifier=load_verifier(
            config.verifier,
            correct_above=config.correct_above,
            num_workers=config.verify_workers,
        ),
        settings=SamplingSettings(
            group_size=config.group_size,
            temperature=config.temperature,
            top_p=config.top_p,
            max_new_tokens=limit,
            seed=config.seed,
        ),
        options=probe_options(config, config.temperature),
    )


def _create(
    run_path: Path,
    manifest: Manifest,
    config: CollectConfig,
    tasks: Sequence[TokenizedProblem],
    *,
    overwrite: bool,
) -> None:
    create_run(
        run_path,
        manifest=manifest,
        config=config_dict(config),
        problems=[problem_row(task) for task in tasks],
        overwrite=overwrite,
    )


def _manifest(
    job: Job,
    problem_set: ProblemSet,
    tasks: Sequence[TokenizedProblem],
    num_long: int,
    argv: Sequence[str],
) -> Manifest:
    return Manifest(
        model=job.policy.name,
        revision=job.policy.revision,
        model_digest=job.policy.weights_digest,
        tokenizer_digest=job.policy.tokenizer_digest,
        dataset=problem_set.name,
        dataset_digest=problem_set.digest,
        sampler=job.sampler.name,
        verifier=job.verifier.name,
        seed=job.config.seed,
        argv=tuple(argv),
        num_prompts=len(tasks),
        group_size=job.config.group_size,
        counts={
            "skipped_empty_gold": problem_set.num_empty_gold,
            "skipped_repeated": problem_set.num_duplicates,
            "skipped_long_prompt": num_long,
            "max_new_tokens": job.settings.max_new_tokens,
        },
        versions=library_versions(),
    )


def _run_shards(
    job: Job,
    tasks: Sequence[TokenizedProblem],
    world: World,
    monitor: Monitor,
) -> bool:
    """Do the shards of this process that are not on disk yet; False when stopped early."""
    done = set(finished_shards(job.run_path)) if world.is_first else set()
    done = world.share(done)
    left = itertools.count()  # what is left of a resumed run is dealt out evenly
    size = job.config.shard_prompts
    monitor.begin(len(tasks))
    shards = [tasks[start : start + size] for start in range(0, len(tasks), size)]
    for index, shard in enumerate(shards):
        if index in done:
            monitor.advance(Advance(prompts=len(shard), resumed=True))
            continue
        if not world.owns(next(left)):
            continue
        if monitor.should_stop():
            return False
        monitor.advance(_run_shard(job, index, shard))
    return True


def _run_shard(job: Job, index: int, shard: Sequence[TokenizedProblem]) -> Advance:
    """Sample, verify and score a shard, then write its rollouts and, last, its scores."""
    prompts = [Prompt(prompt_id=task.problem.prompt_id, token_ids=task.token_ids) for task in shard]
    groups = job.sampler.sample(prompts, job.settings)
    texts = [job.policy.decode(rollout.token_ids) for group in groups for rollout in group]
    answers = [
        task.problem.accepted_answers
        for task, group in zip(shard, groups, strict=True)
        for _ in group
    ]
    judged = zip(texts, job.verifier.verify(texts, answers), strict=True)
    rollouts: list[dict[str, object]] = []
    scores: list[dict[str, object]] = []
    for task, group in zip(shard, groups, strict=True):
        rows = [
            _rollout_row(job, task, rollout_id, completion, *next(judged))
            for rollout_id, completion in enumerate(group)
        ]
        rollouts += rows
        scores += _scored(job, task, group, [bool(row["correct"]) for row in rows])
    write_part(job.run_path, "rollouts", index, rollouts, overwrite=True)
    write_part(job.run_path, f"scores/{SCORE_ID}", index, scores, overwrite=True)
    return Advance(
        prompts=len(shard),
        completions=len(rollouts),
        correct=sum(bool(row["correct"]) for row in rollouts),
        tokens=sum(len(completion.token_ids) for group in groups for completion in group),
    )


def _rollout_row(
    job: Job,
    task: TokenizedProblem,
    rollout_id: int,
    completion: Completion,
    text: str,
    verdict: Verdict,
) -> dict[str, object]:
    return {
        "step": None,
        "prompt_id": task.problem.prompt_id,
        "rollout_id": rollout_id,
        "text": text,
        "token_ids": completion.token_ids,
        "sampler_logprobs": completion.logprobs,
        "finish_reason": completion.finish_reason,
        "reward": verdict.reward,
        "correct": verdict.correct,
        "extracted": verdict.extracted,
        "verifier": job.verifier.name,
        "verify_status": verdict.status,
        "ids_source": "sampled",
        "seed": job.config.seed,
    }


def _scored(
    job: Job, task: TokenizedProblem, group: Sequence[Completion], correct: Sequence[bool]
) -> list[dict[str, object]]:
    scores = score_group(
        job.policy,
        task.token_ids,
        [completion.token_ids for completion in group],
        correct,
        options=job.options,
        prompt_id=task.problem.prompt_id,
    )
    return score_rows(scores, task.problem.prompt_id)


def _finish(job: Job, manifest: Manifest) -> None:
    """The files that need every shard: tokens, score.json, the complete manifest."""
    ids: set[int] = set()
    for table in read_run(job.run_path).iter_completions(["token_ids"]):
        values, _ = list_values(table["token_ids"])
        ids.update(values.tolist())
    write_tokens(
        job.run_path,
        [
            {"token_id": token_id, "bytes": data, "text": text}
            for token_id, data, text in job.policy.token_rows(sorted(ids))
        ],
    )
    config = config_dict(job.config)
    info = {
        name: recorded(config[name])
        for name in (item.name for item in fields(ScoringConfig))
        if config[name] is not None
    }
    temperature = scoring_temperature(job.config.temperature)
    write_score_info(
        job.run_path,
        SCORE_ID,
        {
            **info,
            "score_id": SCORE_ID,
            "temperature": temperature,
            "versions": library_versions(),
        },
    )
    finish_run(job.run_path, manifest)
