"""The sections of the report, each from its table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from thr_probe.analysis.result import counted
from thr_probe.analysis.timing import MODULES, TOTAL
from thr_probe.reproduce.claims import Verdict
from thr_probe.reproduce.estimates import Results
from thr_probe.reproduce.markdown import plain_markdown
from thr_probe.reproduce.rows import ROWS
from thr_probe.reproduce.settings import DATASET, PRESET, ReproduceConfig
from thr_probe.reproduce.training import THR_SHARE, budget, different_budgets

_TIME_FORMATS = {
    "seeds": "s Seeds",
    **{column: f".2f {column}" for column in MODULES.values()},
    TOTAL: f".2f {TOTAL}",
    THR_SHARE: f".1% {THR_SHARE}",
}

_TRAINING_FORMATS = {
    "seeds": "s Seeds",
    "steps": ".0f Steps",
    "updates": ".0f Updates",
    "prompts_generated": ".0f Prompts made",
    "prompts_kept": ".0f Prompts kept",
    "reward_first": ".3f Reward, first",
    "reward_last": ".3f Reward, last",
    "entropy_first": ".3f Entropy, first",
    "entropy_last": ".3f Entropy, last",
    "length_last": ".0f Length, last",
    "clip_fraction": ".2% Clipped",
    "masked_share": ".1% Masked",
    "retained_share": ".1% Retained",
    "active_share": ".0% Active",
}

_EXACT_FORMATS = {
    "question": "s Question",
    "num_correct": "d Correct of 8",
    "p": ".1f p",
    "net": ".4g net",
    "slope": ".4g slope",
    "predicted": ".5g Predicted",
    "measured": ".5g Measured",
    "error": ".2% Error",
    "second_order": ".2% Second order",
}


_FIGURES = {
    "curves": "Along the training of the core rows, first seed",
    "passk-rows": "Pass@K of the core rows",
    "p-ablation": "Ablation of p",
}


def opening(results: Results, config: ReproduceConfig, hours: str, command: str) -> str:
    """What this is, how it was measured, how much of it is there, how long it took."""
    rows = results.rows
    done = ", ".join(
        f"{row.title} ({', '.join(str(item.job.seed) for item in results.of(row.name))})"
        for row in rows
    )
    shared = ", ".join(f"{name} {value}" for name, value in budget(results).items())
    further = f" {config.train_options}" if config.train_options else ""
    parts = [
        "# The paper at desk scale",
        "The methods of the paper as training runs on the lab, a world of arithmetic questions for "
        "a policy of about a million weights: what holds here may not hold for large models, and "
        "the other way round.",
        f"Every row is trained with `--preset {PRESET}{further}` and its own method"
        + (f" ({shared})" if shared else "")
        + f". Its final policy then answers {config.greedy_prompts} problems of `{DATASET}` at "
        f"temperature 0, and the first {config.sampled_prompts} of these {config.samples} times "
        "each at temperature 1; completions that reach the length limit count as wrong. "
        f"{config.scored_samples} completions of the same problems are scored with THR.",
        f"Rows (seeds): {done or 'none yet'}. {counted(len(ROWS) - len(rows), 'row')} of "
        f"{len(ROWS)} not run.",
        hours,
        *(f"**{sentence}**" for sentence in different_budgets(results)),
        *(f"**Not readable: {note}**" for item in results.measured for note in item.notes),
        f"Made by `{command}`." if command else "",
    ]
    return "\n\n".join(part for part in parts if part)


def claims(table: pd.DataFrame) -> str:
    """A sentence per claim; those that were not run in one paragraph."""
    told = table[table["verdict"] != Verdict.NOT_RUN]
    waiting = table.loc[table["verdict"] == Verdict.NOT_RUN, "sentence"].unique()
    parts = [
        "## Claims of the paper, as they came out here",
        "Each verdict is decided by the 95 % interval of the paired difference alone: *appears* "
        "where it lies on the claimed side of 0, *the opposite appears* where it lies on the other "
        "side, *inside the noise* where it contains 0. Rows are compared in greedy accuracy, or in "
        "the mean of Pass@K over all K above 1: chosen beforehand, as a single K may saturate. The "
        "interval is about the questions; how "
        "much a row changes with its seed is seen in the differences of the seeds, in parentheses. "
        f"Among {counted(len(told), 'interval')} about one in twenty misses its value by chance.",
        "\n".join(f"- {sentence}" for sentence in told["sentence"]),
        "\n".join(f"- {sentence}" for sentence in waiting),
    ]
    return "\n\n".join(part for part in parts if part)


def module_times(table: pd.DataFrame) -> str:
    """Seconds per step and module."""
    parts = [
        "### Seconds per step of each module (Table 10)",
        "Mean over the steps and seeds, on one thread while other runs shared the machine. Total "
        "is the sum of the five. CSV: `tables/times.csv`.",
        plain_markdown(table, _TIME_FORMATS) if len(table) else "No training run is finished.",
    ]
    return "\n\n".join(parts)


def training(table: pd.DataFrame, results: Results) -> str:
    """How training went, and by which metric each mechanism is seen at work."""
    parts = [
        "### Training",
        "Means over the seeds. Rewards are those of all completions generated; first and last are "
        "means of five steps. Masked: tokens whose completion has an advantage and that have none. "
        "Retained: |THR| > tau, mean over the steps (Table 16), where THR was computed. Active: "
        "the share of the training in which the mechanism of the row acted. CSV: "
        "`tables/training.csv`.",
    ]
    if table.empty:
        return "\n\n".join([*parts, "No training run is finished."])
    seen = "\n".join(
        f"- {row.title}: {row.activity}" for row in results.rows if row.name in set(table["row"])
    )
    return "\n\n".join(
        [*parts, plain_markdown(table, _TRAINING_FORMATS), "What tells that it acted:", seen]
    )


def exact(table: pd.DataFrame) -> str:
    """The first-order check."""
    parts = [
        "### One step on one question: measured and predicted",
        "THR(p) promises that a step of size e on the unembedding alone (hidden states held fixed; "
        "no KL, weight decay or gradient clipping) changes F, the summed mean log-likelihood of "
        "the question's correct completions, by e (net + p slope). Measured is the change over e, "
        "e being halved until the second-order part is below 0.3 %. Error and second order are "
        "shares of max(|net|, |slope|). CSV: `tables/first-order.csv`.",
    ]
    if table.empty:
        return "\n\n".join([*parts, "No question had right and wrong completions."])
    worst = f"The largest error is {table['error'].max():.2%} (accepted: 1 %)."
    return "\n\n".join([*parts, plain_markdown(table, _EXACT_FORMATS), worst])


def figures(paths: Sequence[Path]) -> str:
    """The figures that are there; captions and numbers lie beside them."""
    shown = [
        f"{title}:\n\n![{title}](figures/{name}.png)"
        for name, title in _FIGURES.items()
        if name in {path.stem for path in paths}
    ]
    return "\n\n".join(["## Figures", *shown]) if shown else ""


def not_run(results: Results, commands: pd.DataFrame) -> str:
    """Rows without any run, and stages that are planned or begun but not finished."""
    absent = [row.title for row in ROWS if row not in results.rows]
    present = {row.name for row in results.rows}
    waiting = commands[~commands["done"].astype(bool) & commands["row"].isin(present)]
    stages = [
        f"{name}-s{seed} ({', '.join(group['stage'])})"
        for (name, seed), group in waiting.groupby(["row", "seed"], sort=False)
    ]
    parts = [
        f"Rows: {', '.join(absent)}." if absent else "",
        f"Parts of rows: {', '.join(stages)}." if stages else "",
    ]
    told = [part for part in parts if part]
    return "\n\n".join(["## Not run", *told]) if told else ""


def run_commands(table: pd.DataFrame) -> str:
    """The command that trained each row; those of the evaluation are in the CSV."""
    trained = table[(table["stage"] == "train") & table["done"].astype(bool)]
    lines = "\n".join(str(command) for command in trained["command"])
    return (
        "## Commands\n\nThe training run of each row; the commands of all stages are in "
        f"`tables/commands.csv`.\n\n```sh\n{lines}\n```"
        if lines
        else ""
    )
