"""verifiers: evaluations of Prime Intellect's verifiers, results.jsonl and traces.jsonl.

The fields are those of verifiers 0.1.14 (`utils/save_utils.py`, `state_to_output`: one rollout a
line, with metadata.json beside it) and of verifiers 0.4.0 (`v1/episode.py`, `v1/trace.py`,
`v1/graph.py`: one episode a line, whose traces are graphs of messages).

- Rollouts of an example are its group: an episode's `group.id` where a trainer gave one, else the
  task's key; `example_id` in results.jsonl.
- A rollout with several turns, tool calls or several branches is refused: no single prompt was
  continued. So are rollouts that ended with an error and agents that are not the policy; several
  agents of an episode that are have a group each.
- Reasoning that is kept apart (`reasoning_content`) comes first, between <think> and </think>.
- The reward is the weighted sum; `reward_column` may name one reward or metric instead.
- A trace's nodes hold the token ids where a training client sampled: the prompt's are those before
  the sampled ones. verifiers rounds the logprobs to four decimals in these files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thr_probe.errors import DataError
from thr_probe.traces.importers.chat import (
    emitted,
    is_messages,
    messages_of,
    plain,
    prompt_of,
    question_of,
)
from thr_probe.traces.importers.files import Record, files_in, first_object, json_lines
from thr_probe.traces.importers.foreign import (
    ForeignCompletion,
    Importer,
    ImportOptions,
    Refused,
    Rows,
)
from thr_probe.traces.importers.reasons import UNEXPECTED, reason_of

STEP = re.compile(r"step_(\d+)")
"""Folders of prime-rl, which keeps rollouts in the same shapes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What a file's place says of all its rollouts."""

    key: str = ""
    """Put before the group's key: groups of different files are not compared."""
    step: int | None = None
    """Step of training."""
    model: str | None = None
    """The policy's name."""
    dataset: str | None = None
    """The environment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Turn:
    """What one model call continued and gave."""

    prompt: list[Mapping[str, Any]]
    message: Mapping[str, Any]
    prompt_ids: list[int] | None
    ids: list[int] | None
    logprobs: list[float] | None


def find(path: Path) -> list[Path]:
    """The results and traces files, those of prime-rl's steps left to its own importer."""
    named = [file for file in files_in(path, ".jsonl") if path.is_file() or _is_named(file)]
    return [file for file in named if is_rollout(first_object(file) or {}) and not _is_step(file)]


def read(paths: Sequence[Path], options: ImportOptions) -> Rows:
    """Stream the completions.

    Raises:
        DataError: a file whose first line is no rollout of verifiers.
    """
    seen: set[str] = set()
    for path in paths:
        metadata = _metadata(path)
        origin = Origin(
            key=f"{path.parent.name}:",
            model=metadata.get("model"),
            dataset=metadata.get("env_id"),
        )
        yield from rollouts(path, origin, options.reward_column, seen)


def is_rollout(values: Mapping[str, Any]) -> bool:
    """Whether a line is an episode, a trace or a rollout of verifiers."""
    return any(
        names <= set(values)
        for names in ({"traces", "task"}, {"nodes", "task"}, {"example_id", "completion"})
    )


def rollouts(path: Path, origin: Origin, wanted: str | None, seen: set[str]) -> Rows:
    """The completions of one file of episodes, traces or rollouts.

    Args:
        path: the file.
        origin: what its place says.
        wanted: the reward or metric that counts; the sum of all rewards by default.
        seen: ids of the traces read so far; a trace of a known id is refused.

    Raises:
        DataError: its first line is none of these.
    """
    is_first = True
    for record in json_lines(path):
        if isinstance(record, Refused):
            yield record
            continue
        if not is_rollout(record.values):
            found = ", ".join(list(record.values)[:12])
            reason = f"no rollout, expected the fields traces, nodes or example_id, found {found}"
            if is_first:
                raise DataError(
                    f"{record.where}: {reason}", "give results.jsonl or traces.jsonl of verifiers"
                )
            yield Refused(where=record.where, reason="no rollout of verifiers")
            continue
        is_first = False
        yield from _rows(record, origin, wanted, seen)


def _is_step(path: Path) -> bool:
    return path.name != "results.jsonl" and any(STEP.fullmatch(part) for part in path.parts)


def _is_named(path: Path) -> bool:
    return path.name in ("results.jsonl", "traces.jsonl")


