"""Runs compared with a baseline: every quantity paired over questions, with corrected p-values."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from thr_probe.analysis.compare_checks import refuse
from thr_probe.analysis.compare_pairs import Pair, Read, compare_pair
from thr_probe.analysis.compare_rows import MCNEMAR, Solved
from thr_probe.analysis.intervals import interval_sentence
from thr_probe.analysis.result import (
    SUMMARY_COLUMNS,
    Analysis,
    counted,
    latex_escape,
)
from thr_probe.analysis.sources import GREEDY, Source
from thr_probe.core.paired import NUM_RESAMPLES, holm
from thr_probe.errors import UsageError

RELATIVE = ("reflection_ratio", "mean_entropy", "mean_length")
"""Quantities whose difference is drawn relative to the baseline; of the others, shares, it is
drawn in percentage points."""

_LABELS = {
    "greedy_accuracy": "greedy accuracy",
    "reflection_ratio": "reflection words",
    "retained_share": "tokens retained",
    "mean_overlap": "overlap with entropy",
    "mean_entropy": "mean entropy",
    "mean_length": "mean length",
    "thr_balance": "THR balance",
}


def metric_label(metric: str) -> str:
    """A quantity as people read it.

    >>> metric_label("pass_at_8"), metric_label("mean_length")
    ('Pass@8', 'mean length')
    """
    if metric.startswith("pass_at_"):
        return f"Pass@{metric.removeprefix('pass_at_')}"
    return _LABELS[metric]


def compare_sources(
    sources: Sequence[Source],
    *,
    ks: Sequence[int] | None = None,
    seed: int = 0,
    score_id: str | None = None,
    strict: bool = False,
) -> Analysis:
    """Every quantity of each source minus that of the first, over the questions both answered.

    Questions are paired by set and text. A quantity is compared over the questions that count in
    both: those of THR over questions whose groups are mixed in both. Intervals and p-values come
    from resampling these questions in pairs (`core.paired.bootstrap_p`); that of greedy accuracy
    is McNemar's, exact. Holm's correction is over all quantities of all sources over all questions;
    single sets, and the mean of sets, are beside it.

    Args:
        sources: the baseline, then what is compared with it.
        ks: of Pass@K; the powers of two up to the smaller n by default.
        seed: of the resampling.
        score_id: which scores; the only ones by default.
        strict: refuse sources that differ in more than their policy.

    Returns:
        curves: `metrics`, a line per source, quantity and split, with both values, difference,
        relative difference (each with bounds), p, p_holm, test, only_baseline, only_run (questions
        that only one solves greedily), num_questions; `forest`, what is drawn, in percentage points
        or percent; `questions`, who solves which.
        facts: `gains` (sentences), `warnings`, `left_out`.

    Raises:
        UsageError: fewer than two sources, a k above the smaller n, or, if strict, a warning.
        DataError: sources without a question, or a measure, in common.
    """
    if len(sources) < 2:
        raise UsageError("a comparison needs two runs or more", "give the baseline first")
    baseline, *others = [Read(source, score_id=score_id) for source in sources]
    pairs = [compare_pair(baseline, other, ks=ks, seed=seed) for other in others]
    differing = list(dict.fromkeys(text for pair in pairs for text in pair.warnings))
    too_few = list(dict.fromkeys(text for pair in pairs for text in pair.too_few))
    if strict:
        refuse(differing)
    metrics = _metrics(pairs)
    several = len(pairs) > 1
    left_out = [
        f"{pair.second}: {text}" if several else text for pair in pairs for text in pair.left_out
    ]
    facts: dict[str, object] = {
        "baseline": baseline.source.name,
        "runs": [pair.second for pair in pairs],
        "models": {source.name: _models(source) for source in sources},
        "dataset_digests": {source.name: _digests(source) for source in sources},
        "num_questions": int(metrics["num_questions"].max()),
        "gains": [gain_sentence(pair, solved) for pair in pairs for solved in pair.solved],
        "warnings": differing + too_few,
        "left_out": left_out,
        "pairing": "by set and text of the question",
        "test": "two-sided: exact McNemar for greedy accuracy, otherwise 2 (1 + m) / (B + 1), m "
        "the smaller of the numbers of bootstrap differences <= 0 and >= 0",
        "family": int(metrics["p_holm"].notna().sum()),
        "interval": "paired percentile bootstrap over questions",
        "level": 0.95,
        "num_resamples": NUM_RESAMPLES,
        "seed": seed,
    }
    forest = _forest(metrics)
    curves = {"metrics": metrics, "forest": forest, "questions": _questions(pairs)}
    return Analysis(
        name="compare",
        summary=_summary(metrics),
        curves=curves,
        facts=facts,
        caption=_caption(facts, metrics, forest, (differing, too_few)),
    )


def _models(source: Source) -> list[str]:
    return sorted({str(run.manifest.model) for run in source.runs})


def _digests(source: Source) -> list[str]:
    return sorted({str(run.manifest.dataset_digest) for run in source.runs})


def _metrics(pairs: Sequence[Pair]) -> pd.DataFrame:
    table = pd.DataFrame([row for pair in pairs for row in pair.rows])
    in_family = table["split"] == "all"
    p_holm = np.full(len(table), np.nan)
    p_holm[in_family] = holm(table.loc[in_family, "p"].to_numpy(dtype=np.float64))
    table.insert(list(table.columns).index("p") + 1, "p_holm", p_holm)
    return table.astype({"only_baseline": "Int64", "only_run": "Int64"})


def _summary(metrics: pd.DataFrame) -> pd.DataFrame:
    """Three lines for each: the baseline, the other, the difference."""
    rows = []
    for row in metrics.to_dict("records"):
        behind = "" if row["split"] == "all" else f", {row['split']}"
        for name, split in (
            ("baseline", str(row["baseline_run"])),
            ("value", str(row["run"])),
            ("difference", f"{row['run']} minus {row['baseline_run']}"),
        ):
            bounds = row[name], row[f"{name}_low"], row[f"{name}_high"]
            rows.append((row["metric"], split + behind, row["unit"], *bounds, row["num_questions"]))
    table = pd.DataFrame(rows, columns=list(SUMMARY_COLUMNS))
    # the baseline is beside every source: once where it is over the same questions
    return table.drop_duplicates(ignore_index=True)


def _forest(metrics: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for row in metrics[metrics["split"] == "all"].to_dict("records"):
        is_relative = row["metric"] in RELATIVE
        name = "relative" if is_relative else "difference"
        rows.append(
            {
                "run": row["run"],
                "metric": row["metric"],
                "label": metric_label(str(row["metric"])),
                "panel": "percent" if is_relative else "points",
                **{
                    key: 100 * row[f"{name}{end}"]
                    for key, end in (("value", ""), ("low", "_low"), ("high", "_high"))
                },
                "p_holm": row["p_holm"],
                "num_questions": row["num_questions"],
            }
        )
    # a difference relative to 0 is none
    return pd.DataFrame(rows).dropna(subset=["value"]).reset_index(drop=True)


def _not_drawn(metrics: pd.DataFrame, forest: pd.DataFrame) -> list[str]:
    drawn = set(zip(forest["run"], forest["metric"], strict=True))
    rows = metrics[metrics["split"] == "all"]
    return [
        f"{metric_label(metric)} of {run}"
        for run, metric in zip(rows["run"], rows["metric"], strict=True)
        if (run, metric) not in drawn
    ]


def _questions(pairs: Sequence[Pair]) -> pd.DataFrame:
    tables = [
        solved.table.assign(run=pair.second, baseline_run=pair.first)
        for pair in pairs
        for solved in pair.solved
    ]
    columns = ["run", "baseline_run", "measure", "solved_by", "dataset", "question"]
    every = pd.concat(tables, ignore_index=True)
    return every[[*columns, *(name for name in every if name not in columns)]]


def gain_sentence(pair: Pair, solved: Solved) -> str:
    """What a difference in accuracy comes to in questions.

    Args:
        pair: the comparison.
        solved: who solved what.
    """
    test, number = solved.test, len(solved.table)
    if test.net == 0:
        net = "no net gain"
    else:
        net = (
            f"a {'gain' if test.net > 0 else 'loss'} of "
            f"{counted(abs(test.net), 'net question')} of {number:,}"
        )
    return (
        f"Of {counted(number, 'shared question')}, {pair.second} alone solves "
        f"{test.only_second:,} and {pair.first} alone {test.only_first:,} ({solved.how}): {net} "
        f"for {pair.second} (exact McNemar p = {p_text(test.p)})."
    )


def p_text(p: float) -> str:
    """A p-value with two digits that count, never as 0.

    >>> p_text(0.0421), p_text(1.0), p_text(3.2e-7), p_text(float("nan"))
    ('0.042', '1', '3.2e-07', '-')
    """
    return "-" if math.isnan(p) else f"{p:.2g}"


def listed_questions(analysis: Analysis, solved_by: str) -> Iterator[dict[str, Any]]:
    """The questions that only one of two solves, greedily where both were asked greedily.

    Args:
        analysis: of `compare_sources`.
        solved_by: `baseline` or `run`.
    """
    table = analysis.curves["questions"]
    for run, part in table.groupby("run", sort=False):
        measures = part["measure"].unique()
        shown = part[part["measure"] == (GREEDY if GREEDY in measures else measures[0])]
        for row in shown[shown["solved_by"] == solved_by].to_dict("records"):
            yield {"run": run, **{str(key): value for key, value in row.items()}}


def _caption(
    facts: dict[str, Any],
    metrics: pd.DataFrame,
    forest: pd.DataFrame,
    warnings: tuple[Sequence[str], Sequence[str]],
) -> str:
    not_drawn, (differing, too_few) = _not_drawn(metrics, forest), warnings
    runs = " and ".join([", ".join(facts["runs"][:-1]), facts["runs"][-1]]).removeprefix(" and ")
    panels = list(dict.fromkeys(forest["panel"]))
    shown = {"points": "shares in percentage points", "percent": "other quantities in percent of "}
    shown["percent"] += f"the value of {facts['baseline']}"
    which = [shown[panel] for panel in panels]
    if len(panels) > 1:
        which = [f"({letter}) {text}" for letter, text in zip("ab", which, strict=True)]
    surer = forest[forest["p_holm"] < 0.05]
    names = [
        f"{row['label']}" + (f" ({row['run']})" if len(facts["runs"]) > 1 else "")
        for row in surer.to_dict("records")
    ]
    holds = f"{', '.join(names)} (filled markers)" if names else "none"
    sentences = [
        f"Paired differences of {runs} to {facts['baseline']} over the "
        f"{counted(facts['num_questions'], 'question')} that both answered: {', '.join(which)}.",
        *facts["gains"],
        f"After Holm's correction over {counted(facts['family'], 'test')} ({_tests(metrics)}), "
        f"p < 0.05: {holds}.",
    ]
    if forest["metric"].isin(["retained_share", "mean_overlap", "thr_balance"]).any():
        sentences.append(
            "Quantities of THR are over the questions whose groups are mixed in both; tokens "
            "retained are all of a group whose threshold is 0 or below; THR balance is the sum of "
            "THR over the sum of its absolute values."
        )
    if not_drawn:
        sentences.append(f"Not drawn, as the baseline's is 0: {', '.join(not_drawn)}.")
    if facts["left_out"]:
        sentences.append(f"Left out: {'; '.join(facts['left_out'])}.")
    if differing:
        sentences.append(f"Beside the policy differ: {'; '.join(differing)}.")
    sentences += [f"{text}." for text in too_few]
    text = latex_escape(" ".join(sentences)).replace("p < 0.05", "$p < 0.05$")
    sizes = facts["num_resamples"], facts["num_questions"]
    return f"{text} {interval_sentence('Whiskers', *sizes)}"


def _tests(metrics: pd.DataFrame) -> str:
    """Where p-values come from: an interval may exclude 0 where McNemar's p is above 0.05."""
    tests = metrics.loc[metrics["split"] == "all", "test"]
    bootstrap = "bootstrap of paired questions"
    if not (tests == MCNEMAR).any():
        return bootstrap
    exact = "exact McNemar for greedy accuracy"
    return exact if (tests == MCNEMAR).all() else f"{exact}, {bootstrap} for the others"
