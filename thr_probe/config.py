"""The options of every command, declared once: flags, environment, config file and defaults.

Precedence: command line, then THR_PROBE_<NAME>, then the --config file, then the default.
"""

from __future__ import annotations

import difflib
import tomllib
import types
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from thr_probe.engine_options import check_engine
from thr_probe.errors import DataError, UsageError

ENVIRONMENT_PREFIX = "THR_PROBE_"
COMMANDS = ("collect", "score", "demo", "train", "eval", "reproduce")


GENERAL, POLICY, PROBLEMS = "Options", "Policy", "Problems"
SAMPLING, ENGINE, VERIFIER = "Sampling", "Engine", "Verifier"
METHOD, THR, OBJECTIVE = "Method", "THR", "Objective"
OPTIMISER, OUTPUT = "Optimiser", "Output"
PANELS = (
    *(GENERAL, POLICY, PROBLEMS, SAMPLING, ENGINE, VERIFIER),
    *(METHOD, THR, OBJECTIVE, OPTIMISER, OUTPUT),
)
"""Headings of the options in the help, in their order."""


class Origin(StrEnum):
    """Where the value of an option came from; the later goes before the earlier."""

    DEFAULT = "default"
    PRESET = "preset"
    FILE = "config file"
    ENVIRONMENT = "environment"
    FLAG = "flag"


def option(default: object, meaning: str, *flags: str, panel: str = GENERAL, least: int = 1) -> Any:
    """A config field: its default, what it means (also the flag's help) and extra flag names.

    A whole number must be at least `least`.
    """
    return field(
        default=default,
        metadata={"help": meaning, "flags": flags, "panel": panel, "least": least},
    )


def same_option(kind: type[Options], name: str) -> Any:
    """A config field like one of another command's."""
    found = {item.name: item for item in fields(kind)}[name]
    return field(default=found.default, metadata=found.metadata)