def _metadata(path: Path) -> Mapping[str, str]:
    try:
        found = json.loads(path.with_name("metadata.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    named = found if isinstance(found, dict) else {}
    return {name: value for name, value in named.items() if isinstance(value, str)}


def _rows(record: Record, origin: Origin, wanted: str | None, seen: set[str]) -> Rows:
    values = record.values
    traces = values.get("traces", [values])
    if not (traces and isinstance(traces, list)):
        yield Refused(where=record.where, reason="the episode ended without a trace")
        return
    for index, one in enumerate(traces):
        where = record.where if len(traces) == 1 else f"{record.where}, trace {index + 1}"
        try:
            if "nodes" in one:
                _see(one.get("id"), seen)
                yield _traced(where, one, values, origin=origin, wanted=wanted)
            else:
                yield _result(where, one, origin, wanted)
        except UNEXPECTED as error:
            yield Refused(where=where, reason=reason_of(error))


def _see(trace_id: object, seen: set[str]) -> None:
    if trace_id is None:
        return
    if str(trace_id) in seen:
        raise ValueError("a trace that was read before")
    seen.add(str(trace_id))


def _result(
    where: str, values: Mapping[str, Any], origin: Origin, wanted: str | None
) -> ForeignCompletion:
    if values.get("error"):
        raise ValueError("the rollout ended with an error")
    said = values["completion"]
    if is_messages(said) and len(said) != 1:
        raise ValueError(f"{len(said)} messages after the prompt: no single prompt was continued")
    prompt = values["prompt"]
    tokens = _only_step(values.get("trajectory"))
    key = f"{values.get('env_name') or values.get('task') or ''}:{values['example_id']}"
    return ForeignCompletion(
        where=where,
        group=origin.key + key,
        text=said if isinstance(said, str) else emitted(said[0]),
        prompt_text=prompt_of(prompt),
        prompt_messages=messages_of(prompt),
        question=question_of(prompt),
        answer=plain(values.get("answer")),
        step=origin.step,
        reward=_reward(values, wanted),
        verifier=wanted,
        finish_reason=_finish(values),
        prompt_token_ids=tokens.get("prompt_ids"),
        token_ids=tokens.get("completion_ids"),
        sampler_logprobs=tokens.get("completion_logprobs") or None,
        dataset=plain(values.get("env_name") or values.get("task")) or origin.dataset,
        model=origin.model,
    )


def _traced(
    where: str,
    trace: Mapping[str, Any],
    episode: Mapping[str, Any],
    *,
    origin: Origin,
    wanted: str | None,
) -> ForeignCompletion:
    if trace.get("errors") or not trace.get("ok", True):
        raise ValueError("the rollout ended with an error")
    agent = trace.get("agent") or {}
    if agent.get("trainable") is False:
        raise ValueError("an agent that is not the policy")
    turn = _turn(trace["nodes"])
    task = trace["task"].get("data", {})
    call = _last_call(trace.get("calls") or [])
    config = agent.get("config") or {}
    stamp = {**(episode.get("prime_rl") or {}), **((trace.get("info") or {}).get("prime_rl") or {})}
    return ForeignCompletion(
        where=where,
        group=origin.key + _group(trace, episode, stamp) + _role(agent),
        text=emitted(turn.message),
        prompt_text=prompt_of(turn.prompt),
        prompt_messages=messages_of(turn.prompt),
        question=question_of(turn.prompt),
        answer=plain(task.get("answer")),
        step=_step(episode, stamp, origin),
        reward=_trace_reward(trace, wanted),
        verifier=wanted or _only_name(trace.get("rewards") or {}),
        finish_reason=_finish({**call, **trace}),
        prompt_token_ids=turn.prompt_ids,
        token_ids=turn.ids,
        sampler_logprobs=turn.logprobs,
        dataset=_environment(episode, stamp) or origin.dataset,
        model=plain(call.get("model") or config.get("model")) or origin.model,
    )


def _last_call(calls: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    return next((call for call in reversed(calls) if not call.get("error")), {})


def _turn(nodes: Sequence[Mapping[str, Any]]) -> _Turn:
    """The one sampled message, and the path that leads to it."""
    sampled = [node for node in nodes if node.get("sampled")]
    if len(sampled) != 1:
        raise ValueError(f"{len(sampled)} sampled messages: no single prompt was continued")
    path = _path(nodes, sampled[0])
    if len(path) + 1 != len(nodes):
        raise ValueError("messages after the completion or beside it: several turns")
    ids = [token for node in (*path, sampled[0]) for token in node.get("token_ids") or ()]
    mask = [kept for node in (*path, sampled[0]) for kept in node.get("mask") or ()]
    logprobs = list(sampled[0].get("logprobs") or ())
    prompt = [node["message"] for node in path]
    if not any(mask):
        return _Turn(
            prompt=prompt, message=sampled[0]["message"], prompt_ids=None, ids=None, logprobs=None
        )
    start = after_prompt(ids, mask)
    return _Turn(
        prompt=prompt,
        message=sampled[0]["message"],
        prompt_ids=ids[:start],
        ids=ids[start:],
        logprobs=logprobs or None,
    )


def after_prompt(ids: Sequence[int], mask: Sequence[bool]) -> int:
    """Where the sampled tokens begin.

    Raises:
        ValueError: lengths differ, or what was not sampled stands among or behind them.
    """
    if len(ids) != len(mask):
        raise ValueError(f"{len(ids)} token ids with a mask of {len(mask)}")
    if not any(mask):
        raise ValueError("no token was sampled")
    start = list(mask).index(True)
    if not all(mask[start:]):
        raise ValueError("tokens that were not sampled stand behind sampled ones: several turns")
    return start


def _path(nodes: Sequence[Mapping[str, Any]], node: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    above: list[Mapping[str, Any]] = []
    parent = node.get("parent")
    while parent is not None and len(above) < len(nodes):
        above.append(nodes[parent])
        parent = nodes[parent].get("parent")
    return above[::-1]


def _group(trace: Mapping[str, Any], episode: Mapping[str, Any], stamp: Mapping[str, Any]) -> str:
    given = (episode.get("group") or {}).get("id") or stamp.get("group_id")
    if given:
        return str(given)
    task = trace["task"]
    data = task.get("data", {})
    key = task.get("key") or task.get("hash") or data.get("id") or data.get("idx")
    if key is None:
        raise ValueError("the task has no key, so its group is unknown")
    return f"{_environment(episode, stamp) or ''}:{key}"


def _role(agent: Mapping[str, Any]) -> str:
    """Agents of an episode have prompts of their own; the only one is called agent."""
    name = agent.get("name") or "agent"
    return "" if name == "agent" else f":{name}"


def _environment(episode: Mapping[str, Any], stamp: Mapping[str, Any]) -> str | None:
    env = episode.get("env") or {}
    return plain(env.get("name") or env.get("id") or stamp.get("env_name"))


def _step(episode: Mapping[str, Any], stamp: Mapping[str, Any], origin: Origin) -> int | None:
    if origin.step is not None:
        return origin.step
    step = ((episode.get("run") or {}).get("work") or {}).get("step", stamp.get("step"))
    return step if isinstance(step, int) else None


def _trace_reward(trace: Mapping[str, Any], wanted: str | None) -> float | None:
    rewards = trace.get("rewards") or {}
    if wanted:
        metrics = trace.get("metrics") or {}
        return _number({**metrics, **{name: _score(one) for name, one in rewards.items()}}, wanted)
    scored = [one for one in rewards.values() if one is not None]
    return sum(one["score"] * one.get("weight", 1.0) for one in scored) if scored else None


def _score(reward: Mapping[str, Any] | None) -> float | None:
    return None if reward is None else float(reward["score"])


def _reward(values: Mapping[str, Any], wanted: str | None) -> float | None:
    if wanted:
        return _number({**values, **(values.get("metrics") or {})}, wanted)
    reward = values.get("reward")
    return None if reward is None else float(reward)


def _number(found: Mapping[str, Any], wanted: str) -> float | None:
    if wanted not in found:
        raise ValueError(f"no reward or metric {wanted}")
    return None if found[wanted] is None else float(found[wanted])


def _only_name(rewards: Mapping[str, Any]) -> str | None:
    return next(iter(rewards)) if len(rewards) == 1 else None


def _only_step(trajectory: object) -> Mapping[str, Any]:
    """Tokens of the one step, where the trajectory was saved (`-C trajectory`)."""
    if not isinstance(trajectory, list) or len(trajectory) != 1:
        return {}
    tokens = trajectory[0].get("tokens")
    return tokens if isinstance(tokens, Mapping) else {}


def _finish(values: Mapping[str, Any]) -> str | None:
    reason = values.get("finish_reason")
    if reason in ("stop", "length"):
        return str(reason)
    if values.get("is_timeout"):
        return "abort"
    if values.get("is_truncated"):
        return "length"
    return "stop" if values.get("is_completed") else None


IMPORTER = Importer(
    name="verifiers",
    meaning="results.jsonl or traces.jsonl of verifiers (vf-eval)",
    find=find,
    read=read,
)
