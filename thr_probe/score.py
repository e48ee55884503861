"""Scoring: from a group of completions to rows of a score set, and a score set for a saved run."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import torch
from torch import Tensor

from thr_probe.config import ScoreConfig, ScoringConfig, config_dict
from thr_probe.errors import DataError, UsageError
from thr_probe.policy import Policy, load_policy
from thr_probe.policy.tokens import decode
from thr_probe.probe import GroupScores, ProbeOptions, score_group
from thr_probe.processes import World
from thr_probe.progress import SILENT, Advance, Monitor
from thr_probe.traces import (
    Run,
    completed_parts,
    read_run,
    write_part,
    write_score_info,
)
from thr_probe.traces.token_table import write_occurring_tokens
from thr_probe.versions import library_versions


def probe_options(config: ScoringConfig, temperature: float) -> ProbeOptions:
    """The probe's part of a command's options, for rollouts sampled at a temperature."""
    return ProbeOptions(
        temperature=temperature,
        vocab=config.vocab,
        chunk_size=config.chunk_size,
        beta=config.beta,
        reduce=config.reduce,
        self_influence=config.self_influence,
        split=config.split,
        tolerance=config.tolerance,
        eps=config.eps,
        exact=config.exact,
        error=config.thr_error,
        batch_tokens=config.batch_tokens,
    )


def policy_of(config: ScoringConfig, world: World) -> Policy:
    """The policy that the options name, on the device of this process."""
    return load_policy(
        config.model,
        device=world.device(config.device),
        dtype=config.dtype,
        revision=config.revision,
        adapter=config.adapter,
    )


def recorded(value: object) -> object:
    """A value as JSON can carry it: beta = -inf in words."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def scoring_temperature(temperature: float) -> float:
    """The temperature of pi: greedy rollouts (T = 0) are scored at 1."""
    return temperature if temperature > 0 else 1.0


def score_rows(
    scores: GroupScores, prompt_id: str, *, step: int | None = None
) -> list[dict[str, object]]:
    """One row of the scores table per completion of a group."""
    tau = None if math.isnan(scores.tau) else scores.tau
    lengths = scores.lengths_G.tolist()
    lists: Mapping[str, Tensor | None] = {
        "thr": scores.thr_N,
        "entropy": scores.entropy_N,
        "logprob": scores.logprob_N,
        "thr_error": scores.thr_error_N,
        "thr_self": scores.thr_self_N,
        "thr_within": scores.thr_within_N,
    }
    columns = {
        name: [part.cpu().float().numpy() for part in torch.split(values_N, lengths)]
        for name, values_N in lists.items()
        if values_N is not None
    }
    rows: list[dict[str, object]] = []
    for rollout, advantage in enumerate(scores.advantage_G.tolist()):
        row: dict[str, object] = {
            "step": step,
            "prompt_id": prompt_id,
            "rollout_id": rollout,
            "advantage": advantage,
            "q": scores.q,
            "num_correct": scores.num_correct,
            "tau": tau,
            "retained": None if tau is None else float(scores.retained_G[rollout]),
        }
        for name, parts in columns.items():
            undefined = tau is None and name.startswith("thr")
            row[name] = None if undefined else parts[rollout]
        rows.append(row)
    return rows


def score_run(
    run_path: Path,
    config: ScoreConfig,
    *,
    resume: bool = False,
    monitor: Monitor = SILENT,
) -> str | None:
    """Add a score set to a saved run: another checkpoint (or options) over the same rollouts.

    Args:
        run_path: a complete run whose rollouts carry token ids.
        config: the resolved options.
        resume: continue a score set that was interrupted.
        monitor: told of every finished part, and asked between parts whether to stop.

    Returns:
        The name of the score set; None when stopped early.

    Raises:
        DataError: an incomplete run, rollouts without token ids, or another tokenizer.
        UsageError: a score set of that name that stands already.
    """
    run = read_run(run_path)
    score_id = config.score_id or default_score_id(config)
    table = f"scores/{score_id}"
    check_scorable(run)
    temperature = config.temperature
    if temperature is None:
        temperature = float(run.config.get("temperature", 1.0))
    options = probe_options(config, temperature)
    info = {
        **{
            name: recorded(value)
            for name, value in config_dict(config).items()
            if value is not None
        },
        "score_id": score_id,
        "temperature": scoring_temperature(temperature),
    }
    _check_room(run, score_id, info, resume=resume)
    world = World.from_environment()
    policy = policy_of(config, world)
    check_tokenizer(run, policy)
    _check_lengths(run, policy)
    info["model_digest"] = policy.weights_digest
    _check_room(run, score_id, info, resume=resume)
    info["versions"] = library_versions()
    if world.is_first:
        if run.tokens() is None:  # of a run that was imported without a tokenizer
            write_occurring_tokens(run.path, policy.token_rows)
        write_score_info(run.path, score_id, info)
    done = world.share(set(completed_parts(run.path, table)) if world.is_first else set())
    problems = run.problems()
    prompts = dict(zip(problems["prompt_id"], problems["prompt_token_ids"], strict=True))
    monitor.begin(run.groups().num_rows)
    left = itertools.count()
    for index, groups in enumerate(_groups_by_part(run)):
        if index in done or not world.owns(next(left)):
            monitor.advance(Advance(prompts=len(groups), resumed=True))
            continue
        if monitor.should_stop():
            return None
        rows: list[dict[str, object]] = []
        undecided = 0
        for group in groups:
            first = group[0]
            scores = score_group(
                policy,
                [int(token) for token in prompts[first["prompt_id"]]],
                [row["token_ids"] for row in group],
                [row["correct"] for row in group],
                options=options,
                prompt_id=first["prompt_id"],
            )
            rows += score_rows(scores, first["prompt_id"], step=first["step"])
            undecided += scores.num_undecided
        write_part(run.path, table, index, rows)
        monitor.advance(_advance(groups, undecided))
    world.wait()
    return score_id


