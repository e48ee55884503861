"""What the journals of the training runs say: the time of each module, and how training went."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pandas as pd

from thr_probe.analysis.timing import MODULES, TOTAL, mean_timers, timers
from thr_probe.analysis.training_runs import TrainingRun
from thr_probe.reproduce.activity import numbers
from thr_probe.reproduce.estimates import Results
from thr_probe.reproduce.measure import Measured

THR_SHARE = "THR share"

_EDGE = 5  # steps at either end that "first" and "last" are means of

BUDGET = (
    "steps",
    "prompts",
    "group_size",
    "mini_batch",
    "mini_batch_unit",
    "lr",
    "max_new_tokens",
    "temperature",
)
"""Options of a training run that all rows must share."""


def time_table(results: Results) -> pd.DataFrame:
    """Mean seconds per step of each module, mean over the seeds, and THR's share (Table 10)."""
    lines = []
    for name, title, jobs in _trained(results):
        columns = {**MODULES, "total": TOTAL}
        seconds = {column: _mean(jobs, _mean_timer(timer)) for timer, column in columns.items()}
        share = seconds["THR"] / seconds[TOTAL] if seconds[TOTAL] else math.nan
        lines.append(_head(name, title, jobs) | seconds | {THR_SHARE: share})
    return pd.DataFrame(lines)


def training_table(results: Results) -> pd.DataFrame:
    """Per row, means over its seeds: rewards, prompts made and kept, clipping, length, retention.

    First and last are means of five steps. Prompts are counted both before and after groups without
    an advantage were dropped, since "epochs" mean either.
    """
    lines = []
    for name, title, jobs in _trained(results):
        line = _head(name, title, jobs)
        line |= {column: _mean(jobs, rule) for column, rule in _TRAINING.items()}
        line |= {"active_share": results.active_share(name), "inactive": results.is_inactive(name)}
        lines.append(line)
    return pd.DataFrame(lines)


def different_budgets(results: Results) -> list[str]:
    """Sentences about options in which training runs differ although they must not."""
    found: dict[str, dict[str, list[str]]] = {option: {} for option in BUDGET}
    for item in results.measured:
        for option in BUDGET:
            if item.config is not None and option in item.config:
                value = str(item.config[option])
                found[option].setdefault(value, []).append(item.job.name)
    return [
        f"The rows differ in {option}: "
        + "; ".join(f"{value} in {', '.join(names)}" for value, names in values.items())
        + "."
        for option, values in found.items()
        if len(values) > 1
    ]


def budget(results: Results) -> dict[str, object]:
    """The options that all rows share, as the first training run has them."""
    configs = [item.config for item in results.measured if item.config is not None]
    return {name: configs[0][name] for name in BUDGET if name in configs[0]} if configs else {}


def _trained(results: Results) -> list[tuple[str, str, list[Measured]]]:
    return [
        (row.name, row.title, jobs)
        for row in results.rows
        if (jobs := [item for item in results.of(row.name) if _has_steps(item)])
    ]


def _has_steps(item: Measured) -> bool:
    return item.steps is not None and not item.steps.empty


def _head(name: str, title: str, jobs: Sequence[Measured]) -> dict[str, object]:
    seeds = " ".join(str(item.job.seed) for item in jobs)
    return {"row": name, "title": title, "seeds": seeds}


def _mean(jobs: Sequence[Measured], rule: Callable[[pd.DataFrame], float]) -> float:
    """Mean over the seeds, those without the number left out."""
    values = [rule(item.steps) for item in jobs if item.steps is not None]
    return float(pd.Series(values, dtype=float).mean())


def _mean_timer(name: str) -> Callable[[pd.DataFrame], float]:
    def rule(steps: pd.DataFrame) -> float:
        run = TrainingRun(name="", steps=steps, evals=pd.DataFrame())
        return mean_timers(timers(run))[name][0]

    return rule


def _average(name: str) -> Callable[[pd.DataFrame], float]:
    return lambda steps: float(numbers(steps, name).mean())


def _total(name: str) -> Callable[[pd.DataFrame], float]:
    # of records that lack it: not recorded, which is not zero
    return lambda steps: float(numbers(steps, name).sum(min_count=1))


def _first(name: str) -> Callable[[pd.DataFrame], float]:
    return lambda steps: float(numbers(steps, name).head(_EDGE).mean())


def _last(name: str) -> Callable[[pd.DataFrame], float]:
    return lambda steps: float(numbers(steps, name).tail(_EDGE).mean())


_TRAINING: dict[str, Callable[[pd.DataFrame], float]] = {
    "steps": lambda steps: float(len(steps)),
    "updates": _total("num_updates"),
    "prompts_generated": _total("prompts_generated"),
    "prompts_kept": _total("prompts_kept"),
    "reward_first": _first("reward_generated"),
    "reward_last": _last("reward_generated"),
    "entropy_first": _first("entropy"),
    "entropy_last": _last("entropy"),
    "length_first": _first("length_mean"),
    "length_last": _last("length_mean"),
    "clip_fraction": _average("clip_fraction"),
    "kl": _average("kl"),
    "masked_share": _average("masked_share"),
    "retained_share": _average("retained_share"),
    "influence_captured": _average("influence_captured"),
    "net_drift": _average("net_drift"),
    "steering_slope": _average("steering_slope"),
}
