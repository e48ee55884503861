"""From problems to a trace: sample groups, verify, probe, write; shard by shard.

A shard is `shard_prompts` consecutive problems. What it yields depends on the options and the
problems alone, so a run that was killed and resumed equals one that was not.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path

from thr_probe.config import CollectConfig, ScoringConfig, config_dict
from thr_probe.engine import Engine, engine_on_demand
from thr_probe.errors import UsageError
from thr_probe.groups import SampledGroup, sample_groups, write_token_table
from thr_probe.policy import AnyPolicy, Policy
from thr_probe.probe import GroupScores, ProbeOptions, score_group
from thr_probe.problems import (
    ProblemSet,
    Verifier,
    load_problems,
    load_verifier,
)
from thr_probe.processes import World
from thr_probe.progress import SILENT, Advance, Monitor
from thr_probe.prompts import (
    TokenizedProblem,
    default_template,
    longest_completion,
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
from thr_probe.sampling import Sampler, SamplingSettings, expect, rest
from thr_probe.score import (
    probe_options,
    recorded,
    score_rows,
    scoring_temperature,
)
from thr_probe.traces import (
    Manifest,
    check_room,
    create_run,
    finish_run,
    read_manifest,
    read_run,
    write_part,
    write_score_info,
)
from thr_probe.versions import library_versions


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Everything that a shard needs."""

    run_path: Path
    """The run being written."""
    config: CollectConfig
    """Its resolved options."""
    policy: AnyPolicy
    """Reads prompts, decodes completions, and scores."""
    sampler: Sampler
    """Generates the completions."""
    verifier: Verifier
    """Judges them."""
    settings: SamplingSettings
    """Of the sampler."""
    options: ProbeOptions
    """Of the probe."""


def collect(  # noqa: PLR0913  the last is for callers that collect several times
    config: CollectConfig,
    run_path: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    argv: Sequence[str] = (),
    monitor: Monitor = SILENT,
    load: Callable[[], Engine] | None = None,
) -> bool:
    """Sample, verify and score a problem set into a run directory.

    Args:
        config: the resolved options.
        run_path: the run directory to make, or to continue with `resume`.
        resume: continue an interrupted run; a complete one is left as it is.
        overwrite: replace a run that stands there.
        argv: the command line, for the manifest.
        monitor: told of every finished shard, and asked between shards whether to stop.
        load: gives policy and engine of the options, if they are needed; unset: `load_engine`,
            and they are closed at the end.

    Returns:
        Whether the run is complete.

    Raises:
        UsageError: a run that stands there already, options that do not fit, other options than
            those of the run to resume.
        DataError, PrerequisiteError: what is wrong with the problems, the policy or the trace.
    """
    world = World.from_environment()
    resuming = _resumes(run_path, config, world, resume=resume, overwrite=overwrite)
    if resuming and is_whole(run_path, config):
        read_run(run_path)
        return True
    with ExitStack() as stack:
        own = engine_on_demand(config, world, scores=config.score, given=load)
        engine = stack.enter_context(own)()
        problem_set = load_problems(
            config.dataset,
            template=config.template,
            question_column=config.question_column,
            answer_column=config.answer_column,
            max_prompts=config.max_prompts,
            tokenizer=engine.policy.tokenizer,
            default_template=default_template(config.model),
        )
        tasks, num_long = tokenized(
            problem_set,
            engine.policy,
            max_prompt_tokens=config.max_prompt_tokens,
            max_new_tokens=config.max_new_tokens,
        )
        job = _job(run_path, config, engine, tasks)
        stack.enter_context(job.verifier)
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


def _resumes(
    run_path: Path, config: CollectConfig, world: World, *, resume: bool, overwrite: bool
) -> bool:
    """Whether there is a run to continue; what could not be continued or started is refused."""
    if resume and overwrite:
        raise UsageError("--resume continues a run, --overwrite replaces it: choose one")
    resuming = resume and has_manifest(run_path)
    if resuming:
        check_same_options(run_path, config)
    elif world.is_first:
        check_room(run_path, overwrite=overwrite)  # before an engine takes its minute to start
    return resuming


def _job(
    run_path: Path, config: CollectConfig, engine: Engine, tasks: Sequence[TokenizedProblem]
) -> Job:
    limit = longest_completion(tasks, engine.policy, config.max_new_tokens)
    return Job(
        run_path=run_path,
        config=config,
        policy=engine.policy,
        sampler=engine.sampler,
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
    scored = job.config.score
    done = set(finished_shards(job.run_path, scored=scored)) if world.is_first else set()
    done = world.share(done)
    left = itertools.count()  # what is left of a resumed run is dealt out evenly
    size = job.config.shard_prompts
    monitor.begin(len(tasks))
    shards = [tasks[start : start + size] for start in range(0, len(tasks), size)]
    own = [index for index in range(len(shards)) if index not in done and world.owns(next(left))]
    for index, shard in enumerate(shards):
        if index in done:
            monitor.advance(Advance(prompts=len(shard), resumed=True))
        if index not in own:
            continue
        if monitor.should_stop():
            return False
        to_come = (task.prompt for later in own if later >= index for task in shards[later])
        expect(job.sampler, to_come, job.settings)
        monitor.advance(_run_shard(job, index, shard))
    return True


def _run_shard(job: Job, index: int, shard: Sequence[TokenizedProblem]) -> Advance:
    """Sample, verify and (where asked) score a shard; write its rollouts and, last, its scores."""
    groups = sample_groups(
        job.policy,
        job.sampler,
        job.verifier,
        shard,
        job.settings,
        truncated_wrong=job.config.truncated_wrong,
    )
    if job.config.score:
        rest(job.sampler)
    rollouts = [row for group in groups for row in group.rows(verifier=job.verifier.name)]
    scores = [_scored(job, group) for group in groups] if job.config.score else []
    write_part(job.run_path, "rollouts", index, rollouts, overwrite=True)
    if job.config.score:
        rows = [
            row
            for group, found in zip(groups, scores, strict=True)
            for row in score_rows(found, group.task.problem.prompt_id)
        ]
        write_part(job.run_path, f"scores/{SCORE_ID}", index, rows, overwrite=True)
    return Advance(
        prompts=len(shard),
        completions=len(rollouts),
        correct=sum(sum(group.correct) for group in groups),
        tokens=sum(group.num_tokens for group in groups),
        undecided=sum(found.num_undecided for found in scores),
    )


def _scored(job: Job, group: SampledGroup) -> GroupScores:
    assert isinstance(job.policy, Policy)
    return score_group(
        job.policy,
        group.task.token_ids,
        group.token_ids,
        group.correct,
        options=job.options,
        prompt_id=group.task.problem.prompt_id,
    )


def _finish(job: Job, manifest: Manifest) -> None:
    """The files that need every shard: tokens, score.json of a scored run, complete manifest."""
    write_token_table(job.run_path, job.policy)
    if job.config.score:
        _write_score_info(job)
    finish_run(job.run_path, manifest)


def _write_score_info(job: Job) -> None:
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
