"""Is the data of a run sound? Shares of what may be wrong with it, each with a verdict."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from jaxtyping import Int

from thr_probe.analysis.binned import latex_significant
from thr_probe.analysis.captions import caption_of
from thr_probe.analysis.distributions import distributions
from thr_probe.analysis.health_contract import BREACHES, OTHER_KEY, SCORES_MISSING
from thr_probe.analysis.health_counts import GAP_NATS, Counts, count_run
from thr_probe.analysis.intervals import interval_facts
from thr_probe.analysis.result import (
    Analysis,
    counted,
    empty_analysis,
    latex_escape,
    latex_percent,
    summary_row,
    summary_table,
)
from thr_probe.core.stats import Interval, bootstrap_ratio, question_weights
from thr_probe.traces.reader import Run

VERDICTS = ("ok", "look", "bad")
"""Nothing to be done; worth a look before numbers are quoted; numbers would mislead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that is counted, and how much of it is how bad."""

    name: str
    """As shown; of those on completions and tokens also the column of `Counts.completions`."""
    of: str
    """`completions`, `groups`, `problems`, or another column that is the denominator."""
    ok: float
    """Largest value that is ok; for a check on scarcity the smallest."""
    look: float
    """Largest (or smallest) value that is worth a look; beyond is bad."""
    scarce: bool = False
    """Whether little of it, not much, is what is wrong."""
    unit: str = "share"
    """`share`, or `nats`."""
    advice: str = ""
    """What names the places, where a verdict is not ok."""

    @property
    def rule(self) -> str:
        """The verdict's rule in words."""
        word = "from" if self.scarce else "up to"
        ok, look = (
            f"{100 * value:g} %" if self.unit == "share" else f"{value:g} nats"
            for value in (self.ok, self.look)
        )
        middle = f"look {word} {look}, " if self.look != self.ok else ""
        return f"ok {word} {ok}, {middle}else bad{self.advice}"

    def verdict(self, value: float) -> str:
        """One of `VERDICTS`."""
        sign = -1 if self.scarce else 1
        return VERDICTS[(sign * value > sign * self.ok) + (sign * value > sign * self.look)]


_PLACES = "; thr-probe data validate RUN names the places"

CHECKS = (
    Check(name="truncated", of="completions", ok=0.05, look=0.2),
    Check(name="aborted", of="completions", ok=0.0, look=0.01),
    Check(name="empty completion", of="completions", ok=0.0, look=0.01),
    Check(name="no extracted answer", of="completions", ok=0.1, look=0.3),
    Check(name="verifier timeout", of="completions", ok=0.001, look=0.01),
    Check(name="verifier parse failure", of="completions", ok=0.05, look=0.2),
    Check(name="verifier error", of="completions", ok=0.0, look=0.01),
    Check(name="text repeated in its group", of="completions", ok=0.1, look=0.5),
    Check(name="ids repeated in its group", of="completions with ids", ok=0.1, look=0.5),
    Check(name="token ids retokenized", of="completions", ok=0.0, look=0.05),
    Check(name="token ids absent", of="completions", ok=0.0, look=0.05),
    Check(name="group none correct", of="groups", ok=0.5, look=0.8),
    Check(name="group all correct", of="groups", ok=0.5, look=0.8),
    Check(name="group mixed", of="groups", ok=0.2, look=0.05, scarce=True),
    Check(name="group of another size", of="groups", ok=0.0, look=0.1),
    Check(name="question repeated", of="problems", ok=0.0, look=0.02),
    Check(name="THR undefined", of="completions", ok=0.5, look=0.8),
    Check(name="THR missing", of="completions", ok=0.0, look=0.0),
    Check(name="number not finite", of="numbers", ok=0.0, look=0.0),
    *(Check(name=name, of="completions", ok=0.0, look=0.0, advice=_PLACES) for name in BREACHES),
    Check(name="logprob gap", of="compared tokens", ok=0.01, look=0.05),
    Check(name="mean logprob gap", of="compared tokens", ok=0.02, look=0.1, unit="nats"),
    Check(name="largest logprob gap", of="compared tokens", ok=1.0, look=5.0, unit="nats"),
)
"""In the order of the table; one whose columns the run lacks is left out and named in the facts."""

