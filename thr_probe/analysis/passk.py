"""Pass@K: the chance that at least one of K completions is correct (METHOD 8)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int

from thr_probe.analysis.intervals import interval_facts, interval_sentence
from thr_probe.analysis.result import (
    Analysis,
    counted,
    empty_analysis,
    latex_escape,
    latex_percent,
    summary_row,
    summary_table,
)
from thr_probe.core.pass_at_k import pass_at_k
from thr_probe.core.stats import Interval, bootstrap_ratio, question_weights
from thr_probe.errors import UsageError
from thr_probe.traces.reader import Run

SPLITS_BY = ("auto", "dataset", "level", "none")
_GROUP = ["step", "prompt_id"]


def count_correct(run: Run) -> pd.DataFrame:
    """Completions n and correct completions c of every group (step, prompt_id), streamed."""
    partial = [
        table.to_pandas().groupby(_GROUP, dropna=False, sort=False)["correct"].agg(["size", "sum"])
        for table in run.iter_completions([*_GROUP, "correct"])
    ]
    if not partial:
        return pd.DataFrame({name: [] for name in (*_GROUP, "n", "c")})
    counts: pd.DataFrame = pd.concat(partial).groupby(level=_GROUP, dropna=False, sort=False).sum()
    return counts.astype(np.int64).set_axis(["n", "c"], axis=1).reset_index()


def ks_up_to(num_samples: int) -> list[int]:
    """The powers of two up to the number of completions, and that number itself.

    >>> ks_up_to(8), ks_up_to(10), ks_up_to(1)
    ([1, 2, 4, 8], [1, 2, 4, 8, 10], [1])
    """
    powers = [2**exponent for exponent in range(num_samples.bit_length())]
    return sorted({*powers, num_samples})


def pass_at_k_table(counts: pd.DataFrame, ks: Sequence[int], *, seed: int = 0) -> pd.DataFrame:
    """Mean over questions of the unbiased Pass@K, with intervals from resampling questions.

    Args:
        counts: one row per group with prompt_id, n completions and c correct ones; several groups
            of one question (steps of training) are averaged and resampled together.
        ks: the numbers of completions a user would draw, none above the smallest n.
        seed: of the resamples.

    Returns:
        k, value, low, high, num_questions.
    """
    return _table(counts, ks, _weights(counts, seed))


def _weights(counts: pd.DataFrame, seed: int) -> Int[np.ndarray, "B P"]:
    return question_weights(counts["prompt_id"].nunique(), seed=seed)


def _table(
    counts: pd.DataFrame, ks: Sequence[int], weights_BP: Int[np.ndarray, "B P"]
) -> pd.DataFrame:
    question, _ = pd.factorize(counts["prompt_id"])
    groups_P = np.bincount(question)
    rows = []
    for k in ks:
        estimate = pass_at_k(counts["n"].to_numpy(), counts["c"].to_numpy(), k)
        mean = bootstrap_ratio(np.bincount(question, estimate), groups_P, weights_BP)
        rows.append((k, mean.value, mean.low, mean.high, len(groups_P)))
    return pd.DataFrame(rows, columns=["k", "value", "low", "high", "num_questions"])


def pass_at_k_curve(
    run: Run, *, ks: Sequence[int] | None = None, by: str = "auto", seed: int = 0
) -> Analysis:
    """Unbiased Pass@K for k = 1, 2, 4 ... n over the questions of a run (METHOD 8).

    Where groups differ in size, k ends at the smallest n and the caption says so.

    Args:
        run: the trace; only labels are read, no scores and no text.
        ks: other values of k; none may exceed the smallest n.
        by: curves beside the one over all questions: `dataset`, `level`, `none`, or `auto` (by
            dataset where the run holds several).
        seed: of the bootstrap over questions.

    Returns:
        curve `curve`: split, k, value, low, high, num_questions. facts: `warnings`, where the
        completions are of several steps of training.

    Raises:
        UsageError: a k above n, or an unknown split.
    """
    if by not in SPLITS_BY:
        raise UsageError(f"unknown split {by!r}", f"choose {', '.join(SPLITS_BY)}")
    counts = count_correct(run)
    facts: dict[str, object] = {"by": by, "seed": seed}
    if counts.empty:
        return empty_analysis("passk", "This run holds no completions.", facts)
    ks = checked_ks(ks, counts["n"])
    parts = {"all": counts} | _parts(counts, run, by)
    weights = {split: _weights(part, seed) for split, part in parts.items()}
    curve = pd.concat(
        [_table(part, ks, weights[split]).assign(split=split) for split, part in parts.items()],
        ignore_index=True,
    )[["split", "k", "value", "low", "high", "num_questions"]]
    where = "Bands" if len(parts) == 1 else "Band and whiskers"
    facts |= _facts(counts, ks) | interval_facts(weights["all"], seed)
    pooled = _pooled_sentence(counts)
    facts["warnings"] = [pooled] if pooled else []
    return Analysis(
        name="passk",
        summary=_summary(curve, parts, weights),
        curves={"curve": curve},
        facts=facts,
        caption=" ".join(
            [
                _caption(curve, counts),
                *([pooled] if pooled else []),
                interval_sentence(where, *weights["all"].shape),
            ]
        ),
    )


def _pooled_sentence(counts: pd.DataFrame) -> str:
    """Of a training run: that its policies are pooled; empty elsewhere."""
    num_steps = counts["step"].nunique(dropna=False)
    if num_steps < 2:
        return ""
    return (
        f"The completions are of {num_steps} steps of training, so of as many policies: this is "
        "the mean over all of them and the Pass@K of none; thr-probe eval measures that of a "
        "checkpoint."
    )


def checked_ks(ks: Sequence[int] | None, n: pd.Series[int]) -> list[int]:
    """The ks asked for, ascending, or else those up to the smallest n.

    Args:
        ks: as asked for.
        n: completions of each group.

    Raises:
        UsageError: a k below 1, or above the smallest n.
    """
    smallest = int(n.min())
    if ks is None:
        return ks_up_to(smallest)
    if not ks or min(ks) < 1:
        raise UsageError(f"k must be at least 1, got {list(ks)}")
    if max(ks) > smallest:
        few = int((n == smallest).sum())
        raise UsageError(
            f"Pass@{max(ks)} needs {max(ks)} completions per question, but n = {smallest}"
            + (f" for {counted(few, 'group')} of {len(n)}" if few < len(n) else ""),
            f"choose k up to {smallest}, or sample more completions per question",
        )
    return sorted(set(ks))


def _parts(counts: pd.DataFrame, run: Run, by: str) -> dict[str, pd.DataFrame]:
    if by == "none":
        return {}
    column = "level" if by == "level" else "dataset"
    labels = run.problems().set_index("prompt_id")[column]
    label = counts["prompt_id"].map(labels).fillna("(none)").astype(str)
    if by == "auto" and label.nunique() < 2:
        return {}
    return {f"{column} {name}": counts[label == name] for name in sorted(label.unique())}


def _facts(counts: pd.DataFrame, ks: Sequence[int]) -> dict[str, object]:
    n, c = counts["n"], counts["c"]
    return {
        "estimator": "mean over questions of 1 - C(n - c, k) / C(n, k)",
        "ks": list(ks),
        "num_questions": int(counts["prompt_id"].nunique()),
        "num_groups": len(counts),
        "num_completions": int(n.sum()),
        "num_correct": int(c.sum()),
        "smallest_n": int(n.min()),
        "largest_n": int(n.max()),
        "num_steps": int(counts["step"].nunique(dropna=False)),
    }


def _summary(
    curve: pd.DataFrame,
    parts: Mapping[str, pd.DataFrame],
    weights: Mapping[str, Int[np.ndarray, "B P"]],
) -> pd.DataFrame:
    rows = [
        summary_row(
            f"pass_at_{row['k']}",
            row["split"],
            "share of questions",
            _interval(row),
            num_questions=row["num_questions"],
        )
        for row in curve.to_dict("records")
    ]
    for split, part in parts.items():
        question, _ = pd.factorize(part["prompt_id"])
        groups_P = np.bincount(question)
        for quantity, chosen in (
            ("never_solved", part["c"] == 0),
            ("mixed", (part["c"] > 0) & (part["c"] < part["n"])),
            ("always_solved", part["c"] == part["n"]),
        ):
            share = bootstrap_ratio(np.bincount(question, chosen), groups_P, weights[split])
            rows.append(
                summary_row(quantity, split, "share of groups", share, num_questions=len(groups_P))
            )
    return summary_table(rows)


def _interval(row: dict[Hashable, Any]) -> Interval:
    return Interval(value=row["value"], low=row["low"], high=row["high"])


def _caption(curve: pd.DataFrame, counts: pd.DataFrame) -> str:
    n = counts["n"]
    overall = curve[curve["split"] == "all"].to_dict("records")
    ends = overall if len(overall) < 2 else [overall[0], overall[-1]]
    stated = [f"Pass@{row['k']} is {latex_percent(_interval(row))}" for row in ends]
    sizes = f"n = {n.min()}" if n.min() == n.max() else f"n = {n.min()} to {n.max()}"
    limit = "" if n.min() == n.max() else f"The curve ends at the smallest group, k = {n.min()}. "
    nothing = (
        "No completion is correct: how far above zero the curve may lie, resampling cannot say. "
        if counts["c"].sum() == 0
        else ""
    )
    names = [name for name in curve["split"].unique() if name != "all"]
    split = f"Beside all questions: {latex_escape(', '.join(names))}. " if names else ""
    return (
        "Unbiased Pass@K, the chance that at least one of k completions is correct "
        f"(mean over {counted(counts['prompt_id'].nunique(), 'question')}, ${sizes}$ completions "
        f"each; k on a log scale). {' and '.join(stated)}. {limit}{nothing}{split}"
    ).strip()
