"""What a user says about an import, and what the run keeps of it in config.toml."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields

from thr_probe.errors import UsageError
from thr_probe.traces.importers.foreign import ImportOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportSettings:
    """Options of an import; None where the files decide."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """Of the generic format: our field -> the file's column."""
    reward_column: str | None = None
    """Which of several rewards, metrics or scores counts."""
    correct_above: float | None = None
    """A reward above it is right; None: above 0, for rewards that are all 0 or 1, or all -1 or 1.
    """
    regrade: bool = False
    """Judge every completion with `verifier`, whatever the files say."""
    verifier: str = "math"
    """What judges completions without a label: math, or module:function."""
    tokenizer: str | None = None
    """The policy's tokenizer: lab, a folder or a hub id."""
    chat_template: bool = True
    """Put prompts that are messages through the tokenizer's chat template."""
    revision: str | None = None
    """Of a tokenizer on the hub."""
    model_name: str | None = None
    """The policy's name; None: as the files say."""
    dataset_name: str | None = None
    """The problem set's name; None: as the files say, else the first file's own name."""
    temperature: float | None = None
    """That the completions were sampled at; None: not known, scored at 1."""
    steps: tuple[int, int] | None = None
    """First step wanted and the one behind the last; None: all."""
    max_groups: int | None = None
    """Only the first so many groups."""
    trust: bool = False
    """Open files that are not mere data (.pt)."""

    def __post_init__(self) -> None:
        if self.max_groups is not None and self.max_groups < 1:
            raise UsageError(f"--max-groups must be at least 1, got {self.max_groups}")
        if self.correct_above is not None and not math.isfinite(self.correct_above):
            raise UsageError(f"--correct-above must be a number, got {self.correct_above}")
        if self.temperature is not None and not 0 <= self.temperature < math.inf:
            raise UsageError(f"--temperature must be at least 0, got {self.temperature}")

    @property
    def options(self) -> ImportOptions:
        """The importers' part."""
        return ImportOptions(
            columns=self.columns, reward_column=self.reward_column, trust=self.trust
        )

    def saved(self) -> dict[str, object]:
        """As config.toml keeps it: what is None is left out."""
        content = asdict(self) | {"columns": dict(self.columns)}
        if self.steps is not None:
            content["steps"] = steps_text(self.steps)
        return {name: value for name, value in content.items() if value not in (None, {})}


def parse_steps(text: str | None) -> tuple[int, int] | None:
    """`A:B` as (A, B), `A:` and `:B` open; B is not included.

    >>> parse_steps("10:20"), parse_steps(":5"), parse_steps(None)
    ((10, 20), (0, 5), None)

    Raises:
        UsageError: anything else.
    """
    if text is None:
        return None
    first, colon, last = text.partition(":")
    try:
        steps = int(first or 0), int(last or 2**31 - 1)
    except ValueError:
        steps = (0, 0)
    if not colon or steps[0] >= steps[1]:
        raise UsageError(
            f"--steps {text!r} is no range of steps", "write 10:20 for the steps 10 to 19"
        )
    return steps


def steps_text(steps: tuple[int, int]) -> str:
    """The range as it is typed."""
    return f"{steps[0]}:{steps[1]}"


def changed_settings(saved: Mapping[str, object], wanted: Mapping[str, object]) -> list[str]:
    """Keys of two config.toml contents that differ, as sentences."""
    names = [item.name for item in fields(ImportSettings)]
    names += sorted({*saved, *wanted} - set(names))
    return [
        f"{name} is {_shown(saved.get(name))} there, {_shown(wanted.get(name))} here"
        for name in names
        if saved.get(name) != wanted.get(name)
    ]


def _shown(value: object) -> str:
    if isinstance(value, list) and value and isinstance(value[0], Mapping):  # the files
        return ", ".join(f"{row.get('path')} ({row.get('bytes')} bytes)" for row in value)
    return repr(value)
