"""What an evaluation does: which checkpoints, which sets, and the run that each makes.

Nothing here loads torch: `--dry-run` prints the plan.
"""

from __future__ import annotations

import filecmp
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

from thr_probe.config import CollectConfig, declared_types
from thr_probe.engine_options import OPENAI
from thr_probe.errors import DataError, UsageError
from thr_probe.evaluate.sets import BENCHMARKS, EvalSet, check_readable, resolve_set
from thr_probe.evaluate.settings import BEST, FINAL, EvalConfig, listed, values_of_k
from thr_probe.traces import read_config, read_manifest
from thr_probe.traces.manifest import MANIFEST_NAME
from thr_probe.traces.metrics import METRICS_NAME

GREEDY_PROMPTS = 32
SHARD_COMPLETIONS = 256

_STEP = re.compile(r"step-(\d{6,})")


class Measure(StrEnum):
    """How completions are drawn; also the name of the folder."""

    GREEDY = "greedy"
    """The likeliest token, one completion per problem."""
    SAMPLED = "sampled"
    """n completions per problem, for Pass@K."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What the options of a training run say about evaluating its policies."""

    path: Path
    """The run directory."""
    base: str
    """The policy it started from."""
    template: str | None
    """Its prompts' template, where one was asked for."""
    max_new_tokens: int | None
    """Its longest completion."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One set answered by one checkpoint in one way: a run of `collect`."""

    checkpoint: str
    """`final`, or the checkpoint's name, `step-000020`."""
    measure: Measure
    """Greedy or sampled."""
    problems: EvalSet
    """The set."""
    config: CollectConfig
    """The options of the run."""
    run_path: Path
    """Where it is saved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All runs of an evaluation, in the order of work."""

    tasks: tuple[Task, ...]
    """Checkpoint after checkpoint, each first greedily."""
    ks: tuple[int, ...]
    """The K of Pass@K."""
    notes: tuple[str, ...]
    """What is left out, as sentences."""

    @property
    def checkpoints(self) -> list[str]:
        """The checkpoints in order, the final one last."""
        return list(dict.fromkeys(task.checkpoint for task in self.tasks))


def plan_evaluation(model: str, config: EvalConfig, out: Path) -> Plan:
    """Resolve checkpoints and sets.

    Args:
        model: lab, a model directory, a hub id, or the directory of a training run.
        config: the resolved options.
        out: the folder of all runs.

    Raises:
        UsageError, DataError, PrerequisiteError: what is not there, or does not fit together.
    """
    trained = _trained(model)
    notes: list[str] = []
    policies = _policies(model, trained, config, notes)
    if config.engine == OPENAI and len(policies) > 1:
        raise UsageError(
            f"--engine openai: one server answers, but there are {len(policies)} checkpoints",
            "evaluate them one after another, or with --engine vllm",
        )
    sets = _sets(config, is_lab=(trained.base if trained else model) == "lab")
    sampled = _sampled_sets(config, sets, notes)
    every = [*sets, *(item for item in sampled if item not in sets)]
    _check_names(every)
    for item in every:
        check_readable(item, config)
    if config.select == BEST and len(policies) < 2:
        raise UsageError(
            "--select best needs several checkpoints, but there is one to evaluate",
            "name them with --checkpoints, or take all",
        )
    ks = values_of_k(config)
    asked = [(Measure.GREEDY, item) for item in sets]
    asked += [(Measure.SAMPLED, item) for item in sampled]
    tasks = tuple(
        Task(
            checkpoint=label,
            measure=measure,
            problems=item,
            config=_collect_config(path, measure, item, config, trained),
            run_path=out / label / measure.value / item.name,
        )
        for label, path in policies.items()
        for measure, item in asked
    )
    return Plan(tasks=tasks, ks=tuple(ks) if sampled else (), notes=tuple(notes))


def _trained(model: str) -> Trained | None:
    """The training run that a name means, if it is one.

    Raises:
        DataError: a run of `collect`, which holds no policy.
    """
    path = Path(model).expanduser()
    if not (path / METRICS_NAME).is_file() and not (path / "checkpoints").is_dir():
        if (path / MANIFEST_NAME).is_file():
            raise DataError(
                f"{model} is a run without a policy in it",
                "give the model itself, or the directory of a run of thr-probe train",
            )
        return None
    options = read_config(path)
    return Trained(
        path=path,
        base=str(options.get("model", "")),
        template=options.get("template"),
        max_new_tokens=options.get("max_new_tokens") or _longest(path),
    )


def _longest(path: Path) -> int | None:
    """Where training took what the context left, the manifest says how much."""
    if not (path / MANIFEST_NAME).is_file():
        return None
    return read_manifest(path).counts.get("max_new_tokens")


