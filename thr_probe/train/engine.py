"""The training loop: GRPO and THR on torch, one process or FSDP2 under torchrun.

How it differs from the paper: old log-probabilities and THR are those of the weights that sampled,
recomputed by the trainer rather than taken from the sampler; advantages and masks stay fixed for
all updates of a step; the k3 term, which Equation 2 leaves out, is added with the paper's
coefficient; groups are resampled until enough have an advantage.

A step, in order: generate, verify, drop groups without advantage and resample; one no-grad pass per
group for old log-probability, entropy and THR; the advantage of every token; reference
log-probabilities; one update per mini-batch.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from thr_probe.config import config_dict
from thr_probe.errors import UsageError
from thr_probe.groups import write_token_table
from thr_probe.processes import World
from thr_probe.progress import SILENT_TRAINING, TrainMonitor
from thr_probe.prompts import problem_row
from thr_probe.resume import SCORE_ID, check_same_inputs, check_same_options, has_manifest
from thr_probe.sampling import closing, renew, rest
from thr_probe.traces import (
    RunStatus,
    create_run,
    finish_run,
    read_manifest,
    write_score_info,
)
from thr_probe.traces.metrics import truncate_metrics
from thr_probe.train.batches import mini_batches
from thr_probe.train.checkpoint import Trained, export_model, load_checkpoint, save_checkpoint
from thr_probe.train.clock import Clock
from thr_probe.train.config import TrainConfig
from thr_probe.train.log import Sinks
from thr_probe.train.module import push_weights
from thr_probe.train.record import peak_memory, step_record
from thr_probe.train.resolve import warnings_of
from thr_probe.train.rollouts import harvest
from thr_probe.train.scoring import score_group, set_ref_logprobs, set_token_advantages
from thr_probe.train.setup import TrainJob, prepare, score_info
from thr_probe.train.trace import truncate_parts
from thr_probe.train.updates import run_update
from thr_probe.train.validation import validate

FINAL_MODEL = "model"


def train(
    config: TrainConfig,
    run_path: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    argv: Sequence[str] = (),
    monitor: TrainMonitor = SILENT_TRAINING,
) -> bool:
    """Train a policy into a run directory.

    Args:
        config: the resolved options.
        run_path: the run directory to make, or to continue with `resume`.
        resume: go on from the newest checkpoint; a complete run is left as it is.
        overwrite: replace a run that stands there.
        argv: the command line, for the manifest.
        monitor: told of every step in the first process, and asked in every process between steps
            whether to stop.

    Returns:
        Whether all steps are done.

    Raises:
        UsageError: a run that stands there already, options that do not fit, other options than
            those of the run to resume.
        DataError, PrerequisiteError: what is wrong with the problems, the policy or the run.
        IncompleteError: too few groups with an advantage, a loss that is not a number; the last
            checkpoint stands.
    """
    if resume and overwrite:
        raise UsageError("--resume continues a run, --overwrite replaces it: choose one")
    world = World.from_environment()
    resuming = world.share(resume and has_manifest(run_path))
    if resuming:
        check_same_options(run_path, config)
        if read_manifest(run_path).status is RunStatus.COMPLETE:
            return True
    for sentence in warnings_of(config) if world.is_first else ():
        warnings.warn(sentence, stacklevel=2)
    job = prepare(config, run_path, world, argv=argv)
    with job.rollouts.verifier, closing(job.rollouts.sampler), world.told():
        return _run(job, monitor, resuming=resuming, overwrite=overwrite)


def _run(job: TrainJob, monitor: TrainMonitor, *, resuming: bool, overwrite: bool) -> bool:
    done = _restore(job) if resuming else _create(job, overwrite=overwrite)
    sinks = _sinks(job)
    told = monitor if job.world.is_first else SILENT_TRAINING
    try:
        told.begin(job.config.steps, done)
        if done == 0:
            _evaluate(job, 0, sinks, told)
        for step in range(done, job.config.steps):
            if any(job.world.gather(monitor.should_stop())):
                _save(job, step, told)
                return False
            record = run_step(job, step, told)
            if sinks is not None:
                sinks.step(record)
            told.step(record)
            finished = step + 1
            if _is_due(job.config.eval_every, finished, job.config.steps):
                _evaluate(job, finished, sinks, told)
            if _is_due(job.config.save_every, finished, job.config.steps):
                _save(job, finished, told)
    finally:
        if sinks is not None:
            sinks.close()
    _finish(job)
    return True


def run_step(
    job: TrainJob, step: int, monitor: TrainMonitor = SILENT_TRAINING
) -> dict[str, object]:
    """One step, from prompts to new weights; returns its record."""
    config, world = job.config, job.world
    clock = Clock(job.learner.device)
    p = job.steerer.p(step)
    monitor.phase("gen")
    with clock.measure("gen"):
        harvested = harvest(job.rollouts, job.stream, step)
        rest(job.rollouts.sampler)
    monitor.phase("old")
    traced = job.trace.stores(step)
    groups = [
        score_group(job.snapshot, group, config, clock, traced=traced) for group in harvested.groups
    ]
    with clock.measure("thr"):
        set_token_advantages(groups, config, p, step, world)
    if job.reference is not None:
        monitor.phase("ref")
        set_ref_logprobs(job.reference, groups, config, clock)
    if traced:
        job.trace.write(step, groups)
    monitor.phase("update")
    rate = learning_rate(config, step)
    for group in job.learner.optimizer.param_groups:
        group["lr"] = rate
    with clock.measure("update"):
        batches = mini_batches(groups, config, job.rollouts.settings.max_new_tokens, world)
        updates = [run_update(job.learner, batch, step=step) for batch in batches]
    renew_snapshot(job)
    numbers = step_record(harvested, groups, updates, config=config, world=world)
    job.steerer.observe(numbers["entropy"])
    timers = clock.record()
    return {
        "step": step,
        "p": p,
        "learning_rate": rate,
        **numbers,
        "tokens_per_second": numbers["tokens"] / timers["wall"],
        "peak_memory": max(world.gather(peak_memory(job.learner.device))),
        **timers,
    }


def renew_snapshot(job: TrainJob) -> None:
    """The trained weights to what samples and is probed, in every process."""
    push_weights(job.learner.module, job.snapshot)
    renew(job.rollouts.sampler)


def _is_due(every: int, finished: int, steps: int) -> bool:
    return finished == steps or (every > 0 and finished % every == 0)


def learning_rate(config: TrainConfig, step: int) -> float:
    """The rate of a step: it grows over the warm-up, then stays or falls in a line to 0."""
    rate = config.lr * min(1.0, (step + 1) / (config.warmup_steps + 1))
    if config.lr_decay == "linear" and step > config.warmup_steps:
        rate *= (config.steps - step) / (config.steps - config.warmup_steps)
    return rate


def _evaluate(job: TrainJob, finished: int, sinks: Sinks | None, monitor: TrainMonitor) -> None:
    if not job.validation:
        return
    monitor.phase("eval")
    numbers = validate(
        job.snapshot,
        job.rollouts.sampler,
        job.rollouts.verifier,
        job.validation,
        max_new_tokens=job.rollouts.settings.max_new_tokens,
        world=job.world,
    )
    record = {"step": finished, "dataset": job.config.validation, **numbers}
    if sinks is not None:
        sinks.evaluated(record)
    monitor.evaluated(record)


def _save(job: TrainJob, finished: int, monitor: TrainMonitor) -> None:
    monitor.phase("save")
    state = {
        "num_steps": finished,
        "stream": {"epoch": job.stream.epoch, "position": job.stream.position},
        "steerer": job.steerer.state(),
    }
    save_checkpoint(
        job.run_path,
        Trained(module=job.learner.module, optimizer=job.learner.optimizer),
        state,
        policy=job.snapshot,
        world=job.world,
        keep=job.config.keep_checkpoints,
    )


def _create(job: TrainJob, *, overwrite: bool) -> int:
    if job.world.is_first:
        create_run(
            job.run_path,
            manifest=job.manifest,
            config=config_dict(job.config),
            problems=[problem_row(task) for task in job.stream.tasks],
            overwrite=overwrite,
        )
        if job.config.trace_every:
            write_score_info(job.run_path, SCORE_ID, score_info(job))
    job.world.wait()
    return 0


def _restore(job: TrainJob) -> int:
    """Weights, optimiser, data cursor and p of the newest checkpoint; the finished steps."""
    check_same_inputs(job.run_path, job.manifest)
    trained = Trained(module=job.learner.module, optimizer=job.learner.optimizer)
    state = load_checkpoint(job.run_path, trained, world=job.world)
    done = 0
    if state is not None:
        done = int(str(state["num_steps"]))
        _go_on(job, state)
    renew_snapshot(job)
    if job.world.is_first:
        # with no step done the policy is evaluated again before the first
        truncate_metrics(job.run_path, done or -1)
        truncate_parts(job.run_path, job.trace.num_parts(done))
    job.world.wait()
    return done


def _go_on(job: TrainJob, state: dict[str, object]) -> None:
    stream, steerer = state["stream"], state["steerer"]
    assert isinstance(stream, dict)
    assert isinstance(steerer, dict)
    job.stream.epoch, job.stream.position = stream["epoch"], stream["position"]
    job.steerer.restore(steerer)


def _sinks(job: TrainJob) -> Sinks | None:
    """Where records go; in the first process only."""
    if not job.world.is_first:
        return None
    return Sinks(
        job.run_path,
        tensorboard=job.config.tensorboard,
        wandb=job.config.wandb,
        config=config_dict(job.config),
    )


def _finish(job: TrainJob) -> None:
    """The final model, the tokens of the trace, the complete manifest."""
    if job.world.is_first:
        export_model(job.run_path / FINAL_MODEL, job.snapshot)
        if job.config.trace_every:
            write_token_table(job.run_path, job.snapshot)
        # of a resumed run: what it was started with
        finish_run(job.run_path, read_manifest(job.run_path))
    job.world.wait()
