"""Training along its steps: reward, validation, length, entropy, retention (Figs. 6, 11, 12)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from thr_probe.analysis.result import (
    Analysis,
    counted,
    empty_analysis,
    latex_escape,
    summary_row,
    summary_table,
)
from thr_probe.analysis.training_runs import (
    TrainingRun,
    names_with_steps,
    not_begun,
    read_training_runs,
)
from thr_probe.core.stats import Interval
from thr_probe.errors import UsageError

CURVE_COLUMNS = (
    "run", "step", "quantity", "dataset", "value", "low", "high", "num_questions", "smoothed",
)  # fmt: skip

ACCURACY = "greedy_accuracy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """What is drawn along the steps, under its name in the run's `metrics.jsonl`."""

    unit: str
    """What a value counts."""
    questions: str
    """The count of the questions behind a value, by its name in `metrics.jsonl`."""
    caption: str
    """What it is, in LaTeX."""


QUANTITIES: Mapping[str, Quantity] = {
    "reward_kept": Quantity(
        unit="reward per completion trained on",
        questions="prompts_kept",
        caption="mean reward after filtering, of the completions trained on: dynamic sampling "
        "drops groups without any advantage, so it is not the accuracy of the policy",
    ),
    "reward_generated": Quantity(
        unit="reward per completion generated",
        questions="prompts_generated",
        caption="mean reward before filtering, of all completions generated",
    ),
    ACCURACY: Quantity(
        unit="share of questions", questions="num_prompts", caption="greedy accuracy on "
    ),
    "length_mean": Quantity(
        unit="tokens per completion", questions="prompts_kept", caption="mean completion length"
    ),
    "entropy": Quantity(
        unit="nats per token", questions="prompts_kept", caption="mean entropy of the tokens"
    ),
    "retained_share": Quantity(
        unit="share of tokens",
        questions="prompts_kept",
        caption=r"share of the tokens that are retained, $|\mathrm{THR}| > \tau$",
    ),
}


def training_curves(paths: Sequence[Path], *, smooth: int | None = None) -> Analysis:
    """What training runs measured along their steps.

    A step's value is that of its one batch and has no interval; a validation accuracy has the one
    over its questions that the run wrote.

    Args:
        paths: folders of training runs.
        smooth: also the running mean over that many steps, the last ones before and including each.

    Returns:
        curve `curve`: run, step (the number of steps finished when it was measured), quantity,
        dataset (of a validation), value, low, high, num_questions (0 where the run does not say)
        and smoothed (NaN where not asked for, and of validations).
        summary: of each quantity the first and last value, and of validations the best; the split
        is the run, and the dataset after a colon where there are several.

    Raises:
        UsageError: no run, one given twice, or an impossible option.
        DataError: a folder that is no training run.
    """
    if smooth is not None and smooth < 1:
        raise UsageError(f"--smooth must be at least 1 step, got {smooth}")
    runs = read_training_runs(paths)
    facts = _facts(runs, smooth)
    waiting = [run for run in runs if run.steps.empty]
    if len(waiting) == len(runs):
        return empty_analysis("curves", not_begun(waiting), facts)
    parts = [part for run in runs for part in _parts(run, smooth) if not part.empty]
    if not parts:
        reason = f"None of {', '.join(QUANTITIES)} was measured in {names_with_steps(runs)}."
        return empty_analysis("curves", reason, facts)
    curve = pd.concat(parts, ignore_index=True)
    facts["exclusions"] = exclusions = _exclusions(runs, curve)
    return Analysis(
        name="curves",
        summary=summary_table(_summary(curve)),
        curves={"curve": curve},
        facts=facts,
        caption=_caption(runs, curve, smooth, exclusions),
    )


def curve_panels(curve: pd.DataFrame) -> list[tuple[str, str]]:
    """Quantity and dataset of each panel, in order: (a), (b) ... of figure and caption."""
    return [
        (quantity, str(dataset))
        for quantity in QUANTITIES
        for dataset in sorted(curve.loc[curve["quantity"] == quantity, "dataset"].unique())
    ]