def default_score_id(config: ScoreConfig) -> str:
    """A folder name from the model's name: its last path component, revision behind it."""
    name = (
        Path(config.model).name if config.revision is None else f"{config.model}-{config.revision}"
    )
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).lstrip("-._") or "scores"


def check_tokenizer(run: Run, policy: Policy) -> None:
    """Token ids mean nothing under another tokenizer.

    A run that does not say which one it was sampled with (an imported one) is judged by its texts.

    Raises:
        DataError: the run was sampled with another tokenizer than the policy's.
    """
    expected = run.manifest.tokenizer_digest
    if expected is None:
        others, compared = _ids_of_other_texts(run, policy)
        is_other, found = 2 * others > compared, f" (it reads {others} of {compared} differently)"
    else:
        is_other, found = policy.tokenizer_digest != expected, ""
    if is_other:
        raise DataError(
            f"{run.path}: its token ids come from another tokenizer than that of {policy.name}"
            f"{found}",
            "score with a checkpoint of the model family that sampled the run "
            f"({run.manifest.model or 'which it does not name'})",
        )


def _ids_of_other_texts(run: Run, policy: Policy) -> tuple[int, int]:
    """How many of the first completions' ids do not read as their text, and of how many.

    Special tokens and spaces do not count.
    """
    table = next(run.iter_completions(["token_ids", "text"]), None)
    rows = [] if table is None else table.slice(0, 64).to_pylist()
    others = 0
    for row in rows:
        read = {policy.decode(row["token_ids"])}
        read.add(decode(policy.tokenizer, row["token_ids"], skip_special_tokens=False))
        others += "".join(row["text"].split()) not in {"".join(text.split()) for text in read}
    return others, len(rows)


def check_scorable(run: Run) -> None:
    """Refuses a run that cannot be replayed: unfinished, or without the ids of its tokens."""
    if not run.is_complete:
        raise DataError(
            f"{run.path} is not complete",
            "finish it first: run the command that made it again with --resume",
        )
    hint = "collect the run with thr-probe, or import it with the policy's tokenizer"
    if any("token_ids" not in part.columns for part in run.rollout_parts):
        raise DataError(
            f"{run.path}: column token_ids is absent, so there are no tokens to score", hint
        )
    lacking = sum(table["token_ids"].null_count for table in run.iter_completions(["token_ids"]))
    if lacking:
        raise DataError(
            f"{run.path}: {lacking:,} of {run.num_completions:,} completions have no token ids, "
            "so their tokens cannot be scored",
            hint,
        )
    problems = run.problems()
    if "prompt_token_ids" not in problems or problems["prompt_token_ids"].isna().any():
        raise DataError(
            f"{run.path / 'problems.parquet'}: column prompt_token_ids is absent or has gaps, "
            "so the completions cannot be replayed behind their prompts",
            hint,
        )


def _check_lengths(run: Run, policy: Policy) -> None:
    """Refuses a run with a completion that the policy cannot replay, before a score set begins."""
    problems = run.problems()
    of_prompt = dict(zip(problems["prompt_id"], problems["prompt_token_ids"].map(len), strict=True))
    for table in run.iter_completions(["step", "prompt_id", "rollout_id", "token_ids"]):
        lengths = pc.list_value_length(table["token_ids"]).to_pylist()
        names = table["prompt_id"].to_pylist()
        for place, (name, length) in enumerate(zip(names, lengths, strict=True)):
            total = of_prompt[name] + length
            where = f"prompt {name}, rollout {table['rollout_id'][place]}"
            if length == 0:
                raise DataError(
                    f"{run.path}: {where} is empty: it has no token to score",
                    "leave it out: import the run without it",
                )
            if policy.max_length is not None and total > policy.max_length:
                raise DataError(
                    f"{run.path}: {where} has {total} tokens with its prompt; {policy.name} "
                    f"takes {policy.max_length}",
                    "score with the model that sampled them",
                )


def _check_room(run: Run, score_id: str, info: Mapping[str, object], *, resume: bool) -> None:
    if score_id not in run.score_ids:
        return
    if not resume:
        raise UsageError(
            f"{run.path} has a score set {score_id!r} already",
            "choose another --score-id, or continue an interrupted one with --resume",
        )
    saved = run.score_info(score_id)
    for name, value in info.items():
        if saved.get(name) != value:
            raise UsageError(
                f"{run.path}: score set {score_id!r} was started with {name} = "
                f"{saved.get(name)!r}, not {value!r}",
                "resume with the same options, or choose another --score-id",
            )


def _groups_by_part(run: Run) -> Iterator[list[list[dict[str, Any]]]]:
    """For every part of the rollouts its groups, each a list of rows."""
    tables = run.iter_completions(["step", "prompt_id", "token_ids", "correct"])
    for part in run.rollout_parts:
        rows: list[dict[str, Any]] = []
        while len(rows) < part.num_rows:
            rows += next(tables).to_pylist()
        keyed = groupby(rows, key=lambda row: (row["step"], row["prompt_id"]))
        yield [list(group) for _, group in keyed]


def _advance(groups: Sequence[Sequence[Mapping[str, Any]]], undecided: int) -> Advance:
    rows = [row for group in groups for row in group]
    return Advance(
        prompts=len(groups),
        completions=len(rows),
        correct=sum(row["correct"] for row in rows),
        tokens=sum(len(row["token_ids"]) for row in rows),
        undecided=undecided,
    )
