"""Which words carry THR: mean THR per token type, most positive and most negative (Fig. 7)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

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
from thr_probe.analysis.stream import GROUPS, Batch, CompletionStream
from thr_probe.analysis.token_classes import read_scheme
from thr_probe.analysis.token_types import TOKENS_FILE, TokenTypes, has_token_ids, token_types
from thr_probe.core.stats import Interval, bootstrap_ratio, bootstrap_ratios, question_weights
from thr_probe.errors import DataError, UsageError
from thr_probe.traces.reader import Run

SIGNS = ("positive", "negative")
RANKED_COLUMNS = (
    "rank",
    "token",
    "count",
    "mean",
    "low",
    "high",
    "mass_share",
    "num_questions",
    "category",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class WordcloudOptions:
    """Which token types are ranked, and how many of each sign are kept."""

    top: int = 50
    """Token types of each sign (the paper shows 50)."""
    min_count: int = 1
    """Occurrences below which a token type is left out; the paper names none (1), 5 is steadier."""
    merge_case: bool = False
    """Whether token types that differ in case only count as one, in lower case."""
    groups: str = "mixed"
    """`mixed`: groups with correct and incorrect completions; `has-correct`: all-correct too."""
    seed: int = 0
    """Seed of the bootstrap over questions."""

    def __post_init__(self) -> None:
        if self.top < 1 or self.min_count < 1:
            raise UsageError(
                f"top and min_count must be at least 1, got {self.top} and {self.min_count}"
            )
        if self.groups not in GROUPS:
            raise UsageError(f"unknown groups {self.groups!r}; choose {' or '.join(GROUPS)}")


@dataclass(frozen=True, slots=True)
class _Sums:
    """Per question: sums over the tokens of each ranked type (axis S), and over all tokens."""

    count_PS: Float[np.ndarray, "P S"]
    thr_PS: Float[np.ndarray, "P S"]
    mass_PS: Float[np.ndarray, "P S"]
    tokens_P: Float[np.ndarray, " P"]
    mass_P: Float[np.ndarray, " P"]


def thr_wordcloud(
    run: Run, *, options: WordcloudOptions | None = None, score_id: str | None = None
) -> Analysis:
    """Mean THR over all occurrences of each token type, ranked at both ends (Fig. 7).

    The trace is read twice: once for sums per token type, once for the sums per question of the
    types that are shown, from which their intervals come (resampling questions).

    Args:
        run: the trace; token ids and THR of its completions are read.
        options: which token types are ranked.
        score_id: which scores; the only ones by default.

    Returns:
        curves `positive` and `negative`: rank, token, count, mean, low, high, mass_share (of the
        |THR| of all tokens), num_questions, category (of Appendix C.4, which lists few words). A
        type met in one question has no interval.
    """
    options = options or WordcloudOptions()
    stream = CompletionStream(run, ["token_ids", "thr"], groups=options.groups, score_id=score_id)
    tokens = run.tokens()
    if tokens is None:
        nothing = (
            f"{TOKENS_FILE} is missing from this run, although its completions have token ids: "
            "without the texts of the tokens there are no token types to average over."
            if has_token_ids(run)
            else "This run has no token ids: there are no token types to average over."
        )
        return empty_analysis("wordcloud", nothing, asdict(options))
    types = token_types(tokens, merge_case=options.merge_case)
    totals = _totals(stream, types)
    facts = asdict(options) | stream.facts() | _facts(totals, options)
    ranked = _ranked(totals, options)
    reason = stream.empty_reason()
    if reason is None and ranked.empty:
        often = f" and {options.min_count} or more occurrences" if options.min_count > 1 else ""
        reason = f"No token type with a letter{often} has a mean THR above or below 0."
    if reason is not None:
        return empty_analysis("wordcloud", reason, facts)
    sums = _sums(stream, types, ranked["type"].to_numpy())
    weights_BP = question_weights(stream.num_questions, seed=options.seed, dtype=np.int16)
    ranked = _with_intervals(ranked, sums, weights_BP)
    categories = read_scheme("paper")
    ranked = ranked.assign(category=[categories.of(token) for token in ranked["token"]])
    summary = _summary(ranked, sums, weights_BP)
    return Analysis(
        name="wordcloud",
        summary=summary,
        curves={
            sign: ranked.loc[ranked["sign"] == sign, list(RANKED_COLUMNS)].reset_index(drop=True)
            for sign in SIGNS
        },
        facts=facts | interval_facts(weights_BP, options.seed),
        caption=_caption(ranked, summary, stream, options),
    )


def _batches(stream: CompletionStream) -> Iterator[Batch]:
    for batch in stream:
        if len(batch.tokens["token_ids"]) != len(batch.tokens["thr"]):
            raise DataError(
                f"{stream.run.path}: column token_ids is null for a completion that has THR",
                "restore the rollouts from a copy of the run",
            )
        yield batch


def _totals(stream: CompletionStream, types: TokenTypes) -> pd.DataFrame:
    """Sums per token type over the whole trace."""
    count_V = np.zeros(types.num_ids, dtype=np.int64)
    thr_V, mass_V = np.zeros(types.num_ids), np.zeros(types.num_ids)
    for batch in _batches(stream):
        id_N, thr_N = batch.tokens["token_ids"].astype(np.int64), batch.tokens["thr"]
        count_V += types.counted(id_N)
        thr_V += np.bincount(id_N, thr_N, minlength=types.num_ids)
        mass_V += np.bincount(id_N, np.abs(thr_N), minlength=types.num_ids)
    sums = {"count": count_V, "thr": thr_V, "mass": mass_V}
    totals = {name: types.sums(value_V) for name, value_V in sums.items()}
    return pd.DataFrame({"token": types.words_T, **totals}).astype({"count": np.int64})


def _ranked(totals: pd.DataFrame, options: WordcloudOptions) -> pd.DataFrame:
    """The types with the largest and the smallest means, each sign by itself; ties by name."""
    kept = totals[totals["count"] >= options.min_count]
    kept = kept.assign(type=kept.index, mean=kept["thr"] / kept["count"])
    parts = []
    for sign, factor in zip(SIGNS, (1, -1), strict=True):
        part = kept.assign(sign=sign, size=kept["mean"] * factor)
        part = part[part["size"] > 0].sort_values(
            ["size", "count", "token"], ascending=[False, False, True]
        )
        part = part.head(options.top)
        parts.append(part.assign(rank=np.arange(1, len(part) + 1)))
    return pd.concat(parts, ignore_index=True)


def _sums(
    stream: CompletionStream, types: TokenTypes, ranked_types: Int[np.ndarray, " S"]
) -> _Sums:
    num_questions, num_ranked = stream.num_questions, len(ranked_types)
    slot_V = types.places(ranked_types)
    per_cell = np.zeros((3, num_questions * num_ranked))
    per_question = np.zeros((2, num_questions))
    for batch in _batches(stream):
        thr_N = batch.tokens["thr"].astype(np.float64)
        question_R = stream.question_of_group[batch.group_R]
        slot_N = slot_V.take(batch.tokens["token_ids"])
        shown = np.flatnonzero(slot_N >= 0)
        row, thr = np.searchsorted(batch.offsets, shown, side="right") - 1, thr_N[shown]
        cell = question_R[row] * num_ranked + slot_N[shown]
        for place, value in enumerate((np.ones(len(shown)), thr, np.abs(thr))):
            np.add.at(per_cell[place], cell, value)
        for place, value_R in enumerate((batch.lengths, batch.sum(np.abs(thr_N)))):
            np.add.at(per_question[place], question_R, value_R)
    count_PS, thr_PS, mass_PS = per_cell.reshape(3, num_questions, num_ranked)
    return _Sums(count_PS, thr_PS, mass_PS, per_question[0], per_question[1])


def _with_intervals(
    ranked: pd.DataFrame, sums: _Sums, weights_BP: Int[np.ndarray, "B P"]
) -> pd.DataFrame:
    means = bootstrap_ratios(sums.thr_PS, sums.count_PS, weights_BP)
    return ranked.assign(
        low=[mean.low for mean in means],
        high=[mean.high for mean in means],
        num_questions=np.count_nonzero(sums.count_PS, axis=0),
        mass_share=ranked["mass"] / sums.mass_P.sum(),
    )


def _summary(ranked: pd.DataFrame, sums: _Sums, weights_BP: Int[np.ndarray, "B P"]) -> pd.DataFrame:
    """What the shown types of each sign hold together; which types are shown is taken as given."""
    rows = []
    num_questions = len(sums.tokens_P)
    for sign in SIGNS:
        of_sign = (ranked["sign"] == sign).to_numpy()
        parts = (
            ("mass_share", "share of |THR|", sums.mass_PS, sums.mass_P),
            ("token_share", "share of tokens", sums.count_PS, sums.tokens_P),
            ("mean_thr", "THR", sums.thr_PS, sums.count_PS[:, of_sign].sum(axis=1)),
        )
        for quantity, unit, sums_PS, total_P in parts:
            share = bootstrap_ratio(sums_PS[:, of_sign].sum(axis=1), total_P, weights_BP)
            rows.append(summary_row(quantity, sign, unit, share, num_questions=num_questions))
    return summary_table(rows)


def _facts(totals: pd.DataFrame, options: WordcloudOptions) -> dict[str, object]:
    met = totals[totals["count"] > 0]
    kept = met[met["count"] >= options.min_count]
    return {
        "token_types": len(met),
        "token_types_below_min_count": len(met) - len(kept),
        "token_types_positive": int((kept["thr"] > 0).sum()),
        "token_types_negative": int((kept["thr"] < 0).sum()),
        "tokens_with_a_letter": int(met["count"].sum()),
        "estimator": "mean THR over all occurrences of a token type",
        "token_type": "decoded token with a letter, white space and space markers stripped",
    }


def _caption(
    ranked: pd.DataFrame, summary: pd.DataFrame, stream: CompletionStream, options: WordcloudOptions
) -> str:
    shown = [int((ranked["sign"] == sign).sum()) for sign in SIGNS]
    masses = [
        latex_percent(Interval(value=row["value"], low=row["low"], high=row["high"]))
        for row in summary[summary["quantity"] == "mass_share"].to_dict("records")
    ]
    floor = f", which occur {options.min_count} times or more" if options.min_count > 1 else ""
    return (
        f"Word clouds of the {shown[0]} token types with the largest mean THR "
        f"and the {shown[1]} with the most negative one{floor}. "
        f"Means run over all occurrences in {counted(stream.num_completions, 'completion')} "
        f"of {counted(stream.num_questions, 'question')} ({counted(stream.num_tokens, 'token')}). "
        "Font size is proportional to the size of the mean within a panel; pale words have a "
        r"95\,\% interval (resampling questions) that includes zero, or occur in one question. "
        f"The words shown hold {masses[0]} and {masses[1]} of the THR mass "
        rf"$\sum|\mathrm{{THR}}|$ of all tokens. {latex_escape(stream.exclusion_sentence())}"
    ).rstrip()
