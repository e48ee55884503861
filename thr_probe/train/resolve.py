"""The options of one training run: where each came from, and those that would do nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thr_probe.config import (
    Given,
    Origin,
    config_dict,
    declared_types,
    flag_name,
    given_options,
)
from thr_probe.errors import UsageError
from thr_probe.train.config import TrainConfig
from thr_probe.train.presets import NO_PRESET, preset_values


def resolve_train(
    flags: Mapping[str, Any],
    *,
    environment: Mapping[str, str],
    config_file: Path | None = None,
    saved: TrainConfig | None = None,
) -> tuple[TrainConfig, dict[str, Given]]:
    """The options of a training run: flags, environment, config file, preset, defaults.

    Args:
        flags: by name; None where not given.
        environment: of the process.
        config_file: TOML, keys as flags.
        saved: options of a run to resume, which then stand for preset and defaults.

    Returns:
        The options, and where each that is not a default came from.

    Raises:
        UsageError: an unknown key, preset or word, or a combination that is impossible.
    """
    given = given_options(
        TrainConfig, flags, command="train", environment=environment, config_file=config_file
    )
    base = _preset(given) if saved is None else _saved(saved)
    asked = dict(given)
    if saved is None or ("preset" in given and given["preset"].value == "auto"):
        asked.pop("preset", None)  # the preset that auto stands for is what is recorded
    merged = _with_fixed_aggregate(_without_idle_preset({**base, **asked}))
    config = TrainConfig(**{name: item.value for name, item in merged.items()})
    check_given(config, {name: item for name, item in given.items() if item.origin is Origin.FLAG})
    return config, merged


def _saved(saved: TrainConfig) -> dict[str, Given]:
    return {
        name: Given(value=value, origin=Origin.FILE)
        for name, value in config_dict(saved).items()
        if value is not None
    }


def _preset(given: Mapping[str, Given]) -> dict[str, Given]:
    """The options of the preset; `auto` is the lab's for the lab's policy."""
    asked = given["preset"].value if "preset" in given else "auto"
    model = given["model"].value if "model" in given else "lab"
    name = {"auto": "lab" if model == "lab" else NO_PRESET}.get(asked, asked)
    values = preset_values(name)
    unknown = sorted(values.keys() - declared_types(TrainConfig).keys())
    if unknown:
        raise UsageError(f"preset {name}: unknown key {unknown[0]!r}")
    if "model" in values and "dataset" not in given:
        raise UsageError(
            f"--preset {name} needs --dataset: the problems to train on",
            "the paper trains on MATH, levels 3 to 5 (SimpleRL-Zoo)",
        )
    named = {**values, "preset": name}
    return {key: Given(value=value, origin=Origin.PRESET) for key, value in named.items()}


def _without_idle_preset(merged: dict[str, Given]) -> dict[str, Given]:
    """A preset's keep-entropy belongs to THR; only where somebody asked for it is that an error."""
    kept, method = merged.get("keep_entropy"), merged.get("method")
    if kept is None or kept.origin is not Origin.PRESET or method is None or method.value == "thr":
        return merged
    return {name: item for name, item in merged.items() if name != "keep_entropy"}


def _with_fixed_aggregate(merged: dict[str, Given]) -> dict[str, Given]:
    """GSPO has one aggregate; only where another was asked for is that an error."""
    objective = merged["objective"].value if "objective" in merged else "grpo"
    if objective == "grpo" or "aggregate" in merged:
        return merged
    return {**merged, "aggregate": Given(value="sequence-mean", origin=Origin.DEFAULT)}


def check_given(config: TrainConfig, given: Mapping[str, Given]) -> None:
    """Refuse options that were typed but would do nothing.

    Raises:
        UsageError: naming both options.
    """
    idle = {
        "clip_low": ("cov", config.cov == "kl-cov"),
        "clip_high": ("cov", config.cov == "kl-cov"),
        "dual_clip": ("cov", config.cov != "none"),
        "p": ("method", config.method != "thr"),
        "keep_entropy": ("method", config.method != "thr"),
        "entropy_share": ("method", config.method != "entropy-top"),
        "mix": ("pass_at_k", config.pass_at_k != "mixed"),
        "chi": ("pass_at_k", config.pass_at_k != "static"),
        "k": ("pass_at_k", config.pass_at_k == "none" and config.advantage != "pkpo"),
        "cov_scope": ("cov", config.cov == "none"),
        "cov_share": ("cov", config.cov == "none"),
        "cov_coef": ("cov", config.cov != "kl-cov"),
        "cov_low": ("cov", config.cov != "clip-cov"),
        "cov_high": ("cov", config.cov != "clip-cov"),
        "tis_cap": ("importance_correction", config.importance_correction == "none"),
        "p_final": ("adaptive_p", config.adaptive_p != "schedule"),
        "target_entropy": ("adaptive_p", config.adaptive_p != "entropy"),
        "p_gain": ("adaptive_p", config.adaptive_p != "entropy"),
        "p_limit": ("adaptive_p", config.adaptive_p != "entropy"),
    }
    for name, (other, is_idle) in idle.items():
        if name in given and is_idle:
            raise UsageError(
                f"{flag_name(name)} does nothing with {flag_name(other)} {getattr(config, other)}",
                f"leave {flag_name(name)} out, or choose another {flag_name(other)}",
            )


def warnings_of(config: TrainConfig) -> list[str]:
    """What is allowed but will surprise, in sentences."""
    told = []
    if config.cov == "kl-cov" and config.updates_per_step == 1:
        told.append(
            "--cov kl-cov does nothing with one update per step: at a ratio of 1 its penalty and "
            "the gradient of it are 0; lower --mini-batch"
        )
    if config.objective != "grpo" and config.clip_low >= 0.05:
        told.append(
            f"--objective {config.objective} with --clip-low {config.clip_low:g} hardly ever clips "
            "the ratio of a completion; GSPO's own setting is --clip-low 3e-4 --clip-high 4e-4 "
            "--kl-coef 0"
        )
    if config.importance_correction == "tis" and config.top_p < 1:
        told.append(
            f"--importance-correction tis with --top-p {config.top_p:g}: sampler log-probabilities "
            "are renormalised over the nucleus, so the weights also contain the mass of the "
            "nucleus, between top_p and 1; tokens outside of it are never drawn, and no "
            "weight brings them back"
        )
    if config.temperature != 1.0:
        told.append(
            f"--temperature {config.temperature:g}: log-probabilities, entropy and THR are those "
            "at that temperature"
        )
    return told