def _policies(
    model: str, trained: Trained | None, config: EvalConfig, notes: list[str]
) -> dict[str, str]:
    """The model of each checkpoint by its label, in the order of steps, `final` last."""
    if trained is None:
        for flag, value in (("--checkpoints", config.checkpoints), ("--select", config.select)):
            if value != FINAL:
                raise UsageError(
                    f"{flag} {value} needs a training run, and {model} is none",
                    "give the directory that thr-probe train wrote",
                )
        return {FINAL: model}
    steps = _checkpoint_steps(trained.path)
    labels = _labels(trained, config, steps)
    policies = {label: _model_folder(trained, label) for label in labels}
    last = f"step-{max(steps, default=0):06d}"
    is_double = config.checkpoints == "all" and FINAL in policies and last in policies
    if is_double and _same_weights(policies[last], policies[FINAL]):
        del policies[last]
        notes.append(f"{last} is left out: its weights are those of the final model")
    return {label: str(path) for label, path in policies.items()}


def _checkpoint_steps(run_path: Path) -> list[int]:
    """As `train.checkpoint.checkpoint_steps`, which loads torch."""
    names = (_STEP.fullmatch(entry.name) for entry in (run_path / "checkpoints").glob("step-*"))
    return sorted(int(name.group(1)) for name in names if name)


def _labels(trained: Trained, config: EvalConfig, steps: Sequence[int]) -> list[str]:
    has_final = (trained.path / "model").is_dir()
    if config.checkpoints == "all":
        chosen, wants_final = list(steps), has_final or not steps
    else:
        words = listed(config.checkpoints, "--checkpoints")
        chosen, wants_final = [], FINAL in words or config.select == BEST
        for word in words:
            if word != FINAL:
                chosen.append(_step(word, trained, steps))
    if wants_final and not has_final:
        there = ",".join(map(str, steps))
        raise DataError(
            f"{trained.path / 'model'} is missing: the training run has no final model yet",
            "finish it with thr-probe train --resume"
            + (f", or evaluate checkpoints with --checkpoints {there}" if steps else ""),
        )
    return [f"step-{step:06d}" for step in sorted(set(chosen))] + [FINAL] * wants_final


def _step(word: str, trained: Trained, steps: Sequence[int]) -> int:
    if not word.isdigit():
        raise UsageError(f"--checkpoints takes all, final, or steps, got {word!r}")
    if int(word) not in steps:
        raise DataError(
            f"{trained.path} has no checkpoint of step {word}",
            f"there are: {', '.join(map(str, steps)) or 'none'}",
        )
    return int(word)


def _model_folder(trained: Trained, label: str) -> Path:
    return (
        trained.path / "model" if label == FINAL else trained.path / "checkpoints" / label / "model"
    )


def _same_weights(left: Path, right: Path) -> bool:
    names = sorted(path.name for path in left.glob("*.safetensors"))
    if not names or names != sorted(path.name for path in right.glob("*.safetensors")):
        return False
    return not any(filecmp.cmpfiles(left, right, names, shallow=False)[1:])


def _sets(config: EvalConfig, *, is_lab: bool) -> list[EvalSet]:
    if config.dataset is None:
        names = ["lab:test"] if is_lab else list(BENCHMARKS)
    else:
        names = listed(config.dataset, "--dataset")
    return [resolve_set(name, config.data_dir) for name in names]


def _sampled_sets(config: EvalConfig, sets: Sequence[EvalSet], notes: list[str]) -> list[EvalSet]:
    if config.samples == 0:
        return []
    if config.pass_at_k_dataset is not None:
        names = listed(config.pass_at_k_dataset, "--pass-at-k-dataset")
        return [resolve_set(name, config.data_dir) for name in names]
    chosen = [item for item in sets if item.is_sampled]
    if not chosen:
        notes.append(
            "no Pass@K: the paper has it on aime24, aime25 and amc23; name other sets with "
            "--pass-at-k-dataset"
        )
    return chosen


def _check_names(sets: Sequence[EvalSet]) -> None:
    names = [item.name for item in sets]
    for item in sets:
        if names.count(item.name) > 1:
            raise UsageError(
                f"two sets are called {item.name}: their runs would share a folder",
                "rename one of the files, or evaluate them one after the other",
            )


def _collect_config(
    model: str, measure: Measure, item: EvalSet, config: EvalConfig, trained: Trained | None
) -> CollectConfig:
    """The options of one run: METHOD 8 settles how, the evaluation's options the rest."""
    known = declared_types(CollectConfig)
    values: dict[str, Any] = {
        each.name: getattr(config, each.name) for each in fields(config) if each.name in known
    }
    values |= {"model": model, "dataset": item.source, "score": False, "truncated_wrong": True}
    if trained is not None:
        values |= dict(_inherited(config, trained, item))
    if measure is Measure.GREEDY:
        values |= {"group_size": 1, "temperature": 0.0, "top_p": 1.0}
    else:
        values["group_size"] = config.samples
    size = max(1, min(GREEDY_PROMPTS, SHARD_COMPLETIONS // values["group_size"]))
    values["shard_prompts"] = config.shard_prompts or size
    return CollectConfig(**values)


def _inherited(
    config: EvalConfig, trained: Trained, item: EvalSet
) -> Iterator[tuple[str, str | int | None]]:
    """What a policy was trained with, where nothing else is asked for."""
    if config.max_new_tokens is None:
        yield "max_new_tokens", trained.max_new_tokens
    if config.template is None and item.source.partition(":")[0] != "lab":
        yield "template", trained.template or ("lab" if trained.base == "lab" else None)
