"""What `collect --engine vllm --no-score` costs beyond a bare `LLM.generate` of the same prompts.

python benchmarks/engines.py             the lab's policy
python benchmarks/engines.py --random    a policy of 20 million random weights

Both take turns in one process, on one engine with one set of settings. The completions are compared
before a time is told. The bare call hands over all prompts at once; collect does so shard by shard,
and once more with all prompts in one shard. A third side has no seed per request.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from clocks import Seconds, now
from collect_sides import lab_tasks
from ratios import keep
from step_random_policy import save_random_policy
from tables import print_table, told

from thr_probe.collect import collect
from thr_probe.config import CollectConfig
from thr_probe.engine import Engine, load_engine
from thr_probe.errors import PrerequisiteError
from thr_probe.processes import World
from thr_probe.sampling import Prompt, SamplingSettings
from thr_probe.traces import read_run

RANDOM = {
    "vocab_size": 640,
    "hidden_size": 512,
    "intermediate_size": 1024,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
}
BARE, UNSEEDED = "LLM.generate", "the same without seeds"
WHOLE, ONE_SHARD = "collect --no-score", "the same, in one shard"
MISSING = 4


def main() -> int:
    """Run what the command line asks for; the exit code."""
    arguments = _arguments()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        model = "lab"
        if arguments.random:
            model = folder
            save_random_policy(Path(folder), RANDOM)
        config = CollectConfig(
            engine="vllm",
            model=model,
            template="lab",
            score=False,
            device="cpu",
            max_prompts=arguments.prompts,
            shard_prompts=arguments.shard_prompts,
            max_new_tokens=arguments.tokens,
        )
        try:
            engine = load_engine(config, World.from_environment(), scores=False)
        except PrerequisiteError as error:
            print(error, file=sys.stderr)
            return MISSING
        turns = _turns(config, engine, arguments.repeats)
        _print(turns)
        if arguments.ratios:
            keep(arguments.ratios, {"engines.vllm": statistics.median(_ratios(turns, WHOLE))})
        engine.sampler.close()
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--random", action="store_true", help="20 million random weights")
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--shard-prompts", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="half the problems, once")
    parser.add_argument("--ratios", help="JSON file to merge the ratios into")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.prompts, arguments.repeats = arguments.prompts // 2, 1
    return arguments


def _turns(config: CollectConfig, engine: Engine, repeats: int) -> list[dict[str, Seconds]]:
    """Every side once per repetition, in an order that rotates; the first round is not counted."""
    tasks = lab_tasks(engine.policy, config)
    prompts = [Prompt(prompt_id=task.problem.prompt_id, token_ids=task.token_ids) for task in tasks]
    whole = replace(config, shard_prompts=len(prompts))
    sides: list[tuple[str, Callable[[], Any]]] = [
        (BARE, lambda: _bare(config, engine, prompts, seeded=True)),
        (UNSEEDED, lambda: _bare(config, engine, prompts, seeded=False)),
        (WHOLE, lambda: _collected(config, engine)),
        (ONE_SHARD, lambda: _collected(whole, engine)),
    ]
    turns: list[dict[str, Seconds]] = []
    for index in range(-1, repeats):
        print(f"repetition {index}", file=sys.stderr)
        first = index % len(sides)
        found = {name: run() for name, run in sides[first:] + sides[:first]}
        drawn = [completions for name, (_, completions) in found.items() if name != UNSEEDED]
        assert all(each == drawn[0] for each in drawn), "the sides drew different completions"
        turns.append({name: taken for name, (taken, _) in found.items()})
    return turns[1:]


def _bare(
    config: CollectConfig, engine: Engine, prompts: Sequence[Prompt], *, seeded: bool
) -> tuple[Seconds, list[list[int]]]:
    """vLLM's own call: what is handed over is made before the clock starts."""
    sampler: Any = engine.sampler
    settings = SamplingSettings(
        group_size=config.group_size, max_new_tokens=config.max_new_tokens or 1, seed=config.seed
    )
    asked = [sampler.parameters(prompt, settings) for prompt in prompts]
    for each in asked if not seeded else ():
        each.seed = None
    given = [{"prompt_token_ids": list(prompt.token_ids)} for prompt in prompts]
    sampler.llm.reset_prefix_cache()
    began = now()
    found = sampler.llm.generate(given, asked, use_tqdm=False)
    taken = now() - began
    return taken, [list(output.token_ids) for each in found for output in each.outputs]


def _collected(config: CollectConfig, engine: Engine) -> tuple[Seconds, list[list[int]]]:
    """From the problems to the finished trace."""
    sampler: Any = engine.sampler
    sampler.llm.reset_prefix_cache()
    with tempfile.TemporaryDirectory() as folder:
        began = now()
        assert collect(config, Path(folder) / "run", load=lambda: engine)
        taken = now() - began
        tables = list(read_run(Path(folder) / "run").iter_completions(["token_ids"]))
    return taken, [ids for table in tables for ids in table["token_ids"].to_pylist()]


def _ratios(turns: Sequence[Mapping[str, Seconds]], side: str) -> list[float]:
    return [turn[side].wall / turn[BARE].wall for turn in turns]


def _print(turns: Sequence[Mapping[str, Seconds]]) -> None:
    rows = []
    for side in (BARE, UNSEEDED, WHOLE, ONE_SHARD):
        own = [turn[side] for turn in turns]
        rows.append([side, told([each.wall for each in own]), told([each.cpu for each in own])])
        rows[-1] += [
            told(_ratios(turns, side)),
            told([turn[side].cpu / turn[BARE].cpu for turn in turns]),
        ]
    print_table(["side", "wall s", "CPU s", "wall, ratio", "CPU, ratio"], rows)


if __name__ == "__main__":
    sys.exit(main())
