"""The options of `thr-probe reproduce`: which rows and seeds, and how every row is evaluated."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from thr_probe.config import OUTPUT, SAMPLING, Options, option
from thr_probe.errors import UsageError
from thr_probe.reproduce.rows import ROWS, Row, row_named

PRESET = "lab"
MODEL = "lab"
DATASET = "lab:test"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReproduceConfig(Options):
    """Options of `thr-probe reproduce`."""

    quick: bool = option(
        default=False, meaning="Only the six core rows, with the first seed alone."
    )
    rows: str | None = option(
        None,
        "Rows by name, separated by commas, or all: these with every seed. Unset: the core rows "
        "with every seed, the others with the first.",
    )
    seeds: str = option("0,1,2", "Seeds, separated by commas.")
    workers: int = option(2, "Runs at a time, each with one thread.")
    train_options: str = option(
        "", "Options of `thr-probe train` for every row, in one string, beside the lab preset."
    )
    greedy_prompts: int = option(
        300, "Held-out problems answered greedily.", panel=SAMPLING, least=2
    )
    sampled_prompts: int = option(64, "Held-out problems of Pass@K.", panel=SAMPLING, least=2)
    samples: int = option(64, "Completions per problem of Pass@K.", panel=SAMPLING)
    scored_samples: int = option(
        8, "Completions per problem whose THR is computed at the end.", panel=SAMPLING
    )
    report: str | None = option(None, "Folder of the report; unset: OUT/report.", panel=OUTPUT)
    report_only: bool = option(
        default=False, meaning="Only write the report of what is there.", panel=OUTPUT
    )


SHARED = ("train_options", "greedy_prompts", "sampled_prompts", "samples", "scored_samples")
"""Options that all rows of one replication must have in common."""


def seeds_of(config: ReproduceConfig) -> tuple[int, ...]:
    """The seeds, in order; the first alone where the replication is quick.

    Raises:
        UsageError: a seed that is no whole number, or is there twice.
    """
    words = [word.strip() for word in config.seeds.split(",") if word.strip()]
    if not words or not all(word.isdecimal() for word in words) or len(set(words)) < len(words):
        raise UsageError(f"--seeds takes different whole numbers, got {config.seeds!r}", "0,1,2")
    seeds = tuple(int(word) for word in words)
    return seeds[:1] if config.quick else seeds


def rows_of(config: ReproduceConfig) -> tuple[Row, ...]:
    """The rows that were asked for, in the order of the tables.

    Raises:
        UsageError: a row that does not exist, none at all, or all rows of a quick replication.
    """
    if config.rows is None:
        return tuple(row for row in ROWS if row.is_core or not config.quick)
    if config.rows == "all":
        if config.quick:
            raise UsageError("--rows all and --quick exclude each other", "leave one of them out")
        return ROWS
    named = {row_named(word.strip()) for word in config.rows.split(",") if word.strip()}
    if not named:
        raise UsageError(f"--rows takes one or more rows, got {config.rows!r}", "all")
    return tuple(row for row in ROWS if row in named)


def train_words(config: ReproduceConfig) -> list[str]:
    """The further options of every training run, as words.

    Raises:
        UsageError: quotes that are not closed.
    """
    try:
        return shlex.split(config.train_options)
    except ValueError as error:
        raise UsageError(f"--train-options {config.train_options!r}: {error}") from error
