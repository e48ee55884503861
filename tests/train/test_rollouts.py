"""Dynamic sampling: groups without advantage are dropped, the same for any number of processes."""

from __future__ import annotations

import pytest
import torch
from rank_threads import StartsWith, on_threads
from tiny_models import tiny_policy

from thr_probe.core.advantages import group_advantages, pass_at_k_advantages
from thr_probe.errors import IncompleteError
from thr_probe.problems import Problem
from thr_probe.processes import World
from thr_probe.prompts import TokenizedProblem
from thr_probe.sampling import Completion, FinishReason, SamplingSettings
from thr_probe.train.rollouts import PromptStream, RolloutJob, draw_seed, harvest

ALONE = World(rank=0, size=1, local_rank=0)
POLICY = tiny_policy()
[ONE] = POLICY.tokenizer.encode("1")
[ZERO] = POLICY.tokenizer.encode("0")
GROUP_SIZE = 4


class CountSampler:
    """Of the group of prompt n, `right(n, seed)` completions are right; notes what it was asked."""

    name = "count"

    def __init__(self, right):
        self.right = right
        self.asked = []

    def sample(self, prompts, settings):
        self.asked.append(([prompt.token_ids[0] for prompt in prompts], settings))
        return [self.group(prompt.token_ids[0], settings.seed) for prompt in prompts]

    def group(self, number, seed):
        right = self.right(number, seed)
        return [
            Completion(
                token_ids=(ONE if place < right else ZERO, *[ZERO] * (number % 3)),
                logprobs=(0.0,) * (1 + number % 3),
                finish_reason=FinishReason.STOP,
            )
            for place in range(GROUP_SIZE)
        ]


def tasks(count):
    return [
        TokenizedProblem(
            problem=Problem(
                prompt_id=f"p{number}",
                dataset="list",
                level=None,
                question=f"{number}?",
                prompt_text=f"{number}?",
                answer="1",
            ),
            token_ids=[number],
        )
        for number in range(count)
    ]


def job(right, *, prompts=4, first=None, max_rounds=10, world=ALONE, advantage=group_advantages):
    return RolloutJob(
        policy=POLICY,
        sampler=CountSampler(right),
        verifier=StartsWith(),
        settings=SamplingSettings(group_size=GROUP_SIZE, max_new_tokens=8, seed=5),
        advantage=advantage,
        prompts=prompts,
        first_prompts=first or prompts,
        max_rounds=max_rounds,
        world=world,
    )


def stream(count, **options):
    return PromptStream(tasks=tasks(count), seed=3, **options)


def some(number, seed):
    """A third of the prompts all wrong, a sixth all right."""
    return (0, 1, 2, 0, 3, 4)[number % 6]


def ids(votes):
    return [vote.prompt_id for vote in votes]


def on_ranks(size, right, count, **options):
    return on_threads(
        size, lambda world: harvest(job(right, world=world, **options), stream(count), 7)
    )


def test_groups_without_advantage_are_dropped_and_others_sampled_until_there_are_enough():
    asked = job(some, prompts=8)
    yielded = harvest(asked, stream(60), 0)
    assert len(yielded.kept) == len(yielded.groups) == 8
    assert [group.order for group in yielded.groups] == list(range(8))
    assert all(0 < sum(group.correct) < GROUP_SIZE for group in yielded.groups)
    assert ids(yielded.kept) == [group.task.problem.prompt_id for group in yielded.groups]
    assert ids(yielded.kept) == [v.prompt_id for v in yielded.generated if v.is_useful][:8]
    assert len(set(ids(yielded.generated))) == len(yielded.generated) > 8
    assert yielded.rounds == len(asked.sampler.asked) > 1


def test_votes_and_groups_say_what_was_sampled():
    yielded = harvest(job(lambda number, _: number % 3 + 1, prompts=3), stream(3), 0)
    for group, vote in zip(yielded.groups, yielded.kept, strict=True):
        [number] = group.task.token_ids
        assert (vote.num_correct, vote.size) == (number % 3 + 1, GROUP_SIZE)
        assert vote.reward == (number % 3 + 1) / GROUP_SIZE
        assert vote.tokens == GROUP_SIZE * (1 + number % 3)
        expected_G = group_advantages(torch.tensor(group.correct))
        torch.testing.assert_close(group.advantage_G, expected_G, rtol=0, atol=0)


def test_what_goes_beyond_the_groups_needed_is_dropped():
    yielded = harvest(job(some, prompts=7, first=30), stream(60), 0)
    useful = [vote for vote in yielded.generated if vote.is_useful]
    assert len(useful) > 7
    assert yielded.kept == useful[:7]
    assert (yielded.rounds, len(yielded.generated), len(yielded.groups)) == (1, 30, 7)


@pytest.mark.parametrize("size", [2, 3, 5])
def test_any_number_of_processes_keeps_the_same_groups_in_the_same_order(size):
    alone = harvest(job(some, prompts=8), stream(40), 7)
    parts = on_ranks(size, some, 40, prompts=8)
    for part in parts:
        assert (part.kept, part.generated, part.rounds) == (
            alone.kept,
            alone.generated,
            alone.rounds,
        )
    together = sorted((group for part in parts for group in part.groups), key=lambda g: g.order)
    assert [group.order for group in together] == list(range(8))
    for one, other in zip(together, alone.groups, strict=True):
        assert one.task == other.task
        assert one.completions == other.completions


