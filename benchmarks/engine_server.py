"""What `collect --engine openai --no-score` costs beyond a bare loop of the same requests.

python benchmarks/engine_server.py                         a server that only waits, as a busy one
python benchmarks/engine_server.py --base-url http://...   a real one, on the lab's policy

The bare loop posts the bodies that collect posts, as many at once, over the same HTTP client, and
keeps what comes back; both take turns. A third side has collect sample shard by shard, without
beginning with the next prompts early. Where the server gives the same completions for the same
seeds, they are compared before a time is told.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from clocks import Seconds, now
from ratios import keep
from tables import print_table, told

import thr_probe.collect
from thr_probe.collect import collect
from thr_probe.config import CollectConfig
from thr_probe.engine import load_engine
from thr_probe.processes import World
from thr_probe.sampling.openai import OpenAISampler
from thr_probe.sampling.server import Server

BARE, WHOLE, BY_SHARD = "the requests alone", "collect --no-score", "the same, shard by shard"


def main() -> int:
    """Run what the command line asks for; the exit code."""
    arguments = _arguments()
    torch.set_num_threads(1)
    if arguments.base_url:
        return _compare(arguments, arguments.base_url)
    server = Path(__file__).with_name("engine_waiting.py")
    with subprocess.Popen([sys.executable, str(server)], stdout=subprocess.PIPE, text=True) as own:
        assert own.stdout is not None
        try:
            return _compare(arguments, own.stdout.readline().strip())
        finally:
            own.terminate()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--base-url", help="of a server with the lab's policy")
    parser.add_argument("--prompts", type=int, default=128)
    parser.add_argument("--shard-prompts", type=int, default=32)
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="half the problems, once")
    parser.add_argument("--ratios", help="JSON file to merge the ratios into")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.prompts, arguments.repeats = arguments.prompts // 2, 1
    return arguments


def _compare(arguments: argparse.Namespace, base_url: str) -> int:
    config = CollectConfig(
        engine="openai",
        base_url=base_url,
        score=False,
        device="cpu",
        max_prompts=arguments.prompts,
        shard_prompts=arguments.shard_prompts,
        concurrency=arguments.concurrency,
        max_new_tokens=160,
    )
    engine = load_engine(config, World.from_environment(), scores=False)
    bodies = _bodies(config, engine)
    sampler = engine.sampler
    assert isinstance(sampler, OpenAISampler)
    sides: list[tuple[str, Callable[[], Seconds]]] = [
        (BARE, lambda: _bare(sampler.server, bodies, config)),
        (WHOLE, lambda: _collected(config, engine)),
        (BY_SHARD, lambda: _by_shard(config, engine)),
    ]
    turns = []
    for index in range(arguments.repeats):
        print(f"repetition {index}", file=sys.stderr)
        first = index % len(sides)
        turns.append({name: run() for name, run in sides[first:] + sides[:first]})
    _print(turns, len(bodies))
    if arguments.ratios:
        keep(arguments.ratios, {"engine.server": _ratio(turns, WHOLE)})
    return 0


def _bodies(config: CollectConfig, engine: Any) -> list[Mapping[str, Any]]:
    """The requests of a run; a warm-up at the same time."""
    kept: list[Mapping[str, Any]] = []
    complete = Server.complete

    def recorded(server: Server, body: Mapping[str, Any], **options: Any) -> dict[str, Any]:
        kept.append(body)
        return complete(server, body, **options)

    with mock.patch.object(Server, "complete", recorded):
        _collected(config, engine)
    bodies = [body for body in kept if body["max_tokens"] == config.max_new_tokens]
    assert len(bodies) == config.max_prompts
    return bodies


def _bare(server: Server, bodies: Sequence[Mapping[str, Any]], config: CollectConfig) -> Seconds:
    """Post them, as many at once as collect does."""
    url = f"{server.address}/completions"

    def post(body: Mapping[str, Any]) -> Any:
        response = server.client.post(url, json=body)
        response.raise_for_status()
        return response.json()

    began = now()
    with ThreadPoolExecutor(config.concurrency) as threads:
        answers = list(threads.map(post, bodies))
    assert all(len(answer["choices"]) == config.group_size for answer in answers)
    return now() - began


def _collected(config: CollectConfig, engine: Any) -> Seconds:
    with tempfile.TemporaryDirectory() as folder:
        began = now()
        assert collect(config, Path(folder) / "run", load=lambda: engine)
        return now() - began


def _by_shard(config: CollectConfig, engine: Any) -> Seconds:
    with mock.patch.object(thr_probe.collect, "expect"):
        return _collected(config, engine)


def _ratio(turns: Sequence[Mapping[str, Seconds]], side: str) -> float:
    return statistics.median(turn[side].wall / turn[BARE].wall for turn in turns)


def _print(turns: Sequence[Mapping[str, Seconds]], requests: int) -> None:
    print(f"\n{requests} requests")
    rows = []
    for side in (BARE, WHOLE, BY_SHARD):
        own = [turn[side] for turn in turns]
        over = [turn[side].wall / turn[BARE].wall for turn in turns]
        rows.append([side, told([each.wall for each in own]), told([each.cpu for each in own])])
        rows[-1].append("" if side == BARE else told(over))
    print_table(["side", "wall s", "CPU s of this process", "wall, ratio"], rows)


if __name__ == "__main__":
    sys.exit(main())
