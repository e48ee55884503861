"""Are the labels of a run right? The saved completions graded again, by one grader or by two.

The run itself is never changed.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from thr_probe.analysis.result import plain_facts, summary_row, summary_table
from thr_probe.core.stats import Interval, bootstrap_ratio, question_weights
from thr_probe.errors import DataError
from thr_probe.problems import Verdict, Verifier, VerifyStatus, load_verifier
from thr_probe.problems.disagreement import disagreement_kind
from thr_probe.problems.pool import Ending, Outcome, WorkerPool
from thr_probe.problems.verifier import MEMORY_BYTES
from thr_probe.progress import SILENT, Advance, Monitor
from thr_probe.traces import Run
from thr_probe.traces.atomic import write_result

SECOND_GRADER = "thr_probe.problems.direct:judge"
SECOND_MEANING = (
    "math-verify alone: its own extraction from the whole completion, its own parsing and "
    "comparison, under the time and memory limits of the first grader"
)
EXAMPLES = 5
"""Kept of every kind."""

DIRECTIONS = {
    (False, True): "second right, first wrong",
    (True, False): "first right, second wrong",
}
STORED_DIRECTIONS = {
    (False, True): "now right, stored wrong",
    (True, False): "stored right, now wrong",
}
_COLUMNS = ("step", "prompt_id", "rollout_id", "text", "correct", "finish_reason")
_WARM_UP = (("1", "\\boxed{2}"), (r"\frac{1}{2}", "The answer is $x = 0.5$."))


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditOptions:
    """How a run is graded again."""

    second: bool = False
    """Whether a second, independent grader is asked too."""
    num_workers: int = 2
    """Processes of each grader."""
    limit_s: float = 5.0
    """Seconds that a comparison may take."""
    seed: int = 0
    """Of the bootstrap over questions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """How well the labels of a run agree with gradings made now."""

    summary: pd.DataFrame
    """One row per quantity with its interval, columns as of an analysis."""
    kinds: pd.DataFrame
    """Disagreements by comparison, direction and kind: count, share of completions."""
    examples: pd.DataFrame
    """Up to five of every kind."""
    facts: dict[str, object]
    """Counts, graders, limits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Graded:
    """One completion under all graders."""

    row: Mapping[str, object]
    gold: str
    first: Verdict
    second: bool | None
    """None: not asked, or no verdict."""
    second_note: str
    """Its verdict in a word, or how its work ended."""
    second_answer: str


@dataclass(slots=True, kw_only=True)
class _Tally:
    """Counts per question, and disagreements by kind."""

    sums: dict[str, dict[str, int]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(int))
    )
    """By prompt_id, then by name."""
    num_without_gold: int = 0
    """Completions that were left out: nothing to grade them against."""
    examples: dict[tuple[str, str, str], list[dict[str, object]]] = field(
        default_factory=lambda: defaultdict(list)
    )

    def add(self, graded: _Graded) -> None:
        """Count one completion."""
        counts = self.sums[str(graded.row["prompt_id"])]
        stored, now = bool(graded.row["correct"]), graded.first.correct
        counts["completions"] += 1
        counts["same"] += stored == now
        if stored != now:
            kind = _stored_kind(graded)
            self._note(counts, ("stored", STORED_DIRECTIONS[stored, now], kind), graded)
        if graded.second is not None:
            counts["decided"] += 1
            counts["both"] += graded.second == now
            counts["noise"] += graded.second != stored
            counts["noise_right"] += graded.second and not stored
        if graded.second_note and graded.second != now:
            # without a verdict the second grader disagrees with none: it is counted by its kind
            direction = DIRECTIONS.get((now, bool(graded.second)), "second without a verdict")
            if graded.second is None:
                direction = "second without a verdict"
            self._note(counts, ("second", direction, _kind(graded)), graded)

    def _note(self, counts: dict[str, int], key: tuple[str, str, str], graded: _Graded) -> None:
        counts["/".join(key)] += 1
        if len(self.examples[key]) < EXAMPLES:
            self.examples[key].append(_example(graded))

    def column(self, name: str) -> np.ndarray:
        """A count of every question."""
        return np.array([counts[name] for counts in self.sums.values()], dtype=np.float64)


def audit_run(
    run: Run, options: AuditOptions | None = None, *, monitor: Monitor = SILENT
) -> Audit | None:
    """Grade the saved completions again and compare the verdicts with the stored labels.

    Args:
        run: a run with completions.
        options: graders and limits.
        monitor: told of every table, and asked between tables whether to stop.

    Returns:
        The comparison; None when stopped early. summary: `agreement` (stored labels that the
        current verifier confirms, share of completions); with a second grader `second_agreement`
        (of its verdicts, those that agree with the first), `label_noise` (of its verdicts, those
        that differ from the stored label), `label_noise_right` (those that say right where the
        label says wrong).

    Completions to problems without a gold answer, as imported runs may have, are left out and
    counted in `facts["num_without_gold"]`, but for a plug-in, which may need none.

    Raises:
        UsageError: the run's verifier is a plug-in that does not load.
        DataError: no completion is to a problem with a gold answer.
    """
    options = options or AuditOptions()
    name = run.manifest.verifier if ":" in run.manifest.verifier else "math"
    # of an imported run it may be the threshold of the source's rewards: math has none
    above = run.config.get("correct_above") if ":" in name else None
    tally = _Tally()
    monitor.begin(run.groups().num_rows)
    with (
        load_verifier(
            name,
            correct_above=None if above is None else float(above),
            num_workers=options.num_workers,
            limit_s=options.limit_s,
        ) as first,
        _second_pool(options) as second,
    ):
        golds = _golds(run)
        for table in run.iter_completions(list(_COLUMNS)):
            if monitor.should_stop():
                return None
            rows = table.to_pylist()
            chosen = [row for row in rows if ":" in name or any(golds[str(row["prompt_id"])])]
            tally.num_without_gold += len(rows) - len(chosen)
            for graded in _graded(chosen, golds, first, second if options.second else None):
                tally.add(graded)
            monitor.advance(_advance(rows))
    if tally.num_without_gold and not tally.sums:
        raise DataError(
            f"{run.path} has no gold answers, so there is nothing to grade its completions against",
            "import it again from files with answers, with --map answer=COLUMN where they are "
            "a table",
        )
    return _result(run, tally, options, name)


def _second_pool(options: AuditOptions) -> WorkerPool:
    return WorkerPool(
        SECOND_GRADER,
        num_workers=options.num_workers,
        limit_s=options.limit_s,
        memory_bytes=MEMORY_BYTES,
        warm_up=_WARM_UP,
        quiet=True,
    )


def _golds(run: Run) -> dict[str, tuple[str, ...]]:
    """Every accepted answer of each problem."""
    problems = run.problems()
    alternatives = problems.get("answer_alt", pd.Series([None] * len(problems)))
    return {
        prompt_id: (answer,) if pd.isna(other) else (answer, other)
        for prompt_id, answer, other in zip(
            problems["prompt_id"], problems["answer"], alternatives, strict=True
        )
    }


def _graded(
    rows: Sequence[Mapping[str, object]],
    golds: Mapping[str, tuple[str, ...]],
    first: Verifier,
    second: WorkerPool | None,
) -> Iterator[_Graded]:
    answers = [golds[str(row["prompt_id"])] for row in rows]
    texts = [str(row["text"]) for row in rows]
    verdicts = first.verify(texts, answers)
    judged = _second_verdicts(texts, answers, second)
    for row, answer, verdict, (right, note, found) in zip(
        rows, answers, verdicts, judged, strict=True
    ):
        yield _Graded(
            row=row,
            gold=" | ".join(answer),
            first=verdict,
            second=right,
            second_note=note,
            second_answer=found,
        )


def _second_verdicts(
    texts: Sequence[str], answers: Sequence[tuple[str, ...]], pool: WorkerPool | None
) -> list[tuple[bool | None, str, str]]:
    """Of each completion: right or not (None without a verdict), in a word, the answer found."""
    if pool is None:
        return [(None, "", "")] * len(texts)
    pairs = sorted(
        {(gold, text) for text, golds in zip(texts, answers, strict=True) for gold in golds}
    )
    outcomes = dict(zip(pairs, pool.map(pairs), strict=True))
    return [
        _joined([outcomes[gold, text] for gold in golds])
        for text, golds in zip(texts, answers, strict=True)
    ]


def _joined(outcomes: Sequence[Outcome]) -> tuple[bool | None, str, str]:
    """Any gold may be met; else the first that ended with a verdict says what happened."""
    read = [json.loads(str(each.value)) for each in outcomes if each.ending is Ending.OK]
    if not read:
        return None, str(outcomes[0].ending), ""
    best = next((each for each in read if each[0] == "equal"), read[0])
    if best[0] == "gold-unread":
        return None, best[0], best[1]
    return best[0] == "equal", best[0], best[1]


def _stored_kind(graded: _Graded) -> str:
    if graded.row["finish_reason"] == "length" and graded.first.correct:
        return "cut off"
    return "no answer" if graded.first.extracted is None else f"verifier: {graded.first.status}"


def _kind(graded: _Graded) -> str:
    """Why the graders disagree, as far as what they read tells; the first that fits."""
    first, note = graded.first, graded.second_note
    if first.status is VerifyStatus.TIMEOUT or note == Ending.TIMEOUT:
        return "timeout"
    if first.status is VerifyStatus.ERROR or note in (Ending.DIED, Ending.RAISED):
        return "a grader failed"
    if note == "gold-unread":
        return "gold not readable by the second"
    if first.extracted is None:
        return "no answer found by the first"
    if not graded.second_answer:
        return "no answer found by the second"
    return disagreement_kind(graded.gold, first.extracted, graded.second_answer)


def _example(graded: _Graded) -> dict[str, object]:
    return {
        "prompt_id": graded.row["prompt_id"],
        "rollout_id": graded.row["rollout_id"],
        "step": graded.row["step"],
        "gold": graded.gold,
        "first": graded.first.extracted,
        "second": graded.second_answer or None,
    }


def _advance(rows: Sequence[Mapping[str, object]]) -> Advance:
    return Advance(
        prompts=len({(row["step"], row["prompt_id"]) for row in rows}),
        completions=len(rows),
        correct=sum(bool(row["correct"]) for row in rows),
    )


def _result(run: Run, tally: _Tally, options: AuditOptions, name: str) -> Audit:
    ratios = {"agreement": ("same", "completions", "stored labels confirmed, of completions")}
    if options.second:
        ratios |= {
            "second_agreement": ("both", "decided", "of the second grader's verdicts"),
            "label_noise": ("noise", "decided", "of the second grader's verdicts"),
            "label_noise_right": ("noise_right", "decided", "of the second grader's verdicts"),
        }
    weights_BP = question_weights(max(len(tally.sums), 1), seed=options.seed)

    def ratio(numerator: str, denominator: str) -> Interval:
        if not tally.sums:
            return Interval(value=float("nan"), low=float("nan"), high=float("nan"))
        return bootstrap_ratio(tally.column(numerator), tally.column(denominator), weights_BP)

    summary = summary_table(
        summary_row(quantity, "all", unit, ratio(part, whole), num_questions=len(tally.sums))
        for quantity, (part, whole, unit) in ratios.items()
    )
    kinds, examples = [], []
    for (comparison, direction, kind), found in sorted(tally.examples.items()):
        counted = f"{comparison}/{direction}/{kind}"
        share = ratio(counted, "completions")
        key = {"comparison": comparison, "direction": direction, "kind": kind}
        kinds.append(
            key
            | {"count": int(tally.column(counted).sum()), "share": share.value}
            | {"low": share.low, "high": share.high}
        )
        examples += [key | example for example in found]
    return Audit(
        summary=summary,
        kinds=pd.DataFrame(kinds, columns=list(_KIND_COLUMNS)),
        examples=pd.DataFrame(examples, columns=list(_EXAMPLE_COLUMNS)),
        facts={
            "num_questions": len(tally.sums),
            "num_completions": int(sum(each["completions"] for each in tally.sums.values())),
            "num_without_gold": tally.num_without_gold,
            "num_second_verdicts": int(sum(each["decided"] for each in tally.sums.values())),
            "stored_verifier": run.manifest.verifier,
            "first_grader": name,
            "second_grader": SECOND_MEANING if options.second else None,
            "limit_s": options.limit_s,
            "interval": "percentile bootstrap over questions",
            "num_resamples": len(weights_BP),
            "seed": options.seed,
        },
    )


_KIND_COLUMNS = ("comparison", "direction", "kind", "count", "share", "low", "high")
_EXAMPLE_COLUMNS = (
    "comparison",
    "direction",
    "kind",
    "prompt_id",
    "rollout_id",
    "step",
    "gold",
    "first",
    "second",
)


def write_audit(audit: Audit, out: Path) -> list[Path]:
    """`verify.csv`, `verify-kinds.csv`, `verify-examples.csv` and all of it in `verify.json`."""
    tables = {"": audit.summary, "-kinds": audit.kinds, "-examples": audit.examples}
    paths = []
    for ending, table in tables.items():
        path = out / f"verify{ending}.csv"
        write_result(path, table.to_csv(index=False, lineterminator="\n").encode())
        paths.append(path)
    content = {
        "facts": audit.facts,
        "summary": audit.summary.to_dict("records"),
        "kinds": audit.kinds.to_dict("records"),
        "examples": audit.examples.astype(object)
        .where(audit.examples.notna(), None)
        .to_dict("records"),
    }
    path = out / "verify.json"
    text = json.dumps(plain_facts(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_result(path, text.encode())
    return [*paths, path]
