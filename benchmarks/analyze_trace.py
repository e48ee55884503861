"""A generated trace of any number of completion tokens, written to disk a shard at a time.

Made by the product's own writer in the product's own sizes: shards of 32 questions, groups of 8.
Lengths, THR and entropies have heavy tails, tokens follow Zipf's law, and the texts are the tokens'
texts end to end, so that both ways of counting words agree. Called by analyze.py with a line of
JSON.
"""

from __future__ import annotations

import itertools
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from analyze_vocabulary import Vocabulary, vocabulary

from thr_probe.traces import (
    Manifest,
    arrow_schema,
    create_run,
    finish_run,
    write_part,
    write_score_info,
    write_tokens,
)
from thr_probe.traces.schema import TABLES

GROUP_SIZE = 8
SHARD_PROMPTS = 32
MEDIAN_LENGTH = 500
MAX_LENGTH = 8192
_LENGTH_SIGMA = 0.75
_MEAN_LENGTH = MEDIAN_LENGTH * np.exp(_LENGTH_SIGMA**2 / 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """The completions of some groups, in the order of their rows."""

    prompt_ids: list[str]
    """Of each completion."""
    correct_R: np.ndarray
    """Whether it is right."""
    num_correct_R: np.ndarray
    """Right ones of its group."""
    scale_R: np.ndarray
    """Of its group's THR."""
    tau_R: np.ndarray
    """Its group's threshold."""
    lengths_R: np.ndarray
    """Its tokens."""

    @property
    def num_tokens(self) -> int:
        """Tokens of the shard."""
        return int(self.lengths_R.sum())


def main() -> None:
    """Generate what the command line's JSON asks for."""
    call = json.loads(sys.argv[1])
    generate(Path(call["trace"]), call["tokens"])


def generate(path: Path, num_tokens: float, *, seed: int = 0) -> None:
    """Write a run of about that many completion tokens (short by less than a shard's).

    Args:
        path: the run directory, which must not be there.
        num_tokens: completion tokens.
        seed: of all draws.
    """
    rng = np.random.default_rng(seed)
    words = vocabulary()
    shard_tokens = SHARD_PROMPTS * GROUP_SIZE * _MEAN_LENGTH
    num_shards = max(1, round(num_tokens / shard_tokens))
    prompt_ids = [f"{number:016x}" for number in rng.permutation(num_shards * SHARD_PROMPTS)]
    manifest = Manifest(
        dataset="generated",
        sampler="generated",
        verifier="generated",
        seed=seed,
        num_prompts=len(prompt_ids),
        group_size=GROUP_SIZE,
    )
    create_run(path, manifest=manifest, config={"seed": seed}, problems=_problems(prompt_ids))
    for index in range(num_shards):
        start = index * SHARD_PROMPTS
        shard = _shard(rng, prompt_ids[start : start + SHARD_PROMPTS])
        _write_shard(path, index, shard, words, rng)
        if index % 50 == 0:
            print(f"generated {index} of {num_shards} shards", file=sys.stderr)
    write_tokens(path, words.table())
    write_score_info(path, "default", {"model": "generated"})
    finish_run(path, manifest)


def _problems(prompt_ids: list[str]) -> list[dict[str, object]]:
    fixed = {"dataset": "generated", "level": None, "answer": "1"}
    return [
        {"prompt_id": name, "question": f"Q {name}", "prompt_text": f"Q {name}", **fixed}
        for name in prompt_ids
    ]


def _shard(rng: np.random.Generator, prompt_ids: list[str]) -> Shard:
    groups = len(prompt_ids)
    correct_GR = rng.random((groups, GROUP_SIZE)) < rng.random((groups, 1))
    scale_G = rng.lognormal(3, 1, groups)
    # one group in 33 has a threshold below 0
    tau_G = scale_G * rng.uniform(-0.1, 3.2, groups)
    lengths_R = rng.lognormal(np.log(MEDIAN_LENGTH), _LENGTH_SIGMA, groups * GROUP_SIZE)
    return Shard(
        prompt_ids=[name for name in prompt_ids for _ in range(GROUP_SIZE)],
        correct_R=correct_GR.ravel(),
        num_correct_R=correct_GR.sum(axis=1).repeat(GROUP_SIZE),
        scale_R=scale_G.repeat(GROUP_SIZE),
        tau_R=tau_G.repeat(GROUP_SIZE).astype(np.float32),
        lengths_R=lengths_R.clip(8, MAX_LENGTH).astype(np.int64),
    )


def _write_shard(
    path: Path, index: int, shard: Shard, words: Vocabulary, rng: np.random.Generator
) -> None:
    uncertain_N = rng.random(shard.num_tokens) < 0.25
    entropy_N = rng.exponential(np.where(uncertain_N, 1.2, 0.02)).astype(np.float32)
    logprob_N = -(entropy_N * rng.exponential(size=shard.num_tokens)).astype(np.float32)
    noise_N = rng.normal(0, 1e-3, shard.num_tokens).astype(np.float32)
    sampler_N = np.minimum(logprob_N + noise_N, 0)
    rollouts = _rollouts(shard, words, words.draw(rng, shard.num_tokens), sampler_N)
    write_part(path, "rollouts", index, pa.table(rollouts, schema=_schema("rollouts", rollouts)))
    scores = _scores(shard, _thr(shard, rng), entropy_N, logprob_N)
    write_part(path, "scores/default", index, pa.table(scores, schema=_schema("scores", scores)))


def _thr(shard: Shard, rng: np.random.Generator) -> np.ndarray:
    """Student's t with two degrees of freedom: a variance that does not exist."""
    scale_N = shard.scale_R.repeat(shard.lengths_R)
    shift_N = np.where(shard.correct_R, 0.2, -0.2).repeat(shard.lengths_R)
    return ((rng.standard_t(2, shard.num_tokens) + shift_N) * scale_N).astype(np.float32)


def _rollouts(
    shard: Shard, words: Vocabulary, place_N: np.ndarray, sampler_N: np.ndarray
) -> dict[str, pa.Array]:
    rows = len(shard.prompt_ids)
    bounds = _bounds(shard)
    texts = [words.joined(place_N[start:stop]) for start, stop in itertools.pairwise(bounds)]
    cut_R = shard.lengths_R == MAX_LENGTH
    return _keys(shard) | {
        "text": pa.array(texts, pa.string()),
        "token_ids": _lists("rollouts", "token_ids", words.ids_V[place_N], shard),
        "sampler_logprobs": _lists("rollouts", "sampler_logprobs", sampler_N, shard),
        "finish_reason": pa.array(np.where(cut_R, "length", "stop").tolist()),
        "reward": pa.array(shard.correct_R.astype(np.float64)),
        "correct": pa.array(shard.correct_R),
        "extracted": pa.nulls(rows, pa.string()),
        "verifier": pa.array(["generated"] * rows),
        "verify_status": pa.array(["ok"] * rows),
        "ids_source": pa.array(["sampled"] * rows),
        "seed": pa.array(np.zeros(rows, dtype=np.int64)),
    }


def _scores(
    shard: Shard, thr_N: np.ndarray, entropy_N: np.ndarray, logprob_N: np.ndarray
) -> dict[str, pa.Array]:
    undefined_R = shard.num_correct_R == 0
    q_R = shard.num_correct_R / GROUP_SIZE
    spread_R = np.sqrt(np.maximum(q_R * (1 - q_R), 1e-9))
    advantage_R = np.where(spread_R > 1e-3, (shard.correct_R - q_R) / spread_R, 0)
    dominant_N = np.abs(thr_N) > shard.tau_R.repeat(shard.lengths_R)
    retained_R = np.add.reduceat(dominant_N, _bounds(shard)[:-1]) / shard.lengths_R
    return _keys(shard) | {
        "advantage": pa.array(advantage_R.astype(np.float32)),
        "q": pa.array(q_R.astype(np.float32)),
        "num_correct": pa.array(shard.num_correct_R.astype(np.int32)),
        "tau": pa.array(shard.tau_R, mask=undefined_R),
        "retained": pa.array(retained_R.astype(np.float32), mask=undefined_R),
        "thr": _lists("scores", "thr", thr_N, shard, absent_R=undefined_R),
        "entropy": _lists("scores", "entropy", entropy_N, shard),
        "logprob": _lists("scores", "logprob", logprob_N, shard),
    }


def _keys(shard: Shard) -> dict[str, pa.Array]:
    rows = len(shard.prompt_ids)
    return {
        "step": pa.nulls(rows, pa.int32()),
        "prompt_id": pa.array(shard.prompt_ids, pa.string()),
        "rollout_id": pa.array(np.arange(rows, dtype=np.int32) % GROUP_SIZE),
    }


def _lists(
    table: str,
    name: str,
    value_N: np.ndarray,
    shard: Shard,
    *,
    absent_R: np.ndarray | None = None,
) -> pa.ListArray:
    mask = None if absent_R is None else pa.array(absent_R)
    bounds = pa.array(_bounds(shard).astype(np.int32))
    list_type = TABLES[table][name].type
    return pa.ListArray.from_arrays(bounds, pa.array(value_N), type=list_type, mask=mask)


def _bounds(shard: Shard) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(shard.lengths_R)])


def _schema(table: str, columns: dict[str, pa.Array]) -> pa.Schema:
    return arrow_schema(table, list(columns))


if __name__ == "__main__":
    main()