def run_rows(analysis: Analysis) -> list[dict[str, object]]:
    """One row per run and validation set: the steps done, and the last value of every quantity.

    Args:
        analysis: of `training_curves`.
    """
    if analysis.empty_reason is not None:
        return []
    curve = analysis.curves["curve"]
    measured = [name for name, _ in curve_panels(curve)]
    num_steps = analysis.facts["num_steps"]
    assert isinstance(num_steps, dict)
    rows = []
    for name, steps in num_steps.items():
        part = curve[curve["run"] == name]
        row: dict[str, object] = {"run": name, "steps": steps}
        row |= {
            quantity: _drawn(part[part["quantity"] == quantity]).value
            for quantity in QUANTITIES
            if quantity in measured and quantity != ACCURACY
        }
        validations = part[part["quantity"] == ACCURACY].groupby("dataset", sort=True)
        rows += [row | _validation_columns(table) for _, table in validations] or [row]
    names = list(dict.fromkeys(name for row in rows for name in row))
    return [{name: row.get(name) for name in names} for row in rows]


def _validation_columns(table: pd.DataFrame) -> dict[str, object]:
    last = _drawn(table)
    return {
        "validation": table["dataset"].iloc[0],
        "accuracy": last.value,
        "low": last.low,
        "high": last.high,
        "best_accuracy": table["value"].max(),
    }


def _parts(run: TrainingRun, smooth: int | None) -> Iterator[pd.DataFrame]:
    """The rows of each quantity of a run; a value that was not measured has none."""
    for name, quantity in QUANTITIES.items():
        if name == ACCURACY:
            yield _validation_rows(run)
            continue
        step, value = run.steps["step"], run.values(name)
        table = pd.DataFrame(
            {
                "run": run.name,
                "step": step,
                "quantity": name,
                "dataset": "",
                "value": value,
                "low": math.nan,
                "high": math.nan,
                "num_questions": run.values(quantity.questions).fillna(0).astype("int64"),
                "smoothed": _running_mean(step, value, smooth),
            }
        )
        yield table[value.notna()]


def _validation_rows(run: TrainingRun) -> pd.DataFrame:
    value = run.eval_values(ACCURACY)
    table = pd.DataFrame(
        {
            "run": run.name,
            "step": run.evals["step"],
            "quantity": ACCURACY,
            "dataset": run.evals["dataset"].astype(str),
            "value": value,
            "low": run.eval_values("greedy_low"),
            "high": run.eval_values("greedy_high"),
            "num_questions": run.eval_values("num_prompts").fillna(0).astype("int64"),
            "smoothed": math.nan,
        }
    )
    return table[value.notna()]


def _running_mean(
    step: pd.Series[int], value: pd.Series[float], smooth: int | None
) -> pd.Series[float]:
    """Mean over the last `smooth` steps; at the start, and where values miss, over those there."""
    if smooth is None:
        return pd.Series(math.nan, index=value.index, dtype="float64")
    every = range(int(step.min()), int(step.max()) + 1) if len(step) else range(0)
    at_steps = pd.Series(value.to_numpy(), index=step.to_numpy()).reindex(every)
    mean = at_steps.rolling(smooth, min_periods=1).mean()
    return pd.Series(mean.reindex(step.to_numpy()).to_numpy(), index=value.index)


def _drawn(table: pd.DataFrame, place: int = -1) -> Interval:
    """The value at a place of a series: smoothed where that is drawn; NaN of an empty one."""
    if table.empty:
        return Interval(value=math.nan, low=math.nan, high=math.nan)
    row = table.iloc[place]
    value = row["value"] if math.isnan(row["smoothed"]) else row["smoothed"]
    return Interval(value=float(value), low=float(row["low"]), high=float(row["high"]))