_SCORED = frozenset(
    {"THR undefined", "THR missing", "number not finite", SCORES_MISSING, OTHER_KEY}
)
_COMPARED = frozenset({"logprob gap", "mean logprob gap", "largest logprob gap"})


def run_health(run: Run, *, seed: int = 0, score_id: str | None = None) -> Analysis:
    """What may be wrong with a run's data: shares with intervals, and a verdict for each.

    Works on any run, with or without token ids and scores. `THR undefined` are completions of
    groups without a correct one, `THR missing` those that should have THR and have none (or no
    tau); what breaks the contract of the trace (scores missing or of another completion, lists of
    unequal length, states that do not exist) is counted too: `validate_run` names the places;
    `number not finite` counts entries of thr, entropy and logprob; `logprob gap` are tokens whose
    log-probability differs by more than 0.1 nats between sampler and policy, compared where both
    worked at the same temperature without top-p.

    Args:
        run: the trace.
        seed: of the bootstrap over questions.
        score_id: which scores; where there are any, "default", else the first by name.

    Returns:
        summary: each check that could be made, by name. curves: `checks`, the same with count, of,
        verdict and the verdict's rule.
    """
    chosen = _score_set(run, score_id)
    obstacle = "no score set" if chosen is None else distributions(run, chosen).obstacle
    counts = count_run(run, chosen, compare=obstacle is None)
    facts: dict[str, object] = {
        "score_id": chosen,
        "num_completions": len(counts.completions) and int(counts.completions["completions"].sum()),
        "num_groups": len(counts.groups),
        "num_questions": len(counts.completions),
        "group_size": run.manifest.group_size,
    }
    if counts.completions.empty:
        return empty_analysis("health", "This run holds no completions.", facts)
    if obstacle is None and not counts.has_gap:
        obstacle = "the run has no sampler_logprobs"
    weights_BP = question_weights(len(counts.completions), seed=seed, dtype=np.int16)
    table = pd.DataFrame(list(_rows(run, counts, weights_BP)))
    # whole numbers, and nothing where nothing is counted
    table["count"] = (
        table["count"].astype("Int64").astype(object).where(table["count"].notna(), None)
    )
    made = set(table["check"])
    facts |= {
        "checks_not_made": [name for name in map(_label, CHECKS) if name not in made],
        "logprobs_not_compared": obstacle,
        **{f"num_{word}": int((table["verdict"] == word).sum()) for word in VERDICTS},
        **interval_facts(weights_BP, seed),
    }
    analysis = Analysis(
        name="health",
        summary=_summary(table, len(counts.completions)),
        curves={"checks": table},
        facts=facts,
        caption="",
    )
    return replace(analysis, caption=_caption(analysis))


def _score_set(run: Run, score_id: str | None) -> str | None:
    if score_id is None and "default" not in run.score_ids:
        return next(iter(run.score_ids), None)
    return run.resolve_score_id(score_id)