def flag_name(name: str) -> str:
    """The flag of an option."""
    return "--" + name.replace("_", "-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What every command's options share: whole numbers are counts, and the seed fits a trace."""

    def __post_init__(self) -> None:
        check_counts(self)


def check_counts(config: Options) -> None:
    """Every whole number but a seed counts something, at least one unless the field says less.

    Raises:
        UsageError: naming the flag.
    """
    hints = get_type_hints(type(config))
    for item in fields(config):
        value, least = getattr(config, item.name), item.metadata["least"]
        if item.name == "seed":
            if not 0 <= value < 2**63:
                raise UsageError(f"--seed must lie in 0..2^63-1, got {value}")
        elif _plain_type(hints[item.name]) is int and value is not None and value < least:
            raise UsageError(f"{flag_name(item.name)} must be at least {least}, got {value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringConfig(Options):
    """Which policy, where it runs, and how THR and its threshold are computed."""

    model: str = option(
        "lab", "Policy: lab (in the package), a directory or a hub id.", panel=POLICY
    )
    revision: str | None = option(None, "Revision of a hub model.", panel=POLICY)
    adapter: str | None = option(
        None, "LoRA adapter, a directory or hub id, merged on loading.", panel=POLICY
    )
    device: str = option("auto", "auto, cpu or cuda.", panel=POLICY)
    dtype: str = option(
        "auto", "float32, bfloat16, or auto: bfloat16 on CUDA, else float32.", panel=POLICY
    )
    batch_tokens: int = option(65536, "Tokens per forward batch.", panel=POLICY)
    vocab: str = option(
        "sparse",
        "Columns THR reads: sparse (those that matter, with a certified bound), full, group or "
        "pairwise.",
        panel=THR,
    )
    tolerance: float = option(
        1e-3, "Of sparse: mean bound on the error, relative to the mean |THR|.", panel=THR
    )
    eps: float | None = option(
        None, "Of sparse, in place of --tolerance: mean probability of a kept column.", panel=THR
    )
    exact: bool = option(
        default=False,
        meaning="Of sparse: tokens that float32 cannot decide in float64, at many times the cost.",
        panel=THR,
    )
    chunk_size: int = option(1024, "Completion tokens per chunk of logits.", panel=THR)
    beta: float = option(1.0, "Factor of the threshold tau; -inf keeps every token.", panel=THR)
    reduce: str = option("min", "tau over the correct completions: min or mean.", panel=THR)
    self_influence: str = option(
        "include", "A completion's influence on itself in tau: include or exclude.", panel=THR
    )
    split: bool = option(
        default=False, meaning="Also store thr_self and thr_within per token.", panel=THR
    )
    thr_error: bool = option(
        default=False, meaning="Also store the bound on the error of thr per token.", panel=THR
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutConfig(ScoringConfig):
    """Which problems, and how their completions are drawn and judged."""

    template: str | None = option(
        None,
        "qwen-boxed, abel, plain, chat or lab; unset: lab for the lab, else qwen-boxed.",
        panel=PROBLEMS,
    )
    question_column: str | None = option(
        None, "Column of the question, where it is not found.", panel=PROBLEMS
    )
    answer_column: str | None = option(
        None, "Column of the gold answer, where it is not found.", panel=PROBLEMS
    )
    max_prompts: int | None = option(None, "Only the first so many problems.", panel=PROBLEMS)
    max_prompt_tokens: int = option(
        1024, "Problems with a longer prompt are skipped and counted.", panel=PROBLEMS
    )
    temperature: float = option(1.0, "Sampling temperature; 0 is greedy.", panel=SAMPLING)
    top_p: float = option(1.0, "Nucleus of the sampling distribution.", panel=SAMPLING)
    max_new_tokens: int | None = option(
        None, "Longest completion; unset: 3072, or what the context leaves.", panel=SAMPLING
    )
    seed: int = option(0, "Seed of the sampling.", panel=SAMPLING)
    engine: str = option(
        "transformers",
        "What generates: transformers (the policy itself), vllm (in this process), or openai (a "
        "running server, --base-url).",
        panel=ENGINE,
    )
    tensor_parallel: int | None = option(None, "vllm: GPUs that share the model.", panel=ENGINE)
    gpu_memory: float | None = option(
        None,
        "vllm: share of the GPU's memory it takes; unset: 0.9, or 0.6 where THR is computed on "
        "the same GPU, 0.4 where the policy is trained there.",
        panel=ENGINE,
    )
    max_num_seqs: int | None = option(
        None, "vllm: completions at once; unset: vLLM's own.", panel=ENGINE
    )
    base_url: str | None = option(
        None,
        "openai: address of the server, http://HOST:PORT/v1; a key is read from OPENAI_API_KEY.",
        panel=ENGINE,
    )
    served_model: str | None = option(
        None, "openai: the server's name of the model; unset: the only one.", panel=ENGINE
    )
    concurrency: int | None = option(None, "openai: requests at once; unset: 64.", panel=ENGINE)
    retries: int | None = option(
        None, "openai: repetitions of a failed request; unset: 5.", panel=ENGINE, least=0
    )
    request_timeout: float | None = option(
        None, "openai: seconds that a request may take; unset: 600.", panel=ENGINE
    )
    verifier: str = option(
        "math", "math, or module:function called with (completion, answer).", panel=VERIFIER
    )
    correct_above: float | None = option(
        None, "Rewards above this count as correct; for rewards other than 0 and 1.", panel=VERIFIER
    )
    verify_workers: int = option(2, "Processes of the verifier.", panel=VERIFIER)

    def __post_init__(self) -> None:
        Options.__post_init__(self)
        check_engine(config_dict(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectConfig(RolloutConfig):
    """Options of `thr-probe collect`."""

    dataset: str = option(
        "lab", "Problems: lab, a .parquet, .jsonl or .csv file, or a hub id.", panel=PROBLEMS
    )
    group_size: int = option(8, "Completions per problem (G).", "-n", panel=SAMPLING)
    shard_prompts: int = option(
        32, "Problems per shard: sampled together, saved together.", panel=SAMPLING
    )
    truncated_wrong: bool = option(
        default=False,
        meaning="A completion that the length limit cut off counts as wrong, whatever it says.",
        panel=VERIFIER,
    )
    score: bool = option(
        default=True,
        meaning="Compute THR; --no-score leaves it to thr-probe score. On unless told.",
        panel=THR,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreConfig(ScoringConfig):
    """Options of `thr-probe score`."""

    temperature: float | None = option(
        None, "Temperature of pi; unset: that of the rollouts.", panel=THR
    )
    score_id: str | None = option(None, "Name of the score set; unset: from the model's name.")


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoConfig(Options):
    """Options of `thr-probe demo`."""

    max_prompts: int = option(64, "Lab problems to collect.")
    group_size: int = option(8, "Completions per problem (G).", "-n")
    seed: int = option(0, "Seed of the sampling.")


Config = TypeVar("Config", bound=Options)


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """The value of an option that somebody set."""

    value: Any
    """The value, of the option's type."""
    origin: Origin
    """Who set it."""


def resolve_config(
    kind: type[Config],
    flags: Mapping[str, Any],
    *,
    command: str,
    environment: Mapping[str, str],
    config_file: Path | None = None,
) -> Config:
    """Merge flags that were given (not None), environment and config file over the defaults.

    Raises:
        UsageError: an unknown key, with the closest known one, or a value of the wrong type.
        DataError: a config file that cannot be read.
    """
    given = given_options(
        kind, flags, command=command, environment=environment, config_file=config_file
    )
    return kind(**{name: item.value for name, item in given.items()})


def given_options(
    kind: type[Config],
    flags: Mapping[str, Any],
    *,
    command: str,
    environment: Mapping[str, str],
    config_file: Path | None = None,
) -> dict[str, Given]:
    """The options that were set, each from the source that goes first; errors of resolve_config."""
    given: dict[str, Given] = {}
    if config_file is not None:
        for name, value in _from_file(kind, config_file, command).items():
            given[name] = Given(value=value, origin=Origin.FILE)
    for name, wanted in declared_types(kind).items():
        variable = ENVIRONMENT_PREFIX + name.upper()
        if variable in environment:
            value = _parsed(environment[variable], wanted, variable)
            given[name] = Given(value=value, origin=Origin.ENVIRONMENT)
    for name, value in flags.items():
        if value is not None:
            given[name] = Given(value=value, origin=Origin.FLAG)
    return given


def from_saved(kind: type[Config], saved: Mapping[str, Any], origin: Path) -> Config:
    """The config of a run from its config.toml (options that were None are absent there)."""
    declared = declared_types(kind)
    _check_keys(saved, declared, origin)
    return kind(
        **{
            name: _checked(value, declared[name], f"{origin}: {name}")
            for name, value in saved.items()
        }
    )


def config_dict(config: Config) -> dict[str, object]:
    """The resolved options by name."""
    return asdict(config)


def differences(saved: Config, wanted: Config, *, but: Collection[str] = frozenset()) -> list[str]:
    """Options in which two configs differ, as sentences; `but` may."""
    return [
        f"{item.name} is {getattr(saved, item.name)!r} there, {getattr(wanted, item.name)!r} here"
        for item in fields(saved)
        if getattr(saved, item.name) != getattr(wanted, item.name) and item.name not in but
    ]


def declared_types(kind: type[Config]) -> dict[str, type]:
    """Name and plain type (without `| None`) of every option of a command."""
    hints = get_type_hints(kind)
    return {item.name: _plain_type(hints[item.name]) for item in fields(kind)}


def _plain_type(hint: Any) -> type:
    if get_origin(hint) in {Union, types.UnionType}:
        hint = next(part for part in get_args(hint) if part is not types.NoneType)
    return cast(type, hint)


def _from_file(kind: type[Config], path: Path, command: str) -> dict[str, Any]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such config file") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as TOML: {error}") from error
    # one file may hold a [table] per command beside keys for all of them
    tables = {
        name: value
        for name, value in content.items()
        if name in COMMANDS and isinstance(value, dict)
    }
    keys = {name: value for name, value in content.items() if name not in tables}
    given = {**keys, **tables.get(command, {})}
    values = {name.replace("-", "_"): value for name, value in given.items()}
    declared = declared_types(kind)
    _check_keys(values, declared, path)
    return {
        name: _checked(value, declared[name], f"{path}: {name}") for name, value in values.items()
    }


def _check_keys(values: Mapping[str, Any], declared: Mapping[str, type], path: Path) -> None:
    for name in values:
        if name not in declared:
            close = difflib.get_close_matches(name, declared, n=1)
            raise UsageError(
                f"{path}: unknown key {name!r}",
                f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(declared))}",
            )


def _checked(value: Any, wanted: type, where: str) -> Any:
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not wanted:
        raise UsageError(f"{where}: found {value!r}, expected {wanted.__name__}")
    return value


def _parsed(text: str, wanted: type, where: str) -> Any:
    try:
        if wanted is bool:
            return {"1": True, "true": True, "0": False, "false": False}[text.lower()]
        return wanted(text)
    except (KeyError, ValueError) as error:
        raise UsageError(f"{where}: found {text!r}, expected {wanted.__name__}") from error
