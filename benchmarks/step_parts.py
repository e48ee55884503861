"""Both sides' passes over the very same completions, turn by turn in one process. Needs TRL.

Called by train_step.py with a line of JSON; prints one.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from step_sizes import Sizes
from step_thr_probe import job_of
from step_trl import trainer_of
from torch import Tensor
from trl import GRPOTrainer

from thr_probe.sampling import Prompt
from thr_probe.train.batches import MiniBatch, Row, mini_batches
from thr_probe.train.clock import Clock
from thr_probe.train.rollouts import harvest
from thr_probe.train.scoring import (
    ScoredGroup,
    score_group,
    set_ref_logprobs,
    set_token_advantages,
)
from thr_probe.train.setup import TrainJob
from thr_probe.train.updates import run_update

TURNS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One step's completions as both sides read them."""

    job: TrainJob
    """thr_probe's side."""
    trainer: GRPOTrainer
    """TRL's side, same weights."""
    groups: Sequence[ScoredGroup]
    """The completions, scored."""
    batches: Sequence[MiniBatch]
    """thr_probe's mini-batches."""
    inputs: Sequence[dict[str, Tensor]]
    """The same for TRL."""


def main() -> None:
    """Time the parts of a step."""
    call = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    print(json.dumps(parts(Sizes(**call["sizes"]))))


def parts(sizes: Sizes) -> dict[str, list[tuple[float, float]]]:
    """Processor time of each part, (thr_probe, TRL) in every turn.

    Raises:
        AssertionError: the two sides' gradients differ, so that they did not do the same work.
    """
    with tempfile.TemporaryDirectory() as folder:
        scene = _scene(sizes, folder)
        _assert_same_gradients(scene)
        sides = {
            "update": (lambda: _our_updates(scene), lambda: _trl_updates(scene)),
            "old": (lambda: _our_pass(scene), lambda: _trl_pass(scene)),
            "gen": (lambda: _our_rollouts(scene), lambda: _trl_rollouts(scene)),
        }
        for pair in sides.values():
            _turn(pair)  # the first call of each is not counted
        return {name: [_turn(pair) for _ in range(TURNS)] for name, pair in sides.items()}


def _turn(pair: tuple[Callable[[], float], Callable[[], float]]) -> tuple[float, float]:
    """Processor time of each side, over what it returns: its share of the whole work."""
    taken = []
    for side in pair:
        before = time.process_time()
        work = side()
        taken.append((time.process_time() - before) / work)
    return taken[0], taken[1]


def _scene(sizes: Sizes, folder: str) -> Scene:
    # token-mean is the one aggregate that both have
    job = job_of(sizes, method="grpo", aggregate="token-mean")
    trainer = trainer_of(sizes, lambda completions, **_: [0.0] * len(completions), folder)
    trainer.create_optimizer()
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    clock = Clock(job.learner.device)
    with job.rollouts.verifier:
        harvested = harvest(job.rollouts, job.stream, 0)
    groups = [
        score_group(job.snapshot, group, job.config, clock, traced=False)
        for group in harvested.groups
    ]
    set_token_advantages(groups, job.config, 0.0, 0, job.world)
    assert job.reference is not None
    set_ref_logprobs(job.reference, groups, job.config, clock)
    batches = mini_batches(groups, job.config, sizes.max_new_tokens, job.world)
    # TRL pads to the longest of the whole step, then splits it
    widths = [
        max(len(ids) for batch in batches for row in batch.rows for ids in (pick(row),))
        for pick in (lambda row: row.prompt_ids, lambda row: row.token_ids)
    ]
    inputs = [_as_trl_has_it(batch.rows, *widths) for batch in batches]
    return Scene(job=job, trainer=trainer, groups=groups, batches=batches, inputs=inputs)


def _as_trl_has_it(rows: Sequence[Row], prompt: int, completion: int) -> dict[str, Tensor]:
    def padded(values: Sequence[Any], width: int, *, left: bool) -> Tensor:
        lines = [torch.as_tensor(value) for value in values]
        fills = [line.new_zeros(width - len(line)) for line in lines]
        pairs = zip(lines, fills, strict=True)
        return torch.stack(
            [torch.cat([fill, line] if left else [line, fill]) for line, fill in pairs]
        )

    ones = [torch.ones(len(row.prompt_ids), dtype=torch.long) for row in rows]
    own = [torch.ones(len(row.token_ids), dtype=torch.long) for row in rows]
    references = [row.ref_logprob_N for row in rows if row.ref_logprob_N is not None]
    return {
        "prompt_ids": padded([row.prompt_ids for row in rows], prompt, left=True),
        "prompt_mask": padded(ones, prompt, left=True),
        "completion_ids": padded([row.token_ids for row in rows], completion, left=False),
        "completion_mask": padded(own, completion, left=False),
        "advantages": torch.stack([row.advantage_N[0] for row in rows]).float(),
        "old_per_token_logps": padded([row.old_logprob_N for row in rows], completion, left=False),
        "ref_per_token_logps": padded(references, completion, left=False),
    }


def _assert_same_gradients(scene: Scene) -> None:
    """Before any update both sides' losses have the same gradient."""
    ours = run_update(scene.job.learner, scene.batches[0], step=0)
    theirs = _trl_update(scene, scene.inputs[0])
    torch.testing.assert_close(torch.tensor(ours.grad_norm), theirs, rtol=1e-3, atol=0)


def _our_updates(scene: Scene) -> float:
    for batch in scene.batches:
        run_update(scene.job.learner, batch, step=0)
    return 1.0


def _trl_updates(scene: Scene) -> float:
    for inputs in scene.inputs:
        _trl_update(scene, inputs)
    return 1.0


def _trl_update(scene: Scene, inputs: dict[str, Tensor]) -> Tensor:
    """What Trainer does with a batch, without its loop; the norm of the gradient."""
    trainer = scene.trainer
    trainer.compute_loss(trainer.model, inputs).backward()
    norm = torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), trainer.args.max_grad_norm)
    trainer.optimizer.step()
    trainer.model.zero_grad()
    return norm


def _our_pass(scene: Scene) -> float:
    job = scene.job
    clock = Clock(job.learner.device)
    for scored in scene.groups:
        score_group(job.snapshot, scored.group, job.config, clock, traced=False)
    return 1.0


@torch.no_grad()
def _trl_pass(scene: Scene) -> float:
    trainer = scene.trainer
    for inputs in scene.inputs:
        trainer._get_per_token_logps_and_entropies(
            trainer.model,
            torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1),
            torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1),
            inputs["completion_ids"].shape[1],
        )
    return 1.0


def _our_rollouts(scene: Scene) -> float:
    """Tokens drawn, as a share of the step's: the draws differ, so time is told per token."""
    rollouts = scene.job.rollouts
    prompts = [
        Prompt(prompt_id=scored.group.task.problem.prompt_id, token_ids=scored.group.task.token_ids)
        for scored in scene.groups
    ]
    drawn = rollouts.sampler.sample(prompts, rollouts.settings)
    return _share(scene, sum(len(item.token_ids) for group in drawn for item in group))


def _trl_rollouts(scene: Scene) -> float:
    size = scene.job.config.group_size
    prompts = [scored.group.task.token_ids for scored in scene.groups for _ in range(size)]
    ids, _ = scene.trainer._generate_single_turn(prompts, None, {}, size)
    return _share(scene, sum(map(len, ids)))


def _share(scene: Scene, tokens: int) -> float:
    return tokens / sum(int(scored.lengths_G.sum()) for scored in scene.groups)


if __name__ == "__main__":
    main()
