"""The card of the lab's policy: how it was made, what was measured, which target is missed."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers

from thr_probe.lab.training import RecipeSettings

RECORD = "recipe.json"
CARD = "README.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One property the policy was meant to have."""

    name: str
    """What is measured."""
    wanted: str
    """The target in words."""
    value: Callable[[dict[str, Any]], float]
    """The measured value."""
    met: Callable[[dict[str, Any]], bool]
    """Whether the target is met."""


def greedy_accuracy(figures: dict[str, Any]) -> float:
    """Greedy accuracy over all greedy problems."""
    return float(figures["greedy"]["accuracy"])


def sampled(name: str) -> Callable[[dict[str, Any]], float]:
    """A figure measured at temperature 1."""
    return lambda figures: float(figures["sampled"][name])


def pass_at(figures: dict[str, Any], k: int) -> float:
    """Pass@K at temperature 1; NaN where fewer samples were drawn."""
    return float(figures["sampled"]["pass_at_k"].get(str(k), float("nan")))


def gain_of_sampling(figures: dict[str, Any]) -> float:
    """Pass@32 less greedy accuracy, both on the problems that were sampled."""
    return pass_at(figures, 32) - float(figures["greedy_on_sampled"]["accuracy"])


def late_gain(figures: dict[str, Any]) -> float:
    """Pass@128 less Pass@32."""
    return pass_at(figures, 128) - pass_at(figures, 32)


def within(
    low: float, high: float, value: Callable[[dict[str, Any]], float]
) -> Callable[[dict[str, Any]], bool]:
    """Whether a value lies in a closed range."""
    return lambda figures: low <= value(figures) <= high


def in_range(
    name: str, wanted: str, value: Callable[[dict[str, Any]], float], low: float, high: float
) -> Target:
    """A target that is a closed range."""
    return Target(name=name, wanted=wanted, value=value, met=within(low, high, value))


TARGETS = (
    in_range("greedy accuracy", "0.40 to 0.75", greedy_accuracy, 0.40, 0.75),
    in_range("accuracy at temperature 1", "0.30 to 0.60", sampled("accuracy"), 0.30, 0.60),
    Target(
        name="greedy less accuracy at temperature 1, same problems",
        wanted="above 0",
        value=lambda f: f["greedy_on_sampled"]["accuracy"] - f["sampled"]["accuracy"],
        met=lambda f: f["greedy_on_sampled"]["accuracy"] > f["sampled"]["accuracy"],
    ),
    in_range("Pass@32 less greedy, same problems", "at least 0.15", gain_of_sampling, 0.15, 1.0),
    in_range("Pass@128 less Pass@32", "above 0.01", late_gain, 0.01, 1.0),
    in_range("mixed groups of 8", "at least 0.50", sampled("mixed_groups_of_8"), 0.5, 1.0),
    in_range(
        "completions with a reflection word", "at least 0.10", sampled("reflection_share"), 0.1, 1.0
    ),
    in_range("median completion, tokens", "30 to 150", sampled("median_tokens"), 30.0, 150.0),
    in_range("median token entropy, nats", "below 0.15", sampled("entropy_median"), 0.0, 0.15),
    in_range(
        "80th percentile of token entropy, nats",
        "above 0.50",
        sampled("entropy_80th_percentile"),
        0.5,
        99.0,
    ),
)


def write_record(directory: Path, settings: RecipeSettings, *, loss: float, seconds: float) -> None:
    """Settings and versions of a training run, beside the weights."""
    record = {
        "settings": asdict(settings),
        "loss": round(loss, 4),
        "seconds": round(seconds),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__,
        },
    }
    (directory / RECORD).write_text(json.dumps(record, indent=1) + "\n")


def target_rows(figures: dict[str, Any]) -> list[str]:
    """The table of targets with what was measured."""
    rows = ["| figure | target | measured | |", "| --- | --- | --- | --- |"]
    for target in TARGETS:
        verdict = "met" if target.met(figures) else "**missed**"
        rows.append(
            f"| {target.name} | {target.wanted} | {target.value(figures):.3g} | {verdict} |"
        )
    return rows


