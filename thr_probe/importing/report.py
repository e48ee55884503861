"""What an import found, for its reader and for `import.json`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median_low
from typing import Any

from thr_probe.importing.plan import PlannedGroup
from thr_probe.importing.reading import Reading
from thr_probe.importing.writing import WrittenGroup
from thr_probe.traces.atomic import write_text
from thr_probe.traces.manifest import read_json_object

REPORT_NAME = "import.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """Counts of an import; everything in it follows from the files and the options."""

    format: str
    """Name of the format."""
    files: list[dict[str, Any]]
    """path, bytes and sha256 of each."""
    rows_read: int
    """Rows of the files."""
    rows_skipped: int
    """Rows that --steps or --max-groups leaves out."""
    rows_refused: int
    """Rows that cannot be used."""
    refused: list[dict[str, Any]]
    """By reason: reason, rows, examples."""
    completions: int
    """Rows of the run."""
    problems: int
    """Different prompts."""
    groups: int
    """Groups of completions of one prompt in one step."""
    steps: list[int]
    """First and last step; empty outside training."""
    num_steps: int
    """Different steps."""
    group_size: dict[str, int]
    """min, median, max, and common: the size that most groups have."""
    counts: dict[str, int] = field(default_factory=dict)
    """What was noticed, by name; what did not occur is 0."""
    regraded: dict[str, int] = field(default_factory=dict)
    """Of completions that have the source's label and were graded: compared, same,
    source_right, source_wrong (alone)."""

    @property
    def accuracy(self) -> float:
        """Share of the completions that count as right."""
        return self.counts["correct"] / self.completions if self.completions else float("nan")


COUNTS = {
    "uneven_groups": "groups of another size than the common one",
    "all_right": "groups whose completions are all right",
    "all_wrong": "groups whose completions are all wrong",
    "mixed": "groups with right and wrong completions",
    "repeated_prompts": "groups with the prompt of another group of their step",
    "correct": "completions that count as right",
    "ids_sampled": "completions with the sampler's token ids",
    "ids_retokenized": "completions whose ids are those of their text",
    "ids_absent": "completions without token ids",
    "retokenized_without_end": "of the retokenized, those without an end-of-sequence token",
    "ids_of_other_text": "completions whose ids do not decode to their text",
    "ids_beyond_vocabulary": "rows with ids that the tokenizer does not have",
    "prompts_with_template": "groups whose messages went through the tokenizer's chat template",
    "prompts_without_template": "groups whose prompt is messages, without the chat template that "
    "the policy read, so not fit for scoring",
    "texts_from_ids": "completions whose texts are decoded, as the files have ids alone",
    "logprobs_of_other_length": "completions whose log-probabilities are not one per token",
    "logprobs_impossible": "completions with log-probabilities above 0 or not finite",
    "other_policy": "completions of another policy than the first of their group: a run should be "
    "of one",
    "duplicates": "rows with the step, group and rollout of an earlier row",
    "without_answer": "completions without a gold answer",
    "finish_unknown": "completions of which the files do not say why they ended",
    "broken_text": "completions with lone surrogates, now U+FFFD",
    "graded": "completions that our verifier judged",
    "verify_timeout": "of these, those that took too long",
    "verify_parse_fail": "of these, those without a readable answer",
    "verify_error": "of these, those that the verifier failed on",
}
"""Names in `ImportReport.counts`, with their meaning."""


@dataclass(slots=True, kw_only=True)
class Tally:
    """Counts of the groups of the run."""

    counts: Counter[str] = field(default_factory=Counter)
    """Names of COUNTS."""
    regraded: Counter[str] = field(default_factory=Counter)
    """Against the source's labels."""
    common_size: int
    """Size of most groups."""

    def add(self, group: WrittenGroup) -> None:
        """Count a group and its completions."""
        right = sum(row["correct"] for row in group.rows)
        kind = "all_right" if right == len(group.rows) else "mixed" if right else "all_wrong"
        self.counts[kind] += 1
        self.counts["uneven_groups"] += len(group.rows) != self.common_size
        self.counts["repeated_prompts"] += group.planned.is_copy
        self.counts["correct"] += right
        for row, source, graded in zip(group.rows, group.source_correct, group.graded, strict=True):
            self._add_row(row)
            if graded:
                self._add_graded(row, source=source)

    def _add_row(self, row: Mapping[str, Any]) -> None:
        self.counts[f"ids_{row['ids_source']}"] += 1
        self.counts["finish_unknown"] += row["finish_reason"] == "unknown"
        self.counts["retokenized_without_end"] += (
            row["ids_source"] == "retokenized" and row["finish_reason"] != "stop"
        )

    def _add_graded(self, row: Mapping[str, Any], *, source: bool | None) -> None:
        self.counts["graded"] += 1
        if row["verify_status"] != "ok":
            self.counts[f"verify_{row['verify_status']}"] += 1
        if source is not None:
            self.regraded["compared"] += 1
            outcome = "source_right" if source else "source_wrong"
            self.regraded["same" if source == row["correct"] else outcome] += 1