def _summary(curve: pd.DataFrame) -> Iterator[dict[str, object]]:
    several = len(set(curve.loc[curve["quantity"] == ACCURACY, "dataset"])) > 1
    for (run, quantity, dataset), part in curve.groupby(["run", "quantity", "dataset"], sort=False):
        split = f"{run}: {dataset}" if several and quantity == ACCURACY else str(run)
        places = {"first": 0, "last": -1}
        if quantity == ACCURACY:
            # the largest of several noisy values: higher than the policy's accuracy on average
            places["best"] = int(np.argmax(part["value"].to_numpy()))
        for word, place in places.items():
            yield summary_row(
                f"{quantity}_{word}",
                split,
                QUANTITIES[str(quantity)].unit,
                _drawn(part, place),
                num_questions=int(part["num_questions"].iloc[place]),
            )


def _facts(runs: Sequence[TrainingRun], smooth: int | None) -> dict[str, object]:
    return {
        "estimator": "of a step: the mean over its batch; of a validation: the greedy accuracy",
        "interval": "of validations: percentile bootstrap over questions, as the run wrote it; "
        "of a step: none, it is one batch",
        "level": 0.95,
        "smooth": smooth,
        "num_runs": len(runs),
        "num_steps": {run.name: len(run.steps) for run in runs},
        "num_validations": {run.name: len(run.evals) for run in runs},
        "num_prompts_generated": {run.name: run.total("prompts_generated") for run in runs},
        "num_prompts_kept": {run.name: run.total("prompts_kept") for run in runs},
        "exclusions": "",
    }


def _exclusions(runs: Sequence[TrainingRun], curve: pd.DataFrame) -> str:
    """Which runs lack what is drawn of others, and what none of them measured."""
    sentences = [not_begun([run for run in runs if run.steps.empty])]
    begun = {run.name for run in runs if not run.steps.empty}
    for quantity in QUANTITIES:
        lacking = begun - set(curve.loc[curve["quantity"] == quantity, "run"])
        if lacking:
            who = "any run" if lacking == begun and len(begun) > 1 else ", ".join(sorted(lacking))
            sentences.append(f"{_word(quantity)} was not measured in {who}.")
    return " ".join(filter(None, sentences))


def _word(quantity: str) -> str:
    words = {ACCURACY: "Validation accuracy", "retained_share": "The share of retained tokens"}
    return words.get(quantity, quantity.replace("_", " ").capitalize())


def _caption(
    runs: Sequence[TrainingRun], curve: pd.DataFrame, smooth: int | None, exclusions: str
) -> str:
    generated, kept = (
        sum(run.total(name) for run in runs) for name in ("prompts_generated", "prompts_kept")
    )
    sentences = [f"Along the training of {latex_escape(names_with_steps(runs))}"]
    sentences += [
        f"({chr(ord('a') + index)}) {_panel_caption(curve, quantity, dataset)}"
        for index, (quantity, dataset) in enumerate(curve_panels(curve))
    ]
    if generated and kept:
        sentences.append(
            f"Of {counted(generated, 'group')} generated, {kept:,} "
            f"({100 * kept / generated:.1f}\\,\\%) were trained on"
        )
    sentences.append(
        "The horizontal axis is the number of steps finished when the value was measured; a value "
        "of a step is that of its one batch and has no interval"
    )
    if smooth is not None:
        sentences.append(
            "Faint lines are single steps, the others the running mean over the last "
            f"{counted(smooth, 'step')}; validations are not smoothed"
        )
    text = " ".join(f"{sentence}." for sentence in sentences)
    return f"{text} {latex_escape(exclusions)}".strip()


def _panel_caption(curve: pd.DataFrame, quantity: str, dataset: str) -> str:
    text = QUANTITIES[quantity].caption
    if quantity != ACCURACY:
        unit = {"length_mean": " in tokens", "entropy": " in nats"}.get(quantity, "")
        return text[0].upper() + text[1:] + unit
    rows = curve[(curve["quantity"] == quantity) & (curve["dataset"] == dataset)]
    few, many = int(rows["num_questions"].min()), int(rows["num_questions"].max())
    questions = counted(many, "question") if few == many else f"{few:,} to {many:,} questions"
    bands = ""
    if rows["low"].notna().any():
        bands = r"; bands are 95\,\% percentile intervals from resampling the questions"
    return f"{text[0].upper()}{text[1:]}{latex_escape(dataset)} ({questions}){bands}"
