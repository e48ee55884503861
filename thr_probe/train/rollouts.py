"""The rollouts of one step: generate, verify, drop groups without advantage, resample."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from thr_probe.errors import IncompleteError
from thr_probe.groups import SampledGroup, sample_groups
from thr_probe.policy import Policy
from thr_probe.problems import Verifier
from thr_probe.processes import World
from thr_probe.prompts import TokenizedProblem
from thr_probe.sampling import Sampler, SamplingSettings

CompletionAdvantage = Callable[[Bool[Tensor, " G"]], Float[Tensor, " G"]]

SPARE = 1.1
"""Prompts of a further round over those that are expected to be needed."""


@dataclass(slots=True, kw_only=True)
class PromptStream:
    """The training problems in an endless stream: one permutation per epoch, keyed by the seed."""

    tasks: Sequence[TokenizedProblem]
    """The problems."""
    seed: int
    """Of the permutations."""
    epoch: int = 0
    """Which permutation."""
    position: int = 0
    """Next place in it."""

    def take(self, count: int, used: set[str]) -> list[TokenizedProblem]:
        """The next `count` problems that are not in `used`, fewer at the end of an epoch.

        A round never crosses from one epoch to the next, so it holds no problem twice. It is empty
        only where every problem is in `used`.
        """
        taken = self._take_in_epoch(count, used)
        if not taken:
            self.epoch, self.position = self.epoch + 1, 0
            taken = self._take_in_epoch(count, used)
        return taken

    def _take_in_epoch(self, count: int, used: set[str]) -> list[TokenizedProblem]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(len(self.tasks))
        taken: list[TokenizedProblem] = []
        while len(taken) < count and self.position < len(order):
            task = self.tasks[order[self.position]]
            self.position += 1
            if task.problem.prompt_id not in used:
                taken.append(task)
        return taken


@dataclass(slots=True, kw_only=True)
class Group(SampledGroup):
    """The rollouts of one prompt on the process that owns them."""

    order: int
    """Place among the step's kept groups, over all processes; decides the mini-batch."""
    advantage_G: Float[Tensor, " G"]
    """Advantage of each completion, before any weight on tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """What the other processes need to know of a generated group."""

    place: int
    """Place in the round."""
    prompt_id: str
    """Its prompt."""
    num_correct: int
    """Correct completions."""
    size: int
    """Completions."""
    reward: float
    """Mean reward."""
    tokens: int
    """Completion tokens."""
    is_useful: bool
    """Whether any completion has an advantage other than 0."""


@dataclass(slots=True, kw_only=True)
class Harvest:
    """The rollouts of one step."""

    groups: list[Group] = field(default_factory=list)
    """Kept groups of this process, in their order."""
    kept: list[Vote] = field(default_factory=list)
    """Kept groups of all processes."""
    generated: list[Vote] = field(default_factory=list)
    """Every generated group of all processes, those dropped included."""
    rounds: int = 0
    """Rounds of generation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutJob:
    """What generating needs, the same in every step."""

    policy: Policy
    """The snapshot."""
    sampler: Sampler
    """Samples from it."""
    verifier: Verifier
    """Judges."""
    settings: SamplingSettings
    """Group size, temperature, limit; the seed of the whole run."""
    advantage: CompletionAdvantage
    """The rule for completions."""
    prompts: int
    """Groups to keep per step, over all processes."""
    first_prompts: int
    """Prompts of the first round: a few more than are kept save a second one."""
    max_rounds: int
    """Rounds of generation until giving up; 0: any number, as long as some problem that could
    still be used was not tried since the last group was kept."""
    world: World
    """The processes."""


