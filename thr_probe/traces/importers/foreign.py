"""What every importer yields: completions as another program saved them, and rows it refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignCompletion:
    """One completion of another program; None where its files do not say."""

    where: str
    """File and line or row, as errors and the audit name it."""
    group: str
    """Key of the prompt's group within its step: completions with the same key are compared."""
    text: str
    """The completion."""
    prompt_text: str
    """What the policy continued, chat template applied where the file has it so; empty, as the text
    is, where the file has nothing but ids."""
    prompt_messages: Sequence[Mapping[str, str]] | None = None
    """The prompt as role and content of each message, where the file has no template applied."""
    question: str | None = None
    """The question alone; None: the prompt text stands for it."""
    answer: str | None = None
    """The gold answer."""
    answer_alt: str | None = None
    """A second accepted form of it."""
    step: int | None = None
    """Step of training; None outside."""
    rollout: int | None = None
    """Place within the group, where the file numbers them; None: order of appearance."""
    reward: float | None = None
    """The program's own reward."""
    correct: bool | None = None
    """Whether the program counts it as right; None: reward above the importer's threshold."""
    extracted: str | None = None
    """The answer that the program found in the completion."""
    verifier: str | None = None
    """What judged: a metric's or a scorer's name."""
    finish_reason: str | None = None
    """stop, length or abort."""
    prompt_token_ids: Sequence[int] | None = None
    """The prompt as the policy read it."""
    token_ids: Sequence[int] | None = None
    """The sampled ids, an emitted end-of-sequence included."""
    sampler_logprobs: Sequence[float] | None = None
    """One per completion token, in nats."""
    dataset: str | None = None
    """Problem set."""
    level: str | None = None
    """Difficulty or kind."""
    seed: int | None = None
    """That the completion was drawn with."""
    model: str | None = None
    """The policy's name."""

    @property
    def has_only_ids(self) -> bool:
        """Whether the texts are to be decoded from the ids."""
        is_sampled = self.token_ids is not None and len(self.token_ids) > 0
        return is_sampled and not (self.text or self.prompt_text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A row that is no completion, or a damaged one; the rest of the file is read on."""

    where: str
    """File and line or row."""
    reason: str
    """What was found and what was expected, short: refusals are counted by it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    """What a user may say about the files."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """Of the generic format: our field -> the file's column (`--map`)."""
    reward_column: str | None = None
    """Which of several rewards, metrics or scores counts."""
    trust: bool = False
    """Whether files that are not mere data (.pt) may be opened."""


Rows = Iterator[ForeignCompletion | Refused]


def nothing_left_out(_path: Path) -> Sequence[Path]:
    """Of formats that take every file of theirs."""
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Importer:
    """One format."""

    name: str
    """As `--from` names it."""
    meaning: str
    """Which files of which program."""
    find: Callable[[Path], Sequence[Path]]
    """The files of the format in a folder, in their order (a file: itself); empty where there is
    none. Looks at names and the first bytes or the schema only, never at all rows."""
    read: Callable[[Sequence[Path], ImportOptions], Rows]
    """Stream the completions of these files, memory bounded whatever their size.

    Raises DataError for a file that is not of the format at all (file, column, what was found,
    what to do); single bad rows are yielded as `Refused`.
    """
    left_out: Callable[[Path], Sequence[Path]] = nothing_left_out
    """Files of the format in a folder that `find` passes over: evaluations beside training."""