def common_size(planned: Sequence[PlannedGroup]) -> int:
    """The size that most groups have; of several the largest."""
    sizes = Counter(each.group.num_rows for each in planned)
    return max(sizes, key=lambda size: (sizes[size], size), default=0)


def make_report(
    name: str,
    files: Sequence[Mapping[str, Any]],
    reading: Reading,
    planned: Sequence[PlannedGroup],
    tally: Tally,
) -> ImportReport:
    """The report of a finished import.

    Args:
        name: of the format.
        files: path, bytes, sha256.
        reading: the first pass.
        planned: the groups of the run.
        tally: the second pass.
    """
    sizes = sorted(each.group.num_rows for each in planned)
    steps = sorted({each.group.step for each in planned if each.group.step is not None})
    noticed = reading.counts + tally.counts
    return ImportReport(
        format=name,
        files=[dict(file) for file in files],
        rows_read=reading.counts["rows_read"],
        rows_skipped=reading.counts["rows_skipped"],
        rows_refused=reading.refusals.count,
        refused=reading.refusals.rows(),
        completions=sum(sizes),
        problems=len({each.prompt_id for each in planned}),
        groups=len(planned),
        steps=[steps[0], steps[-1]] if steps else [],
        num_steps=len(steps),
        group_size={
            "min": sizes[0],
            "median": median_low(sizes),
            "max": sizes[-1],
            "common": tally.common_size,
        },
        counts={key: noticed[key] for key in COUNTS},
        regraded=dict(tally.regraded),
    )


def report_rows(report: ImportReport) -> list[dict[str, object]]:
    """Name, value and meaning of each number, those that are 0 by nature left out."""
    size = report.group_size
    steps = f"{report.steps[0]} to {report.steps[1]}" if report.steps else "none"
    rows: list[tuple[str, object, str]] = [
        ("format", report.format, f"{len(report.files)} files"),
        ("rows_read", report.rows_read, "rows of the files"),
        ("rows_refused", report.rows_refused, "rows that cannot be used"),
        ("rows_skipped", report.rows_skipped, "rows left out by --steps or --max-groups"),
        ("completions", report.completions, "rows of the run"),
        ("accuracy", report.accuracy, "share of them that are right"),
        ("problems", report.problems, "different prompts"),
        ("groups", report.groups, "completions of one prompt in one step"),
        ("group_size", size["common"], f"that most have; {size['min']} to {size['max']}"),
        ("steps", report.num_steps, f"of training: {steps}"),
    ]
    rows += [(name, report.counts[name], meaning) for name, meaning in COUNTS.items()]
    if report.regraded:
        compared = report.regraded["compared"]
        rows += [
            ("agreement", report.regraded.get("same", 0) / compared, f"of {compared} source labels")
        ]
        rows += [
            (name, report.regraded.get(name, 0), f"labels: right by the {which} alone")
            for name, which in (("source_right", "source"), ("source_wrong", "verifier"))
        ]
    return [
        {"quantity": name, "value": value, "meaning": meaning}
        for name, value, meaning in rows
        if value != 0 or name in ("rows_refused", "accuracy", "mixed")
    ]


def report_json(report: ImportReport) -> str:
    """The report as JSON text."""
    return json.dumps(asdict(report), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def write_report(run_path: Path, report: ImportReport) -> None:
    """Write `import.json` of a run."""
    write_text(run_path / REPORT_NAME, report_json(report))


def read_report(run_path: Path) -> ImportReport:
    """Read `import.json`.

    Raises:
        DataError: it is missing or damaged.
    """
    content = read_json_object(run_path / REPORT_NAME)
    known = ImportReport.__dataclass_fields__
    values: dict[str, Any] = {name: value for name, value in content.items() if name in known}
    return ImportReport(**values)
