"""The second pass: group by group out of the spool, tokenized and graded, into parts of the run."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from thr_probe.importing.plan import PlannedGroup
from thr_probe.importing.settings import ImportSettings
from thr_probe.importing.spool import Spool, Spooled
from thr_probe.importing.words import Words
from thr_probe.problems import Verdict, Verifier
from thr_probe.traces import write_part
from thr_probe.traces.layout import part_path

Row = dict[str, Any]
_KEPT = ["prompt_id", "rollout_id", "correct", "verify_status", "ids_source", "finish_reason"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenGroup:
    """Rows of a group as they stand in the run, beside what the source said."""

    planned: PlannedGroup
    """The group."""
    rows: Sequence[Mapping[str, Any]]
    """At least correct, verify_status, ids_source, finish_reason."""
    source_correct: Sequence[bool | None]
    """The source's labels; None where it has none."""
    graded: Sequence[bool]
    """Which of them our verifier judged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartMaker:
    """Makes the rows of a part."""

    spool: Spool
    """Has the completions."""
    settings: ImportSettings
    """Whether to grade all."""
    source: str
    """Name of the format: the verifier of a source that names none."""
    words: Words | None
    """Tokenizes what has no ids."""
    verifier: Verifier | None
    """Judges what has no label; None where nothing is to be judged."""

    def make(self, groups: Sequence[PlannedGroup]) -> tuple[list[Row], list[WrittenGroup]]:
        """The rows of these groups, one group after another, and what to count."""
        rows: list[Row] = []
        made: list[tuple[PlannedGroup, list[Row], list[Spooled]]] = []
        for planned in groups:
            completions = list(self.spool.completions(planned.group.place))
            group_rows = self._rows(planned, completions)
            made.append((planned, group_rows, completions))
            rows += group_rows
        graded = self._grade(made)
        return rows, [
            _written(planned, group_rows, completions, graded)
            for planned, group_rows, completions in made
        ]

    def read(
        self, run_path: Path, index: int, groups: Sequence[PlannedGroup]
    ) -> list[WrittenGroup]:
        """What to count of a part that an earlier process wrote."""
        with pq.ParquetFile(part_path(run_path, "rollouts", index)) as file:
            rows = file.read(columns=_KEPT).to_pylist()
        written, start = [], 0
        for planned in groups:
            completions = list(self.spool.completions(planned.group.place))
            group_rows = rows[start : start + len(completions)]
            start += len(completions)
            graded = {
                id(row)
                for row, each in zip(group_rows, completions, strict=True)
                if self._is_graded(each, planned)
            }
            written.append(_written(planned, group_rows, completions, graded))
        return written

    def _rows(self, planned: PlannedGroup, completions: Sequence[Spooled]) -> list[Row]:
        tokens = self._tokens(completions)
        return [
            {
                "step": planned.group.step,
                "prompt_id": planned.prompt_id,
                "rollout_id": rollout,
                "text": each.text,
                "token_ids": ids,
                "sampler_logprobs": each.logprobs,
                "finish_reason": each.finish_reason or "unknown",
                "reward": each.reward,
                "correct": each.correct,
                "extracted": each.extracted,
                "verifier": verifier_name(each.verifier, self.source),
                "verify_status": "ok",
                "ids_source": _ids_source(each, ids),
                "seed": each.seed,
            }
            for rollout, (each, ids) in enumerate(zip(completions, tokens, strict=True))
        ]

    def _tokens(self, completions: Sequence[Spooled]) -> list[Sequence[int] | None]:
        """The ids of each completion: the sampler's, or those of its text."""
        tokens = [each.token_ids for each in completions]
        if self.words is None:
            return tokens
        places = [place for place, ids in enumerate(tokens) if ids is None]
        encoded = self.words.encode_completions([completions[place].text for place in places])
        special = self.words.special_ids
        for place, ids in zip(places, encoded, strict=True):
            reason = completions[place].finish_reason
            tokens[place] = array("i", with_end(ids, reason, self.words, special))
        return tokens

    def _is_graded(self, each: Spooled, planned: PlannedGroup) -> bool:
        return each.correct is None or (self.settings.regrade and planned.group.has_answer)

    def _grade(self, made: Sequence[tuple[PlannedGroup, list[Row], list[Spooled]]]) -> set[int]:
        """Let the verifier judge rows in place; returns which (by identity)."""
        jobs: list[tuple[Row, str, tuple[str, ...]]] = []
        for planned, rows, completions in made:
            chosen = [
                (row, each.text)
                for row, each in zip(rows, completions, strict=True)
                if self._is_graded(each, planned)
            ]
            if chosen:
                answers = self.spool.prompt(planned.group.place).accepted_answers
                jobs += [(row, text, answers) for row, text in chosen]
        if jobs and self.verifier is not None:
            verdicts = self.verifier.verify([job[1] for job in jobs], [job[2] for job in jobs])
            for (row, _, _), verdict in zip(jobs, verdicts, strict=True):
                row.update(_judged(verdict, self.verifier.name))
        return {id(row) for row, _, _ in jobs}


def write_rows(run_path: Path, index: int, rows: Iterable[Row]) -> None:
    """Write one part of the rollouts."""
    write_part(run_path, "rollouts", index, rows, overwrite=True)


def verifier_name(name: str | None, source: str) -> str:
    """A source's verifier; a colon would mean a function of ours (`module:function`)."""
    return (name or source).replace(":", "/")


def with_end(
    ids: list[int], finish_reason: str | None, words: Words, special: frozenset[int]
) -> list[int]:
    """Ids of a text, with the end-of-sequence token that the policy emitted and the text hides.

    It belongs to the completion (METHOD 1) where that ended by itself; where the file does not say
    so, it is not made up, but for a completion without text: nothing else can have been sampled.
    Where the text spells a special token at its end, that is it.
    """
    if not ids:
        return [words.eos_id]
    return [*ids, words.eos_id] if finish_reason == "stop" and ids[-1] not in special else ids


def _ids_source(each: Spooled, ids: Sequence[int] | None) -> str:
    if each.token_ids is not None:
        return "sampled"
    return "absent" if ids is None else "retokenized"


def _judged(verdict: Verdict, name: str) -> dict[str, object]:
    return {
        "reward": verdict.reward,
        "correct": verdict.correct,
        "extracted": verdict.extracted,
        "verifier": name,
        "verify_status": verdict.status,
    }


def _written(
    planned: PlannedGroup,
    rows: Sequence[Mapping[str, Any]],
    completions: Sequence[Spooled],
    graded: set[int],
) -> WrittenGroup:
    kept = [{name: row[name] for name in _KEPT} for row in rows]
    return WrittenGroup(
        planned=planned,
        rows=kept,
        source_correct=[each.correct for each in completions],
        graded=[id(row) in graded for row in rows],
    )
