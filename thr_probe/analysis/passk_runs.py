"""Pass@K of several runs over each other, with paired differences to the first (Figs. 4, 5)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from thr_probe.analysis.compare_checks import differences_told
from thr_probe.analysis.compare_sums import KEY, Answers, question_pass_at_k, read_answers
from thr_probe.analysis.intervals import interval_sentence
from thr_probe.analysis.passk import checked_ks
from thr_probe.analysis.result import (
    Analysis,
    counted,
    latex_escape,
    latex_percent,
    summary_row,
    summary_table,
)
from thr_probe.analysis.sources import SAMPLED, Source
from thr_probe.core.paired import difference, set_mean_draws
from thr_probe.core.stats import Interval, percentile_interval
from thr_probe.errors import DataError, UsageError

MEAN_OF_SETS = "mean of datasets"
_RESAMPLES = 2000  # as for one run
_UNIT = "share of questions"
_COLUMNS = ["row", "split", "k", "value", "low", "high", "num_questions"]


@dataclass(frozen=True, slots=True)
class _Values:
    """Pass@K of the shared questions, R sources and K values of k; by the set it belongs to."""

    by_set: Mapping[str, Float[np.ndarray, "_ R K"]]
    names: Sequence[str]
    ks: Sequence[int]


def pass_at_k_runs(
    sources: Sequence[Source], *, ks: Sequence[int] | None = None, by: str = "auto", seed: int = 0
) -> Analysis:
    """Unbiased Pass@K of several runs over the questions that all of them answered.

    Questions are known by set and text. Those of several sets are resampled within each set, and
    the mean is that of the sets, unweighted, as `thr-probe eval` has it (METHOD 8).

    Args:
        sources: the first is subtracted from the others; a single one may be an evaluation.
        ks: values of k; none may exceed the smallest n of any run.
        by: `dataset` or `auto`: each set, and their mean where there are several; `none`: all
            questions together.
        seed: of the bootstrap; that of the i-th set is i higher.

    Returns:
        curves `values` and `differences` (others minus the first, over the same resamples): row,
        split, k, value, low, high, num_questions. The last split is the mean of sets, where there
        are several; a single one is `all`.

    Raises:
        UsageError: a k above n, or another `by`.
        DataError: a source without sampled completions, or no question that all have.
    """
    if by not in {"auto", "dataset", "none"}:
        raise UsageError(
            f"several runs cannot be split by {by!r}", "choose auto, dataset or none, or one run"
        )
    answers = [_sampled(source) for source in sources]
    shared = _shared(sources, answers)
    values = _values(sources, answers, shared, ks, split=by != "none")
    curves = _curves(values, seed)
    facts: dict[str, object] = {
        "by": by,
        "estimator": "mean over questions of 1 - C(n - c, k) / C(n, k)",
        "versus": values.names[0],
        "rows": list(values.names),
        "ks": list(values.ks),
        "num_questions": len(shared),
        "num_questions_by_split": {name: len(each) for name, each in values.by_set.items()},
        "warnings": _warnings(sources, answers),
        "interval": "percentile bootstrap over questions, within each dataset, paired",
        "level": 0.95,
        "num_resamples": _RESAMPLES,
        "seed": seed,
    }
    return Analysis(
        name="passk",
        summary=_summary(curves, values.names[0]),
        curves=curves,
        facts=facts,
        caption=_caption(facts, curves, values),
    )


def _sampled(source: Source) -> Answers:
    answers = read_answers(source)
    if SAMPLED not in answers:
        has = " and ".join(answers) or "no"
        raise DataError(
            f"{source.name} has {has} completions, and Pass@K needs sampled ones",
            "sample some with thr-probe collect or eval; thr-probe compare has greedy accuracy",
        )
    return answers[SAMPLED]


def _shared(sources: Sequence[Source], answers: Sequence[Answers]) -> pd.MultiIndex:
    """What all have, in the order of the first."""
    shared = answers[0].questions
    for source, each in zip(sources[1:], answers[1:], strict=True):
        shared = shared[shared.isin(each.questions)]
        if not len(shared):
            raise DataError(
                f"{source.name} and the runs before it have no question in common",
                "compare runs on the same problems (sets of the same names)",
            )
    return shared


def _values(
    sources: Sequence[Source],
    answers: Sequence[Answers],
    shared: pd.MultiIndex,
    ks: Sequence[int] | None,
    *,
    split: bool,
) -> _Values:
    kept = [each.of(shared) for each in answers]
    chosen = checked_ks(ks, pd.concat([groups["n"] for groups in kept], ignore_index=True))
    value_PRK = np.stack(
        [
            np.column_stack([question_pass_at_k(groups, k).loc[shared] for k in chosen])
            for groups in kept
        ],
        axis=1,
    )
    dataset_P = shared.get_level_values(KEY[0]).to_numpy()
    names = list(dict.fromkeys(dataset_P.tolist()))
    if len(names) < 2 or not split:
        by_set = {"all": value_PRK}
    else:
        by_set = {f"dataset {name}": value_PRK[dataset_P == name] for name in names}
    return _Values(by_set, [source.name for source in sources], chosen)


def _curves(values: _Values, seed: int) -> dict[str, pd.DataFrame]:
    splits: dict[str, list[str]] = {name: [name] for name in values.by_set}
    if len(splits) > 1:
        splits[MEAN_OF_SETS] = list(values.by_set)
    rows: dict[str, list[tuple[object, ...]]] = {"values": [], "differences": []}
    for split, members in splits.items():
        sets = [values.by_set[name] for name in members]
        number = sum(map(len, sets))
        shape = (-1, *sets[0].shape[1:])
        data_BRK = np.mean([each.mean(axis=0) for each in sets], axis=0)[None]
        flat = [each.reshape(len(each), -1) for each in sets]
        # a set is drawn alike whether it stands alone or in the mean
        first = seed + list(values.by_set).index(members[0])
        draws_BRK = set_mean_draws(flat, seed=first, num_resamples=_RESAMPLES).reshape(shape)
        for curve, value_BRK, draw_BRK, names in (
            ("values", data_BRK, draws_BRK, values.names),
            ("differences", _minus_first(data_BRK), _minus_first(draws_BRK), values.names[1:]),
        ):
            for cells in _cells(value_BRK[0], draw_BRK, names, values.ks):
                rows[curve].append((cells[0], split, *cells[1:], number))
    return {name: pd.DataFrame(found, columns=_COLUMNS) for name, found in rows.items()}


def _minus_first(value_BRK: Float[np.ndarray, "B R K"]) -> Float[np.ndarray, "B others K"]:
    return difference(value_BRK[:, :1], value_BRK[:, 1:])


def _cells(
    value_RK: Float[np.ndarray, "R K"],
    draws_BRK: Float[np.ndarray, "B R K"],
    names: Sequence[str],
    ks: Sequence[int],
) -> Iterator[tuple[str, int, float, float, float]]:
    for row, name in enumerate(names):
        for column, k in enumerate(ks):
            low, high = percentile_interval(draws_BRK[:, row, column])
            yield name, k, float(value_RK[row, column]), low, high


def _summary(curves: Mapping[str, pd.DataFrame], versus: str) -> pd.DataFrame:
    rows = []
    for curve, behind in (("values", ""), ("differences", f" minus {versus}")):
        for row in curves[curve].to_dict("records"):
            part = "" if row["split"] == "all" else f", {row['split']}"
            interval = Interval(value=row["value"], low=row["low"], high=row["high"])
            rows.append(
                summary_row(
                    f"pass_at_{row['k']}",
                    f"{row['row']}{behind}{part}",
                    _UNIT,
                    interval,
                    num_questions=row["num_questions"],
                )
            )
    return summary_table(rows)


def _warnings(sources: Sequence[Source], answers: Sequence[Answers]) -> list[str]:
    """What differs from the first besides the policy."""
    told = [
        text
        for source, each in zip(sources[1:], answers[1:], strict=True)
        for text in differences_told(sources[0], source, {SAMPLED: (answers[0], each)})
    ]
    return list(dict.fromkeys(told))


def _caption(
    facts: Mapping[str, object], curves: Mapping[str, pd.DataFrame], values: _Values
) -> str:
    last = curves["values"]["split"].iloc[-1]
    several = len(values.by_set) > 1
    k = values.ks[-1]
    stated = []
    for curve in ("values", "differences"):
        part = curves[curve]
        for row in part[(part["split"] == last) & (part["k"] == k)].to_dict("records"):
            text = latex_percent(Interval(value=row["value"], low=row["low"], high=row["high"]))
            if curve == "differences":
                text = text.replace(r"\,\%", " points")
            stated.append(f"{latex_escape(str(row['row']))} {text}")
    runs, number = len(values.names), sum(map(len, values.by_set.values()))
    sizes = f" ({latex_escape(', '.join(_sizes(values)))})" if several else ""
    mean = ", and the unweighted mean of the datasets" if several else ""
    answered = " that all of them answered" if runs > 1 else ""
    sentences = [
        f"Unbiased Pass@K of {counted(runs, 'run')} over the "
        f"{counted(number, 'question')}{answered}{sizes}{mean}",
        f"{'Mean of ' if several else ''}Pass@{k}: {', '.join(stated[:runs])}",
    ]
    if runs > 1:
        versus = latex_escape(values.names[0])
        sentences.append(f"Paired differences to {versus}: {', '.join(stated[runs:])}")
    warnings = facts["warnings"]
    if isinstance(warnings, list) and warnings:
        told = latex_escape("; ".join(map(str, warnings)))
        sentences.append(f"Beside the policy differ: {told}")
    smallest = min(map(len, values.by_set.values()))
    intervals = interval_sentence(
        "Whiskers and bands" if runs > 1 else "Whiskers", _RESAMPLES, smallest
    )
    if several:
        intervals = intervals.replace("the questions.", "the questions within each dataset.")
    return " ".join([*(f"{sentence}." for sentence in sentences), intervals])


def _sizes(values: _Values) -> list[str]:
    return [f"{name.removeprefix('dataset ')}: {len(each)}" for name, each in values.by_set.items()]