def test_more_processes_than_prompts_leave_some_without_groups():
    parts = on_ranks(5, lambda *_: 1, 10, prompts=2)
    assert sorted(len(part.groups) for part in parts) == [0, 0, 0, 1, 1]


@pytest.mark.parametrize(
    ("right", "words"),
    [(0, "0 groups all correct, 12 all wrong"), (4, "12 groups all correct, 0 all wrong")],
)
def test_uniform_groups_end_after_the_rounds_allowed(right, words):
    with pytest.raises(IncompleteError) as caught:
        harvest(job(lambda *_: right, prompts=4, max_rounds=3), stream(30), 2)
    assert caught.value.message == (
        "step 2: 0 of the 4 groups needed have an advantage, after 3 rounds and 12 prompts "
        f"({words})"
    )
    assert "--max-gen-batches" in (caught.value.hint or "")


def test_without_a_limit_uniform_groups_end_once_every_problem_was_tried():
    asked = job(lambda *_: 0, prompts=4, max_rounds=0)
    with pytest.raises(IncompleteError, match="after 3 rounds and 10 prompts"):
        harvest(asked, stream(10), 0)


def test_without_a_limit_a_second_epoch_is_tried_as_long_as_groups_are_found():
    seen = set()

    def later(number, seed):
        # every prompt fails the first time; half of them get there the second time
        known = number in seen
        seen.add(number)
        return 1 if number == 0 or (known and number < 5) else 0

    yielded = harvest(job(later, prompts=2, max_rounds=0), stream(10), 0)
    assert len(yielded.kept) == 2
    assert len(set(ids(yielded.kept))) == 2


def test_without_a_limit_too_few_problems_end_once_the_rest_was_tried_in_vain():
    with pytest.raises(IncompleteError, match=r"1 of the 4 groups needed"):
        harvest(job(lambda number, _: int(number == 3), prompts=4, max_rounds=0), stream(10), 0)


def test_a_problem_is_not_used_twice_in_a_step():
    with pytest.raises(
        IncompleteError, match=r"3 of the 4 groups needed have an advantage, after 1"
    ):
        harvest(job(lambda *_: 1, prompts=4), stream(3), 0)
    crossing = stream(6, position=4)
    yielded = harvest(job(lambda *_: 1, prompts=5), crossing, 0)
    assert len(set(ids(yielded.kept))) == 5
    assert crossing.epoch == 1


def test_an_epoch_that_holds_only_used_problems_is_no_round():
    prompts = stream(3)
    first = [task.problem.prompt_id for task in prompts.take(2, set())]
    last = {task.problem.prompt_id for task in prompts.tasks} - set(first)
    taken = prompts.take(2, last)
    assert sorted(task.problem.prompt_id for task in taken) == sorted(first)
    assert prompts.epoch == 1
    assert prompts.take(1, {"p0", "p1", "p2"}) == []


def test_every_epoch_holds_every_problem_once_in_another_order():
    prompts = stream(20)
    epochs = [[task.token_ids[0] for task in prompts.take(20, set())] for _ in range(3)]
    assert all(sorted(epoch) == list(range(20)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    other = PromptStream(tasks=tasks(20), seed=4)
    assert [task.token_ids[0] for task in other.take(20, set())] != epochs[0]


def test_a_stream_goes_on_from_its_epoch_and_position():
    first = stream(10)
    for step in range(3):
        harvest(job(some, prompts=2), first, step)
    resumed = stream(10, epoch=first.epoch, position=first.position)
    for step in range(3, 8):
        one = harvest(job(some, prompts=2), first, step)
        other = harvest(job(some, prompts=2), resumed, step)
        assert one.kept == other.kept
    assert (first.epoch, first.position) == (resumed.epoch, resumed.position)
    assert first.epoch > 1


def test_pure_pass_at_k_drops_groups_with_fewer_wrong_completions_than_k():
    def pure(correct_G):
        return pass_at_k_advantages(correct_G, 2)

    def right(number, _seed):
        return number % 5

    asked = job(right, prompts=4, advantage=pure)
    yielded = harvest(asked, stream(30), 0)
    assert {vote.num_correct for vote in yielded.kept} <= {1, 2}
    assert not any(v.is_useful for v in yielded.generated if v.num_correct in {0, 3, 4})


def test_every_round_of_every_step_draws_anew():
    seeds = {draw_seed(seed, step, r) for seed in (0, 1) for step in range(3) for r in range(3)}
    assert len(seeds) == 18
    assert all(0 <= seed < 2**63 for seed in seeds)
    asked = job(some, prompts=8)
    harvest(asked, stream(60), 4)
    settings = [settings for _, settings in asked.sampler.asked]
    assert [setting.seed for setting in settings] == [
        draw_seed(5, 4, number) for number in range(len(settings))
    ]
