"""The sides of the comparison in `collect.py`: the bare sampler, and collect around it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

from clocks import Seconds, now

import thr_probe.collect
from thr_probe.collect import collect
from thr_probe.config import CollectConfig
from thr_probe.engine import Engine
from thr_probe.policy import Policy
from thr_probe.problems import MathVerifier, load_problems
from thr_probe.prompts import TokenizedProblem, longest_completion, tokenized
from thr_probe.sampling import Prompt, SamplingSettings
from thr_probe.sampling.hf import TransformersSampler
from thr_probe.traces import read_run

SAMPLING = "sampling"
PARTS: Mapping[str, Sequence[tuple[Any, str]]] = {
    SAMPLING: [(TransformersSampler, "sample")],
    "decoding": [(Policy, "decode")],
    "verification": [(MathVerifier, "verify")],
    "replay and THR": [(thr_probe.collect, "score_group")],
    "trace": [
        (thr_probe.collect, name)
        for name in ("_create", "write_part", "write_token_table", "finish_run")
    ],
    "problems": [(thr_probe.collect, "load_problems"), (thr_probe.collect, "tokenized")],
}
"""Parts of collect and the functions that do them; none calls one of another part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """One side of one repetition."""

    whole: Seconds
    """Of all it did."""
    parts: Mapping[str, Seconds]
    """Of each part of collect."""
    completions: Sequence[Sequence[int]]
    """What was drawn."""

    @property
    def beyond_sampling(self) -> Seconds:
        """What collect spent outside of its sampler."""
        return self.whole - self.parts[SAMPLING]

    @property
    def rest(self) -> Seconds:
        """What collect spent in none of the parts."""
        return self.whole - sum(self.parts.values(), Seconds())


def lab_tasks(policy: Policy, config: CollectConfig) -> list[TokenizedProblem]:
    """The problems of a run, as collect reads them."""
    problems = load_problems(config.dataset, template="lab", max_prompts=config.max_prompts)
    tasks, _ = tokenized(
        problems, policy, max_prompt_tokens=config.max_prompt_tokens, max_new_tokens=None
    )
    return tasks


def sampled(policy: Policy, config: CollectConfig) -> Taken:
    """The sampler alone: collect's prompts in collect's shards."""
    tasks = lab_tasks(policy, config)
    settings = SamplingSettings(
        group_size=config.group_size,
        max_new_tokens=longest_completion(tasks, policy, None),
        seed=config.seed,
    )
    prompts = [Prompt(prompt_id=task.problem.prompt_id, token_ids=task.token_ids) for task in tasks]
    size = config.shard_prompts
    shards = [prompts[first : first + size] for first in range(0, len(prompts), size)]
    sampler = TransformersSampler(policy=policy, batch_tokens=config.batch_tokens)
    begin = now()
    groups = [group for shard in shards for group in sampler.sample(shard, settings)]
    whole = now() - begin
    drawn = [list(each.token_ids) for group in groups for each in group]
    return Taken(whole=whole, parts={}, completions=drawn)


def collected(policy: Policy, config: CollectConfig, *, score: bool) -> Taken:
    """Collect, from the problems to the finished trace."""
    sampler = TransformersSampler(policy=policy, batch_tokens=config.batch_tokens)
    engine = Engine(policy=policy, sampler=sampler)
    with tempfile.TemporaryDirectory() as folder, _clocks() as parts:
        path = Path(folder) / "run"
        begin = now()
        collect(replace(config, score=score), path, load=lambda: engine)
        whole = now() - begin
        tables = list(read_run(path).iter_completions(["token_ids"]))
    drawn = [ids for table in tables for ids in table["token_ids"].to_pylist()]
    return Taken(whole=whole, parts=parts, completions=drawn)


@contextmanager
def _clocks() -> Iterator[dict[str, Seconds]]:
    """What each part takes while the context lasts."""
    spent = dict.fromkeys(PARTS, Seconds())

    def clocked(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            begin = now()
            result = function(*arguments, **options)
            spent[part] += now() - begin
            return result

        return call

    with ExitStack() as stack:
        for part, places in PARTS.items():
            for owner, name in places:
                replaced = clocked(part, getattr(owner, name))
                stack.enter_context(mock.patch.object(owner, name, replaced))
        yield spent