def _rows(
    run: Run, counts: Counts, weights_BP: Int[np.ndarray, "B P"]
) -> Iterator[dict[str, object]]:
    per_question = counts.completions.join(_group_columns(run, counts))
    for check in CHECKS:
        if check.name in _SCORED and not counts.has_scores:
            continue
        if check.name in _COMPARED and not counts.has_gap:
            continue
        if check.of == "completions with ids" and not counts.has_ids:
            continue
        count: int | None = None
        if check.unit == "nats":
            value = counts.mean_gap if check.name == "mean logprob gap" else counts.max_gap
            interval = Interval(value=value, low=math.nan, high=math.nan)
            total = int(per_question[check.of].sum())
        elif check.of == "problems":
            count, total = _repeated_questions(run)
            value = count / total if total else math.nan
            interval = Interval(value=value, low=math.nan, high=math.nan)
        else:
            number, whole = per_question[check.name], per_question[check.of]
            count, total = int(number.sum()), int(whole.sum())
            interval = bootstrap_ratio(number, whole, weights_BP)
        if total == 0:
            continue
        yield {
            "check": _label(check),
            "count": count,
            "of": total,
            "unit": check.unit if check.unit == "nats" else f"share of {_noun(check.of)}",
            "value": interval.value,
            "low": interval.low,
            "high": interval.high,
            "verdict": check.verdict(interval.value),
            "rule": check.rule,
        }


def _label(check: Check) -> str:
    return f"logprob gap over {GAP_NATS:g} nats" if check.name == "logprob gap" else check.name


def _noun(of: str) -> str:
    return {"compared tokens": "tokens", "completions with ids": "completions"}.get(of, of)


def _group_columns(run: Run, counts: Counts) -> pd.DataFrame:
    """Per question: its groups, and how many of them are of each kind."""
    groups = counts.groups
    size, correct = groups["size"], groups["correct"]
    # a run that came from elsewhere may not name its size: then the most frequent one is expected
    expected = run.manifest.group_size or int(size.mode().iloc[0])
    table = pd.DataFrame(
        {
            "prompt_id": groups["prompt_id"],
            "groups": 1,
            "group none correct": correct == 0,
            "group all correct": correct == size,
            "group mixed": (correct > 0) & (correct < size),
            "group of another size": size != expected,
        }
    )
    return table.groupby("prompt_id", sort=False).sum().astype(np.int64)


def _repeated_questions(run: Run) -> tuple[int, int]:
    """How many problems ask what an earlier one asks, white space aside; of how many."""
    question = run.problems()["question"].str.split().str.join(" ")
    return int(question.duplicated().sum()), len(question)


def _summary(table: pd.DataFrame, num_questions: int) -> pd.DataFrame:
    return summary_table(
        summary_row(
            str(row["check"]),
            "all",
            str(row["unit"]),
            Interval(value=row["value"], low=row["low"], high=row["high"]),
            num_questions=num_questions,
        )
        for row in table.to_dict("records")
    )


def _caption(analysis: Analysis) -> str:
    table = analysis.curves["checks"]
    shares = table[table["unit"] != "nats"]
    told = [
        f"{latex_escape(str(row['check']))} "
        + latex_percent(Interval(value=row["value"], low=row["low"], high=row["high"]))
        for row in shares[shares["verdict"] != "ok"].to_dict("records")
    ]
    counts = [
        counted(analysis.count(f"num_{noun}s"), noun)
        for noun in ("completion", "group", "question")
    ]
    ok, look, bad = (analysis.count(f"num_{word}") for word in VERDICTS)
    sentences = [
        f"Health of the data: {counts[0]} in {counts[1]} to {counts[2]}",
        f"Of {counted(len(table), 'check')}, {_are(ok)} ok, {_are(look)} worth a look and "
        f"{_are(bad)} bad by the rules in the table beside this figure",
        *(["Not ok are: " + "; ".join(told)] if told else []),
    ]
    if (shares["low"] == shares["high"]).any():
        sentences.append(
            "A share of 0 or 1 everywhere has an interval without width: how far off it may be, "
            "resampling cannot say"
        )
    gap = table[table["check"] == "mean logprob gap"]
    if len(gap):
        found = Interval(value=float(gap["value"].iloc[0]), low=math.nan, high=math.nan)
        sentences.append(
            "Log-probabilities of sampler and policy differ by "
            f"{latex_significant(found)} nats in the mean"
        )
    return caption_of(analysis, "Brackets and whiskers", *sentences)


def _are(number: int) -> str:
    return f"{number} {'is' if number == 1 else 'are'}"