def minutes_row(seconds: float) -> str:
    """The row of the training time."""
    minutes = seconds / 60
    verdict = "met" if 10 <= minutes <= 60 else "**missed**"
    return f"| training, minutes | 10 to 60 | {minutes:.0f} | {verdict} |"


def kind_rows(figures: dict[str, Any]) -> list[str]:
    """Accuracy of every kind of problem."""
    greedy, drawn = figures["greedy"], figures["sampled"]
    rows = [
        f"| kind | greedy (N) | temperature 1 | solved in {drawn['num_samples']} samples |",
        "| --- | --- | --- | --- |",
    ]
    for kind, accuracy in greedy["per_kind"].items():
        rows.append(
            f"| {kind} | {accuracy:.3f} ({greedy['num_per_kind'][kind]}) "
            f"| {drawn['accuracy_per_kind'][kind]:.3f} "
            f"| {drawn['pass_at_all_per_kind'][kind]:.3f} |"
        )
    return rows


def command_line(settings: dict[str, Any]) -> str:
    """The command that repeats a run, with only the options that differ from the defaults."""
    defaults = asdict(RecipeSettings())
    options = [
        f" --{name.replace('_', '-')} {value}"
        for name, value in settings.items()
        if name == "seed" or value != defaults[name]
    ]
    return "python -m thr_probe.lab.recipe --out DIR" + "".join(options)


def pass_line(figures: dict[str, Any]) -> str:
    """The Pass@K curve in one line."""
    curve = figures["sampled"]["pass_at_k"]
    return ", ".join(f"K={k}: {value:.3f}" for k, value in curve.items())


def card_text(record: dict[str, Any]) -> str:
    """The card in Markdown, from the record of a run and its figures."""
    figures, settings, versions = record["figures"], record["settings"], record["versions"]
    drawn = figures["sampled"]
    made_with = ", ".join(f"{name} {version}" for name, version in versions.items())
    lines = [
        "---",
        "license: apache-2.0",
        "library_name: transformers",
        "---",
        "",
        "# The lab's policy",
        "",
        "A small Qwen2-architecture language model that solves the arithmetic problems of "
        "`thr_probe.lab` about as well as an interesting policy should: well enough to be right "
        "at times, not well enough to be sure. It exists to be probed, not to do arithmetic.",
        "",
        "## How it was made",
        "",
        "```",
        command_line(settings),
        "```",
        "",
        f"{settings['updates']} + {settings['final_updates']} AdamW updates of "
        f"{settings['batch_size']} texts each (two stages, `thr_probe/lab/mix.py`), on one CPU "
        f"core in {record['seconds'] / 60:.0f} minutes (core shared with other work), last mean "
        f"loss {record['loss']:.3f} nats per completion token. Made with {made_with}. Hidden size "
        f"{settings['hidden_size']}, {settings['num_layers']} layers, tied embeddings, byte-level "
        "BPE tokenizer trained by the same command. Weights are float16 on disk.",
        "",
        "All texts were written by the recipe from a seed while the model learned; no other data "
        "was used. Texts and weights are licensed under Apache-2.0. The prompt is "
        "`Question: ...`, a new line, `Answer:`; a completion ends in `\\boxed{integer}`.",
        "",
        "## Measured on held-out problems",
        "",
        f"Test split, seed 0. Greedy: the first {figures['greedy']['num_problems']} problems. "
        f"Temperature 1: {drawn['num_samples']} samples for each of the first "
        f"{drawn['num_problems']} problems; greedy accuracy on these alone is "
        f"{figures['greedy_on_sampled']['accuracy']:.3f}.",
        "",
        *target_rows(figures),
        minutes_row(float(record["seconds"])),
        "",
        f"Pass@K (unbiased): {pass_line(figures)}.",
        "",
        *kind_rows(figures),
        "",
        f"Completions with a box: {drawn['boxed_share']:.3f}. "
        f"Mean token entropy: {drawn['entropy_mean']:.3f} nats.",
        "",
    ]
    return "\n".join(lines)


def write_card(directory: Path, figures: dict[str, Any]) -> None:
    """Add the figures to the record and write the card from both."""
    path = directory / RECORD
    record = json.loads(path.read_text()) | {"figures": figures}
    path.write_text(json.dumps(record, indent=1) + "\n")
    (directory / CARD).write_text(card_text(record))
