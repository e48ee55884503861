"""thr_probe's side: the steps of `thr-probe train`, with dynamic sampling off.

Called by train_step.py with a line of JSON; prints one.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from step_sizes import PHASES, Report, Sizes, Step, peak_rss

from thr_probe.processes import World
from thr_probe.train.engine import run_step
from thr_probe.train.resolve import resolve_train
from thr_probe.train.rollouts import CompletionAdvantage
from thr_probe.train.setup import TrainJob, prepare

HARDLY_ANY = 1e-30
"""Advantage of the completions of a group that has none. TRL trains on such groups too, so here
they are kept: with an advantage that is not zero, and that no float32 gradient notices."""


def main() -> None:
    """Time the steps that the command line's JSON asks for."""
    call = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    print(report(Sizes(**call["sizes"]), call["side"]).to_json())


def report(sizes: Sizes, method: str) -> Report:
    """Time some steps of a method."""
    job = job_of(sizes, method=method)
    with job.rollouts.verifier:
        loaded = peak_rss()
        steps = [_timed(job, step) for step in range(1 + sizes.steps)]
    return Report(steps=steps[1:], loaded=loaded, peak=_peak(job))


def job_of(sizes: Sizes, **options: object) -> TrainJob:
    """A training run of these sizes, before its first step."""
    flags = {
        "preset": "lab",
        "model": sizes.model,
        "template": "lab",
        "device": sizes.device,
        "dtype": sizes.dtype,
        "verifier": sizes.verifier,
        "prompts": sizes.prompts,
        "gen_prompts": sizes.prompts,
        "group_size": sizes.group_size,
        "mini_batch": sizes.prompts // sizes.updates,
        "max_new_tokens": sizes.max_new_tokens,
        "lr": sizes.lr,
        "lr_decay": "none",
        "warmup_steps": 0,
        "kl_coef": sizes.kl_coef,
        "chunk_size": sizes.chunk_size,
        "seed": sizes.seed,
        "trace_every": 0,
        "verify_workers": 1,
        "validation_prompts": 1,
        **options,
    }
    config, _ = resolve_train(flags, environment={})
    job = prepare(config, Path("never-written"), World.from_environment())
    advantage = every_group_counts(job.rollouts.advantage)
    return replace(job, rollouts=replace(job.rollouts, advantage=advantage))


def every_group_counts(rule: CompletionAdvantage) -> CompletionAdvantage:
    """The same rule, but no group is dropped for lack of an advantage."""

    def advantage(correct_G: torch.Tensor) -> torch.Tensor:
        advantage_G = rule(correct_G)
        if bool((advantage_G != 0).any()):
            return advantage_G
        return torch.full_like(advantage_G, HARDLY_ANY)

    return advantage


def _timed(job: TrainJob, step: int) -> Step:
    seconds, cpu = time.perf_counter(), time.process_time()
    record = run_step(job, step)
    return Step(
        seconds=time.perf_counter() - seconds,
        cpu=time.process_time() - cpu,
        tokens=int(str(record["tokens"])),
        phases={phase: float(str(record[phase])) for phase in PHASES},
    )


def _peak(job: TrainJob) -> int:
    if job.learner.device.type == "cuda":
        return torch.cuda.max_memory_allocated(job.learner.device)
    return peak_rss()


if __name__ == "__main__":
    main()