def harvest(job: RolloutJob, stream: PromptStream, step: int) -> Harvest:
    """Generate until enough groups have an advantage (METHOD 5.6, dynamic sampling).

    Every round deals the next prompts of the stream to the processes; groups are kept in the order
    of the stream, whatever the number of processes. What is generated beyond the last group needed
    is dropped.

    Raises:
        IncompleteError: the rounds allowed did not yield enough groups.
    """
    yielded = Harvest()
    while len(yielded.kept) < job.prompts:
        used = {vote.prompt_id for vote in yielded.kept}
        tried = used if job.max_rounds else used | _tried_in_vain(yielded)
        rounds_are_over = 0 < job.max_rounds <= yielded.rounds
        if rounds_are_over or len(tried) == len(stream.tasks):
            raise _exhausted(job, yielded, step)
        tasks = stream.take(_round_size(job, yielded), used)
        _add_round(job, yielded, tasks, step)
    return yielded


def _tried_in_vain(yielded: Harvest) -> set[str]:
    """Prompts whose groups were dropped since the last one was kept."""
    dropped = itertools.takewhile(lambda vote: not vote.is_useful, reversed(yielded.generated))
    return {vote.prompt_id for vote in dropped}


def _round_size(job: RolloutJob, yielded: Harvest) -> int:
    """Prompts of the next round: as many as the share kept so far makes necessary."""
    missing = job.prompts - len(yielded.kept)
    if not yielded.kept:
        return job.first_prompts
    share = len(yielded.kept) / len(yielded.generated)
    return min(job.prompts, math.ceil(SPARE * missing / share))


def _add_round(
    job: RolloutJob, yielded: Harvest, tasks: Sequence[TokenizedProblem], step: int
) -> None:
    own = range(job.world.rank, len(tasks), job.world.size)
    groups = _generate(job, [tasks[place] for place in own], step, yielded.rounds)
    votes = [_vote(place, group) for place, group in zip(own, groups, strict=True)]
    listed = [vote for part in job.world.gather(votes) for vote in part]
    listed.sort(key=lambda vote: vote.place)
    own_groups = dict(zip(own, groups, strict=True))
    for vote in listed:
        if vote.is_useful and len(yielded.kept) < job.prompts:
            if vote.place in own_groups:
                group = own_groups[vote.place]
                group.order = len(yielded.kept)
                yielded.groups.append(group)
            yielded.kept.append(vote)
    yielded.generated += listed
    yielded.rounds += 1


def _generate(
    job: RolloutJob, tasks: Sequence[TokenizedProblem], step: int, round_number: int
) -> list[Group]:
    """Sample and verify the groups of some prompts."""
    settings = replace(job.settings, seed=draw_seed(job.settings.seed, step, round_number))
    sampled = sample_groups(job.policy, job.sampler, job.verifier, tasks, settings)
    return [
        Group(
            task=group.task,
            completions=group.completions,
            texts=group.texts,
            verdicts=group.verdicts,
            seed=group.seed,
            order=-1,
            advantage_G=job.advantage(torch.tensor(group.correct)),
        )
        for group in sampled
    ]


def draw_seed(seed: int, step: int, round_number: int) -> int:
    """Seed of the draws of one round: another for every round of every step."""
    digest = hashlib.sha256(f"{seed}/{step}/{round_number}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _vote(place: int, group: Group) -> Vote:
    return Vote(
        place=place,
        prompt_id=group.task.problem.prompt_id,
        num_correct=sum(group.correct),
        size=len(group.verdicts),
        reward=sum(verdict.reward for verdict in group.verdicts) / len(group.verdicts),
        tokens=group.num_tokens,
        is_useful=bool((group.advantage_G != 0).any()),
    )


def _exhausted(job: RolloutJob, yielded: Harvest, step: int) -> IncompleteError:
    right = sum(vote.num_correct == vote.size for vote in yielded.generated)
    wrong = sum(vote.num_correct == 0 for vote in yielded.generated)
    return IncompleteError(
        f"step {step}: {len(yielded.kept)} of the {job.prompts} groups needed have an advantage, "
        f"after {yielded.rounds} rounds and {len(yielded.generated)} prompts ({right} groups all "
        f"correct, {wrong} all wrong)",
        "take problems that the policy solves sometimes, a larger --group-size, fewer --prompts, "
        "or raise --max-gen-batches",
    )
